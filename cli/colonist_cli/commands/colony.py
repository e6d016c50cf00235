"""`colonist colony pause`, `resume`, `status` and `history`: one colony, by its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.commands.members import colonies
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form
from colonist_cli.settings import Role
from colonist_cli.shell import Shell

__all__ = ["colonies"]

if TYPE_CHECKING:
    from colonist_client.client import Client
    from colonist_protocol.colony import MemberChange

ColonyName = Annotated[str, typer.Argument(metavar="[NAME]", help="Default: the usual colony.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="The last 30m, 2h, 7d.")]


@command(colonies, "pause", kind=Kind.CALL)
async def pause_colony(shell: Shell, name: ColonyName = "") -> None:
    """Stop handing out work; what runs goes on."""
    async with shell.client(Role.COLONY) as client:
        await client.pause(name or shell.settings.colony)


@command(colonies, "resume", kind=Kind.CALL)
async def resume_colony(shell: Shell, name: ColonyName = "") -> None:
    """Hand out work again."""
    async with shell.client(Role.COLONY) as client:
        await client.resume(name or shell.settings.colony)


@command(colonies, "status")
async def colony_status(shell: Shell, name: ColonyName = "") -> None:
    """Show whether a colony hands out work, and what is in it."""
    from colonist_cli import tables

    colony = name or shell.settings.colony
    async with shell.client() as client:
        is_paused = await client.is_paused(colony)
        counts = await client.colony_statistics(colony)
    if shell.screen.form is Form.JSON:
        shell.screen.json({"colonyname": colony, "ispaused": is_paused, "statistics": counts})
        return
    shell.screen.line(f"{colony} {'is paused' if is_paused else 'hands out work'}")
    shell.screen.one(tables.STATISTICS, counts)


@command(colonies, "history")
async def colony_history(
    shell: Shell,
    name: ColonyName = "",
    since: Since = "",
    count: Annotated[int, typer.Option(min=1, help="At most.")] = 100,
) -> None:
    """Show who changed what about members, owner and pause, newest first.

    Checks the signature of each request against the id that the record names.
    """
    from colonist_cli import tables

    since_ns = since_of(since)
    async with shell.client(Role.COLONY) as client:
        found = await _changes(client, name or shell.settings.colony, since_ns, count)
    shell.screen.rows(tables.CHANGES, found, empty="no such changes")


@command(colonies, "policy")
async def colony_policy(
    shell: Shell,
    name: ColonyName = "",
    plain_requests: Annotated[
        str,
        typer.Option(
            "--plain-requests",
            metavar="allow|refuse",
            help="What becomes of requests that are not sealed.",
        ),
    ] = "",
) -> None:
    """Show what a colony takes, or settle it."""
    from colonist_cli import tables
    from colonist_protocol.colony import PlainRequests

    colony = name or shell.settings.colony
    if plain_requests not in ("", *PlainRequests):
        raise CliError(Exit.USAGE, "--plain-requests is allow or refuse")
    if not plain_requests:
        async with shell.client() as client:
            found = await client.policy(colony)
    else:
        async with shell.client(Role.COLONY) as client:
            found = await client.set_policy(colony, PlainRequests(plain_requests))
    shell.screen.one(tables.POLICY, found)


def since_of(since: str) -> int:
    """The moment from which on, in nanoseconds; 0 for all. Raises `CliError`."""
    import time

    from colonist_cli import durations
    from colonist_protocol.times import SECOND_NS

    if not since:
        return 0
    return max(1, time.time_ns() - durations.seconds_of(since, "--since") * SECOND_NS)


async def _changes(client: Client, colony: str, since_ns: int, count: int) -> list[MemberChange]:
    """Page by page, each from before the oldest of the page before."""
    found: list[MemberChange] = []
    before_ns = 0
    while len(found) < count:
        page = await client.member_history(
            colony, count=min(100, count - len(found)), since=since_ns, before=before_ns
        )
        if not page:
            break
        found += page
        before_ns = page[-1].timestamp
    return found
