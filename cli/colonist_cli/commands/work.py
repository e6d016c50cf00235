"""`submit`, `call` and `process`: giving work away, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, clean, note
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_cli.arguments import Wanted
    from colonist_client.client import Client
    from colonist_protocol.log import Log
    from colonist_protocol.process import Process

PANEL = "Work"

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ARGS]...", help="Each JSON or text, by place or as name=value."),
]
Type = Annotated[str, typer.Option("--type", help="The type of executor it is for.")]
Names = Annotated[
    list[str] | None, typer.Option("--name", help="Only for this executor; repeatable.")
]
Label = Annotated[str | None, typer.Option("--label", help="For finding it again.")]
Priority = Annotated[int | None, typer.Option("--priority", help="Higher runs earlier.")]
MaxWait = Annotated[
    int | None,
    typer.Option("--maxwaittime", metavar="S", help="Fails if it waits longer; -1: no limit."),
]
MaxExec = Annotated[
    int | None,
    typer.Option("--maxexectime", metavar="S", help="Given again if it runs longer (3600)."),
]
MaxRetries = Annotated[
    int | None,
    typer.Option("--maxretries", metavar="N", help="How often it is given again (3)."),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", min=0, help="Wait no longer; 0: no limit.")
]
ProcessId = Annotated[str, typer.Argument(metavar="PROCESS", help="Its id.")]

processes = typer.Typer(help="What was submitted.", no_args_is_help=True)


class Which(StrEnum):
    """What `--state` takes."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


def add(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "submit", panel=PANEL)(submit)
    command(app, "call", panel=PANEL)(call)
    app.add_typer(processes, name="process", rich_help_panel=PANEL)


async def submit(
    shell: Shell,
    *,
    function: Annotated[str, typer.Argument(metavar="[FUNCTION]", help="What to run.")] = "",
    words: Words = None,
    args: Annotated[
        str, typer.Option("--args", metavar="JSON", help="Arguments as an array or an object.")
    ] = "",
    spec: Annotated[
        str, typer.Option("--spec", metavar="FILE|-", help="A function spec in JSON; flags win.")
    ] = "",
    type: Type = "",
    name: Names = None,
    label: Label = None,
    priority: Priority = None,
    maxwaittime: MaxWait = None,
    maxexectime: MaxExec = None,
    maxretries: MaxRetries = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended; print it.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="As --wait, with its log.")] = False,
    timeout_s: Timeout = 0,
) -> None:
    """Submit a process; prints its id.

    With --wait or --follow: its result, and exit code 1 when it fails.
    """
    from colonist_cli.arguments import Wanted

    wanted = Wanted(
        function=function,
        words=words or (),
        json_args=args,
        type=type,
        names=name or (),
        label=label,
        priority=priority,
        maxwaittime=maxwaittime,
        maxexectime=maxexectime,
        maxretries=maxretries,
    )
    is_waiting = wait or follow
    async with shell.client() as client:
        process = await _submit(shell, client, wanted, spec)
        if not is_waiting:
            _show_submitted(shell, process)
            return
        note(f"process {process.processid}")
        _print_result(shell, await _ended(shell, client, process, timeout_s, is_followed=follow))


async def call(
    shell: Shell,
    *,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="What to run.")],
    words: Words = None,
    type: Type = "",
    name: Names = None,
    priority: Priority = None,
    maxexectime: MaxExec = None,
    maxretries: MaxRetries = None,
    timeout_s: Timeout = 0,
) -> None:
    """Call a function somewhere in the colony and print what it returns.

    Exit code 1 when it fails, with its reasons on stderr.
    """
    from colonist_cli.arguments import Wanted

    wanted = Wanted(
        function=function,
        words=words or (),
        type=type,
        names=name or (),
        priority=priority,
        maxexectime=maxexectime,
        maxretries=maxretries,
    )
    async with shell.client() as client:
        process = await _submit(shell, client, wanted, "")
        _print_result(shell, await _ended(shell, client, process, timeout_s, is_followed=False))


@command(processes, "list")
async def list_processes(
    shell: Shell,
    state: Annotated[Which | None, typer.Option(help="Default: all but cancelled.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="At most, of each state.")] = 20,
    type: Type = "",
    label: Annotated[str, typer.Option("--label", help="Only with this label.")] = "",
) -> None:
    """List processes: the next to run first, of those that ended the newest first."""
    from colonist_cli import tables
    from colonist_protocol.process import State

    usual = (State.RUNNING, State.WAITING, State.FAILED, State.SUCCESS)
    states = (State[state.name],) if state else usual
    colony, found = shell.settings.colony, list["Process"]()
    async with shell.client() as client:
        for each in states:
            found += await client.processes(
                colony, state=each, count=count, executor_type=type, label=label
            )
    shell.screen.rows(tables.PROCESSES, found, empty="no such processes")


@command(processes, "get")
async def get_process(shell: Shell, process: ProcessId) -> None:
    """Show one process."""
    from colonist_cli import tables

    async with shell.client() as client:
        shell.screen.one(tables.PROCESS, await client.get(checked(process)))


@command(processes, "cancel", kind=Kind.CALL)
async def cancel_process(shell: Shell, process: ProcessId) -> None:
    """End a process that has not ended."""
    async with shell.client() as client:
        await client.cancel(checked(process))


@command(processes, "remove", kind=Kind.CALL)
async def remove_process(shell: Shell, process: ProcessId) -> None:
    """Remove a process that is not running."""
    async with shell.client() as client:
        await client.remove(checked(process))


def checked(id: str, noun: str = "process") -> str:
    """The id of a process or another noun. Raises `CliError` for what cannot be one."""
    from colonist_protocol.identity import is_id

    if not is_id(id):
        raise CliError(Exit.USAGE, f"{id[:80]!r} is no {noun} id: 64 hex characters")
    return id


async def _submit(shell: Shell, client: Client, wanted: Wanted, spec: str) -> Process:
    from colonist_cli.arguments import build, read_spec

    base = read_spec(spec) if spec else None
    named = base.conditions.colonyname if base else ""
    colony = named if named and not shell.flags.colony else shell.settings.colony
    return await client.submit(
        build(wanted, base, colony=colony, type=shell.settings.executor_type)
    )


async def _ended(
    shell: Shell, client: Client, process: Process, timeout_s: float, *, is_followed: bool
) -> Process:
    from colonist_cli.follow import Follower, wait

    id, colony = process.processid, process.spec.conditions.colonyname
    follower = Follower(client, colony, process_id=id) if is_followed else None
    return await wait(client, id, timeout_s=timeout_s, follower=follower, show=_shower(shell))


def _shower(shell: Shell) -> Callable[[Log], None]:
    def show(line: Log) -> None:
        # The log beside the result: on stderr, so that `--follow -o json` stays JSON.
        note(clean(line.message))

    del shell
    return show


def _show_submitted(shell: Shell, process: Process) -> None:
    if shell.screen.form is Form.JSON:
        shell.screen.json(process)
    else:
        shell.screen.line(process.processid)


def _print_result(shell: Shell, process: Process) -> None:
    from colonist_cli.tables import printed, state_name

    if shell.screen.form is Form.JSON:
        shell.screen.json(process)
    else:
        for value in process.output():
            shell.screen.line(clean(printed(value)))
    if process.state != _success():
        reasons = "; ".join(process.errors) or "no reason given"
        what = f"process {process.processid} {state_name(process.state)}"
        raise CliError(Exit.FAILED, f"{what}: {clean(reasons)}")


def _success() -> int:
    from colonist_protocol.process import State

    return State.SUCCESS
