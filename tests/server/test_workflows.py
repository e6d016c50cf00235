"""Workflows, by message, on the rooms of a server: COLONIES-RPC sections 2.7 and 4.7."""

from __future__ import annotations

import pytest

from colonist_protocol.process import CloseFailed, GetProcesses, Process, State
from colonist_protocol.workflow import (
    AddChild,
    CancelProcessGraph,
    GetProcessGraphs,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
)
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, Bench, Refused, bench, key, settle, spec

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


async def members(rooms: Bench, graph: str, state: int = -1) -> list[Process]:
    wanted = GetProcesses(colonyname=COLONY, count=100, state=state, processgraphid=graph)
    found = await rooms.call(wanted, key("e"))
    return [await rooms.get("e", each["processid"]) for each in found]


async def states(rooms: Bench, graph: str) -> str:
    """The members' states by their first letters, in order."""
    return "".join(State(each.state).name[0] for each in await members(rooms, graph))


@virtual
async def test_a_workflow_runs_in_the_order_of_its_dependencies() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        graph = await rooms.submit_workflow("e", DIAMOND)
        assert graph.state == State.WAITING
        assert graph.rootprocessids == graph.processids[:1]
        assert await states(rooms, graph.processgraphid) == "WWWW"
        a = await rooms.assign("e")
        assert (a.spec.nodename, a.parents, a.processgraphid) == ("a", [], graph.processgraphid)
        assert a.children == graph.processids[1:3]
        with pytest.raises(Refused):
            await rooms.assign("e", timeout=-1)
        assert (await rooms.get("e", graph.processids[3])).waitforparents
        await rooms.close("e", a.processid, b'["out of a", 1]')
        b, c = await rooms.assign("e"), await rooms.assign("e")
        assert [b.spec.nodename, c.spec.nodename] == ["b", "c"]
        assert bytes(b.inputs) == b'["out of a",1]' or bytes(b.inputs) == b'["out of a", 1]'
        assert not b.waitforparents
        await rooms.close("e", c.processid, b"[{}]")
        await rooms.close("e", b.processid, b"[true]")
        d = await rooms.assign("e")
        assert bytes(d.inputs) == b"[true,{}]"
        assert d.parents == graph.processids[1:3]
        await rooms.close("e", d.processid)
        await settle()
        ended = await rooms.graph("e", graph.processgraphid)
        assert ended.state == State.SUCCESS
        assert await states(rooms, graph.processgraphid) == "SSSS"
        assert not rooms.rooms.view.workflows
        again = await rooms.get("e", d.processid)
        assert (again.parents, bytes(again.inputs)) == (d.parents, b"[true,{}]")


@virtual
async def test_W7_a_failure_fails_its_descendants_only() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        nodes = {"a": [], "b": ["a"], "c": ["b"], "x": ["a"], "y": ["x"]}
        graph = await rooms.submit_workflow("e", nodes)
        a = await rooms.assign("e")
        await rooms.close("e", a.processid)
        b, x = await rooms.assign("e"), await rooms.assign("e")
        await rooms.call(CloseFailed(processid=b.processid, errors=["no"]), key("e"))
        await settle()
        assert await states(rooms, graph.processgraphid) == "SFFRW"
        assert (await rooms.graph("e", graph.processgraphid)).state == State.RUNNING
        c = await rooms.get("e", graph.processids[2])
        assert c.errors == [f"Parent 'b' failed (process {b.processid})"]
        assert not c.endtime.startswith("0001")
        await rooms.close("e", x.processid)
        y = await rooms.assign("e")
        await rooms.close("e", y.processid)
        await settle()
        assert (await rooms.graph("e", graph.processgraphid)).state == State.FAILED
        assert await states(rooms, graph.processgraphid) == "SFFSS"


@virtual
async def test_a_cancelled_workflow_ends_whole() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        graph = await rooms.submit_workflow("e", DIAMOND)
        a = await rooms.assign("e")
        await rooms.call(CancelProcessGraph(processgraphid=graph.processgraphid), key("e"))
        assert await states(rooms, graph.processgraphid) == "CCCC"
        with pytest.raises(Refused, match="Tried to set cancelled process as successful"):
            await rooms.close("e", a.processid)
        with pytest.raises(Refused, match="it has ended"):
            await rooms.call(CancelProcessGraph(processgraphid=graph.processgraphid), key("e"))
        with pytest.raises(Refused):
            await rooms.assign("e", timeout=-1)


@virtual
async def test_a_child_is_inserted_before_the_others() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        graph = await rooms.submit_workflow("e", DIAMOND)
        a = await rooms.assign("e")
        wanted = AddChild(
            processgraphid=graph.processgraphid,
            parentprocessid=a.processid,
            insert=True,
            spec=spec(nodename="n"),
        )
        new = await rooms.process(wanted, key("e"))
        assert (new.parents, new.children) == ([a.processid], graph.processids[1:3])
        await rooms.close("e", a.processid, b"[1]")
        n = await rooms.assign("e")
        assert n.processid == new.processid
        with pytest.raises(Refused):
            await rooms.assign("e", timeout=-1)
        await rooms.close("e", n.processid, b"[2]")
        assert bytes((await rooms.assign("e")).inputs) == b"[2]"
        shown = await rooms.graph("e", graph.processgraphid)
        assert len(shown.nodes) == 5
        assert [node.data["label"] for node in shown.nodes] == ["a", "b", "c", "d", "n"]


@virtual
async def test_a_workflow_larger_than_a_commit_appears_at_once() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        nodes: dict[str, list[str]] = {"root": []}
        nodes.update({f"n{number}": ["root"] for number in range(400)})
        graph = await rooms.submit_workflow("e", nodes)
        root = await rooms.assign("e")
        await rooms.close("e", root.processid)
        for _ in range(400):
            process = await rooms.assign("e")
            await rooms.close("e", process.processid)
        await settle()
        shown = await rooms.graph("e", graph.processgraphid)
        assert (shown.state, len(shown.nodes), len(shown.edges)) == (State.SUCCESS, 401, 400)


@virtual
async def test_workflows_are_listed_and_removed() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        first = await rooms.submit_workflow("e", {"a": []})
        second = await rooms.submit_workflow("e", DIAMOND)
        a = await rooms.assign("e")
        await rooms.close("e", a.processid)
        await settle()
        found = await rooms.call(GetProcessGraphs(colonyname=COLONY, count=10), key("e"))
        ids = [second.processgraphid, first.processgraphid]
        assert [each["processgraphid"] for each in found] == ids
        b = await rooms.assign("e")
        assert b.spec.nodename == "a"
        with pytest.raises(Refused, match="cannot remove a running processgraph"):
            await rooms.call(RemoveProcessGraph(processgraphid=second.processgraphid), key("e"))
        await rooms.call(RemoveAllProcessGraphs(colonyname=COLONY), COLONY_OWNER)
        found = await rooms.call(GetProcessGraphs(colonyname=COLONY, count=10), key("e"))
        assert [each["processgraphid"] for each in found] == ids[:1]
        with pytest.raises(Refused):
            await rooms.get("e", a.processid)


@virtual
async def test_after_a_restart_a_workflow_goes_on() -> None:
    store = MemoryStore()
    async with bench(store) as rooms:
        await rooms.found("e")
        graph = await rooms.submit_workflow("e", DIAMOND)
        a = await rooms.assign("e")
        wanted = AddChild(
            processgraphid=graph.processgraphid,
            parentprocessid=a.processid,
            childprocessid=graph.processids[3],
            spec=spec(nodename="n"),
        )
        await rooms.process(wanted, key("e"))
        await rooms.close("e", a.processid)
        before = [await rooms.get("e", id) for id in graph.processids]
    async with bench(store) as rooms:
        assert [await rooms.get("e", id) for id in graph.processids] == before
        for _ in range(4):
            process = await rooms.assign("e", timeout=-1)
            await rooms.close("e", process.processid)
        assert process.processid == graph.processids[3]
        assert len(process.parents) == 3
        await settle()
        assert (await rooms.graph("e", graph.processgraphid)).state == State.SUCCESS
