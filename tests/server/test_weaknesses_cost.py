"""Nothing costs more than it must: the weaknesses of COLONIES-RPC section 5.4, by number."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    State,
)
from colonist_protocol.server import GetStatistics
from colonist_protocol.times import SECOND_NS, from_text
from colonist_server.loops.deadlines import Deadlines
from tests.server.people import (
    parked,
    world,
)
from tests.support.clock import virtual
from tests.support.rooms import OWNER, key
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


@virtual
async def test_G8_deadlines_of_what_has_ended_are_forgotten() -> None:
    async with world() as made:
        await made.populate()
        [deadlines] = [each for each in made.rooms.view._listeners if isinstance(each, Deadlines)]
        for _ in range(1500):
            id = (await made.submit("uma", maxexectime=10**6, maxwaittime=10**6)).processid
            await made.assign("ada")
            await made.close("ada", id)
        assert len(deadlines._heap) <= 1100


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
