"""`colonist colony`, `executor` and `user`: who is who."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.exits import CliError, Exit
from colonist_cli.settings import Role
from colonist_cli.shell import Shell

if TYPE_CHECKING:
    from colonist_protocol.executor import Executor

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]
Id = Annotated[str, typer.Option("--id", help="The id of its key; default: a new key is made.")]

colonies = typer.Typer(help="Colonies of the server.", no_args_is_help=True)
executors = typer.Typer(help="Who pulls work in a colony.", no_args_is_help=True)
users = typer.Typer(help="Who submits work to a colony.", no_args_is_help=True)


@command(colonies, "add")
async def add_colony(shell: Shell, name: Name, id: Id = "") -> None:
    """Found a colony."""
    from colonist_cli import tables
    from colonist_cli.keys import id_for
    from colonist_protocol.colony import Colony

    with id_for(shell.place, name, id) as owner:
        async with shell.client(Role.SERVER) as client:
            added = await client.add_colony(Colony(colonyid=owner, name=name))
    shell.screen.one(tables.COLONIES, added)


@command(colonies, "list")
async def list_colonies(shell: Shell) -> None:
    """List all colonies."""
    from colonist_cli import tables

    async with shell.client(Role.SERVER) as client:
        shell.screen.rows(tables.COLONIES, await client.colonies(), empty="no colonies yet")


@command(colonies, "remove", kind=Kind.CALL)
async def remove_colony(shell: Shell, name: Name) -> None:
    """Remove a colony with all that is in it."""
    async with shell.client(Role.SERVER) as client:
        await client.remove_colony(name)


@command(executors, "add")
async def add_executor(
    shell: Shell,
    name: Name,
    type: Annotated[str, typer.Option("--type", help="What kind of work it is for.")] = "",
    id: Id = "",
    approve: Annotated[bool, typer.Option("--approve", help="Approve it at once.")] = False,
) -> None:
    """Register an executor, which then waits for approval."""
    from colonist_cli import tables
    from colonist_cli.keys import id_for
    from colonist_protocol.executor import Executor, ExecutorState

    kind, colony = type or shell.settings.executor_type, shell.settings.colony
    if not kind:
        raise CliError(Exit.USAGE, "which type of executor? --type NAME")
    with id_for(shell.place, name, id) as key:
        async with shell.client(Role.COLONY) as client:
            wanted = Executor(
                executorid=key, executortype=kind, executorname=name, colonyname=colony
            )
            added = await client.add_executor(wanted)
            if approve:
                await client.approve_executor(colony, name)
    state = ExecutorState.APPROVED if approve else added.state
    shell.screen.one(tables.EXECUTORS, _in_state(added, state))


@command(executors, "approve", kind=Kind.CALL)
async def approve_executor(shell: Shell, name: Name) -> None:
    """Let an executor work."""
    async with shell.client(Role.COLONY) as client:
        await client.approve_executor(shell.settings.colony, name)


@command(executors, "reject", kind=Kind.CALL)
async def reject_executor(shell: Shell, name: Name) -> None:
    """Keep an executor from work."""
    async with shell.client(Role.COLONY) as client:
        await client.reject_executor(shell.settings.colony, name)


@command(executors, "remove", kind=Kind.CALL)
async def remove_executor(shell: Shell, name: Name) -> None:
    """Unregister an executor; its running work goes back to the queue."""
    async with shell.client(Role.COLONY) as client:
        await client.remove_executor(shell.settings.colony, name)


@command(executors, "get")
async def get_executor(shell: Shell, name: Name) -> None:
    """Show one executor."""
    from colonist_cli import tables

    async with shell.client() as client:
        found = await client.executor(shell.settings.colony, name)
    shell.screen.one(tables.EXECUTOR, found)


@command(executors, "list")
async def list_executors(shell: Shell) -> None:
    """List a colony's executors, removed ones too."""
    from colonist_cli import tables

    async with shell.client() as client:
        found = await client.executors(shell.settings.colony)
    shell.screen.rows(tables.EXECUTORS, found, empty="no executors yet")


@command(users, "add")
async def add_user(
    shell: Shell,
    name: Name,
    id: Id = "",
    email: Annotated[str, typer.Option(help="For people.")] = "",
    phone: Annotated[str, typer.Option(help="For people.")] = "",
) -> None:
    """Let somebody submit work."""
    from colonist_cli import tables
    from colonist_cli.keys import id_for
    from colonist_protocol.user import User

    colony = shell.settings.colony
    with id_for(shell.place, name, id) as key:
        async with shell.client(Role.COLONY) as client:
            wanted = User(colonyname=colony, userid=key, name=name, email=email, phone=phone)
            added = await client.add_user(wanted)
    shell.screen.one(tables.USERS, added)


@command(users, "list")
async def list_users(shell: Shell) -> None:
    """List a colony's users."""
    from colonist_cli import tables

    async with shell.client() as client:
        found = await client.users(shell.settings.colony)
    shell.screen.rows(tables.USERS, found, empty="no users yet")


@command(users, "get")
async def get_user(shell: Shell, name: Name) -> None:
    """Show one user."""
    from colonist_cli import tables

    async with shell.client() as client:
        found = await client.user(shell.settings.colony, name)
    shell.screen.one(tables.USER, found)


@command(users, "remove", kind=Kind.CALL)
async def remove_user(shell: Shell, name: Name) -> None:
    """Remove a user."""
    async with shell.client(Role.COLONY) as client:
        await client.remove_user(shell.settings.colony, name)


def _in_state(executor: Executor, state: int) -> Executor:
    import msgspec

    return msgspec.structs.replace(executor, state=int(state))
