"""A client that has pinned a server, while the server's key is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from colonist_client.client import Client
from colonist_client.custody import Custody
from colonist_client.http import HttpTransport
from colonist_client.pin_file import pinned
from colonist_client.sealer import NotGenuineError, Pin
from colonist_protocol.colony import Colony, GetColonies
from colonist_protocol.identity import Identity
from colonist_server.config import ServerConfig
from colonist_server.keyring import Keyring
from colonist_server.main import serve

OWNER, COLONY = Identity(bytes(31) + b"\x01"), Identity(bytes(31) + b"\x02")


def _config(folder: Path) -> ServerConfig:
    return ServerConfig(
        port=0, store=f"sqlite:{folder}/store.db", owner=OWNER.id, keys=folder / "keys"
    )


async def _count(url: str, pin: Pin) -> int:
    async with HttpTransport(url) as http:
        return len(await Client(http, OWNER, pin=pin).colonies())


async def test_the_pin_follows_two_changes_and_the_file_remembers(tmp_path: Path) -> None:
    file, ring = tmp_path / "server.id", Keyring(tmp_path / "keys", Custody({}))
    async with serve(_config(tmp_path)) as server:
        first = server.rooms.server_keys.id
        pin = pinned(first, file)
        assert pin is not None
        async with HttpTransport(server.url) as http:
            client = Client(http, OWNER, pin=pin)
            await client.add_colony(Colony(colonyid=COLONY.id, name="home"))
            late = client.pack(GetColonies())
    ids = [first]
    for _ in range(2):
        ids.append(ring.prepare())
        async with serve(_config(tmp_path)) as server:
            assert await _count(server.url, pin) == 1
        assert pin.id == ids[-2]
        ring.change()
        async with serve(_config(tmp_path)) as server:
            assert await _count(server.url, pin) == 1
            # Who was away for both changes finds the way; so does what was sealed before them.
            assert await _count(server.url, Pin(first)) == 1
            async with HttpTransport(server.url) as http:
                await Client(http, OWNER, pin=Pin(first)).deliver(late)
            with pytest.raises(NotGenuineError):
                await _count(server.url, Pin(COLONY.id))
        assert (pin.id, file.read_text()) == (ids[-1], f"{ids[-1]}\n")
    again = pinned(first, file)
    assert again is not None
    assert again.id == ids[-1]
