"""A start that does not say who the server's owner is, on a store that was at work before."""

from pathlib import Path

import pytest

from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity
from colonist_server.config import ServerConfig
from colonist_server.keyring import OWNER_KEY
from colonist_server.main import serve
from colonist_server.repo import keys
from colonist_server.repo.owner import stored_owner
from colonist_server.store.interface import Guard, Put
from tests.support.memory_store import MemoryStore

OWNER, NEXT = (Identity(bytes(31) + bytes([number])) for number in (1, 2))


def _config(folder: Path, owner: Identity | None = None) -> ServerConfig:
    return ServerConfig(
        port=0, store=f"sqlite:{folder}/store.db", owner=owner.id if owner is not None else ""
    )


async def test_it_makes_no_new_owner_and_says_what_to_do(tmp_path: Path) -> None:
    async with serve(_config(tmp_path, OWNER)):
        pass
    with pytest.raises(InvalidValueError, match=f"COLONIES_SERVER_ID.*{OWNER_KEY}"):
        async with serve(_config(tmp_path)):
            pass
    assert not (tmp_path / "keys" / OWNER_KEY).exists()
    async with serve(_config(tmp_path, OWNER)) as server:
        assert server.rooms.owner.id == OWNER.id


async def test_an_owner_whose_key_was_made_here_stays(tmp_path: Path) -> None:
    async with serve(_config(tmp_path)) as server:
        owner = server.rooms.owner.id
    async with serve(_config(tmp_path)) as server:
        assert server.rooms.owner.id == owner


async def test_an_owner_that_is_stored_is_obeyed(tmp_path: Path) -> None:
    async with serve(_config(tmp_path, OWNER)) as server, HttpTransport(server.url) as http:
        await Client(http, OWNER).change_server_id(NEXT.id)
    async with serve(_config(tmp_path)) as server:
        assert (server.rooms.owner.id, server.rooms.owner.is_changed) == (NEXT.id, False)
    assert not (tmp_path / "keys" / OWNER_KEY).exists()


async def test_an_owner_that_cannot_be_read_is_nobody() -> None:
    async with MemoryStore() as store:
        assert await stored_owner(store) is None
        await store.commit([Guard(keys.OWNER, 0)], [Put(keys.OWNER, b"\xc1")])
        assert await stored_owner(store) == ""
