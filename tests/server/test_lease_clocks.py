"""Leases that may not overlap, where clocks of nodes differ or are set. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.log import AddLog
from colonist_protocol.process import State
from colonist_server.config import ServerConfig
from colonist_server.loops.deadlines import APART_S
from colonist_server.repo.nodes import SKEW_NS
from colonist_server.work import at_work
from tests.support.attempts import Held, take
from tests.support.clock import virtual
from tests.support.cluster import WrongClock, cluster
from tests.support.memory_store import MemoryStore
from tests.support.rooms import OWNER, SERVER_KEYS, Bench, settle

MOST_S = SKEW_NS / 1e9 - 0.1
"""So far off its clock a node is ready."""


def now_s() -> float:
    return asyncio.get_running_loop().time()


def is_held(made: Bench, mine: Held) -> bool:
    """Whether nobody else can be given it."""
    return made.rooms.view.rows[bytes.fromhex(mine.process)].state == State.RUNNING


@pytest.mark.parametrize("ahead_s", [-MOST_S, MOST_S])
@pytest.mark.parametrize("count", [0, 1])
@virtual
async def test_a_lease_is_over_when_it_is_taken_back_whatever_node_told_it(
    ahead_s: float, count: int
) -> None:
    async with cluster("a") as made:
        a = made["a"].bench
        await made.elected()
        b = (await made.start("b", ahead_s=ahead_s)).bench
        await a.found("ada")
        await asyncio.sleep(10)
        assert not b.rooms.fault()
        await a.submit("ada", maxexectime=10, maxretries=9, overlap="never")
        mine = await take(a, "ada")
        assert mine.lease == pytest.approx(10, abs=0.01)
        until = now_s() + 10
        for each in (b, a):
            told = await mine._replace(made=each).renew(count)
            until = max(until, now_s() + told["lease"])
        await asyncio.sleep(until - now_s())
        assert is_held(a, mine)
        await asyncio.sleep(0.1 * 20 + APART_S + 2 * MOST_S)
        assert not is_held(a, mine)


@virtual
async def test_a_lease_is_over_when_a_new_leader_takes_it_back() -> None:
    async with cluster() as made:
        await made.start("b", ahead_s=-MOST_S)
        await made.elected()
        await made["b"].bench.found("ada")
        await made["b"].bench.submit("ada", maxexectime=10, maxretries=9, overlap="never")
        mine = await take(made["b"].bench, "ada")
        until = now_s() + 10
        await made.kill("b")
        a = (await made.start("a", ahead_s=MOST_S)).bench
        await made.elected()
        await asyncio.sleep(until - now_s())
        assert is_held(a, mine)
        await asyncio.sleep(1 + APART_S)
        assert not is_held(a, mine)


@virtual
async def test_a_clock_that_is_set_forward_cuts_no_lease() -> None:
    clock = WrongClock()
    async with (
        MemoryStore() as store,
        at_work(
            ServerConfig(owner=OWNER.id), store, clock, OWNER.id, server_keys=SERVER_KEYS
        ) as dispatch,
    ):
        made = Bench(dispatch)
        await made.found("ada")
        await made.submit("ada", maxexectime=100, maxretries=9, overlap="never")
        mine = await take(made, "ada")
        clock.ahead_s = 86_400
        await mine.say(AddLog(processid=mine.process, message="at work"))
        assert (await mine.renew(1))["lease"] == 0
        await asyncio.sleep(109)
        assert is_held(made, mine)
        await asyncio.sleep(2)
        await settle()
        assert not is_held(made, mine)


@pytest.mark.parametrize("overlap", ["never", "allow"])
@virtual
async def test_a_clock_that_is_set_back_tells_no_longer_leases(overlap: str) -> None:
    clock = WrongClock(2 * 86_400)
    async with (
        MemoryStore() as store,
        at_work(
            ServerConfig(owner=OWNER.id), store, clock, OWNER.id, server_keys=SERVER_KEYS
        ) as dispatch,
    ):
        made = Bench(dispatch)
        await made.found("ada")
        await made.submit("ada", maxexectime=100, maxretries=9, overlap=overlap)
        mine = await take(made, "ada")
        assert mine.lease == pytest.approx(100, abs=0.01)
        clock.ahead_s -= 86_400
        await asyncio.sleep(90)
        assert (await mine.renew())["lease"] <= 20 / 1.1
