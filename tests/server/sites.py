"""Nodes on one store in virtual time, reduced to what hands out work: for tests of sharing.

A commit takes 2 ms, the watch is 1.5 ms late, and what a node asks for is told once a second.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from colonist_core.matching import Profile, placement
from colonist_core.process import Cause, Limits, Live, born
from colonist_protocol.errors import ColonistError
from colonist_protocol.executor import ExecutorState
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.handover import HandOver
from colonist_server.repo.load import load
from colonist_server.repo.nouns import Colony, Executor
from colonist_server.repo.records import ColonyRecord, ExecutorRecord, decode_live, encode
from colonist_server.repo.view import View
from colonist_server.repo.waiting import Ask, Grant, Waiter
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Delete, Guard, Put
from tests.support.rooms import LoopClock, settle
from tests.support.shared_store import Connection, SharedStore

ANSWER_S = 0.002
LAG_S = 0.0015
TOLD_S = 1.0
TAG = b"\0\0\0\1"
TYPE = "cli"
NO_LIMITS = Limits(-1, -1, -1)


class Told:
    """What a node was told of what others ask for."""

    def __init__(self) -> None:
        self.classes: dict[str, tuple[tuple[bytes, str], ...]] = {}

    def interested(self, tag: bytes, type: str) -> tuple[str, ...]:
        return tuple(name for name, told in self.classes.items() if (tag, type) in told)


class Site:
    """One node."""

    def __init__(self, name: str, shared: SharedStore, spawn: Any) -> None:
        self.name = name
        self.told = Told()
        self.store = Connection(shared, answer_s=ANSWER_S, lag_s=LAG_S)
        self.writes = Writes(self.store, View())
        self.view = self.writes.view
        self.clock = LoopClock()
        self.hand_over = HandOver(
            self.writes, self.view, self.clock, spawn, node=name, peers=self.told
        )

    @property
    def colony(self) -> Colony:
        return self.view.tags[TAG]

    async def follow(self, revision: int) -> None:
        async with aclosing(self.store.watch(revision)) as events:
            async for event in events:
                self.view.watched(event)

    def ask(self, name: str) -> Ask:
        executor = self.colony.executors[name]
        assert isinstance(executor, Executor)
        profile = Profile(executor.record.type, name)
        return Ask(self.colony, executor, profile, Cause(executor.record.id))

    def waiters(self) -> list[Waiter]:
        room = self.hand_over._rooms.get(self.colony)
        return room.everyone() if room is not None else []


class Town:
    """All nodes, who submits to them and who works for them."""

    def __init__(self, nodes: int, workers: int, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.workers = [f"e{number}" for number in range(workers)]
        self.shared = SharedStore()
        self.tasks: list[asyncio.Task[Any]] = []
        self.sites = [Site(f"node-{number}", self.shared, self.spawn) for number in range(nodes)]
        self.attempts: Counter[bytes] = Counter()
        self.order: list[bytes] = []
        self.submitted = 0

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.start(work())

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self.tasks.append(task)
        return task

    async def open(self) -> None:
        """Found a colony, hire everybody, and let all nodes follow."""
        commits = [Put(keys.colony(TAG), encode(ColonyRecord(name="dev", owner="")))]
        for name in self.workers:
            record = ExecutorRecord(name.encode().hex(), TYPE, ExecutorState.APPROVED, 0)
            commits.append(Put(keys.executor(TAG, name), encode(record)))
        for put in commits:
            await self.shared.commit([Guard(put.key, 0)], [put])
        for site in self.sites:
            self.start(site.follow(await load(site.writes)))
            self.start(self._tell(site))

    async def close(self) -> None:
        self.check()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _tell(self, site: Site) -> None:
        while True:
            classes = site.hand_over.classes()
            for other in self.sites:
                if other is not site:
                    other.told.classes[site.name] = classes
            await asyncio.sleep(TOLD_S)

    async def submit(self, site: Site, **wanted: Any) -> bytes:
        """As `repo.processes` does: a waiter of the node gets it in the same commit."""
        self.submitted += 1
        now_ns = site.clock.now_ns()
        pid = keys.process_id(TAG, now_ns, self.random.randbytes(keys.RANDOM_BYTES))
        live = born(
            pid.hex(),
            now_ns=now_ns,
            priority_ns=now_ns,
            placement=placement(type=TYPE, location="", cpu=0, mem=0, **{"names": None, **wanted}),
            limits=NO_LIMITS,
            label="",
            initiator="",
            funcname="f",
            cause=Cause(),
        )
        waiter = site.hand_over.claim_waiter(site.colony, live)
        stored = live
        if waiter is not None:
            stored = site.hand_over.assigned_to(live, pid, waiter.ask.cause)
        ops = [Put(keys.birth(pid), b""), Put(keys.live(pid), encode(stored))]
        assert await site.writes.commit([Guard(keys.birth(pid), 0)], ops)
        if waiter is not None:
            site.hand_over.grant_to(waiter, Grant(pid, stored))
        return pid

    async def backlog(self, many: int) -> list[bytes]:
        """So many processes at once, in the store before anybody asks."""
        pids: list[bytes] = []
        for number in range(many):
            pid = keys.process_id(TAG, number, self.random.randbytes(keys.RANDOM_BYTES))
            live: Live = born(
                pid.hex(),
                now_ns=number,
                priority_ns=number,
                placement=placement(type=TYPE, names=None, location="", cpu=0, mem=0),
                limits=NO_LIMITS,
                label="",
                initiator="",
                funcname="f",
                cause=Cause(),
            )
            pids.append(pid)
            ops = [Put(keys.birth(pid), b""), Put(keys.live(pid), encode(live))]
            await self.shared.commit([Guard(keys.birth(pid), 0)], ops)
        self.submitted += many
        await asyncio.sleep(2 * LAG_S)
        return pids

    async def work(self, site: Site, name: str, *, each_s: float = 0.0) -> None:
        """Ask, run, close, for ever."""
        while True:
            try:
                grant = await site.hand_over.assign(site.ask(name), 50)
            except ColonistError:
                await asyncio.sleep(0.01)
                continue
            await self.run(site, grant, each_s)

    async def run(self, site: Site, grant: Grant, each_s: float) -> None:
        self.attempts[grant.pid] += 1
        self.order.append(grant.pid)
        await asyncio.sleep(self.random.uniform(0.5, 1.5) * each_s)
        key = keys.live(grant.pid)
        row = site.view.rows[grant.pid]
        assert await site.writes.commit([Guard(key, row.revision)], [Delete(key)])

    def employ(self, *, each_s: float = 0.0, at: list[Site] | None = None) -> None:
        """Let all work, evenly at the nodes, or at these."""
        sites = at or self.sites
        for number, name in enumerate(self.workers):
            site = sites[number % len(sites)]
            self.start(self.work(site, name, each_s=each_s))

    async def done(self, limit_s: float) -> None:
        """Until everything that was submitted was run, and closed."""
        async with asyncio.timeout(limit_s):
            while sum(self.attempts.values()) < self.submitted or self.waiting():
                await asyncio.sleep(0.01)
                self.check()
        await settle()

    def check(self) -> None:
        """See that whatever runs beside has not failed."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    def waiting(self) -> dict[bytes, Live]:
        """What waits, by the store."""
        lives = {item.key[2:]: decode_live(item.value) for item in self.shared.under(keys.LIVE)}
        return {pid: live for pid, live in lives.items() if live.state == State.WAITING}

    @property
    def conflicts(self) -> float:
        """The part of the assignments that were lost to another node's."""
        lost = sum(site.hand_over.conflicts for site in self.sites)
        return lost / sum(site.hand_over.grants for site in self.sites)

    async def watch_over(self, limit_s: float = 0.050) -> None:
        """See that nothing that fits waits for each other for so long (invariant 6)."""
        since: dict[object, float] = {}
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            waiting = self.waiting()
            parked = [waiter for site in self.sites for waiter in site.waiters()]
            there = {*waiting, *parked}
            since = {one: since.get(one, now) for one in there}
            for waiter in parked:
                for pid, live in waiting.items():
                    is_long = max(since[waiter], since[pid]) + limit_s < now
                    names = live.placement.names
                    fits = not names or waiter.profile.name in names
                    assert not (is_long and fits), (pid.hex(), waiter.profile)
            await asyncio.sleep(0.005)
