"""Makes a function into a command: adds the options that all share, runs it, tells its errors.

A command's function takes a `Shell`, then its own parameters as typer declares them. What it needs
beyond typer it imports inside, so that `colonist --help` stays fast.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, get_type_hints

import typer

from colonist_cli.exits import Exit, verdict
from colonist_cli.output import Form, note, write
from colonist_cli.settings import Flags
from colonist_cli.shell import Shell

P = ParamSpec("P")

Work = Coroutine[Any, Any, None] | None

_PANEL: Final = "Where and who"
_HOME: Final = Annotated[
    Path | None, typer.Option("--home", help="State folder.", rich_help_panel=_PANEL)
]
_SERVER: Final = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server: http:// or https://host:port.",
        rich_help_panel=_PANEL,
    ),
]
_COLONY: Final = Annotated[
    str, typer.Option("--colony", metavar="NAME", help="The colony.", rich_help_panel=_PANEL)
]
_KEY: Final = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Sign with this key.", rich_help_panel=_PANEL),
]
_FORM: Final = Annotated[
    Form, typer.Option("--output", "-o", help="How results are shown.", rich_help_panel=_PANEL)
]


class Kind(Enum):
    """Which options a command shares with others."""

    LOCAL = auto()
    LOCAL_SHOW = auto()
    CALL = auto()
    SHOW = auto()


_SHARED: Final[dict[Kind, tuple[tuple[str, Any, Any], ...]]] = {
    Kind.LOCAL: (("home", _HOME, None),),
    Kind.CALL: (
        ("server", _SERVER, ""),
        ("colony", _COLONY, ""),
        ("key", _KEY, None),
        ("home", _HOME, None),
    ),
}
_SHARED[Kind.LOCAL_SHOW] = (("form", _FORM, Form.TABLE), *_SHARED[Kind.LOCAL])
_SHARED[Kind.SHOW] = (("form", _FORM, Form.TABLE), *_SHARED[Kind.CALL])


def command(
    app: typer.Typer, name: str, *, kind: Kind = Kind.SHOW, panel: str | None = None
) -> Callable[[Callable[Concatenate[Shell, P], Work]], Callable[Concatenate[Shell, P], Work]]:
    """Add the decorated function to the app under this name."""

    def add(function: Callable[Concatenate[Shell, P], Work]) -> Callable[..., Work]:
        run = _runner(function, kind)
        app.command(name, rich_help_panel=panel)(run)
        return function

    return add


def group_command(
    app: typer.Typer, *, kind: Kind
) -> Callable[[Callable[Concatenate[Shell, P], Work]], Callable[Concatenate[Shell, P], Work]]:
    """Make the decorated function what the app itself does where no command of its is named."""

    def add(function: Callable[Concatenate[Shell, P], Work]) -> Callable[..., Work]:
        app.callback(invoke_without_command=True)(_runner(function, kind))
        return function

    return add


def guarded(work: Callable[[], Work]) -> Exit:
    """Run to the end; every error becomes one line on stderr and an exit code."""
    try:
        left = work()
        if left is not None:
            asyncio.run(left)
        write("", now=True)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost rim
        return _told(error)
    return Exit.OK


def _told(error: Exception) -> Exit:
    """Tell an error, in one line where it is none of ours."""
    _give_up_what_is_lost()
    if isinstance(error, BrokenPipeError):
        return Exit.OK  # whoever read our output has gone
    told = verdict(error)
    if told is None:
        traceback.print_exception(error)
        return Exit.BUG
    if str(told):
        note(f"colonist: {told}")
    return told.exit


def _give_up_what_is_lost() -> None:
    """Python tries once more at its end to write what could not be, and would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _runner(function: Callable[..., Work], kind: Kind) -> Callable[..., None]:
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    declared = [each.replace(annotation=hints[each.name]) for each in own]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, annotation, default in _SHARED[kind]
    ]
    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )

    def run(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is not None:  # of a group: that one runs
            return
        from colonist_client import memory

        common = {name: given.pop(name) for name, _, _ in _SHARED[kind]}
        environment: Mapping[str, str] = context.obj or {}
        memory.close(environment)
        form = common.pop("form", Form.TABLE)
        code = guarded(lambda: function(Shell(environment, Flags(**common), form), **given))
        raise typer.Exit(code)

    parameters = [context, *declared, *shared]
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
