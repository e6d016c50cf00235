"""`colonist cron`: workflows at set times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.commands.work import Type
from colonist_cli.commands.workflows import around
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form, note
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_client.client import Client
    from colonist_protocol.cron import Cron

CronName = Annotated[str, typer.Argument(metavar="ID|NAME", help="Its id, or its name.")]

crons = typer.Typer(help="Workflows at set times.", no_args_is_help=True)


@command(crons, "add")
async def add_cron(
    shell: Shell,
    *,
    name: Annotated[str, typer.Option("--name", help="Its name in the colony.")],
    workflow: Annotated[
        str, typer.Option("--workflow", metavar="FILE|-", help="What it starts, in JSON.")
    ],
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="An interval: 10s, 1h30m, 1d.")
    ] = "",
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="EXPRESSION", help="Six fields, seconds first: '0 */5 * * * *'; @daily."
        ),
    ] = "",
    zone: Annotated[
        str, typer.Option("--zone", metavar="AREA/CITY", help="Of --at; default: UTC.")
    ] = "",
    is_random: Annotated[
        bool, typer.Option("--random", help="At a random moment in each interval.")
    ] = False,
    wait_previous: Annotated[
        bool, typer.Option("--wait-previous", help="Only when the run before has ended.")
    ] = False,
    type: Type = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show when it would run.")
    ] = False,
) -> None:
    """Start a workflow again and again; shows the next five runs."""
    import time

    from colonist_cli import cron_times, documents, durations
    from colonist_protocol.cron import OFF, Cron

    if bool(every) == bool(at):
        raise CliError(Exit.USAGE, "say one of: --every TIME, --at EXPRESSION")
    if zone and not at:
        raise CliError(Exit.USAGE, "--zone goes with --at only")
    data = documents.read(workflow)
    given = around(shell, documents.colony_in(workflow, data), type)
    spec = documents.workflow(workflow, data, given)
    wanted = Cron(
        colonyname=spec.colonyname,
        name=name,
        cronexpression=cron_times.expression(at, zone) if at else "",
        interval=durations.seconds_of(every, "--every") if every else OFF,
        random=is_random,
        waitforprevprocessgraph=wait_previous,
    )
    runs = cron_times.after(wanted, time.time_ns())
    if not dry_run:
        async with shell.client() as client:
            wanted = await client.add_cron(
                spec.colonyname,
                name,
                spec,
                expression=wanted.cronexpression,
                interval_s=wanted.interval,
                is_random=is_random,
                waits=wait_previous,
            )
        runs = cron_times.planned(wanted)
    for run in runs:
        note(f"next run  {run}")
    if shell.screen.form is Form.JSON:
        shell.screen.json(wanted)
    elif not dry_run:
        shell.screen.line(wanted.cronid)


@command(crons, "list")
async def list_crons(shell: Shell) -> None:
    """List a colony's crons, oldest first."""
    from colonist_cli import definitions

    async with shell.client() as client:
        found = await client.crons(shell.settings.colony)
    shell.screen.rows(definitions.CRONS, found, empty="no crons yet")


@command(crons, "get")
async def get_cron(shell: Shell, cron: CronName) -> None:
    """Show a cron and its next five runs."""
    from colonist_cli import definitions

    async with shell.client() as client:
        shell.screen.one(definitions.CRON, await _find(shell, client, cron))


@command(crons, "run")
async def run_cron(shell: Shell, cron: CronName) -> None:
    """Start a cron's workflow now, whatever is due; prints the id of the workflow."""
    async with shell.client() as client:
        id = (await _find(shell, client, cron)).cronid
        await client.run_cron(id)
        found = await client.cron(id)
    if shell.screen.form is Form.JSON:
        shell.screen.json(found)
    else:
        shell.screen.line(found.prevprocessgraphid)


@command(crons, "remove", kind=Kind.CALL)
async def remove_cron(shell: Shell, cron: CronName) -> None:
    """Remove a cron; the workflows that it started go on."""
    async with shell.client() as client:
        await client.remove_cron((await _find(shell, client, cron)).cronid)


async def _find(shell: Shell, client: Client, cron: str) -> Cron:
    """By id, else by name: the list has all of them. Raises `CliError`."""
    from colonist_protocol.identity import is_id

    if is_id(cron):
        return await client.cron(cron)
    colony = shell.settings.colony
    for each in await client.crons(colony):
        if each.name == cron:
            return each
    raise CliError(Exit.NOT_FOUND, f"there is no cron {cron[:80]!r} in the colony {colony!r}")
