"""Several nodes on one store: who knows whom, whose name is whose, what is said of a fault."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from colonist_server.loops.heartbeat import LEASE_S, SOONEST_S
from colonist_server.repo import keys
from colonist_server.repo.handover import HandOver
from colonist_server.repo.records import decode_node
from colonist_server.store.interface import Guard, Put, StoreError
from colonist_server.work import FAREWELL_S
from tests.support.clock import virtual
from tests.support.cluster import Cluster, Member, cluster
from tests.support.rooms import OWNER, TYPE, key


def _known(member: Member) -> set[str]:
    return {node.name for node in member.bench.rooms.nodes.others()}


async def _goes_within(made: Cluster, name: str, within_s: float, at: str = "a") -> float:
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(within_s):
        while name in _known(made[at]):
            await asyncio.sleep(0.05)
    return asyncio.get_running_loop().time() - begun


@virtual
async def test_nodes_know_each_other() -> None:
    async with cluster("a", "b", "c") as made:
        await asyncio.sleep(0.1)
        assert [_known(made[name]) for name in "abc"] == [{"b", "c"}, {"a", "c"}, {"a", "b"}]
        nodes = made["a"].bench.rooms.nodes
        assert nodes.is_alive("a")
        assert nodes.is_alive("b")
        assert not nodes.is_alive("d")
        [other] = [node for node in nodes.others() if node.name == "b"]
        assert other.record.url == "http://127.0.0.1:50080"


@virtual
async def test_a_killed_node_is_known_to_be_dead_when_its_lease_ends() -> None:
    async with cluster("a", "b") as made:
        await asyncio.sleep(30)
        told: list[tuple[str, bool]] = []
        made["a"].bench.rooms.nodes.listen(lambda *told_of: told.append(told_of))
        await made.kill("b")
        assert await _goes_within(made, "b", LEASE_S + 0.1) > LEASE_S - 1.5
        assert told == [("b", False)]
        await made.start("b")
        await asyncio.sleep(0.1)
        assert told == [("b", False), ("b", True)]


@virtual
async def test_a_node_that_stops_in_order_is_gone_at_once_and_did_not_crash() -> None:
    async with cluster("a", "b") as made:
        crashed: list[str] = []
        nodes = made["a"].bench.rooms.nodes
        nodes.listen_to_crashes(lambda node: crashed.append(node.name))
        await made.stop("b")
        await _goes_within(made, "b", 0.5)
        await asyncio.sleep(20)
        assert not crashed
        await made.start("b")
        await made.kill("b")
        await asyncio.sleep(20)
        assert crashed == ["b"]


@virtual
async def test_nodes_tell_where_executors_wait() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        tag = made["a"].bench.colony.tag
        await asyncio.sleep(1)
        waiting = asyncio.create_task(made["b"].bench.assign("e1", timeout=100))
        await asyncio.sleep(1.5)
        nodes = made["a"].bench.rooms.nodes
        assert nodes.interested(tag, TYPE) == ("b",)
        assert not nodes.interested(tag, "other")
        assert not made["b"].bench.rooms.nodes.interested(tag, TYPE), "only others are named"
        await made.kill("b")
        waiting.cancel()
        await asyncio.sleep(LEASE_S + 0.1)
        assert not nodes.interested(tag, TYPE)


@virtual
async def test_a_second_server_of_the_same_name_is_refused_and_the_first_goes_on() -> None:
    async with cluster("a") as made:
        first = made["a"]
        with pytest.raises(StoreError, match=r"node 'a'.*n/a.*--node"):
            await made.start("a", port=1)
        await asyncio.sleep(30)
        assert made["a"] is first
        assert not first.task.done()
        (item,) = made.store.under(keys.NODE)
        assert decode_node(item.value).url.endswith(":50080")


@virtual
async def test_a_killed_node_starts_again_under_its_name_before_its_lease_ends() -> None:
    async with cluster("a", "b") as made:
        await asyncio.sleep(10.5)
        await made.kill("b")
        begun = asyncio.get_running_loop().time()
        await made.start("b")
        assert asyncio.get_running_loop().time() - begun < 4.5
        await asyncio.sleep(0.1)
        assert _known(made["a"]) == {"b"}


@virtual
async def test_a_server_whose_name_was_taken_while_it_was_away_ends_and_says_why() -> None:
    async with cluster("a") as made:
        first = made.members.pop("a")
        first.line.is_cut = True
        await made.start("a")
        first.line.is_cut = False
        await asyncio.sleep(15)
        with pytest.raises(StoreError, match="--node"):
            await first.task
        assert not made["a"].bench.rooms.fault()


@virtual
async def test_a_node_whose_lease_has_ended_takes_another() -> None:
    async with cluster("a", "b") as made:
        made["b"].line.is_cut = True
        await asyncio.sleep(LEASE_S + 1)
        assert not _known(made["a"])
        assert "was not written" in made["b"].bench.rooms.fault()
        made["b"].line.is_cut = False
        await asyncio.sleep(2)
        assert _known(made["a"]) == {"b"}
        assert not made["b"].bench.rooms.fault()


@virtual
async def test_a_node_whose_watch_is_silent_says_that_it_is_behind() -> None:
    async with cluster("a", "b") as made:
        await asyncio.sleep(5.5)
        assert not made["b"].bench.rooms.fault()
        made["b"].line.hold()
        await asyncio.sleep(2.3)
        assert not made["b"].bench.rooms.fault()
        await asyncio.sleep(2)
        assert "behind" in made["b"].bench.rooms.fault()
        assert not made["a"].bench.rooms.fault()
        made["b"].line.flow()
        await asyncio.sleep(0.1)
        assert not made["b"].bench.rooms.fault()


@pytest.mark.parametrize(("ahead_s", "words"), [(6.0, "ahead of"), (-6.0, "behind"), (4.0, "")])
@virtual
async def test_of_three_nodes_the_one_with_the_wrong_clock_says_so(
    ahead_s: float, words: str
) -> None:
    async with cluster("a", "b") as made:
        await made.start("c", ahead_s=ahead_s)
        await asyncio.sleep(5)
        assert words in made["c"].bench.rooms.fault()
        assert bool(made["c"].bench.rooms.fault()) == bool(words)
        assert not made["a"].bench.rooms.fault()
        assert not made["b"].bench.rooms.fault()


@virtual
async def test_of_two_nodes_with_different_clocks_the_leader_is_right() -> None:
    async with cluster("a") as made:
        await made.elected()
        await made.start("b", ahead_s=-9)
        await asyncio.sleep(5)
        assert not made["a"].bench.rooms.fault()
        assert "clock is 9.0 s behind" in made["b"].bench.rooms.fault()


@virtual
async def test_a_slow_start_is_not_taken_for_a_wrong_clock() -> None:
    async with cluster("a") as made:
        await made.kill("a")
        await asyncio.sleep(8)  # its record is still there, and old
        await made.start("b")
        assert not made["b"].bench.rooms.fault()
        with suppress(TimeoutError):
            await _goes_within(made, "a", 5, at="b")
        assert not made["b"].bench.rooms.fault()


@virtual
async def test_what_is_no_record_is_no_node() -> None:
    async with cluster() as made:
        mark = keys.node("a")
        await made.store.commit([Guard(mark, 0)], [Put(mark, b"")])
        await made.start("b")
        assert not _known(made["b"])
        await made.start("a")
        await asyncio.sleep(0.1)
        assert _known(made["b"]) == {"a"}


@virtual
async def test_however_many_types_of_executors_wait_a_node_stays_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = tuple((number.to_bytes(4, "big"), "t" * 200) for number in range(9_000))
    monkeypatch.setattr(HandOver, "classes", lambda _: many)
    async with cluster("a", "b") as made:
        await asyncio.sleep(LEASE_S + 5)
        assert _known(made["a"]) == {"b"}
        nodes = made["a"].bench.rooms.nodes
        assert nodes.interested(*many[0]) == ("b",)
        assert not nodes.interested(*many[-1])


@virtual
async def test_a_node_that_is_to_obey_another_owner_is_refused() -> None:
    async with cluster("a") as made:
        stranger = key("somebody else").id
        with pytest.raises(StoreError, match="COLONIES_SERVER_ID") as caught:
            await made.start("b", owner=stranger)
        assert stranger in str(caught.value)
        assert OWNER.id in str(caught.value)
        await made.start("b")


@virtual
async def test_two_nodes_that_start_at_once_with_different_owners_are_not_ready() -> None:
    async with cluster() as made:
        other = key("somebody else").id
        starts = [made.start("a"), made.start("b", owner=other)]
        told = await asyncio.gather(*starts, return_exceptions=True)
        await asyncio.sleep(2)
        faults = [member.bench.rooms.fault() for member in made.members.values()]
        refused = [each for each in told if isinstance(each, StoreError)]
        assert refused or all("is told to obey" in fault for fault in faults)


@virtual
async def test_a_new_kind_of_work_is_told_at_once() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        tag = made["a"].bench.colony.tag
        await asyncio.sleep(1)
        waiting = asyncio.create_task(made["a"].bench.assign("e1", timeout=5))
        await asyncio.sleep(SOONEST_S + 0.05)
        assert made["b"].bench.rooms.nodes.interested(tag, TYPE) == ("a",)
        waiting.cancel()


@virtual
async def test_a_node_stops_in_time_when_the_store_does_not_answer() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("e1")
        made["a"].line.die()
        begun = asyncio.get_running_loop().time()
        async with asyncio.timeout(60):
            await made.stop("a")
        assert asyncio.get_running_loop().time() - begun <= FAREWELL_S + 0.1
