"""Who was heard when: kept in memory, stored once a minute, and stale executors unregistered.

Every signed call of an executor counts as a sign of life, and one that waits for work or holds an
unexpired process is never taken for stale (COLONIES-RPC W4).

Where nodes share the store each stores whom it heard, those who wait there for work among them, and
learns once a minute whom the others heard. The leader unregisters; what the others know may be a
minute old, and it allows for that. After an outage, and while clocks disagree, nobody is
unregistered.
"""

from __future__ import annotations

import asyncio
import logging

from colonist_protocol.errors import ColonistError, CorruptRecordError
from colonist_protocol.times import SECOND_NS
from colonist_server.loops.leadership import Leadership
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.members import Members
from colonist_server.repo.nodes import SKEW_NS, Nodes
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import all_ids, decode_heard, encode
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Delete, Guard, Put

log = logging.getLogger(__name__)

EXECUTORS_PER_RECORD = 10_000
FORGOTTEN_NS = 86_400 * SECOND_NS
SURE_LOOKS = 3
"""So many in a row, and every node that is at work has written down whom it heard."""


class Presence:
    """Signs of life."""

    __slots__ = (
        "_clock",
        "_every_s",
        "_is_shared",
        "_leadership",
        "_looked_ns",
        "_looks",
        "_members",
        "_node",
        "_nodes",
        "_stale_ns",
        "_stored",
        "_writes",
    )

    def __init__(
        self,
        writes: Writes,
        members: Members,
        clock: Clock,
        leadership: Leadership,
        *,
        nodes: Nodes,
        every_s: float,
        stale_s: float,
    ) -> None:
        self._writes = writes
        self._members = members
        self._clock = clock
        self._leadership = leadership
        self._is_shared = writes.store.is_shared
        self._nodes = nodes
        self._node = nodes.name
        self._every_s = every_s
        self._stale_ns = int(stale_s * SECOND_NS)
        if self._is_shared and stale_s:
            self._stale_ns += int(every_s * SECOND_NS) + SKEW_NS
        self._stored = (0, 0)
        self._looks = 0
        self._looked_ns = 0

    async def load(self) -> None:
        """Take over what was stored."""
        heard: dict[bytes, int] = {}
        for item in (await self._writes.range(keys.HEARD)).items:
            for key, time_ns in _heard_in(item.value).items():
                heard[key] = max(time_ns, heard.get(key, 0))
        for colony in self._writes.view.colonies.values():
            for executor in colony.executors.values():
                executor.heard_ns = max(executor.heard_ns, heard.get(executor.key, 0))

    async def run(self) -> None:
        """Store and reap until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._look()
            except ColonistError as error:
                self._looks = 0
                log.warning("presence not stored, trying again: %s", error)

    async def _look(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns > 2 * self._every_s * SECOND_NS:  # it stood still
            self._looks = 0
        self._looked_ns = now_ns
        await self.store()
        if self._is_shared:
            await self.load()
        self._looks += 1
        if self._leadership.is_leader and self._is_sure:
            await self.reap()
            await self._forget_nodes()

    @property
    def _is_sure(self) -> bool:
        """Whether what is known here of when executors were heard is true.

        After an outage, a pause or a start the other nodes have to write down first who is there,
        and times by a wrong clock say nothing.
        """
        if not self._is_shared:
            return True
        return self._looks >= SURE_LOOKS and not self._nodes.are_clocks_apart

    async def store(self) -> None:
        """Store what was heard since the last time, if anything was."""
        if self._is_shared:
            self._hear_waiting()
        heard = {
            executor.key: executor.heard_ns
            for colony in self._writes.view.colonies.values()
            for executor in colony.executors.values()
            if executor.heard_ns
        }
        # Somebody was heard, or a colony was removed.
        state = (max(heard.values(), default=0), len(heard))
        if state == self._stored:
            return
        entries = list(heard.items())
        starts = range(0, len(entries), EXECUTORS_PER_RECORD)
        for number, start in enumerate(starts):
            part = dict(entries[start : start + EXECUTORS_PER_RECORD])
            await self._write(keys.heard_part(self._node, number), part)
        await self._forget_parts(len(starts))
        self._stored = state

    def _hear_waiting(self) -> None:
        """Whoever waits here for work is there; another node can know only from the record."""
        now_ns = self._clock.now_ns()
        for colony in self._writes.view.colonies.values():
            for executor in colony.executors.values():
                if executor.asking:
                    executor.heard_ns = now_ns

    async def _write(self, key: bytes, part: dict[bytes, int]) -> None:
        before = await self._writes.read(key)
        guard = Guard(key, before.modified if before is not None else 0)
        await self._writes.commit([guard], [Put(key, encode(part))])

    async def _forget_parts(self, count: int) -> None:
        """Delete the parts beyond the first `count`."""
        stored = await self._writes.range(keys.heard_of(self._node), keys_only=True)
        kept = {keys.heard_part(self._node, number) for number in range(count)}
        for item in stored.items:
            if item.key not in kept:
                await self._writes.commit([Guard(item.key, item.modified)], [Delete(item.key)])

    async def _forget_nodes(self) -> None:
        """Delete what nodes that are gone for long have left."""
        horizon_ns = self._clock.now_ns() - max(self._stale_ns, FORGOTTEN_NS)
        for item in (await self._writes.range(keys.HEARD)).items if self._is_shared else ():
            newest_ns = max(_heard_in(item.value).values(), default=0)
            is_alive = self._nodes.is_alive(keys.name_of_heard(item.key))
            if not is_alive and newest_ns < horizon_ns:
                await self._writes.commit([Guard(item.key, item.modified)], [Delete(item.key)])

    async def reap(self) -> None:
        """Unregister executors that nobody has heard for too long and that hold no work."""
        if not self._stale_ns:
            return
        horizon_ns = self._clock.now_ns() - self._stale_ns
        for colony in list(self._writes.view.colonies.values()):
            busy = {row.live().executor for row in colony.running.values()}
            for name in _stale(colony, horizon_ns, busy):
                log.info("unregistering stale executor=%s colony=%s", name, colony.record.name)
                await self._members.remove_executor(colony, name)


def _stale(colony: Colony, horizon_ns: int, busy: set[str]) -> list[str]:
    return [
        executor.name
        for executor in colony.executors.values()
        if executor.is_approved
        and not executor.record.claim  # it may sleep for long; its owner removes it
        and not executor.asking
        and 0 < executor.heard_ns < horizon_ns
        and busy.isdisjoint(all_ids(executor.record))
    ]


def _heard_in(value: bytes) -> dict[bytes, int]:
    """Nobody's work hangs on it, and it is written anew every minute."""
    try:
        return decode_heard(value)
    except CorruptRecordError as error:
        log.warning("when executors were last heard: %s", error)
        return {}
