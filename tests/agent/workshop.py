"""Agents on the rooms of a real server, in virtual time: what it holds, it holds.

async with workshop("ada", "ben") as shop:
    ada = shop.agent("ada", slots=2)
    async with ada.running():
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import Any

from colonist_agent.agent import Agent, Limits
from colonist_agent.function import Registry
from colonist_client.client import Client
from colonist_client.retry import Backoff
from colonist_protocol.process import CancelProcess, GetProcess, Process
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, bench, key
from tests.support.transports import DirectTransport

PATIENCE_S = 300


class Hand:
    """One agent with a key and a way to the server of its own."""

    def __init__(
        self, shop: Workshop, name: str, *, registry: Registry | None = None, **limits: Any
    ) -> None:
        self.transport = DirectTransport(shop.answer)
        self.client = Client(self.transport, key(name))
        self.agent = Agent(
            self.client,
            COLONY,
            name=name,
            registry=registry,
            backoff=Backoff(uniform=random.Random(1).uniform),
            limits=Limits(**limits),
        )

    @property
    def closes(self) -> list[str]:
        """The closes that were sent."""
        return [kind for _, kind in self.transport.sent if kind.startswith("close")]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Agent]:
        """The agent runs for the length of the block and is then stopped gently."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.agent.run())
            try:
                yield self.agent
            finally:
                self.agent.stop()


class Workshop:
    """A bench and the agents that work on it. "boss" is an executor without an agent."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def answer(self, body: bytes) -> bytes:
        """What a transport gets."""
        return (await self.bench.dispatch.answer(body)).body

    def hand(self, name: str, **settings: Any) -> Hand:
        """An agent, not running yet."""
        return Hand(self, name, **settings)

    async def get(self, process_id: str) -> Process:
        return await self.bench.get("boss", process_id)

    async def cancel(self, process_id: str) -> None:
        await self.bench.call(CancelProcess(processid=process_id), key("boss"))

    async def while_in(self, process_id: str, state: int) -> Process:
        """The process, once it has left a state."""
        message = GetProcess(processid=process_id, waitwhile=state, timeout=PATIENCE_S)
        return await self.bench.process(message, key("boss"))

    async def ended(self, process_id: str) -> Process:
        """The process, once it is final."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await self.get(process_id)).is_final:
                await self.while_in(process_id, found.state)
        return found


@contextlib.asynccontextmanager
async def workshop(*names: str) -> AsyncGenerator[Workshop]:
    """A colony with these executors, and "boss", who may submit, cancel and look."""
    async with bench(MemoryStore()) as made:
        await made.found(*names)
        await made.hire("boss", type="boss")
        yield Workshop(made)
