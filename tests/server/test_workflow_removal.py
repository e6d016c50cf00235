"""A workflow whose last member has just ended can be removed: nobody has to wait for the books."""

from __future__ import annotations

from colonist_protocol.process import CloseFailed, State
from colonist_protocol.workflow import (
    CancelProcessGraph,
    GetProcessGraphs,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
)
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, Bench, bench, key


async def finished(rooms: Bench, *, fails: bool = False) -> str:
    """A workflow of which the last member was closed in the moment before."""
    graph = await rooms.submit_workflow("e", {"a": [], "b": ["a"]})
    for end in ("a", "b")[: 1 if fails else 2]:
        process = await rooms.assign("e")
        assert process.spec.nodename == end
        if fails:
            await rooms.call(CloseFailed(processid=process.processid), key("e"))
        else:
            await rooms.close("e", process.processid)
    return graph.processgraphid


async def left(rooms: Bench) -> list[State]:
    found = await rooms.call(GetProcessGraphs(colonyname=COLONY, count=100), key("e"))
    return [State(graph["state"]) for graph in found]


@virtual
async def test_one_that_has_just_ended_is_removed() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        for fails in (False, True):
            id = await finished(rooms, fails=fails)
            await rooms.call(RemoveProcessGraph(processgraphid=id), key("e"))
        assert await left(rooms) == []


@virtual
async def test_one_that_was_just_cancelled_is_removed() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        graph = await rooms.submit_workflow("e", {"a": [], "b": ["a"]})
        await rooms.assign("e")
        for message in (CancelProcessGraph, RemoveProcessGraph):
            await rooms.call(message(processgraphid=graph.processgraphid), key("e"))
        assert await left(rooms) == []


@virtual
async def test_all_that_have_just_ended_are_removed() -> None:
    async with bench(MemoryStore()) as rooms:
        await rooms.found("e")
        await finished(rooms)
        await finished(rooms, fails=True)
        await rooms.submit_workflow("e", {"a": []})
        await rooms.assign("e")
        message = RemoveAllProcessGraphs(colonyname=COLONY)
        await rooms.call(message, COLONY_OWNER)
        assert await left(rooms) == [State.RUNNING]
