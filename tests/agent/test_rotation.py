"""Agents at work on a real server while every key is changed: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from pathlib import Path

from colonist_agent.agent import Agent
from colonist_agent.context import Context
from colonist_agent.function import Registry
from colonist_client.client import Client
from colonist_client.custody import Custody
from colonist_client.http import HttpTransport
from colonist_client.retry import Backoff, Retry
from colonist_client.sealer import Pin
from colonist_protocol.identity import Identity
from colonist_protocol.process import State
from colonist_server.config import ServerConfig
from colonist_server.keyring import Keyring
from colonist_server.main import serve
from tests.agent.test_real_server import COLONY, DEVICE, OWNER, PERSON, SECOND, House, at_work, call
from tests.support.ports import HOST, free_ports

JOBS = 80
PAUSE_S = 0.02


def key(number: int) -> Identity:
    return Identity(bytes(31) + bytes([number]))


class Site:
    """A server that can be started anew, and pinned clients of it."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.keys = folder / "keys"
        self.config = ServerConfig(
            port=port, store=f"sqlite:{folder}/store.db", owner=OWNER.id, keys=self.keys
        )
        self.ring = Keyring(self.keys, Custody({}))
        self.pin = Pin(self.ring.server_keys().id)
        self.transport = HttpTransport(f"http://{HOST}:{port}")
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> str:
        return (await self._stack.enter_async_context(serve(self.config))).url

    async def start_again(self) -> None:
        await self._stack.aclose()
        await self.start()

    async def aclose(self) -> None:
        await self._stack.aclose()
        await self.transport.close()

    def client(self, identity: Identity) -> Client:
        backoff = Backoff(uniform=random.Random(3).uniform, base_s=0.05, cap_s=0.5)
        retry = Retry(backoff=backoff, attempts=100)
        return Client(self.transport, identity, pin=self.pin, retry=retry)


@contextlib.asynccontextmanager
async def furnished(folder: Path) -> AsyncGenerator[Site]:
    site = Site(folder)
    house = House(await site.start())
    await house.furnish()
    await house.close()
    yield site
    await site.aclose()


async def test_every_key_changes_while_agents_work_and_nothing_is_lost(tmp_path: Path) -> None:
    registry = Registry()

    @registry.function("work")
    async def work(context: Context, number: int) -> int:
        del context
        await asyncio.sleep(PAUSE_S)
        return number

    def agent(site: Site, identity: Identity) -> contextlib.AbstractAsyncContextManager[Agent]:
        return at_work(site.client(identity), registry, slots=2, stop_grace_s=5.0)

    async def submit(site: Site) -> list[str]:
        client, ids = site.client(PERSON), list[str]()
        for number in range(JOBS):
            ids.append((await client.submit(call("work", number, maxretries=5))).processid)
            await asyncio.sleep(PAUSE_S)
            if number == JOBS // 2:
                await client.change_user_id("home", key(20).id)
                client = site.client(key(20))
        return ids

    async with furnished(tmp_path) as site, asyncio.TaskGroup() as group:
        async with agent(site, SECOND):
            submitted = group.create_task(submit(site))
            async with agent(site, DEVICE):
                await asyncio.sleep(10 * PAUSE_S)
                coming = site.ring.prepare()
                await site.start_again()
                site.ring.change()
                await site.start_again()
                await site.client(COLONY).change_colony_id("home", key(21).id)
                await site.client(OWNER).change_server_id(key(22).id)
            await site.client(DEVICE).change_executor_id("home", key(23).id)
            async with agent(site, key(23)):
                ids = await submitted
                person = site.client(key(20))
                done = [await person.wait(id, timeout_s=30) for id in ids]
        assert [each.state for each in done] == [State.SUCCESS] * JOBS
        assert [each.output() for each in done] == [[number] for number in range(JOBS)]
        counts = await person.colony_statistics("home")
        assert (counts.successfulprocesses, counts.waitingprocesses) == (JOBS, 0)
        assert await site.client(key(21)).member_history("home", count=1)
        assert await site.client(key(22)).cluster()
        assert site.pin.id == coming
