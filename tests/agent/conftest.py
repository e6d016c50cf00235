"""What agent tests share."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import Any

from colonist_agent.agent import Agent, Limits
from colonist_client.client import Client
from colonist_client.retry import Backoff
from colonist_protocol.identity import Identity
from tests.support.fake_server import FakeServer
from tests.support.transports import DirectTransport

KEY = Identity(bytes(31) + b"\x07")


class Stage:
    """A fake server, an agent with a key that it knows, and the way between them."""

    def __init__(self, *, backoff: Backoff | None = None, **limits: Any) -> None:
        self.server = FakeServer()
        self.server.approve(KEY.id)
        self.transport = DirectTransport(self.server.answer)
        self.client = Client(self.transport, KEY)
        self.agent = Agent(
            self.client,
            "home",
            backoff=backoff or Backoff(uniform=random.Random(1).uniform),
            limits=Limits(**limits),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[FakeServer]:
        """The agent runs for the length of the block and is then stopped gently."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.agent.run())
            try:
                yield self.server
            finally:
                self.agent.stop()
