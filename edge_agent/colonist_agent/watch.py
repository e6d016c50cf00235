"""Reads of processes that last until the answer is there, held at the server where it can hold.

A Colonist server keeps back the answer while the process stays as it is; the reference server
answers at once. Each held read is an open request of this agent, beside the one that asks for work,
so their number is bounded; whoever finds no room asks plainly.
"""

from __future__ import annotations

import asyncio
from typing import Final

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.transport import UnreachableError
from colonist_protocol.process import Process

MAX_HELD: Final = 60
"""Held reads of one agent at once: below what a bridge holds for one device."""


class Watch:
    """The reads of one agent. Failures that may pass are waited out, however long they last."""

    def __init__(
        self,
        client: Client,
        *,
        backoff: Backoff,
        hold_s: int = 30,
        check_s: float = 15.0,
        capacity: int = MAX_HELD,
    ) -> None:
        """`hold_s`: how long the server may hold; `check_s`: how often to ask one that does not."""
        self.client = client
        self.backoff = backoff
        self.hold_s = hold_s
        self.check_s = check_s
        self.capacity = capacity
        self.held = 0

    async def read(self, process_id: str, *, while_state: int | None = None) -> Process:
        """The process: now, or once it has left `while_state` or `hold_s` are over.

        It may come early where nothing is held. Raises `ServerError` for what will not pass.
        """
        failures = 0
        while True:
            try:
                return await self._once(process_id, while_state)
            except (ServerError, UnreachableError) as error:
                if not is_transient(error):
                    raise
                failures += 1
                await asyncio.sleep(self.backoff.delay_s(failures, at_least_s=advice_s(error)))

    def was_held(self, asked_s: float) -> bool:
        """Whether an answer to a question of this loop time was held back: then ask on at once."""
        return asyncio.get_running_loop().time() - asked_s >= self.hold_s / 2

    async def _once(self, process_id: str, while_state: int | None) -> Process:
        if while_state is None or self.held >= self.capacity:
            return await self.client.get(process_id)
        self.held += 1
        try:
            return await self.client.get(process_id, while_state=while_state, timeout_s=self.hold_s)
        finally:
            self.held -= 1
