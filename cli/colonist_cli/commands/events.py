"""`watch` and `history`: what happens in a colony, and what has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import command
from colonist_cli.commands.work import Type, Which, checked
from colonist_cli.exits import CliError, Exit
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_client.client import Client
    from colonist_protocol.process import Process

PANEL = "Work"
EVER_S = 100 * 365 * 86_400


def add(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "watch", panel=PANEL)(watch)
    command(app, "history", panel=PANEL)(history)


async def watch(
    shell: Shell,
    what: Annotated[
        str, typer.Argument(metavar="[PROCESS|WORKFLOW]", help="Its id; default: the colony.")
    ] = "",
    state: Annotated[Which | None, typer.Option(help="Only what enters this state.")] = None,
    type: Type = "",
) -> None:
    """Show processes as they change, until what is watched has ended, or Ctrl-C.

    Connects again when the connection is lost, and says on stderr what may have been missed. With
    -o json: one process a line.
    """
    from colonist_cli import watching

    if what:
        checked(what)
        if state or type:
            raise CliError(Exit.USAGE, "--state and --type are for a whole colony")
    async with shell.client() as client:
        await watching.watch(
            shell.screen,
            client,
            shell.subscriber(),
            watching.Wanted(
                colony="" if what else shell.settings.colony,
                id=what,
                state=-1 if state is None else _number(state),
                executor_type=type,
            ),
        )


async def history(
    shell: Shell,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Submitted in the last 30m, 2h, 7d.")
    ] = "1h",
    state: Annotated[Which | None, typer.Option(help="Default: any.")] = None,
    executor: Annotated[
        str, typer.Option("--executor", metavar="NAME", help="Only what it ran or runs.")
    ] = "",
) -> None:
    """List processes that were submitted lately, newest first."""
    from colonist_cli import durations, tables

    seconds = min(durations.seconds_of(since, "--since"), EVER_S)
    async with shell.client() as client:
        found = await _history(shell, client, seconds, state, executor)
    shell.screen.rows(tables.PROCESSES, found, empty="no such processes")


async def _history(
    shell: Shell, client: Client, seconds: int, state: Which | None, executor: str
) -> list[Process]:
    colony = shell.settings.colony
    id = (await client.executor(colony, executor)).executorid if executor else ""
    found: dict[str, Process] = {}
    for each in [state] if state else list(Which):
        for process in await client.history(
            colony, seconds=seconds, state=_number(each), executor_id=id
        ):
            found[process.processid] = process  # one that changed meanwhile is met twice
    return sorted(found.values(), key=lambda process: process.submissiontime, reverse=True)


def _number(state: Which) -> int:
    from colonist_protocol.process import State

    return State[state.name]
