"""Nothing costs more than it must: the weaknesses of COLONIES-RPC section 5.4, by number."""

from __future__ import annotations

import asyncio
from heapq import heapify
from typing import Any

import pytest

from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    State,
)
from colonist_protocol.server import GetStatistics
from colonist_protocol.times import SECOND_NS, from_text
from colonist_server.loops.deadlines import APART_S, Deadlines
from tests.server.people import (
    parked,
    world,
)
from tests.support.attempts import take
from tests.support.clock import virtual
from tests.support.cluster import cluster
from tests.support.rooms import OWNER, Bench, key
from tests.support.stores import CountingStore

ADA, UMA = key("ada"), key("uma")


@virtual
async def test_G1_deadlines_that_have_not_come_cost_nothing() -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        for _ in range(300):
            await made.submit("uma", maxexectime=10**6, maxwaittime=10**6)
        for _ in range(100):
            await made.assign("ada")
        await asyncio.sleep(61)
        store.asked.clear()
        await asyncio.sleep(600)
        assert store.asked == []


@pytest.mark.parametrize("state", State)
@virtual
async def test_G2_a_list_costs_a_few_reads_however_long(state: State) -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        for _ in range(100):
            id = (await made.submit("uma", env={"E": "1"})).processid
            if state != State.WAITING:
                await made.assign("ada")
            if state == State.SUCCESS:
                await made.close("ada", id)
            elif state == State.FAILED:
                await made.call(CloseFailed(processid=id), ADA)
            elif state == State.CANCELLED:
                await made.call(CancelProcess(processid=id), UMA)
        store.asked.clear()
        assert len(await made.list(state)) == 100
        # What ended, then ends and outputs in three parts: not all at once, each may be large.
        assert len(store.asked) <= 7


@virtual
async def test_G4_statistics_read_nothing() -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        await made.employ()
        store.asked.clear()
        await made.statistics()
        await made.call(GetStatistics(), OWNER)
        assert store.asked == []


@virtual
async def test_G6_an_idle_server_asks_nothing_of_its_store() -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        waits = [await parked(made, "ben", 3000) for _ in range(20)]
        await asyncio.sleep(100)
        store.asked.clear()
        await asyncio.sleep(1000)
        assert store.asked == []
        for task in waits:
            task.cancel()


def deadlines_of(made: Bench) -> Deadlines:
    [found] = [each for each in made.rooms.view._listeners if isinstance(each, Deadlines)]
    return found


@virtual
async def test_G8_deadlines_of_what_has_ended_are_forgotten() -> None:
    async with world() as made:
        await made.populate()
        deadlines = deadlines_of(made)
        for _ in range(1500):
            id = (await made.submit("uma", maxexectime=10**6, maxwaittime=10**6)).processid
            await made.assign("ada")
            await made.close("ada", id)
        assert len(deadlines._heap) <= 1100


@virtual
async def test_G8_a_deadline_that_stays_is_noted_once() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=-1)
        mine = await take(made, "ada")
        deadlines = deadlines_of(made)
        for _ in range(200):
            await mine.renew(0)
            await mine.log()
        assert len(deadlines._heap) == 1
        await asyncio.sleep(9.999)
        assert made.colony.waiting == 0
        await asyncio.sleep(0.002)
        assert made.colony.waiting == 1


@virtual
async def test_G8_deadlines_that_come_again_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To look through all of them costs nothing in the mean, whatever one executor does."""
    cleared = 0

    def counting(heap: list[Any]) -> None:
        nonlocal cleared
        cleared += 1
        heapify(heap)

    monkeypatch.setattr("colonist_server.loops.deadlines._SLACK", 20)
    monkeypatch.setattr("colonist_server.loops.deadlines.heapify", counting)
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=10**6, maxwaittime=400)).processid
        deadlines = deadlines_of(made)
        for _ in range(100):
            mine = await take(made, "ada")
            await mine.release()
            assert len(deadlines._heap) <= 2 * len(made.rooms.view.rows) + 20
        assert 0 < cleared <= 200 / 20
        await asyncio.sleep(399.99)
        assert made.colony.waiting == 1
        await asyncio.sleep(0.02)
        assert (await made.get("uma", id)).state == State.FAILED


@virtual
async def test_G8_what_is_noted_for_one_state_does_not_ring_in_another() -> None:
    """Where deadlines are the same by chance: of a lease that may not overlap it rings later."""
    async with cluster("a") as cluster_of_one:
        made = cluster_of_one["a"].bench
        await made.found("ada")
        await made.submit("ada", maxexectime=10, maxretries=9, overlap="never")
        row = made.rooms.view.rows[bytes.fromhex((await take(made, "ada")).process)]
        deadlines = deadlines_of(made)

        def due() -> float:
            return next(entry[0] for entry in deadlines._heap if entry[1] == row.alarm)

        row.deadline_ns += 10 * SECOND_NS
        for state, later in ((State.WAITING, 0.0), (State.RUNNING, APART_S)):
            row.state = state
            deadlines.row_changed(row)
            assert due() - made.rooms.clock.monotonic() == pytest.approx(21 + later, abs=0.1)
        row.alarm = 0  # it has rung, and is where it was
        deadlines.row_changed(row)
        assert due() == row.held_until


@virtual
async def test_G9_limits_are_kept_to_the_moment() -> None:
    async with world() as made:
        await made.populate()
        for limit_s in (1, 2, 7):
            id = (await made.submit("uma", maxwaittime=limit_s, executortype="none")).processid
            await asyncio.sleep(limit_s + 0.01)
            process = await made.read(id)
            took_ns = from_text(process.endtime) - from_text(process.submissiontime)
            assert abs(took_ns - limit_s * SECOND_NS) < SECOND_NS // 100
