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
        self._can_hold = False

    async def read(
        self, process_id: str, *, while_state: int | None = None, is_own: bool = False
    ) -> Process:
        """The process: now, or once it has left `while_state` or `hold_s` are over.

        It may come early where nothing is held. Only those who follow what the agent itself runs
        (`is_own`) may have more than half of the places. Raises `ServerError` for what will not
        pass.
        """
        failures = 0
        while True:
            try:
                return await self._once(process_id, while_state, is_own=is_own)
            except (ServerError, UnreachableError) as error:
                if not is_transient(error):
                    raise
                failures += 1
                await asyncio.sleep(self.backoff.delay_s(failures, at_least_s=advice_s(error)))

    def was_held(self, asked_s: float) -> bool:
        """Whether an answer to a question of this loop time was held back: then ask on at once."""
        took_s = asyncio.get_running_loop().time() - asked_s
        is_held = took_s >= max(1, self.hold_s) / 2
        self._can_hold = self._can_hold or is_held
        return is_held

    def pause_s(self, asked_s: float, early: int) -> float:
        """How long to wait after the `early`-th answer in a row (from 1) that was not held.

        A server that can hold and does not is about to stop or has just been changed: it is asked
        again soon.
        """
        if self._can_hold and self.held < self.capacity:
            return min(self.check_s, self.backoff.delay_s(early))
        return max(0.0, asked_s + self.check_s - asyncio.get_running_loop().time())

    async def _once(self, process_id: str, while_state: int | None, *, is_own: bool) -> Process:
        places = self.capacity if is_own else self.capacity // 2
        if while_state is None or self.held >= places:
            return await self.client.get(process_id)
        self.held += 1
        try:
            return await self.client.get(process_id, while_state=while_state, timeout_s=self.hold_s)
        finally:
            self.held -= 1
