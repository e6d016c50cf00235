"""Python functions that processes may call, by name.

A function is plain Python, sync or async. Arguments are converted to what its signature says
(`"5"` becomes 5 where an `int` is asked for, since some SDKs send text only); what does not fit
fails the process with the reason. A parameter annotated `Context` is not an argument: it is the way
to log, to show progress and to learn of a cancellation.
"""

from __future__ import annotations

import inspect
import typing
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from colonist_agent.context import Context
from colonist_agent.outcome import FailError
from colonist_agent.thread import in_thread
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function import FunctionArgument
from colonist_protocol.names import check_text

F = TypeVar("F", bound=Callable[..., Any])

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Runnable(Protocol):
    """Something that a process can call."""

    name: str
    description: str
    is_renewed: bool
    """Whether it may take longer than its lease: then that is renewed in time."""

    def arguments(self) -> list[FunctionArgument]:
        """What it takes, for people."""
        ...

    async def run(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> object:
        """Run once; the result. Raises `FailError` for arguments that do not fit."""
        ...


class Registry:
    """The functions of an agent, by name."""

    def __init__(self) -> None:
        self._found: dict[str, Runnable] = {}

    def function(self, name: str, *, is_renewed: bool = True) -> Callable[[F], F]:
        """Decorate a function to register it under a name. Raises `InvalidValueError`.

        `is_renewed`: its lease is renewed while it runs; without, it ends with its first lease.
        """

        def register(function: F) -> F:
            self.add(PythonFunction(name, function, is_renewed=is_renewed))
            return function

        return register

    def add(self, runnable: Runnable) -> None:
        """Register what can be run. Raises `InvalidValueError` for a bad or a used name."""
        check_text(runnable.name, "function name")
        if not runnable.name:
            raise InvalidValueError("function name is empty")
        if runnable.name in self._found:
            raise InvalidValueError(f"function {runnable.name!r} is registered twice")
        self._found[runnable.name] = runnable

    def find(self, name: str) -> Runnable | None:
        """The function of that name."""
        return self._found.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._found)

    def runnables(self) -> list[Runnable]:
        """All functions, by name."""
        return [self._found[name] for name in self.names()]


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    kind: object
    shape: inspect.Parameter

    def convert(self, value: Any) -> Any:
        if self.kind is Any:
            return value
        try:
            return msgspec.convert(value, self.kind, strict=False)
        except msgspec.ValidationError as error:
            raise FailError(f"argument {self.name!r}: {error}") from None


class PythonFunction:
    """A Python function, its parameters read once. Async ones run in the loop, sync in a thread."""

    def __init__(self, name: str, function: Callable[..., Any], *, is_renewed: bool = True) -> None:
        self.name = name
        self.is_renewed = is_renewed
        self.description = (inspect.getdoc(function) or "").partition("\n")[0]
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._signature = inspect.signature(function)
        self._parameters, self._context = _read_parameters(function, self._signature)
        self._accepted = inspect.Signature([each.shape for each in self._parameters.values()])

    def arguments(self) -> list[FunctionArgument]:
        """Names and types as the signature says."""
        return [
            FunctionArgument(
                name=parameter.name,
                type=getattr(parameter.kind, "__name__", str(parameter.kind)),
                required=parameter.shape.default is inspect.Parameter.empty
                and parameter.shape.kind not in _VARIADIC,
            )
            for parameter in self._parameters.values()
        ]

    async def run(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> object:
        """Convert the arguments and call. Raises `FailError`, and whatever the function raises."""
        bound = self._bind(context, args, kwargs)
        if self._is_async:
            called: Awaitable[object] = self._function(*bound.args, **bound.kwargs)
            return await called
        return await in_thread(lambda: self._function(*bound.args, **bound.kwargs), self.name)

    def _bind(
        self, context: Context, args: list[Any], kwargs: dict[str, Any]
    ) -> inspect.BoundArguments:
        try:
            given = self._accepted.bind(*args, **kwargs)
        except TypeError as error:
            raise FailError(f"{self.name}: {error}") from None
        values: OrderedDict[str, Any] = OrderedDict(
            (name, self._convert(self._parameters[name], value))
            for name, value in given.arguments.items()
        )
        if self._context:
            values[self._context] = context
        return inspect.BoundArguments(self._signature, values)

    def _convert(self, parameter: _Parameter, value: Any) -> Any:
        match parameter.shape.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                return tuple(parameter.convert(item) for item in value)
            case inspect.Parameter.VAR_KEYWORD:
                return {name: parameter.convert(item) for name, item in value.items()}
            case _:
                return parameter.convert(value)


def _read_parameters(
    function: Callable[..., Any], signature: inspect.Signature
) -> tuple[dict[str, _Parameter], str]:
    hints = typing.get_type_hints(function)
    parameters: dict[str, _Parameter] = {}
    context = ""
    for name, shape in signature.parameters.items():
        if hints.get(name) is Context:
            context = name
        else:
            parameters[name] = _Parameter(name, hints.get(name, Any), shape)
    return parameters, context
