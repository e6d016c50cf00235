"""Who is heard at one node is not stale to another, which may lead."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from colonist_protocol.executor import ExecutorState
from colonist_protocol.process import GetProcesses
from colonist_server.repo import keys
from colonist_server.repo.records import decode_executor
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.rooms import COLONY, Refused, key

STALE_S = 300.0


def _there(made: Cluster) -> set[str]:
    found = {item.key: decode_executor(item.value) for item in made.store.under(keys.EXECUTOR)}
    approved = [name for name, record in found.items() if record.state == ExecutorState.APPROVED]
    return {name.rpartition(b"/")[2].decode() for name in approved}


async def _begin(made: Cluster) -> None:
    assert await made.elected() is made["a"]
    await made["a"].bench.found("silent", "caller", "parked", "worker")
    # All of them are heard once, at the node that does not lead.
    await asyncio.sleep(1)
    for name in ("silent", "caller", "parked", "worker"):
        await made["b"].bench.call(GetProcesses(colonyname=COLONY, count=1), key(name))
    await made["b"].bench.submit("caller", executornames=["worker"], maxexectime=10_000)
    await asyncio.sleep(0.1)
    await made["b"].bench.assign("worker")


async def _stay(made: Cluster, name: str, for_s: float) -> None:
    """Ask for work at a node, again and again, each time for long."""
    while True:
        with suppress(Refused):
            await made[name].bench.assign("parked", timeout=int(for_s))
        await asyncio.sleep(1)


@virtual
async def test_the_leader_unregisters_only_who_was_heard_nowhere() -> None:
    async with cluster("a", "b", stale_s=STALE_S) as made:
        await _begin(made)
        staying = asyncio.create_task(_stay(made, "b", 3 * STALE_S))
        for _ in range(30):
            await asyncio.sleep(30)
            await made["b"].bench.call(GetProcesses(colonyname=COLONY, count=1), key("caller"))
        staying.cancel()
        assert _there(made) == {"caller", "parked", "worker"}
        assert made.leader is made["a"]


@virtual
async def test_a_new_leader_knows_who_was_heard_at_the_dead_one() -> None:
    async with cluster("a", "b", stale_s=STALE_S) as made:
        await _begin(made)
        for _ in range(20):
            await asyncio.sleep(30)
            await made["a"].bench.call(GetProcesses(colonyname=COLONY, count=1), key("caller"))
        await made.kill("a")
        await asyncio.sleep(STALE_S / 2)
        assert made.leader is made["b"]
        assert _there(made) == {"caller", "worker"}


@virtual
async def test_all_that_are_silent_for_long_go_once() -> None:
    async with cluster("a", "b", stale_s=STALE_S) as made:
        await _begin(made)
        await asyncio.sleep(STALE_S + 200)
        assert _there(made) == {"worker"}


@pytest.mark.parametrize("names", ["b", "bc"])
@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
@virtual
async def test_a_leader_whose_clock_is_wrong_unregisters_nobody(names: str, ahead_s: float) -> None:
    async with cluster(stale_s=STALE_S) as made:
        await made.start("a", ahead_s=ahead_s)
        await made.elected()
        for name in names:
            await made.start(name)
        await made["b"].bench.found("parked")
        staying = asyncio.create_task(_stay(made, "b", 20))
        await asyncio.sleep(3 * STALE_S)
        staying.cancel()
        assert _there(made) == {"parked"}


@pytest.mark.parametrize("later_s", [5.0, 30.0, 55.0])
@virtual
async def test_nobody_is_unregistered_for_an_outage_of_the_store(later_s: float) -> None:
    async with cluster("a", stale_s=STALE_S) as made:
        await made.elected()
        await asyncio.sleep(later_s)  # so the two do not look at once
        await made.start("b")
        await made["b"].bench.found("parked")
        staying = asyncio.create_task(_stay(made, "b", 20))
        await asyncio.sleep(100)
        for name in "ab":
            made[name].line.is_cut = True
        await asyncio.sleep(3 * STALE_S)
        made["a"].line.is_cut = False
        assert await made.elected() is made["a"]
        made["b"].line.is_cut = False
        await asyncio.sleep(3 * STALE_S)
        staying.cancel()
        assert _there(made) == {"parked"}
