"""Weaknesses of workflows (COLONIES-RPC section 5), each by its number: not here."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.colony import GetColonyStatistics
from colonist_protocol.process import CloseFailed, GetProcesses, State
from colonist_protocol.workflow import (
    AddChild,
    CancelProcessGraph,
    GetProcessGraph,
    GetProcessGraphs,
    RemoveAllProcessGraphs,
)
from colonist_server.repo import keys
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, Bench, Refused, bench, key, settle, spec
from tests.support.workflow_audit import audit, check_view, keys_under, wids_of

NOBODY = "ab" * 32


def _cancel(id: str) -> CancelProcessGraph:
    return CancelProcessGraph(processgraphid=id)


@virtual
async def test_P2_a_child_of_an_unknown_parent_is_refused() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        graph = await server.submit_workflow("e", {"a": []})
        a = await server.assign("e")
        for parent in ("", "x", NOBODY, graph.processgraphid, graph.processids[0][:-1] + "9"):
            wanted = AddChild(
                processgraphid=graph.processgraphid, parentprocessid=parent, spec=spec()
            )
            with pytest.raises(Refused, match="does not belong to a processgraph"):
                await server.call(wanted, key("e"))
        await server.close("e", a.processid)
        await settle()
        audit(store)


@pytest.mark.parametrize("last", [{"dependencies": ["none"]}, {"mem": "1Q"}, {"priority": 50_001}])
@pytest.mark.parametrize("size", [3, 300])
@virtual
async def test_P5_a_workflow_with_a_bad_node_leaves_nothing(size: int, last: dict) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        before = store.revision
        specs = [spec(nodename=f"n{number}") for number in range(size)]
        with pytest.raises(Refused) as refusal:
            await server.submit_specs("e", [*specs, spec(nodename="last", **last)])
        assert refusal.value.failure.status == 400
        assert store.revision == before
        wanted = GetProcessGraphs(colonyname=COLONY, count=10)
        assert await server.call(wanted, key("e")) == []


@virtual
async def test_P6_an_empty_workflow_and_a_cycle_are_refused() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        with pytest.raises(Refused, match="no functionspecs"):
            await server.submit_workflow("e", {})
        with pytest.raises(Refused, match="a waits for b waits for a"):
            await server.submit_workflow("e", {"a": ["b"], "b": ["a"]})
        assert not wids_of(store)


@virtual
async def test_W7_results_and_other_branches_survive_a_failure_which_says_why() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        nodes = {"a": [], "bad": ["a"], "below": ["bad"], "good": ["a"]}
        graph = await server.submit_workflow("e", nodes)
        await server.close("e", (await server.assign("e")).processid, b"[7]")
        bad, good = await server.assign("e"), await server.assign("e")
        await server.call(CloseFailed(processid=bad.processid, errors=["no"]), key("e"))
        await settle()
        below = await server.get("e", graph.processids[2])
        assert below.errors == [f"Parent 'bad' failed (process {bad.processid})"]
        assert not below.endtime.startswith("0001")
        await server.close("e", good.processid, b"[8]")
        await settle()
        assert bytes((await server.get("e", good.processid)).out) == b"[8]"
        assert (await server.graph("e", graph.processgraphid)).state == State.FAILED


@virtual
async def test_W8_the_time_of_a_node_runs_from_the_end_of_its_last_parent() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        nodes = {"a": [], "b": [], "c": ["a", "b"]}
        graph = await server.submit_workflow("e", nodes, maxwaittime=5)
        a, b = await server.assign("e"), await server.assign("e")
        await asyncio.sleep(100)
        await server.close("e", a.processid)
        await asyncio.sleep(100)
        assert (await server.get("e", graph.processids[2])).waitdeadline.startswith("0001")
        await server.close("e", b.processid)
        await asyncio.sleep(4.5)
        c = await server.get("e", graph.processids[2])
        assert (c.state, c.waitdeadline[:4]) == (State.WAITING, "2027")
        await asyncio.sleep(1)
        c = await server.get("e", graph.processids[2])
        assert (c.state, c.errors) == (State.FAILED, ["Maximum waiting time limit exceeded"])


@virtual
async def test_W9_a_quick_executor_cannot_close_a_root_before_its_children_exist() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")

        async def work() -> None:
            for _ in range(201):
                got = await server.assign("e", timeout=60)
                assert got.children or got.parents
                await server.close("e", got.processid)

        worker = asyncio.create_task(work())
        nodes: dict[str, list[str]] = {"root": []}
        nodes.update({f"n{number}": ["root"] for number in range(200)})
        graph = await server.submit_workflow("e", nodes)
        await worker
        await settle()
        assert (await server.graph("e", graph.processgraphid)).state == State.SUCCESS


@virtual
async def test_W10_the_last_two_that_end_at_once_end_their_workflow() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        graph = await server.submit_workflow("e", {"a": [], "b": []})
        a, b = await server.assign("e"), await server.assign("e")
        await asyncio.gather(server.close("e", a.processid), server.close("e", b.processid))
        await settle()
        assert (await server.graph("e", graph.processgraphid)).state == State.SUCCESS
        assert not server.rooms.view.workflows


@virtual
async def test_W10_the_last_two_parents_that_end_at_once_on_two_nodes_free_their_child() -> None:
    async with (
        MemoryStore() as store,
        bench(store, node="one") as first,
        bench(store, node="two") as second,
    ):
        await first.found("e")
        await first.submit_workflow("e", {"a": [], "b": [], "c": ["a", "b"]})
        a, b = await first.assign("e"), await first.assign("e")
        await settle()
        await asyncio.gather(first.close("e", a.processid), second.close("e", b.processid))
        await settle()
        c = await second.assign("e", timeout=-1)
        assert c.spec.nodename == "c"
        await first.close("e", c.processid)
        await settle()
        for server in (first, second):
            await check_view(server.rooms.view, store)
            assert not server.rooms.view.workflows


@virtual
async def test_W11_what_has_ended_cannot_be_cancelled_and_members_say_who_cancelled() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        done = await server.submit_workflow("e", {"a": []})
        await server.close("e", (await server.assign("e")).processid)
        await settle()
        with pytest.raises(Refused, match="the processgraph is successful: it has ended"):
            await server.call(_cancel(done.processgraphid), key("e"))
        assert (await server.graph("e", done.processgraphid)).state == State.SUCCESS
        graph = await server.submit_workflow("e", {"a": [], "b": ["a"]})
        a = await server.assign("e")
        await server.call(_cancel(graph.processgraphid), key("e"))
        for id in (a.processid, graph.processids[1]):
            assert (await server.get("e", id)).state == State.CANCELLED
        audit(store)


class ReadStore(MemoryStore):
    """Counts what is read."""

    reads = 0

    async def get_many(self, keys):
        found = await super().get_many(keys)
        self.reads += len(found)
        return found

    async def range(self, prefix, **wanted):
        found = await super().range(prefix, **wanted)
        self.reads += len(found.items)
        return found


async def _lists(server: Bench, state: int) -> list[str]:
    wanted = GetProcessGraphs(colonyname=COLONY, count=1, state=state)
    return [each["processgraphid"] for each in await server.call(wanted, key("e"))]


@virtual
async def test_G3_listing_reads_no_member_and_working_reads_no_other_member() -> None:
    async with ReadStore() as store, bench(store) as server:
        await server.found("e")
        nodes: dict[str, list[str]] = {"root": []}
        nodes.update({f"n{number}": ["root"] for number in range(500)})
        graph = await server.submit_workflow("e", nodes)
        store.reads = 0
        assert await _lists(server, State.WAITING) == [graph.processgraphid]
        assert store.reads == 0
        await server.close("e", (await server.assign("e")).processid)
        for _ in range(10):
            await server.close("e", (await server.assign("e")).processid)
        assert store.reads < 11 * 8
        await server.call(_cancel(graph.processgraphid), key("e"))
        store.reads = 0
        assert await _lists(server, State.CANCELLED) == [graph.processgraphid]
        assert store.reads <= 4


@virtual
async def test_G5_a_workflow_that_stands_still_holds_up_no_other() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        await server.submit_workflow("e", {"a": [], "b": ["a"]}, executortype="nobody")
        began = asyncio.get_running_loop().time()
        await server.submit_workflow("e", {"a": []})
        await server.close("e", (await server.assign("e", timeout=-1)).processid)
        assert asyncio.get_running_loop().time() - began < 0.001


@virtual
async def test_5_5_workflows_answer_as_everything_else_does() -> None:
    """Not found is 404, a refused spec 400; lists are [], by workflow and in all states."""
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        tag = server.colony.tag
        unknown = keys.graph_id(keys.workflow_id(tag, 0, bytes(20))).hex()
        for message in (GetProcessGraph(processgraphid=unknown), _cancel(unknown)):
            with pytest.raises(Refused) as refusal:
                await server.call(message, key("e"))
            assert refusal.value.failure.status == 404
        assert await server.call(GetProcessGraphs(colonyname=COLONY, count=9), key("e")) == []
        graph = await server.submit_workflow("e", {"a": [], "b": ["a"]})
        await server.submit("e")
        wanted = GetProcesses(
            colonyname=COLONY, count=10, state=-1, processgraphid=graph.processgraphid
        )
        found = await server.call(wanted, key("e"))
        assert [each["processid"] for each in found] == graph.processids
        # Without a state all go that are not running, as all processes do.
        await server.call(_cancel(graph.processgraphid), key("e"))
        await server.call(RemoveAllProcessGraphs(colonyname=COLONY), COLONY_OWNER)
        assert not wids_of(store)
        shown = await server.call(GetColonyStatistics(colonyname=COLONY), key("e"))
        assert (shown["waitingprocesses"], shown["cancelledprocesses"]) == (1, 0)
        assert not keys_under(store, keys.ENDED)
