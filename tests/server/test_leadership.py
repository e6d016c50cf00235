"""One node leads: it is elected, replaced when it dies, hands over when it stops, stops in time."""

from __future__ import annotations

import asyncio

import pytest

from colonist_server.loops.leadership import LEASE_S, SAFE_S
from colonist_server.repo import keys
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.memory_store import MemoryStore
from tests.support.rooms import bench, settle


def _time() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_one_of_several_nodes_leads() -> None:
    async with cluster("a", "b", "c") as made:
        leader = await made.elected()
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert made.leader is leader
        assert {each.bench.rooms.leader() for each in made.members.values()} == {leader.name}


@virtual
async def test_a_dead_leader_is_replaced_within_five_seconds() -> None:
    async with cluster("a", "b", "c") as made:
        leader = await made.elected()
        await asyncio.sleep(7.3)
        await made.kill(leader.name)
        died_at = _time()
        next_one = await made.elected()
        assert next_one.name != leader.name
        assert _time() - died_at < 4.0


@virtual
async def test_a_leader_that_stops_hands_over_at_once() -> None:
    async with cluster("a", "b") as made:
        leader = await made.elected()
        await made.stop(leader.name)
        stopped_at = _time()
        await made.elected()
        assert _time() - stopped_at < 0.1


@virtual
async def test_a_leader_that_is_cut_off_stops_before_another_begins() -> None:
    async with cluster("a", "b") as made:
        leader = await made.elected()
        leader.line.is_cut = True
        cut_at = _time()
        while leader.leads:
            await asyncio.sleep(0.01)
        stopped_at = _time()
        assert stopped_at - cut_at <= SAFE_S + 0.01 < LEASE_S
        next_one = await made.elected()  # asserts all the while that there is one only
        assert _time() > stopped_at
        leader.line.is_cut = False
        await asyncio.sleep(10)
        assert made.leader is next_one


@virtual
async def test_a_leader_acts_only_after_it_has_seen_all_that_was_committed_before() -> None:
    async with cluster("a", "b") as made:
        leader = await made.elected()
        other = next(each for each in made.members.values() if each is not leader)
        other.line.lag_s = 0.5
        await made.kill(leader.name)
        assert await made.elected() is other
        (key,) = made.store.under(keys.LEADER)
        assert other.bench.rooms.view.watched_revision >= key.modified


@virtual
async def test_a_restarted_leader_waits_for_its_own_old_lease() -> None:
    async with cluster("a") as made:
        await made.elected()
        await made.kill("a")
        await made.start("a")
        assert (await made.elected()).name == "a"


@virtual
async def test_a_single_node_on_a_store_of_its_own_leads_and_writes_nothing_for_it() -> None:
    store = MemoryStore()
    async with bench(store) as made:
        await settle()
        assert made.rooms.leader() == "node-1"
        revision = store.revision
        await asyncio.sleep(600)
        assert store.revision == revision + 10  # the minutes are counted
        assert not store.under(keys.NODE)
        assert not store.under(keys.LEADER)


@virtual
async def test_whatever_happens_to_leaders_there_is_never_more_than_one() -> None:
    async with cluster("a", "b", "c") as made:
        for round in range(30):
            leader = await made.elected()
            await asyncio.sleep(0.37 * round)
            await _disturb(made, leader.name, round)


async def _disturb(made: Cluster, name: str, round: int) -> None:
    match round % 3:
        case 0:
            await made.kill(name)
            await made.elected()
            await made.start(name)
        case 1:
            await made.stop(name)
            await made.elected(0.5)
            await made.start(name)
        case _:
            made[name].line.is_cut = True
            for _ in range(500):
                await asyncio.sleep(0.01)
                made.leader  # noqa: B018 - asserts that there is one at most
            made[name].line.is_cut = False


@pytest.mark.parametrize("ahead_s", [3600.0, -20.0])
@virtual
async def test_a_node_whose_clock_most_others_contradict_does_not_lead(ahead_s: float) -> None:
    async with cluster() as made:
        await made.start("c", ahead_s=ahead_s)
        assert await made.elected() is made["c"]
        await made.start("a")
        await asyncio.sleep(20)
        assert made.leader is made["c"]  # of two nobody can say whose clock is wrong
        await made.start("b")
        await asyncio.sleep(5)
        leader = await made.elected()
        assert leader is not made["c"]
        await made.kill(leader.name)
        await asyncio.sleep(12)  # until the dead one's vote is gone, too
        assert made.leader is not None


@virtual
async def test_where_all_clocks_disagree_one_leads_all_the_same() -> None:
    async with cluster() as made:
        for number, name in enumerate("abcd"):
            await made.start(name, ahead_s=number * 60.0)
        await asyncio.sleep(20)
        assert made.leader is not None
