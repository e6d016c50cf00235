"""From what is typed to a function spec. Pure, but for reading the file of a spec."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from colonist_cli import stdin
from colonist_cli.exits import CliError, Exit
from colonist_protocol import codec
from colonist_protocol.errors import ColonistError, MalformedError
from colonist_protocol.function_spec import Conditions, FunctionSpec, normal_form

MAX_SPEC_BYTES: Final = 1_000_000

_NAMED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line says of a process; None where it says nothing."""

    function: str = ""
    words: Sequence[str] = ()
    json_args: str = ""
    type: str = ""
    names: Sequence[str] = ()
    label: str | None = None
    priority: int | None = None
    maxwaittime: int | None = None
    maxexectime: int | None = None
    maxretries: int | None = None


NO_LIMIT: Final = -1
DEFAULT_EXEC_S: Final = 3600
DEFAULT_RETRIES: Final = 3


def value(text: str) -> Any:
    """A JSON value where it is one, else the text itself."""
    try:
        return codec.scan(text.encode())
    except (MalformedError, UnicodeEncodeError):
        return text


def split(words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of `5 cpu interval_s=0.1`."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        if named := _NAMED.fullmatch(word):
            kwargs[named[1]] = value(named[2])
        elif kwargs:
            raise CliError(Exit.USAGE, f"argument {word!r} comes after a named one")
        else:
            args.append(value(word))
    return args, kwargs


def read_spec(path: str) -> FunctionSpec:
    """The function spec in a file, `-`: stdin. Raises `CliError` with the reason in one line."""
    data = read_bytes(path, MAX_SPEC_BYTES)
    try:
        codec.scan(data)
        spec = codec.decode(data, FunctionSpec, "spec")
        unknown = codec.members(data).keys() - {item.encode_name for item in _FIELDS}
    except ColonistError as error:
        raise CliError(Exit.USAGE, f"spec {path}: {error}") from None
    if unknown:
        raise CliError(Exit.USAGE, f"spec {path}: there is no {', '.join(sorted(unknown))}")
    return spec


def build(wanted: Wanted, base: FunctionSpec | None, *, colony: str, type: str) -> FunctionSpec:
    """The spec to submit: flags over the file over defaults. Raises `CliError`."""
    spec = base or FunctionSpec(
        maxwaittime=NO_LIMIT, maxexectime=DEFAULT_EXEC_S, maxretries=DEFAULT_RETRIES
    )
    conditions = _conditions(wanted, spec.conditions, colony=colony, type=type)
    changes: dict[str, Any] = {
        name: said
        for name in ("label", "priority", "maxwaittime", "maxexectime", "maxretries")
        if (said := getattr(wanted, name)) is not None
    }
    if wanted.function:
        changes["funcname"] = wanted.function
    if not (wanted.function or spec.funcname):
        raise CliError(Exit.USAGE, "which function? name it, or give a spec that does")
    changes |= _arguments(wanted)
    try:
        return normal_form(msgspec.structs.replace(spec, conditions=conditions, **changes))
    except ColonistError as error:
        raise CliError(Exit.USAGE, str(error)) from None


_FIELDS: Final = msgspec.structs.fields(FunctionSpec)


def read_bytes(path: str, limit: int) -> bytes:
    """What is in a file, `-`: stdin. Raises `CliError`, also where it is over the limit."""
    try:
        data = stdin.read(limit + 1) if path == "-" else _bounded(Path(path), limit)
    except OSError as error:
        raise CliError(Exit.USAGE, f"spec {path}: {error.strerror}") from None
    if len(data) > limit:
        raise CliError(Exit.USAGE, f"spec {path}: over {limit} bytes")
    return data


def _bounded(path: Path, limit: int) -> bytes:
    with path.expanduser().open("rb") as file:
        return file.read(limit + 1)


def _conditions(wanted: Wanted, found: Conditions, *, colony: str, type: str) -> Conditions:
    chosen = wanted.type or found.executortype or type
    if not chosen:
        raise CliError(Exit.USAGE, "for which type of executor? --type NAME")
    return msgspec.structs.replace(
        found,
        colonyname=found.colonyname or colony,
        executortype=chosen,
        executornames=list(wanted.names) or found.executornames,
    )


def _arguments(wanted: Wanted) -> dict[str, msgspec.Raw]:
    if wanted.json_args and wanted.words:
        raise CliError(Exit.USAGE, "arguments both as words and as --args")
    if not wanted.json_args:
        args, kwargs = split(wanted.words)
    else:
        args, kwargs = _from_json(wanted.json_args)
    found: dict[str, msgspec.Raw] = {}
    if args:
        found["args"] = msgspec.Raw(codec.encode(args))
    if kwargs:
        found["kwargs"] = msgspec.Raw(codec.encode(kwargs))
    return found


def _from_json(text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        found: object = codec.scan(text.encode())
    except (MalformedError, UnicodeEncodeError) as error:
        raise CliError(Exit.USAGE, f"--args: {error}") from None
    if isinstance(found, list):
        return cast("list[object]", found), {}
    if isinstance(found, dict):
        return [], cast("dict[str, object]", found)
    raise CliError(Exit.USAGE, "--args is neither a JSON array nor a JSON object")
