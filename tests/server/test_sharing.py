"""Own share first: the rule, then nodes at work by it in virtual time (store invariant 6)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_server.repo.sharing import (
    INTEREST_S,
    LAST_TURN_S,
    OVERDUE_S,
    STEP_S,
    WINDOW,
    Interest,
    choose,
    turn_s,
)
from tests.server.sites import TAG, TYPE, Site, Town
from tests.support.clock import virtual
from tests.support.rooms import LoopClock, settle

NODES = ("a", "b", "c")
NOW = 1000.0
MANY = 800


def pids(many: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(many)]


def others(node: str) -> tuple[str, ...]:
    return tuple(each for each in NODES if each != node)


@dataclass
class One:
    pid: bytes
    left_at: float = 0.0


def ones(node: str, *, own: bool, many: int = 3, left_at: float = 0.0) -> list[One]:
    """Some that are a node's own, or that are not."""
    found = [pid for pid in pids(500) if (not turn_s(pid, node, others(node))) is own]
    return [One(pid, left_at) for pid in found[:many]]


# -- the rule


def test_each_process_is_the_own_of_one_node_and_the_others_follow_one_after_the_other() -> None:
    for pid in pids(200):
        turns = sorted(turn_s(pid, node, others(node)) for node in NODES)
        assert turns == [0.0, STEP_S, 2 * STEP_S]


def test_all_nodes_have_about_as_many() -> None:
    shares = Counter(
        node for pid in pids(3000) for node in NODES if not turn_s(pid, node, others(node))
    )
    assert all(900 <= shares[node] <= 1100 for node in NODES)


def test_a_node_that_goes_leaves_the_others_what_they_had() -> None:
    for pid in pids(200):
        for node, other, gone in permutations(NODES):
            if not turn_s(pid, node, (other, gone)):
                assert turn_s(pid, node, (other,)) == 0.0


def test_of_many_nodes_the_last_waits_no_longer_than_the_fourth() -> None:
    names = tuple(f"node-{number}" for number in range(40))
    turns = {turn_s(pid, "me", names) for pid in pids(300)}
    assert max(turns) == LAST_TURN_S


def test_a_name_of_any_length_has_a_share() -> None:
    long = "x" * 300
    assert {turn_s(pid, long, ("y" * 300,)) for pid in pids(50)} == {0.0, STEP_S}


def test_the_first_own_is_taken_past_those_of_others() -> None:
    foreign, own = ones("a", own=False), ones("a", own=True)
    taken, left = choose([*foreign, *own], "a", others("a"), NOW)
    assert (taken, left) == (own[0], foreign)


def test_another_nodes_is_taken_once_its_turn_has_come_the_last_of_them_first() -> None:
    foreign = ones("a", own=False, left_at=NOW - 3 * STEP_S)
    assert choose(foreign, "a", others("a"), NOW).taken is foreign[-1]
    early = ones("a", own=False, left_at=NOW - STEP_S / 2)
    assert choose(early, "a", others("a"), NOW) == (None, [])


def test_what_was_left_for_long_is_as_good_as_own() -> None:
    foreign = ones("a", own=False, left_at=NOW - OVERDUE_S)
    own = ones("a", own=True)
    assert choose([*foreign, *own], "a", others("a"), NOW).taken is foreign[0]


def test_nothing_that_stands_behind_what_is_taken_is_looked_at() -> None:
    def window() -> object:
        yield ones("a", own=True)[0]
        raise AssertionError("looked at")

    assert choose(window(), "a", others("a"), NOW).taken is not None  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.005, 0.015, 0.1, 1.0]))))
def test_every_node_takes_what_it_may_and_leaves_what_it_may_not(
    looks: list[tuple[int, float]],
) -> None:
    row = [One(pids(100)[n], NOW - ago if ago else 0.0) for n, ago in looks]
    for node in NODES:
        taken, left = choose(row, node, others(node), NOW)
        for one in left:
            assert turn_s(one.pid, node, others(node))
            assert not one.left_at
        may = [
            one
            for one in row
            if not (wait := turn_s(one.pid, node, others(node)))
            or (one.left_at and NOW - one.left_at >= wait)
        ]
        assert (taken in may) if may else taken is None


@virtual
async def test_interest_lasts_ten_seconds_after_the_last_question() -> None:
    interest = Interest(LoopClock())
    interest.note(b"t", "cli")
    await asyncio.sleep(INTEREST_S - 1)
    interest.note(b"s", "gpu")
    assert interest.classes([]) == ((b"s", "gpu"), (b"t", "cli"))
    await asyncio.sleep(2)
    assert interest.classes([]) == ((b"s", "gpu"),)
    await asyncio.sleep(INTEREST_S)
    assert interest.classes([(b"t", "cli")]) == ((b"t", "cli"),)
    assert interest.classes([]) == ()


# -- nodes at work


async def in_town(town: Town, story: Callable[[], Awaitable[None]]) -> None:
    await town.open()
    town.start(town.watch_over())
    try:
        await story()
    finally:
        await town.close()
    assert set(town.attempts.values()) <= {1}


@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("each_s", [0.0, 0.02, 0.2])
def test_few_assignments_are_lost_on_a_deep_queue(nodes: int, each_s: float) -> None:
    @virtual
    async def run() -> None:
        town = Town(nodes, 32)

        async def story() -> None:
            town.employ(each_s=each_s)
            await asyncio.sleep(2)
            order = await town.backlog(MANY)
            town.order.clear()
            await town.done(60)
            assert town.conflicts < 0.05
            place = {pid: number for number, pid in enumerate(order)}
            shifts = [abs(number - place[pid]) for number, pid in enumerate(town.order)]
            # Those that run at once count too: they come out of order where there is one node.
            assert max(shifts) <= WINDOW * nodes + 32

        await in_town(town, story)

    run()


@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("rate", [300, 1000])
@pytest.mark.parametrize("at_one", [False, True])
def test_few_assignments_are_lost_on_a_queue_that_is_nearly_empty(
    nodes: int, rate: int, at_one: bool
) -> None:
    @virtual
    async def run() -> None:
        town = Town(nodes, 32)

        async def story() -> None:
            town.employ(each_s=0.02)
            await asyncio.sleep(2)
            for _ in range(MANY):
                town.start(town.submit(town.sites[0 if at_one else town.random.randrange(nodes)]))
                await asyncio.sleep(town.random.expovariate(rate))
            await town.done(60)
            assert town.conflicts < 0.05

        await in_town(town, story)

    run()


@virtual
async def test_one_node_hands_out_in_order() -> None:
    town = Town(1, 1)

    async def story() -> None:
        order = await town.backlog(300)
        town.employ()
        await town.done(60)
        assert town.order == order

    await in_town(town, story)


@virtual
async def test_a_waiter_of_the_submitting_node_gets_it_whose_ever_share_it_is() -> None:
    town = Town(2, 2)

    async def story() -> None:
        town.employ(each_s=0.0)
        await asyncio.sleep(2)
        for _ in range(20):
            before = [site.hand_over.grants for site in town.sites]
            await town.submit(town.sites[0])
            await asyncio.sleep(0.1)
            after = [site.hand_over.grants for site in town.sites]
            assert after == [before[0] + 1, before[1]]

    await in_town(town, story)


async def parked(town: Town, site: Site, name: str) -> asyncio.Task[None]:
    task = town.start(town.work(site, name))
    await settle()
    return task


@virtual
async def test_what_is_submitted_elsewhere_wakes_a_waiter_at_once_where_nobody_else_waits() -> None:
    town = Town(2, 1)

    async def story() -> None:
        await parked(town, town.sites[1], "e0")
        await asyncio.sleep(2)
        for _ in range(10):
            begun = asyncio.get_running_loop().time()
            await town.submit(town.sites[0])
            await town.done(1)
            assert asyncio.get_running_loop().time() - begun < 0.02

    await in_town(town, story)


@virtual
async def test_an_owner_whose_waiters_have_gone_keeps_nothing_from_the_others() -> None:
    """Nobody says that it has no waiters any more: what was told stands for ten seconds."""
    town = Town(3, 3)

    async def story() -> None:
        tasks = [
            await parked(town, site, f"e{number}") for number, site in enumerate(town.sites[:2])
        ]
        await asyncio.sleep(2)
        tasks[0].cancel()
        await settle()
        for _ in range(40):  # half of them are the first node's own
            await town.submit(town.sites[2])
        await town.done(3)
        assert town.sites[1].hand_over.grants == 40

    await in_town(town, story)


@virtual
async def test_a_node_that_dies_keeps_nothing_from_the_others() -> None:
    town = Town(2, 8)

    async def story() -> None:
        town.employ(each_s=0.02)
        await asyncio.sleep(2)
        dead, alive = town.sites
        dead.hand_over.close()
        dead.store.hold()
        for _ in range(200):
            town.start(town.submit(alive))
            await asyncio.sleep(0.005)
        await town.done(10)

    await in_town(town, story)


@virtual
async def test_what_nobody_is_told_of_costs_conflicts_but_loses_nothing() -> None:
    """Classes may be stale in both ways: each node believes to be alone, or never to be."""
    for believed in ((), ((TAG, TYPE),)):
        town = Town(2, 8)

        async def story(
            town: Town = town, believed: tuple[tuple[bytes, str], ...] = believed
        ) -> None:
            town.employ(each_s=0.02)
            for site in town.sites:
                site.told.classes = {"ghost": believed}
            for _ in range(200):
                town.start(town.submit(town.random.choice(town.sites)))
                await asyncio.sleep(0.005)
            await town.done(10)
            for site in town.sites:
                site.told.classes = {"ghost": believed}

        await in_town(town, story)


@virtual
async def test_nodes_that_come_and_go_leave_no_waiter_behind() -> None:
    """A turn may grow while a waiter parks: then nobody's timer is for it."""
    town = Town(2, 2)

    async def story() -> None:
        site = town.sites[0]
        ghosts = tuple(f"ghost-{number}" for number in range(9))
        for _ in range(20):
            site.told.classes = {"ghost-0": ((TAG, TYPE),)}
            await town.submit(town.sites[1])
            await asyncio.sleep(0.012)
            site.told.classes = dict.fromkeys(ghosts, ((TAG, TYPE),))
            task = await parked(town, site, "e0")
            await asyncio.sleep(0.06)
            task.cancel()
            await settle()

    await in_town(town, story)
