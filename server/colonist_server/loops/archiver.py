"""Moving history to the archive: what ended some time ago, and the oldest of what is too much.

It looks when the oldest that is in the store comes of age, and at once when the store holds too
much. Nothing is polled. It works in small commits with pauses, on the node that leads. While the
archive is away it waits; nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Final, Protocol

from colonist_core.archiving import Policy
from colonist_protocol.errors import ColonistError
from colonist_protocol.process import FINAL
from colonist_server.repo import keys
from colonist_server.repo.archiving import BATCH, Archiving
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past_removal import PastRemoval
from colonist_server.repo.records import decode_workflow
from colonist_server.repo.retirement import Old, Oldest
from colonist_server.repo.writes import Writes

log = logging.getLogger(__name__)

PAUSE_S: Final = 0.002
RETRY_S: Final = 10.0
CHECKPOINT_S: Final = 6.0
"""So long after it ended a process stands in a checkpoint."""
GRACE_S: Final = 5.0
"""After the start, what was interrupted is finished before its traces are moved."""
LOOK_S: Final = 1.0
LINES_S: Final = 60.0
PER_MEMBER_S: Final = 0.002
"""Members of workflows that have not ended are passed over at each look: the more, the rarer."""
LONGEST_S: Final = 3600.0

_END_OF_TIME: Final = 2**64 - 1
_LISTED: Final = 100


class Leads(Protocol):
    """Whether this node acts."""

    @property
    def is_leader(self) -> bool:
        """Whether it may act now."""
        ...

    async def wait(self) -> None:
        """Return when it may."""
        ...


class Archiver:
    """Keeps the store small.

    `fold` stores the tallies of functions, which are made of what is moved; `needed` names the
    workflows whose results somebody will read soon.
    """

    __slots__ = (
        "_archiving",
        "_clock",
        "_fold",
        "_is_away",
        "_leads",
        "_lines_at",
        "_members",
        "_needed",
        "_policy",
        "_removal",
        "_since",
        "_view",
        "_woken",
        "_writes",
    )

    def __init__(
        self,
        writes: Writes,
        archiving: Archiving,
        removal: PastRemoval,
        clock: Clock,
        *,
        policy: Policy,
        leads: Leads,
        fold: Callable[[], Awaitable[None]],
        needed: Callable[[], set[bytes]],
    ) -> None:
        self._writes = writes
        self._view = writes.view
        self._archiving = archiving
        self._removal = removal
        self._clock = clock
        self._policy = policy
        self._leads = leads
        self._fold = fold
        self._needed = needed
        self._since = self._members = 0
        self._lines_at = 0.0
        self._is_away = False
        self._woken = asyncio.Event()
        writes.view.on_closed.append(self._closed)

    async def run(self) -> None:
        """Move until cancelled."""
        await asyncio.sleep(GRACE_S)
        while True:
            await self._leads.wait()
            wait_s = await self._guarded()
            try:
                async with asyncio.timeout(max(wait_s, LOOK_S)):
                    await self._woken.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(LOOK_S)

    def _closed(self, colony: Colony) -> None:
        """The first end after a long silence, and then too many, call for a look."""
        del colony
        self._since += 1
        if self._since >= self._policy.most(self._mean_bytes):
            self._woken.set()

    async def _guarded(self) -> float:
        try:
            wait_s = await self._look()
        except ColonistError as error:
            if not self._is_away:
                log.warning("history is not archived, trying again: %s", error)
            self._is_away = True
            return RETRY_S
        except Exception:  # what is stored must not end the server at each start (P1)
            log.exception("history is not archived")
            return LINES_S
        if self._is_away:
            log.warning("history is archived again")
        self._is_away = False
        return wait_s

    async def _look(self) -> float:
        """All that is due, once; the seconds until it is to be done again."""
        self._woken.clear()
        through = self._view.watched_revision
        await self._fold()
        self._members = 0
        horizon_ns = self._policy.horizon_ns(self._clock.now_ns())
        colonies = list(self._view.tags.values())
        kept = sum(sum(colony.closed) for colony in colonies)
        surplus = self._policy.surplus(kept, self._mean_bytes)
        with_lines = self._clock.monotonic() >= self._lines_at
        due_ns = [
            await self._look_at(
                colony,
                horizon_ns,
                through,
                surplus=-(-surplus * sum(colony.closed) // kept) if surplus else 0,
                with_lines=with_lines,
            )
            for colony in colonies
        ]
        if with_lines:
            self._lines_at = self._clock.monotonic() + max(LINES_S, self._policy.age_s)
        self._since = sum(sum(colony.closed) for colony in self._view.tags.values())
        oldest_ns = min((each for each in due_ns if each), default=0)
        wait_s = self._policy.wait_s(self._clock.now_ns(), oldest_ns)
        if surplus and self._policy.surplus(self._since, self._mean_bytes):
            wait_s = min(wait_s, CHECKPOINT_S)  # what was too much is not in a checkpoint yet
        return max(wait_s, min(self._members * PER_MEMBER_S, LINES_S))

    @property
    def _mean_bytes(self) -> float:
        moved = self._archiving.moved
        return self._archiving.moved_bytes / moved if moved else 0.0

    async def _look_at(
        self, colony: Colony, horizon_ns: int, through: int, *, surplus: int, with_lines: bool
    ) -> int:
        """When the oldest that stays ended; 0: nothing stays."""
        await self._removal.finish(colony)
        await self._archiving.resume(colony)
        through = min(through, self._archiving.covered(colony))
        oldest = Oldest(self._writes, colony)
        last_ns = await self._move(colony, oldest, horizon_ns, _END_OF_TIME, through)
        if surplus:
            last_ns = await self._move(colony, oldest, _END_OF_TIME, surplus, through)
        await self._move_workflows(colony, max(last_ns, horizon_ns), through)
        if with_lines:
            async with aclosing(self._archiving.move_lines(colony, horizon_ns)) as commits:
                async for _ in commits:
                    await asyncio.sleep(PAUSE_S)
            async with aclosing(self._archiving.move_results(colony)) as commits:
                async for _ in commits:
                    await asyncio.sleep(PAUSE_S)
            async with aclosing(self._archiving.move_evidence(colony, horizon_ns)) as commits:
                async for _ in commits:
                    await asyncio.sleep(PAUSE_S)
        return await oldest.next_ns()

    async def _move(
        self, colony: Colony, oldest: Oldest, until_ns: int, most: int, through: int
    ) -> int:
        """Move the oldest up to a time, or up to a number; when the last of them ended."""
        last_ns = 0
        batch = await oldest.take(min(BATCH, most), until_ns)
        while batch and self._may_go_on(colony):
            most -= len(batch)
            after = await oldest.take(min(BATCH, most), until_ns) if most > 0 else []
            pids = list(self._movable(batch, through))
            if pids:
                await self._archiving.move(colony, pids, list(self._movable(after, through)))
                await asyncio.sleep(PAUSE_S)
            last_ns = batch[-1].ended_ns
            batch = after
        return last_ns

    def _movable(self, batch: list[Old], through: int) -> Iterator[bytes]:
        """Those that belong to no workflow, as far as the tallies are stored."""
        for old in batch:
            if not old.is_lone:
                self._members += 1
            elif old.revision <= through:
                yield old.pid

    def _may_go_on(self, colony: Colony) -> bool:
        return self._leads.is_leader and not colony.is_gone

    async def _move_workflows(self, colony: Colony, until_ns: int, through: int) -> None:
        """Move the workflows that ended until then, with their members."""
        for state in sorted(FINAL):
            if not colony.closed_workflows[state]:
                continue
            prefix = keys.ended_in(colony.tag, state, keys.KIND_WORKFLOW)
            after = b""
            more = True
            while more and self._may_go_on(colony):
                page = await self._writes.range(
                    prefix, after=after, limit=_LISTED, reverse=True, keys_only=True
                )
                for item in page.items:
                    if item.modified <= through:
                        await self._move_workflow(colony, item.key[-keys.WID_BYTES :], until_ns)
                # Nothing that was submitted later has ended by then.
                is_past = page.items and keys.time_of_ended(page.items[-1].key) > until_ns
                more = page.more and not is_past
                after = page.items[-1].key if page.items else b""

    async def _move_workflow(self, colony: Colony, wid: bytes, until_ns: int) -> None:
        head = await self._writes.read(keys.workflow(wid))
        if head is None or decode_workflow(head.value).ended_ns > until_ns:
            return
        if wid not in self._needed() and self._may_go_on(colony):
            await self._archiving.move_workflow(colony, wid)
            await asyncio.sleep(PAUSE_S)
