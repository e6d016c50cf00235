"""The store's writer in a process of its own: killed, stopped, and outliving its parent."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_client.transport import UnreachableError
from colonist_protocol.colony import Colony
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER
from tests.support.server_process import server_process

pytestmark = pytest.mark.e2e


async def _ready(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as reply:
        return reply.status, await reply.text()


async def test_server_whose_writer_is_killed_ends_and_finds_everything_again(
    tmp_path: Path,
) -> None:
    async with server_process(tmp_path, OWNER.id) as server:
        owner = Client(HttpTransport(server.url), OWNER)
        await owner.add_colony(Colony(colonyid=COLONY_OWNER.id, name=COLONY))
        os.kill(server.writer, signal.SIGKILL)
        assert await server.ended() == 70
        assert "writer died" in server.log
        await server.start()
        assert [colony.name for colony in await owner.colonies()] == [COLONY]
        await owner.aclose()


async def test_writer_that_hangs_makes_the_server_not_ready_until_it_goes_on(
    tmp_path: Path,
) -> None:
    async with server_process(tmp_path, OWNER.id) as server:
        owner = Client(HttpTransport(server.url), OWNER)
        os.kill(server.writer, signal.SIGSTOP)
        try:
            wanted = Colony(colonyid=COLONY_OWNER.id, name=COLONY)
            added = asyncio.create_task(owner.add_colony(wanted))
            async with asyncio.timeout(20):
                while (await _ready(server.url))[0] == 200:
                    await asyncio.sleep(0.05)
            assert "answered no commit" in (await _ready(server.url))[1]
        finally:
            os.kill(server.writer, signal.SIGCONT)
        await added
        assert (await _ready(server.url))[0] == 200
        await owner.aclose()


async def test_server_killed_and_started_at_once_waits_for_its_old_writer(tmp_path: Path) -> None:
    async with server_process(tmp_path, OWNER.id) as server:
        owner = Client(HttpTransport(server.url), OWNER)
        for number in range(5):
            name = f"colony-{number}"
            with pytest.raises(UnreachableError):
                await asyncio.gather(
                    *(
                        owner.add_colony(Colony(colonyid=_id(number, k), name=f"{name}-{k}"))
                        for k in range(20)
                    ),
                    server.kill(),
                )
            await server.start()
        await owner.aclose()


async def test_server_started_while_the_old_writer_still_holds_the_store_waits(
    tmp_path: Path,
) -> None:
    async with server_process(tmp_path, OWNER.id) as server:
        writer = server.writer
        os.kill(writer, signal.SIGSTOP)
        try:
            await server.kill()
            starting = asyncio.create_task(server.start())
            async with asyncio.timeout(20):
                while "locked by another process" not in server.log:
                    assert not starting.done()
                    await asyncio.sleep(0.05)
        finally:
            os.kill(writer, signal.SIGCONT)
        await starting
        assert (await _ready(server.url))[0] == 200


def _id(number: int, k: int) -> str:
    return f"{number:02x}{k:02x}" + "0" * 60
