"""Programs that processes may call: an allow-list of argument templates. No shell anywhere.

A placeholder stands for exactly one argument or a part of one, and only for parameters that are
declared with a type and limits. The program itself is an absolute path without placeholders. Text
that starts with "-" is refused unless its parameter allows it, so that nobody slips in an option.

The program runs in a process group of its own, with no input and with the listed environment only.
When it takes too long, says too much or is no longer wanted, the whole group is told to end (TERM)
and after `KILL_AFTER_S` killed. On Linux the kernel kills the program when the agent itself is
killed; what the program has started may go on then. The result is its output as one text; any other
exit status than 0 fails the process with the end of its error output.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from colonist_agent.context import Context
from colonist_agent.outcome import FailError
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function import FunctionArgument

KILL_AFTER_S: Final = 5.0
MAX_TEXT_CHARS: Final = 4096

_LOOK_S: Final = 0.1
_DRAIN_S: Final = 1.0
_ERROR_BYTES: Final = 4096
_CHUNK_BYTES: Final = 65_536
_PR_SET_PDEATHSIG: Final = 1
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One argument of a command, as the configuration declares it."""

    type: Literal["str", "int", "float"] = "str"
    default: str | int | float | None = None
    choices: list[str | int | float] | None = None
    pattern: str = ""
    min: float | None = None
    max: float | None = None
    dash: bool = False
    description: str = ""


class CommandSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command as the configuration declares it."""

    argv: list[str]
    description: str = ""
    parameters: dict[str, Parameter] = {}
    timeout_s: float = 60.0
    renew: bool = True
    max_output_bytes: int = 65_536
    directory: str = "/"
    environment: list[str] = []


@dataclass(slots=True)
class _Output:
    limit: int
    data: bytearray = field(default_factory=bytearray)
    is_over: bool = False


class Command:
    """A declared command that processes call by name."""

    def __init__(self, name: str, spec: CommandSpec, *, environment: Mapping[str, str]) -> None:
        """`environment` is the agent's own; only listed names go on. Raises `InvalidValueError`."""
        _check(name, spec)
        self.name = name
        self.description = spec.description or f"runs {spec.argv[0]}"
        self.is_renewed = spec.renew
        self._spec = spec
        self._environment = {
            each: environment[each] for each in spec.environment if each in environment
        }

    def arguments(self) -> list[FunctionArgument]:
        """The declared parameters."""
        return [
            FunctionArgument(
                name=name,
                type=parameter.type,
                description=parameter.description,
                required=parameter.default is None,
                enum=[str(choice) for choice in parameter.choices or ()],
            )
            for name, parameter in self._spec.parameters.items()
        ]

    async def run(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> str:
        """Run the program once; its output. Raises `FailError`."""
        del context
        argv = self._argv(self._bind(args, kwargs))
        process = await self._start(argv)
        try:
            return await self._attend(process)
        finally:
            await _end_group(process)

    def _bind(self, args: list[Any], kwargs: dict[str, Any]) -> dict[str, str]:
        names = list(self._spec.parameters)
        if len(args) > len(names):
            raise FailError(f"{self.name}: takes {len(names)} arguments, {len(args)} given")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self._spec.parameters or name in given:
                raise FailError(f"{self.name}: unexpected argument {name[:64]!r}")
            given[name] = value
        return {name: self._text(name, given.get(name)) for name in names}

    def _text(self, name: str, value: Any) -> str:
        parameter = self._spec.parameters[name]
        value = parameter.default if value is None else value
        if value is None:
            raise FailError(f"{self.name}: argument {name!r} is missing")
        try:
            return check_value(parameter, value)
        except ValueError as error:
            raise FailError(f"{self.name}: argument {name!r} {error}") from None

    def _argv(self, values: dict[str, str]) -> list[str]:
        return [_PLACEHOLDER.sub(lambda found: values[found[1]], part) for part in self._spec.argv]

    async def _start(self, argv: list[str]) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                cwd=self._spec.directory,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_tied_to(os.getpid()),
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "cannot be started"
            raise FailError(f"{self.name}: {argv[0]}: {reason}") from None

    async def _attend(self, process: Process) -> str:
        output = _Output(self._spec.max_output_bytes)
        errors = _Output(_ERROR_BYTES)
        try:
            async with asyncio.timeout(self._spec.timeout_s), asyncio.TaskGroup() as group:
                group.create_task(_collect(process, output))
                group.create_task(_keep_tail(process, errors))
                status = await _exit_status(process, group)
                _signal_group(process, signal.SIGKILL)  # what it left behind holds the pipes open
        except TimeoutError:
            raise FailError(f"{self.name}: took longer than {self._spec.timeout_s:g} s") from None
        if output.is_over:
            raise FailError(f"{self.name}: wrote more than {output.limit} bytes")
        if status != 0:
            tail = bytes(errors.data).decode(errors="replace").strip()
            raise FailError(*filter(None, (f"{self.name}: {_status_text(status)}", tail)))
        return bytes(output.data).decode(errors="replace")


def check_value(parameter: Parameter, value: object) -> str:
    """A value as the text of an argument. Raises `ValueError`, which says what is wrong with it."""
    if parameter.type == "str":
        text = _checked_text(parameter, value)
        candidate: str | int | float = text
    else:
        candidate = _checked_number(parameter, value)
        text = str(candidate)
    if parameter.choices is not None and candidate not in parameter.choices:
        raise ValueError(f"is none of {parameter.choices}")
    return text


def _checked_text(parameter: Parameter, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")  # noqa: TRY004 - one kind of error for one reader
    if len(value) > MAX_TEXT_CHARS or _CONTROL.search(value):
        raise ValueError("is too long or holds a control character")
    if value.startswith("-") and not parameter.dash:
        raise ValueError("starts with '-'")
    if parameter.pattern and re.fullmatch(parameter.pattern, value) is None:
        raise ValueError(f"does not match {parameter.pattern}")
    return value


def _checked_number(parameter: Parameter, value: object) -> int | float:
    kind = int if parameter.type == "int" else float
    try:
        number = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise ValueError(f"is no {parameter.type}") from None
    low = float("-inf") if parameter.min is None else parameter.min
    high = float("inf") if parameter.max is None else parameter.max
    if not low <= number <= high or number in (float("inf"), float("-inf")):
        raise ValueError(f"is not between {low:g} and {high:g}")
    return number


def _check(name: str, spec: CommandSpec) -> None:
    where = f"command {name!r}"
    if not spec.argv or not Path(spec.argv[0]).is_absolute() or _PLACEHOLDER.search(spec.argv[0]):
        raise InvalidValueError(f"{where}: argv must start with the absolute path of a program")
    used = {found for part in spec.argv for found in _PLACEHOLDER.findall(part)}
    if used != set(spec.parameters):
        different = ", ".join(sorted(used ^ set(spec.parameters)))
        raise InvalidValueError(f"{where}: placeholders and parameters differ: {different}")
    if spec.timeout_s <= 0 or spec.max_output_bytes < 0:
        raise InvalidValueError(f"{where}: timeout_s and max_output_bytes must be positive")
    if not Path(spec.directory).is_absolute():
        raise InvalidValueError(f"{where}: directory is not an absolute path")
    for each, parameter in spec.parameters.items():
        _check_parameter(f"{where}: parameter {each!r}", parameter)


def _check_parameter(where: str, parameter: Parameter) -> None:
    try:
        re.compile(parameter.pattern)
        if parameter.default is not None:
            check_value(parameter, parameter.default)
    except re.error as error:
        raise InvalidValueError(f"{where}: pattern: {error}") from None
    except ValueError as error:
        raise InvalidValueError(f"{where}: its default {error}") from None


def _libc() -> ctypes.PyDLL | None:
    # It keeps the interpreter's lock: a forked child must not wait for locks of threads it lacks.
    return ctypes.PyDLL(None) if sys.platform == "linux" else None


_LIBC: Final = _libc()


def _tied_to(agent: int) -> Callable[[], None] | None:
    """What a new child does before it becomes the program: it asks to be killed with the agent.

    The agent has threads, so the child takes no lock: two system calls, whose code is loaded. The
    kernel watches the thread that started it, which is the one of the event loop.
    """
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl
    number = ctypes.c_ulong(signal.SIGKILL)

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != agent:  # it died before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)

    return tie


async def _exit_status(process: Process, group: asyncio.TaskGroup) -> int:
    # `wait` returns only when the pipes are closed too, and a child left behind keeps them open.
    closed = group.create_task(process.wait())
    while process.returncode is None:
        await asyncio.wait((closed,), timeout=_LOOK_S)
    return process.returncode


async def _collect(process: Process, output: _Output) -> None:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    while chunk := await process.stdout.read(_CHUNK_BYTES):
        if len(output.data) + len(chunk) > output.limit:
            output.is_over = True
            _signal_group(process, signal.SIGKILL)
            # A reader that is full reads its pipe no more: it would never see that it is closed.
            await _discard(process.stdout)
            return
        output.data += chunk


async def _keep_tail(process: Process, errors: _Output) -> None:
    assert process.stderr is not None  # noqa: S101 - it was asked for
    while chunk := await process.stderr.read(_CHUNK_BYTES):
        errors.data += chunk
        del errors.data[: -errors.limit]


async def _end_group(process: Process) -> None:
    try:
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_AFTER_S):
                    await _drained(process)
    finally:
        _signal_group(process, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await _drained(process)
        # A child that left the group may hold the pipes open for ever; asyncio has no public way
        # to close them.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


async def _drained(process: Process) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(process.wait())
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                group.create_task(_discard(stream))


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(_CHUNK_BYTES):
        pass


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _status_text(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
