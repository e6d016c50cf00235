"""`rotate-key` of users, executors, colonies and the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colonist_cli.command import Kind, command
from colonist_cli.commands.members import Name, colonies, executors, users
from colonist_cli.commands.start import servers
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import note
from colonist_cli.settings import SERVER_ID, Role
from colonist_cli.shell import Shell

__all__ = ["executors"]

if TYPE_CHECKING:
    from colonist_cli.rotation import Call


@command(executors, "rotate-key", kind=Kind.CALL)
async def rotate_executor(shell: Shell, name: Name) -> None:
    """Give an executor a new key; prints its new id.

    The key is that of --key, else the one of this name. Stop the agent gently before, so that it
    finishes or gives back what it runs, and start it with the new key afterwards: of an agent that
    goes on with the old key, the server takes no result. Behind an MQTT broker the new id needs a
    new account there.
    """
    colony = shell.settings.colony
    await _rotate(
        shell,
        shell.settings.key_file_named(name),
        lambda client, new: client.change_executor_id(colony, new.id),
        lambda client, new: client.executor_by_id(colony, new.id),
    )
    note(f"start the agent of {name} again: it knows only its old key")


@command(users, "rotate-key", kind=Kind.CALL)
async def rotate_user(
    shell: Shell,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Whose key; default: the one in use.")
    ] = "",
) -> None:
    """Give a user a new key; prints its new id."""
    colony = shell.settings.colony
    settings = shell.settings
    await _rotate(
        shell,
        settings.key_file_named(name) if name else settings.key_file(Role.MEMBER),
        lambda client, new: client.change_user_id(colony, new.id),
        lambda client, new: client.user_by_id(colony, new.id),
    )


@command(colonies, "rotate-key", kind=Kind.CALL)
async def rotate_colony(shell: Shell) -> None:
    """Give the colony's owner a new key; prints its new id."""
    colony = shell.settings.colony
    await _rotate(
        shell,
        shell.settings.key_file(Role.COLONY),
        lambda client, new: client.change_colony_id(colony, new.id),
        lambda client, _new: client.member_history(colony, count=1),
    )


@command(servers, "id", kind=Kind.LOCAL)
def server_id(shell: Shell) -> None:
    """Print the id of the server that is pinned: only its replies are believed.

    `colonist up` pins its own. Of a server elsewhere, its operator tells the id; set
    COLONIST_SERVER_ID to it.
    """
    found = shell.settings.server_id
    if not found:
        raise CliError(
            Exit.USAGE,
            f"no server is pinned: set {SERVER_ID} to the id that the server's operator tells you, "
            "as `colonist key show KEYS/server.key` prints it",
        )
    shell.screen.line(found)


@command(servers, "rotate-key", kind=Kind.CALL)
async def rotate_server(shell: Shell) -> None:
    """Give the server's owner a new key; prints its new id.

    Where COLONIES_SERVER_ID names the owner, set it to the new id before the server's next start.
    """
    await _rotate(
        shell,
        shell.settings.key_file(Role.SERVER),
        lambda client, new: client.change_server_id(new.id),
        lambda client, _new: client.cluster(),
    )


@command(servers, "change-key", kind=Kind.LOCAL)
def change_server_key(
    shell: Shell,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The server's key files; default: `up`'s."),
    ] = None,
    take: Annotated[
        bool, typer.Option("--take", help="Put the key that was made ready in its place.")
    ] = False,
) -> None:
    """Change the key that the server signs its replies with, in two steps; prints its new id.

    Without --take the new key is made ready: copy it to all nodes, and start each of them again.
    Then the same with --take at every node. Clients that have pinned the server follow by
    themselves, and nothing that was sealed for the old key is lost.
    """
    from colonist_server.keyring import NEXT_KEY, SERVER_KEY, Keyring

    folder = keys or shell.place.keys
    ring = Keyring(folder, shell.place.custody)
    id = ring.change() if take else ring.prepare()
    shell.screen.line(id)
    done = f"{SERVER_KEY} is the new one" if take else f"{NEXT_KEY} is ready: copy it to all nodes"
    note(f"{folder}: {done}; start the server again")


async def _rotate(shell: Shell, path: Path, change: Call, probe: Call) -> None:
    from colonist_cli.rotation import Rotation, rotate

    rotation = Rotation(
        server=shell.settings.server,
        path=path,
        change=change,
        probe=probe,
        custody=shell.place.custody,
        pin=shell.settings.pin(),
    )
    shell.screen.line((await rotate(rotation)).id)
