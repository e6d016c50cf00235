"""`logs`, `stats`, `env`, `version` and `completion`: what is written down, counted, and known."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.commands.work import checked
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, clean
from colonist_cli.settings import Role
from colonist_cli.shell import Shell

COMPLETING = "_COLONIST_COMPLETE"
"""The variable in which a shell asks."""


class Interpreter(StrEnum):
    """The shells that we know how to complete in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def add(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "logs", panel="Work")(logs)
    command(app, "stats", panel="Work")(stats)
    command(app, "env", kind=Kind.CALL, panel="Who is who")(env)
    command(app, "version", kind=Kind.SHOW)(version)
    command(app, "completion", kind=Kind.LOCAL)(completion)


async def logs(
    shell: Shell,
    *,
    process: Annotated[str, typer.Argument(metavar="[PROCESS]", help="Its id.")] = "",
    executor: Annotated[str, typer.Option(help="The lines of an executor instead.")] = "",
    search: Annotated[str, typer.Option(metavar="TEXT", help="All lines with this text.")] = "",
    count: Annotated[int, typer.Option(min=1, max=500, help="At most.")] = 500,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the process has ended, or Ctrl-C.")
    ] = False,
) -> None:
    """Show the log of a process or an executor."""
    from colonist_cli import tables
    from colonist_cli.records import follow_lines

    if sum(map(bool, (process, executor, search))) != 1:
        raise CliError(Exit.USAGE, "say one of: a process, --executor NAME, --search TEXT")
    if process:
        checked(process)
    colony = shell.settings.colony
    async with shell.client() as client:
        if follow:
            if search:
                raise CliError(Exit.USAGE, "--follow does not go with --search")
            await follow_lines(shell.screen, client, colony, process=process, executor=executor)
            return
        if search:
            found = await client.search_logs(colony, search, count=min(count, 100))
        else:
            found = await client.logs(colony, process_id=process, executor=executor, count=count)
    if shell.screen.form is Form.JSON or search or executor:
        shell.screen.rows(tables.LOGS, found, empty="no lines yet")
        return
    for line in found:
        shell.screen.line(clean(line.message))


async def stats(
    shell: Shell,
    all: Annotated[
        bool, typer.Option("--all", help="Of all colonies; needs the server owner's key.")
    ] = False,
) -> None:
    """Count the processes and executors of a colony."""
    from colonist_cli import tables

    async with shell.client(Role.SERVER if all else Role.MEMBER) as client:
        if all:
            found = await client.statistics()
        else:
            found = await client.colony_statistics(shell.settings.colony)
    shell.screen.one(tables.STATISTICS, found)


def env(
    shell: Shell,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show the keys on a terminal, too.")
    ] = False,
) -> None:
    """Print the variables that Colonies SDKs read: eval "$(colonist env)".

    Private keys are among them; on a terminal they are left out unless --reveal is given.
    """
    import sys

    from colonist_cli.variables import lines

    is_shown = reveal or not sys.stdout.isatty()
    for line in lines(shell.settings, are_keys_shown=is_shown):
        shell.screen.line(line)


def completion(
    shell: Shell,
    name: Annotated[Interpreter, typer.Argument(metavar="bash|zsh|fish", help="Which shell.")],
) -> None:
    """Print what lets a shell complete commands and options.

    eval "$(colonist completion bash)"
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="colonist", complete_var=COMPLETING, shell=name.value)
    shell.screen.line(script)


async def version(shell: Shell) -> None:
    """Print the version of this program, and of the server if it is there."""
    from colonist_cli.records import versions

    found = await versions(shell.settings.server)
    if shell.screen.form is Form.JSON:
        shell.screen.json(found)
        return
    for name, text in found.items():
        shell.screen.line(f"{name} {text}")
