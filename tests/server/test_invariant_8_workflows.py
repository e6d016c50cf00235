"""Store invariant 8: a workflow is there whole or not at all, wherever its server dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from colonist_protocol.process import CloseFailed, CloseSuccessful, GetProcesses, State
from colonist_protocol.workflow import CancelProcessGraph, RemoveProcessGraph
from colonist_server.repo import keys
from colonist_server.repo.records import WorkflowState, decode_workflow
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, Refused, bench, key, settle
from tests.support.stopping_store import WAYS, StoppingStore
from tests.support.stores import CountingStore
from tests.support.workflow_audit import audit, check_view, keys_under, wids_of

MEMBERS = 200
EVIDENCE = (keys.TRAIL, keys.CHECKPOINT, keys.NEWEST_CHECKPOINT, keys.REMOVED)
"""It stays."""
Nodes = dict[str, list[str]]
Task = Callable[[Bench], Awaitable[object]]


def fan(children: int) -> Nodes:
    return {"root": [], **{f"n{number}": ["root"] for number in range(children)}}


def sizes(store: CountingStore) -> list[tuple[int, int]]:
    """How many guards and ops each commit had."""
    return [(len(guards), len(ops)) for guards, ops in store.commits]


async def _die_at(store: StoppingStore, at: int, way: str, before: Task, task: Task) -> bool:
    """A server does `before`, then dies (or loses an answer) at commit `at` of `task`."""

    async def live() -> None:
        async with bench(store) as server:
            await server.found("e")
            await before(server)
            store.arm(at, way)
            with suppress(Refused):
                await task(server)
            await asyncio.sleep(10)
            store.stopped.set()
            await asyncio.Event().wait()

    life = asyncio.create_task(live())
    await store.stopped.wait()
    life.cancel()
    with suppress(asyncio.CancelledError):
        await life
    store.arm(-1, "")
    met, store.was_met = store.was_met, False
    return met


async def _nothing_seen(server: Bench, store: MemoryStore) -> None:
    """Whatever is staged or being removed, nobody sees a member of it."""
    view = server.rooms.view
    for key_ in keys_under(store, keys.WORKFLOW):
        state = decode_workflow(store._items[key_].value).state
        if state in (WorkflowState.STAGING, WorkflowState.REMOVING):
            assert not any(pid.startswith(key_[2:]) for pid in view.rows)
    for state in State:
        wanted = GetProcesses(colonyname=COLONY, count=100, state=state)
        for each in await server.call(wanted, key("e")):
            wid = bytes.fromhex(each["processgraphid"])[: keys.WID_BYTES]
            head = decode_workflow(store._items[keys.workflow(wid)].value)
            assert head.state != WorkflowState.STAGING


async def _after(store: StoppingStore) -> set[bytes]:
    """The next server finishes what was begun; what workflows are left."""
    async with bench(store) as server:
        await _nothing_seen(server, store)
        await asyncio.sleep(10)
        await settle(100)
        audit(store)
        await check_view(server.rooms.view, store)
        return wids_of(store)


async def _no_work(_: Bench) -> None:
    """Nothing happens before."""


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_staged_submit_is_whole_or_nothing_wherever_the_server_dies(way: str) -> None:
    at, met = 0, True
    outcomes: set[int] = set()
    while met:
        async with StoppingStore() as store:

            async def submit(server: Bench) -> None:
                await server.submit_workflow("e", fan(MEMBERS - 1), env={"A": "a"})

            met = await _die_at(store, at, way, _no_work, submit)
            left = await _after(store)
            outcomes.add(len(left))
            if not left:
                for prefix in (keys.BIRTH, keys.LIVE, keys.SHAPE, keys.REQUEST, b"ai/"):
                    assert not keys_under(store, prefix)
            at += 1
    assert at > 5
    assert outcomes == {0, 1}


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_cancel_of_many_is_finished_wherever_the_server_dies(way: str) -> None:
    at, met = 0, True
    while met:
        async with StoppingStore() as store:
            made: list[str] = []

            async def before(server: Bench, made: list[str] = made) -> None:
                graph = await server.submit_workflow("e", fan(MEMBERS - 1))
                made.append(graph.processgraphid)
                await server.assign("e")

            async def cancel(server: Bench, made: list[str] = made) -> None:
                await server.call(CancelProcessGraph(processgraphid=made[0]), key("e"))

            met = await _die_at(store, at, way, before, cancel)
            (wid,) = await _after(store)
            head = decode_workflow(store._items[keys.workflow(wid)].value)
            if at or way != "before":
                assert head.state == WorkflowState.CANCELLED
                assert set(head.states) == {State.CANCELLED}
            at += 1
    assert at > 5


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_failure_with_many_descendants_is_finished_wherever_the_server_dies(
    way: str,
) -> None:
    at, met = 0, True
    while met:
        async with StoppingStore() as store:
            made: list[str] = []

            async def before(server: Bench, made: list[str] = made) -> None:
                await server.submit_workflow("e", fan(MEMBERS))
                made.append((await server.assign("e")).processid)

            async def fail(server: Bench, made: list[str] = made) -> None:
                await server.call(CloseFailed(processid=made[0], errors=["no"]), key("e"))

            met = await _die_at(store, at, way, before, fail)
            (wid,) = await _after(store)
            head = decode_workflow(store._items[keys.workflow(wid)].value)
            if at or way != "before":
                assert head.state == WorkflowState.FAILED
                assert set(head.states) == {State.FAILED}
            at += 1
    assert at > 5


@pytest.mark.parametrize("is_ended", [True, False])
@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_removal_is_finished_wherever_the_server_dies(way: str, is_ended: bool) -> None:
    at, met = 0, True
    while met:
        async with StoppingStore() as store:
            made: list[str] = []

            async def before(server: Bench, made: list[str] = made) -> None:
                graph = await server.submit_workflow("e", fan(MEMBERS - 1), env={"A": "a"})
                made.append(graph.processgraphid)
                if is_ended:
                    await server.call(CancelProcessGraph(processgraphid=made[0]), key("e"))

            async def remove(server: Bench, made: list[str] = made) -> None:
                await server.call(RemoveProcessGraph(processgraphid=made[0]), key("e"))

            met = await _die_at(store, at, way, before, remove)
            left = await _after(store)
            if at or way != "before":
                assert not left
                for prefix in (*keys.BY_TAG, b"ai/"):
                    if prefix not in (keys.EXECUTOR, keys.CHANGES, *EVIDENCE):
                        assert not keys_under(store, prefix)
            at += 1
    assert at > 5


@virtual
async def test_no_member_is_seen_before_the_workflow_is_open() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        waiting = asyncio.create_task(server.assign("e", timeout=60))
        await settle()
        submit = asyncio.create_task(server.submit_workflow("e", fan(MEMBERS - 1)))
        staged: set[int] = set()
        while not submit.done():
            await asyncio.sleep(0)
            view = server.rooms.view
            assert len(view.rows) in (0, MEMBERS)
            staged |= {len(each.staged) for each in view.workflows.values()}
        assert len(staged) > 3
        assert (await waiting).spec.nodename == "root"
        assert len(server.rooms.view.rows) == MEMBERS


@virtual
async def test_G3_closing_a_node_of_ten_thousand_children_writes_three_keys() -> None:
    async with CountingStore() as store, bench(store) as server:
        await server.found("e")
        await server.submit_workflow("e", fan(9_999))
        root = await server.assign("e")
        store.commits.clear()
        message = CloseSuccessful(processid=root.processid)
        await server.call(message, key("e"))
        assert sizes(store) == [(2, 3)]
        store.commits.clear()
        child = await server.assign("e")
        assert sizes(store) == [(4, 1)]
        assert child.parents == [root.processid]
