"""Forgetting history: what ended too long ago, and the oldest of what is too much. Off by default.

It looks at the start, then when the oldest that is kept comes of age, at the latest in an hour; and
at once when a colony holds a hundredth more than its number. Nothing is polled. It works in small
commits with pauses, so that nobody waits for it. Where it is stopped, it goes on at the next start.
Of several nodes the leader does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, NamedTuple

from colonist_core.retention import Policy
from colonist_protocol.errors import ColonistError
from colonist_server.loops.leadership import Leadership
from colonist_server.repo.clock import Clock
from colonist_server.repo.forgetting import Forgetting
from colonist_server.repo.leftovers import Leftovers
from colonist_server.repo.nouns import Colony
from colonist_server.repo.retirement import Oldest, Retirement
from colonist_server.repo.view import View

log = logging.getLogger(__name__)

BATCH: Final = 24
"""Processes are removed so many at a time: about as much as one commit takes."""
PAUSE_S: Final = 0.005
RETRY_S: Final = 60.0

_END_OF_TIME: Final = 2**64 - 1

RetireWorkflows = Callable[[Colony, int], Awaitable[None]]
"""Removes a colony's workflows that ended at this time (ns) or before, each with its members."""


class _Done(NamedTuple):
    """How many members of workflows were passed over, and when the last one looked at ended."""

    members: int
    last_ns: int


class Retention:
    """Keeps the history of each colony within the policy."""

    __slots__ = (
        "_clock",
        "_crowded",
        "_floors",
        "_forgetting",
        "_leadership",
        "_leftovers",
        "_policy",
        "_retire_workflows",
        "_retirement",
        "_view",
        "_woken",
    )

    def __init__(
        self,
        view: View,
        clock: Clock,
        *,
        retirement: Retirement,
        leftovers: Leftovers,
        leadership: Leadership,
        policy: Policy,
        retire_workflows: RetireWorkflows | None = None,
        forgetting: Forgetting | None = None,
    ) -> None:
        self._view = view
        self._retirement = retirement
        self._leftovers = leftovers
        self._leadership = leadership
        self._clock = clock
        self._policy = policy
        self._retire_workflows = retire_workflows
        self._forgetting = forgetting
        self._crowded: set[Colony] = set()
        self._floors: dict[bytes, int] = {}
        """By tag: how many were left when no more could be removed."""
        self._woken = asyncio.Event()
        if policy.count:
            view.on_closed.append(self._closed)

    async def run(self) -> None:
        """Forget until cancelled; returns at once where nothing is ever forgotten."""
        if not self._policy.is_on:
            return
        while True:
            until = self._clock.monotonic() + await self._guarded(self._look)
            while self._clock.monotonic() < until and await self._is_woken(until):
                await self._guarded(self._trim_crowded)

    def _closed(self, colony: Colony) -> None:
        if self._policy.is_crowded(sum(colony.ended), self._floors.get(colony.tag, 0)):
            self._crowded.add(colony)
            self._woken.set()

    async def _is_woken(self, until: float) -> bool:
        """Wait until a colony is crowded: True; or until then: False."""
        try:
            async with asyncio.timeout_at(until):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def _guarded(self, work: Callable[[], Awaitable[float]]) -> float:
        await self._leadership.wait()
        try:
            return await work()
        except ColonistError as error:
            log.warning("history is not removed, trying again: %s", error)
        except Exception:  # what is stored must not end the server at each start (P1)
            log.exception("history is not removed")
        await asyncio.sleep(RETRY_S)
        return 0.0

    async def _look(self) -> float:
        """Everything, once; the seconds until it is to be done again."""
        self._floors = {tag: n for tag, n in self._floors.items() if tag in self._view.tags}
        waits = [self._policy.wait_s(0, 0)]
        for colony in list(self._view.tags.values()):
            waits.append(await self._look_at(colony))
            await self._trim(colony)
            await self._forget(colony)
        return min(waits)

    async def _forget(self, colony: Colony) -> None:
        """Evidence is kept twice as long as what it is about."""
        now_ns = self._clock.now_ns()
        kept_ns = self._policy.horizon_ns(now_ns)
        kept_ns = kept_ns or await self._retirement.oldest(colony).next_ns() or now_ns
        if self._forgetting is not None and not colony.is_gone:
            await self._forgetting.forget(colony, 2 * kept_ns - now_ns, now_ns)

    async def _look_at(self, colony: Colony) -> float:
        horizon_ns = self._policy.horizon_ns(self._clock.now_ns())
        if not horizon_ns:
            return self._policy.wait_s(0, 0)
        oldest = self._retirement.oldest(colony)
        await self._retire(colony, oldest, horizon_ns)
        if self._retire_workflows is not None:
            await self._retire_workflows(colony, horizon_ns)
        async with aclosing(self._leftovers.forget(colony, horizon_ns)) as commits:
            async for _ in commits:
                await asyncio.sleep(PAUSE_S)
                await self._leadership.wait()
        return self._policy.wait_s(self._clock.now_ns(), await oldest.next_ns())

    async def _trim_crowded(self) -> float:
        while self._crowded:
            colony = self._crowded.pop()
            try:
                await self._trim(colony)
            except Exception:
                self._crowded.add(colony)
                self._woken.set()
                raise
        return 0.0

    async def _trim(self, colony: Colony) -> None:
        surplus = self._policy.surplus(sum(colony.ended))
        if surplus:
            oldest = self._retirement.oldest(colony)
            done = await self._retire(colony, oldest, _END_OF_TIME, surplus)
            if self._retire_workflows is not None:
                await self._retire_workflows(colony, done.last_ns)
            kept = sum(colony.ended)
            # What ended meanwhile has called for a trim of its own.
            if done.members and self._policy.surplus(kept):
                self._floors[colony.tag] = kept
            else:
                self._floors.pop(colony.tag, None)

    async def _retire(
        self, colony: Colony, oldest: Oldest, until_ns: int, most: int = _END_OF_TIME
    ) -> _Done:
        """Remove the oldest up to a time, or up to a number of them."""
        count = members = last_ns = 0
        while count < most and not colony.is_gone:
            await self._leadership.wait()
            batch = await oldest.take(min(BATCH, most - count), until_ns)
            if not batch:
                break
            await self._retirement.retire(colony, batch)
            count += len(batch)
            members += sum(not old.is_lone for old in batch)
            last_ns = batch[-1].ended_ns
            await asyncio.sleep(PAUSE_S)
        if count > members:
            name = colony.record.name
            log.info("removed closed processes=%d colony=%s", count - members, name)
        return _Done(members, last_ns)
