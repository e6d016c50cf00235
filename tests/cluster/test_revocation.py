"""A removal at one server of a real cluster is in force at another within a second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from colonist_client import keyfile
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.sealer import Pin
from colonist_client.subscriptions import Subscriber
from colonist_protocol.process import State
from colonist_protocol.user import User
from tests.cluster.campaign import Campaign
from tests.cluster.house import House, on_etcd
from tests.support.rooms import COLONY, COLONY_OWNER, key, spec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]
WITHIN_S = 1.0
HELD_S = 20


class Colony:
    """Clients of two servers, which have pinned them."""

    def __init__(self, house: House, folder: Path) -> None:
        self._house = house
        self._server = keyfile.id_of(folder / "keys" / "server.key")
        self._transports = [HttpTransport(url, max_connections=0) for url in house.urls]

    def client(self, name: str, server: int) -> Client:
        identity = COLONY_OWNER if name == "owner" else key(name)
        return Client(self._transports[server], identity, pin=Pin(self._server))

    def subscriber(self, name: str, server: int) -> Subscriber:
        return Subscriber(self._house.urls[server], key(name), pin=Pin(self._server))

    async def aclose(self) -> None:
        for transport in self._transports:
            await transport.close()


@contextlib.asynccontextmanager
async def founded(folder: Path) -> AsyncGenerator[Colony]:
    async with on_etcd(folder, members=1, servers=2) as house:
        campaign = Campaign(house.urls, seed=0, processes=0, executors=3, lease_s=60)
        await campaign.found()
        await campaign.aclose()
        colony = Colony(house, folder)
        user = User(colonyname=COLONY, userid=key("uma").id, name="uma")
        await colony.client("owner", 0).add_user(user)
        yield colony
        await colony.aclose()


async def refused(asked: Awaitable[object]) -> float:
    """When it was refused."""
    with pytest.raises(ServerError) as caught:
        await asked
    assert caught.value.status == 403
    return time.monotonic()


async def followed(subscriber: Subscriber) -> float:
    """When a subscription was ended."""

    async def follow() -> None:
        async with subscriber.subscribe_processes(COLONY, timeout_s=HELD_S) as events:
            async for _ in events:
                pass

    return await refused(follow())


async def in_force(remove: Callable[[], Awaitable[None]], *waits: Awaitable[float]) -> list[float]:
    """How long after the removal was acknowledged each was told; negative: before it was."""
    waiting = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in waiting)
    await remove()
    at = time.monotonic()
    async with asyncio.timeout(HELD_S):
        return [await task - at for task in waiting]


async def test_whoever_waits_at_another_server_is_out_within_a_second(tmp_path: Path) -> None:
    async with founded(tmp_path) as colony:
        owner, other = colony.client("owner", 0), colony.client("e0", 1)
        running = await colony.client("uma", 0).submit(spec(maxretries=5))
        mine = await other.assign(COLONY, timeout_s=5)
        assert mine is not None
        assert mine.processid == running.processid

        async def given_again() -> float:
            """Its running work goes to somebody else."""
            again = await colony.client("e1", 1).assign(COLONY, timeout_s=HELD_S)
            assert again is not None
            assert again.processid == running.processid
            return time.monotonic()

        took = await in_force(
            lambda: owner.remove_executor(COLONY, "e0"),
            refused(other.assign(COLONY, timeout_s=HELD_S)),
            refused(other.get(running.processid, while_state=State.RUNNING, timeout_s=HELD_S)),
            followed(colony.subscriber("e0", 1)),
            given_again(),
        )
        assert max(took) < WITHIN_S, took
        began = time.monotonic()
        await refused(other.submit(spec()))
        await refused(other.close(running.processid))
        assert time.monotonic() - began < WITHIN_S
        took += await in_force(
            lambda: owner.reject_executor(COLONY, "e2"),
            refused(colony.client("e2", 1).assign(COLONY, timeout_s=HELD_S)),
            followed(colony.subscriber("e2", 1)),
        )
        user = colony.client("uma", 1)
        took += await in_force(
            lambda: owner.remove_user(COLONY, "uma"),
            refused(user.get(running.processid, while_state=State.RUNNING, timeout_s=HELD_S)),
            followed(colony.subscriber("uma", 1)),
        )
        assert max(took) < WITHIN_S, took
