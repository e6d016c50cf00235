"""Founds a colony with a user and executors, or finds the one that is there already."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final

from colonist_cli.exits import CliError, Exit
from colonist_cli.keys import read_or_make
from colonist_cli.place import Place
from colonist_client import keyfile
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.sealer import Pin
from colonist_protocol.colony import Colony
from colonist_protocol.errors import ExistsError
from colonist_protocol.executor import Executor
from colonist_protocol.identity import Identity
from colonist_protocol.user import User
from colonist_server.keyring import OWNER_KEY

USER: Final = "user"
COLONY_OWNER: Final = "colony"


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """A colony that is ready for work."""

    name: str
    is_new: bool
    ended_before: int


def key_of(place: Place, name: str) -> Identity:
    """The key of that name in the state folder, made where it is missing."""
    return read_or_make(place.key(name), place.custody)


async def found(
    server: str,
    place: Place,
    *,
    colony: str,
    executors: Sequence[str],
    executor_type: str,
    server_id: str = "",
) -> Founding:
    """Make sure that the colony is there, with its user and its approved executors.

    `server_id` pins the server; without it nothing is sealed.
    """
    pin = Pin(server_id) if server_id else None
    owner, user = key_of(place, COLONY_OWNER), key_of(place, USER)
    founder = keyfile.read(place.keys / OWNER_KEY, place.custody)
    async with Client(HttpTransport(server), founder, pin=pin) as client:
        is_new = await _add_colony(client, Colony(colonyid=owner.id, name=colony))
    async with Client(HttpTransport(server), owner, pin=pin) as client:
        await _unless_there(client.add_user(User(colonyname=colony, userid=user.id, name=USER)))
        for name in executors:
            executor = Executor(
                executorid=key_of(place, name).id,
                executortype=executor_type,
                executorname=name,
                colonyname=colony,
            )
            await _unless_there(client.add_executor(executor))
            await client.approve_executor(colony, name)
    async with Client(HttpTransport(server), user, pin=pin) as client:
        counts = await client.colony_statistics(colony)
    ended = counts.successfulprocesses + counts.failedprocesses
    return Founding(name=colony, is_new=is_new, ended_before=ended)


async def _add_colony(client: Client, wanted: Colony) -> bool:
    there = {colony.name: colony for colony in await client.colonies()}.get(wanted.name)
    if there is None:
        await client.add_colony(wanted)
        return True
    if there.colonyid != wanted.colonyid:
        raise CliError(
            Exit.NOT_STARTED,
            f"the store holds a colony {wanted.name!r} of another owner than keys/"
            f"{COLONY_OWNER}.key; choose another name with --colony, or another --home",
        )
    return False


async def _unless_there(adding: Awaitable[object]) -> None:
    try:
        await adding
    except ServerError as error:
        if error.code != ExistsError.code:
            raise
