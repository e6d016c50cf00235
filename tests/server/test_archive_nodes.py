"""Two nodes with one archive: whoever dies at whatever moment of a move, nobody sees a difference.

The store's watch lags, the archive takes its time, and what a dead node had sent to either may
still arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from colonist_protocol.colony import GetColonyStatistics
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import (
    CancelProcess,
    GetProcess,
    GetProcesses,
    RemoveProcess,
    State,
)
from colonist_protocol.server import GetStatistics
from colonist_protocol.workflow import GetProcessGraphs
from colonist_server.archive.interface import LATEST_S, Row
from colonist_server.repo import keys, ledger
from colonist_server.rpc.dispatch import Answer
from tests.server.history import UMA, History
from tests.server.people import World
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, OWNER, Refused

AGE_S = 100.0
SLOW_S = 0.01
LOOK_S = 0.003
IDLE_S = 0.11
ENDS = (State.SUCCESS, State.FAILED, State.CANCELLED)
NAMES = ("successful", "failed", "cancelled")


class Far(MemoryArchive):
    """An archive over a network: what was sent arrives, whether or not its sender lives."""

    def __init__(self) -> None:
        super().__init__(is_local=False)
        self.late_s = SLOW_S
        self.on_put = asyncio.Event()

    async def put(self, rows: Sequence[Row]) -> None:
        self.on_put.set()
        await asyncio.shield(asyncio.ensure_future(self._arrive(list(rows), self.late_s)))

    async def _arrive(self, rows: list[Row], after_s: float) -> None:
        await asyncio.sleep(after_s)
        await super().put(rows)


class Anywhere(World):
    """Whoever is there answers; each time another."""

    def __init__(self, made: Cluster, archive: Far) -> None:
        self._made = made
        self.archive = archive
        self._turn = 0
        self.only = ""

    @property
    def dispatch(self) -> Any:
        names = [self.only] if self.only else sorted(self._made.members)
        self._turn += 1
        return self._made[names[self._turn % len(names)]].bench.dispatch

    async def answer(self, message: Message, identity: Identity) -> Answer:
        # Not to wait for ever for a node that dies.
        async with asyncio.timeout(120):
            return await super().answer(message, identity)


@asynccontextmanager
async def two(archive: Far, **settings: Any) -> AsyncGenerator[Cluster]:
    quiet = {"stale_s": 0.0, "presence_every_s": 1e9, "tallies_every_s": 1e9}
    async with cluster("a", archive=archive, **{**quiet, "archive_age_s": AGE_S, **settings}) as up:
        await up.elected()
        await up.start("b")
        assert up["a"].leads
        yield up


async def _glance(world: World) -> list[Any]:
    """Counts, and everything that has ended: in one moment of the store."""
    wanted: list[Message] = [GetColonyStatistics(colonyname=COLONY)]
    for state in ENDS:
        wanted.append(GetProcesses(colonyname=COLONY, state=state, count=100))
        wanted.append(GetProcessGraphs(colonyname=COLONY, state=state, count=100))
    answers = [await world.answer(message, UMA) for message in wanted]
    return [(each.status, each.body) for each in answers]


async def _look_on(made: Cluster, world: Anywhere, before: list[Any], seen: list[int]) -> None:
    """Look again and again, most while something moves; nothing changes."""
    known: list[Any] = []
    fast = 0
    while True:
        assert await _glance(world) == before
        seen.append(1)
        now = [made.store.under(keys.PAST), world.archive.puts]
        fast = 6 if now != known else fast - 1
        known = now
        await asyncio.sleep(LOOK_S if fast > 0 else IDLE_S)


async def _until_moved(made: Cluster, within_s: float = 300.0) -> None:
    left = (keys.CLOSED, keys.ENDED, keys.OUTPUT, keys.EVENTS, keys.ATTRIBUTE, keys.WORKFLOW)
    async with asyncio.timeout(within_s):
        while any(made.store.under(prefix) for prefix in left) or _account(made)[0]:
            await asyncio.sleep(0.5)


def _account(made: Cluster) -> tuple[Any, ...]:
    past = next(iter(made.members.values())).bench.colony.past
    return past.moving, past.removing


@pytest.mark.parametrize("way", ["before", "after", "late", "lost"])
@pytest.mark.parametrize("at", range(10))
@virtual
async def test_a_leader_that_dies_at_any_commit_of_a_move_changes_nothing_for_others(
    at: int, way: str
) -> None:
    archive = Far()
    async with two(archive) as made:
        world = Anywhere(made, archive)
        world.only = "b"
        history = History(world)
        await history.make()
        before, glance = await history.read(), await _glance(world)
        leader = made["a"]
        leader.line.answer_s = SLOW_S
        await asyncio.sleep(AGE_S - 1)
        leader.line.arm(at, way)
        seen: list[int] = []
        looking = asyncio.create_task(_look_on(made, world, glance, seen))
        try:
            while not leader.line.was_met:
                await asyncio.sleep(0.01)
            if way != "lost":
                await made.kill("a")
            assert await history.read() == before
            await _until_moved(made)
        finally:
            looking.cancel()
            (end,) = await asyncio.gather(looking, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError), end
        assert len(seen) > 20
        assert await history.read() == before
        await history.count()
        if way == "lost":
            world.only = "a"
            assert await history.read() == before


class Model:
    """What has ended, by how; and what is done to it, at any node."""

    def __init__(self, world: Anywhere, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.ended: dict[str, State] = {}
        self.removed: list[str] = []

    async def step(self) -> None:
        """Something ends, or what has ended is removed."""
        if self.ended and self.chance.random() < 0.3:
            id = self.chance.choice(list(self.ended))
            try:
                await self.world.call(RemoveProcess(processid=id), UMA)
            except Refused as refused:  # it is being moved
                assert refused.failure.status in (409, 503), refused
                return
            del self.ended[id]
            self.removed.append(id)
            return
        id = (await self.world.submit("uma", env={"E": "1"})).processid
        if self.chance.random() < 0.5:
            await self.world.call(CancelProcess(processid=id), UMA)
            self.ended[id] = State.CANCELLED
        else:
            assert (await self.world.assign("ada")).processid == id
            await self.world.close("ada", id)
            self.ended[id] = State.SUCCESS

    async def check(self) -> None:
        """Counts and lists are those of the model."""
        stats = await self.world.call(GetColonyStatistics(colonyname=COLONY), UMA)
        for state, name in zip(ENDS, NAMES, strict=True):
            ids = sorted(id for id, each in self.ended.items() if each == state)
            assert stats[f"{name}processes"] == len(ids)
            wanted = GetProcesses(colonyname=COLONY, state=state, count=100)
            found = await self.world.call(wanted, UMA) or []
            assert sorted(each["processid"] for each in found) == ids
        if self.removed:
            gone = GetProcess(processid=self.removed[-1])
            assert (await self.world.answer(gone, UMA)).status == 404


@pytest.mark.parametrize("start", range(6))
@virtual
async def test_counts_and_lists_are_a_models_at_both_nodes_while_history_moves(
    start: int, seed: int
) -> None:
    chance = random.Random(start * 1_000 + seed)
    archive = Far()
    async with two(archive, archive_age_s=2.0) as made:
        world = Anywhere(made, archive)
        await world.found("ada")
        await world.enrol("uma")
        model = Model(world, chance)
        await asyncio.sleep(6)
        for member in made.members.values():
            member.line.answer_s = chance.choice([0.0, 0.002, SLOW_S])
        for _ in range(50):
            await model.step()
            for _ in range(2):
                await asyncio.sleep(chance.choice([0.0, 0.001, 0.005, 0.3]))
                await model.check()
        await _until_moved(made)
        for _ in range(2):
            await model.check()
        assert sum(archive_counts(archive).values()) == len(model.ended)


def archive_counts(archive: Far) -> dict[int, int]:
    """How many processes of each state are in the archive, by its index."""
    states = [keys.state_of_ended(key) for key in archive.rows if key.startswith(keys.ENDED)]
    return {state: states.count(state) for state in set(states)}


@virtual
async def test_what_a_dead_leader_has_sent_does_not_arrive_after_a_removal() -> None:
    """Its successor waits until nothing of it can arrive any more."""
    archive = Far()
    async with two(archive) as made:
        world = Anywhere(made, archive)
        world.only = "b"
        history = History(world)
        await history.make()
        await asyncio.sleep(AGE_S - 1)
        archive.on_put.clear()
        archive.late_s = LATEST_S - 5
        await archive.on_put.wait()
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await made.kill("a")
        archive.late_s = SLOW_S
        moving = {each.hex() for each in made["b"].bench.colony.past.moving}
        assert moving
        while moving:
            for id in sorted(moving):
                answer = await world.answer(RemoveProcess(processid=id), UMA)
                if answer.status == 200:
                    moving.remove(id)
                    history.lone.remove(id)
                else:
                    assert answer.status in (409, 503)
        assert asyncio.get_running_loop().time() - began > LATEST_S
        await _until_moved(made)
        assert archive_counts(archive).keys() <= set(ENDS)
        await history.count()
        for id in history.lone:
            assert (await world.answer(GetProcess(processid=id), UMA)).status == 200
        left = {key[-keys.PID_BYTES :].hex() for key in archive.rows if key[:2] == keys.CLOSED}
        stats = await world.call(GetColonyStatistics(colonyname=COLONY), UMA)
        assert len(left) == sum(stats[f"{name}processes"] for name in NAMES)


@virtual
async def test_counts_do_not_run_ahead_of_what_left_the_store() -> None:
    """A node reads the account anew, as its removals do, before the watch told of the move."""
    archive = Far()
    async with two(archive) as made:
        world = Anywhere(made, archive)
        world.only = "b"
        history = History(world)
        await history.make()
        before = await _counts(world)
        other = made["b"]
        newest = other.line.newest

        async def answered_late() -> int:
            revision = await newest()
            other.line.newest = newest  # type: ignore[method-assign]  # of this test's own object
            while other.bench.rooms.view.reached < revision:
                await asyncio.sleep(0.001)
            other.line.hold()
            while not sum(made["a"].bench.colony.past.processes):
                await asyncio.sleep(0.001)
            await ledger.refresh(other.bench.rooms.removal._writes, other.bench.colony)
            assert sum(other.bench.colony.past.processes)
            asyncio.get_running_loop().call_later(0.05, other.line.flow)
            return revision

        other.line.newest = answered_late  # type: ignore[method-assign]  # as above
        await archive.on_put.wait()
        assert await _counts(world) == before


async def _counts(world: World) -> list[Any]:
    wanted = ((GetColonyStatistics(colonyname=COLONY), UMA), (GetStatistics(), OWNER))
    return [await world.call(*each) for each in wanted]


@virtual
async def test_a_removal_while_the_other_nodes_commit_is_on_its_way_is_counted_once() -> None:
    archive = Far()
    async with two(archive) as made:
        world = Anywhere(made, archive)
        world.only = "b"
        history = History(world)
        await history.make()
        await asyncio.sleep(AGE_S / 2)
        young = [(await world.submit("uma")).processid for _ in range(10)]
        for id in young:
            await world.call(CancelProcess(processid=id), UMA)
        await asyncio.sleep(AGE_S * 0.7)
        assert sum(archive_counts(archive).values())
        archive.on_put.clear()
        made["a"].line.slow_s = 0.05
        await archive.on_put.wait()
        for id in history.lone:
            await asyncio.sleep(0.004)
            await world.call(RemoveProcess(processid=id), UMA)
            await history.count()
        await _until_moved(made)
        await history.count()
        assert archive_counts(archive)[State.CANCELLED] >= len(young)
