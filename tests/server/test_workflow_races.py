"""What crosses on its way to the store or back, one case each: all were found by reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import pytest

from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.colony import RemoveColony
from colonist_protocol.process import CloseFailed, Process, ReleaseProcess, State
from colonist_protocol.workflow import AddChild, CancelProcessGraph, RemoveProcessGraph
from colonist_server.repo import keys
from colonist_server.repo.records import (
    ColonyRecord,
    WorkflowRecord,
    WorkflowState,
    decode_workflow,
    encode,
)
from colonist_server.repo.view import View
from colonist_server.store.interface import (
    Change,
    Event,
    Guard,
    Op,
    Put,
    Range,
    Revision,
    UnavailableError,
)
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, OWNER, Bench, Refused, bench, key, settle, spec
from tests.support.stores import LateStore
from tests.support.workflow_audit import audit, check_view, fresh, keys_under, seen, wids_of

STEPS = range(12)
TAG = b"tag1"
DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


class MuteStore(MemoryStore):
    """Tells nobody of commits while `told` is clear."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()
        self.told.set()

    async def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        async with aclosing(super().watch(after)) as events:
            async for event in events:
                await self.told.wait()
                yield event


def child_of(parent: Process, child: str = "", *, insert: bool = False) -> AddChild:
    return AddChild(
        processgraphid=parent.processgraphid,
        parentprocessid=parent.processid,
        childprocessid=child,
        insert=insert,
        spec=spec(nodename="n"),
    )


async def _sound(server: Bench, store: MemoryStore) -> None:
    await asyncio.sleep(3)
    await settle(100)
    audit(store)
    await check_view(server.rooms.view, store)


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_a_child_that_is_doomed_while_it_is_made_to_wait_for_another(steps: int) -> None:
    async with LateStore() as store, bench(store) as server:
        await server.found("e")
        graph = await server.submit_workflow("e", {"p": [], "x": [], "c": ["x"]})
        p, x = await server.assign("e"), await server.assign("e")
        failed = CloseFailed(processid=x.processid, errors=["no"])
        failing = asyncio.create_task(server.call(failed, key("e")))
        await settle(steps)
        with suppress(Refused):
            await server.process(child_of(p, graph.processids[2]), key("e"))
        await failing
        await _sound(server, store)
        await server.close("e", p.processid)
        with suppress(Refused):
            await server.close("e", (await server.assign("e", timeout=-1)).processid)
        await _sound(server, store)
        assert not server.rooms.view.workflows


@virtual
async def test_a_cancelled_workflow_that_had_grown_does_not_hinder_the_next_start() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e")
            graph = await server.submit_workflow("e", DIAMOND)
            a = await server.assign("e")
            await server.process(child_of(a, graph.processids[3]), key("e"))
            (workflow,) = server.rooms.view.workflows.values()
            record = msgspec.structs.replace(workflow.record, state=WorkflowState.CANCELLING)
            revision = workflow.revision
        await store.commit([Guard(workflow.key, revision)], [Put(workflow.key, encode(record))])
        async with bench(store) as server:  # it died between the cancel and what follows from it
            await _sound(server, store)
            head = decode_workflow(store._items[workflow.key].value)
            assert head.states == bytes([State.CANCELLED] * 5)


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_nothing_is_removed_under_whoever_was_just_given_it(steps: int) -> None:
    async with LateStore() as store, bench(store) as server:
        await server.found("e")
        graph = await server.submit_workflow("e", DIAMOND)
        assign = asyncio.create_task(server.assign("e", timeout=-1))
        await settle(steps)
        wanted = RemoveProcessGraph(processgraphid=graph.processgraphid)
        with suppress(Refused):
            await server.call(wanted, key("e"))
        try:
            got = await assign
        except Refused:
            await settle(100)
            assert not wids_of(store)
        else:
            await settle(100)
            await server.close("e", got.processid)
        await _sound(server, store)


@virtual
async def test_attributes_of_a_member_that_was_put_back_go_with_its_workflow() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        graph = await server.submit_workflow("e", {"a": []}, env={"A": "a"})
        a = await server.assign("e")
        kind = AttributeType.OUT
        attribute = Attribute(targetid=a.processid, attributetype=kind, key="k", value="v")
        await server.call(AddAttribute(attribute=attribute), key("e"))
        await server.call(ReleaseProcess(processid=a.processid), key("e"))
        wanted = RemoveProcessGraph(processgraphid=graph.processgraphid)
        await server.call(wanted, key("e"))
        for prefix in (keys.ATTRIBUTE, b"ai/", keys.LIVE, keys.BIRTH):
            assert not keys_under(store, prefix)


@pytest.mark.parametrize("how", ["cancel", "wait"])
@pytest.mark.parametrize("steps", range(30))
@virtual
async def test_a_member_that_may_run_no_more_is_not_given_to_whoever_it_woke(
    how: str, steps: int
) -> None:
    async with LateStore() as store, bench(store) as server:
        await server.found("e1", "e2", "e3")
        graph = await server.submit_workflow("e1", {"p": [], "x": [], "c": ["x"]})
        p, x = await server.assign("e1"), await server.assign("e2")
        waiting = asyncio.create_task(server.assign("e3", timeout=2))
        await settle(20)
        close = asyncio.create_task(server.close("e2", x.processid))
        await settle(steps)
        with suppress(Refused):
            if how == "cancel":
                wanted = CancelProcessGraph(processgraphid=graph.processgraphid)
                await server.call(wanted, key("e1"))
            else:
                await server.process(child_of(p, graph.processids[2]), key("e1"))
        with suppress(Refused):
            await close
        with suppress(Refused):
            await waiting
        await _sound(server, store)


@virtual
async def test_a_claim_is_void_once_its_member_must_wait() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        graph = await server.submit_workflow("e1", {"p": [], "c": []})
        p = await server.assign("e1")
        row = server.rooms.view.rows[bytes.fromhex(graph.processids[1])]
        server.colony.queue.discard(row)
        row.claimed = True
        await server.process(child_of(p, graph.processids[1]), key("e1"))
        assert (row.claimed, row.blocked, row.ticket) == (False, True, 0)


@virtual
async def test_a_root_made_to_wait_has_its_time_from_its_new_parent_after_a_start() -> None:
    """W8 again: the record still says when it would have been over as a root."""
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            graph = await server.submit_workflow("e1", {"p": [], "c": []}, maxwaittime=10)
            p = await server.assign("e1")
            await server.process(child_of(p, graph.processids[1]), key("e1"))
            await server.close("e1", p.processid)
            n = await server.assign("e1")
            await asyncio.sleep(60)
            await server.close("e1", n.processid)
            view = seen(server.rooms.view)
        assert view["rows"] == (await fresh(store))["rows"]
        async with bench(store) as server:
            await asyncio.sleep(5)
            assert (await server.assign("e1")).processid == graph.processids[1]


@virtual
async def test_a_close_that_meets_an_edit_it_has_not_heard_of_frees_nobody_too_early() -> None:
    """The edit's own node has it; this one learns of it when its close is refused."""
    async with (
        MuteStore() as store,
        bench(store, node="one") as first,
        bench(store, node="two") as second,
    ):
        await first.found("e")
        graph = await first.submit_workflow("e", {"a": [], "b": ["a"]})
        a = await first.assign("e")
        await settle(100)
        store.told.clear()
        await first.process(child_of(a, insert=True), key("e"))
        await second.close("e", a.processid)
        row = second.rooms.view.rows[bytes.fromhex(graph.processids[1])]
        assert row.blocked
        store.told.set()
        await _sound(second, store)


@virtual
async def test_what_a_lost_answer_began_is_swept_without_a_restart() -> None:
    class LosingStore(MuteStore):
        is_losing = False

        async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
            revision = await super().commit(guards, ops)
            if self.is_losing:
                self.is_losing = False
                raise UnavailableError("no answer in time")
            return revision

    async with LosingStore() as store, bench(store) as server:
        await server.found("e")
        store.told.clear()
        store.is_losing = True
        with pytest.raises(Refused):
            await server.submit_workflow("e", {f"n{number}": [] for number in range(200)})
        await asyncio.sleep(5)
        store.told.set()
        await asyncio.sleep(5)
        assert not wids_of(store)


def test_an_old_head_that_comes_late_revives_nothing() -> None:
    view = View()
    view.apply(keys.colony(TAG), encode(ColonyRecord("dev", "0" * 64)), 1)
    wid = TAG + bytes(24)
    head = keys.workflow(wid)
    record = WorkflowRecord(WorkflowState.OPEN, 1, "", "", 1)
    view.committed(3, [Put(head, encode(record))])
    ended = msgspec.structs.replace(record, state=WorkflowState.SUCCESS)
    view.committed(5, [Put(head, encode(ended))])
    old = msgspec.structs.replace(record, edits=0, state=WorkflowState.CANCELLING)
    view.watched(Event(4, (Change(head, encode(old)),)))
    assert not view.workflows
    view.watched(Event(5, (Change(head, encode(ended)),)))
    assert not view._graves


@virtual
async def test_members_whose_records_are_large_are_ended_a_few_at_a_time() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        names = [f"{number:02}" + "\u00e9" * 1000 for number in range(32)]
        nodes = {"a": [], **{f"n{number}": ["a"] for number in range(60)}}
        specs = [
            spec(nodename=name, dependencies=above, executornames=names if above else [])
            for name, above in nodes.items()
        ]
        await server.submit_specs("e", specs)
        a = await server.assign("e")
        await server.call(CloseFailed(processid=a.processid, errors=["no"]), key("e"))
        await _sound(server, store)
        assert not server.rooms.view.workflows


@virtual
async def test_a_child_that_no_commit_can_hold_is_refused() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        await server.submit_workflow("e", {"a": []})
        a = await server.assign("e")
        large = msgspec.structs.replace(
            child_of(a), spec=spec(nodename="n", args=msgspec.Raw(b'["' + b"x" * 780_000 + b'"]'))
        )
        with pytest.raises(Refused) as refusal:
            await server.process(large, key("e"))
        assert refusal.value.failure.code == "too_large"
        await _sound(server, store)


@virtual
async def test_a_cancelled_workflow_is_shown_so_also_when_a_member_had_failed() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        graph = await server.submit_workflow("e", {"a": [], "b": []})
        a = await server.assign("e")
        await server.call(CloseFailed(processid=a.processid, errors=["no"]), key("e"))
        wanted = CancelProcessGraph(processgraphid=graph.processgraphid)
        await server.call(wanted, key("e"))
        await _sound(server, store)
        shown = await server.graph("e", graph.processgraphid)
        assert shown.state == State.CANCELLED
        assert (await server.get("e", a.processid)).state == State.FAILED


@virtual
async def test_a_doubtful_member_of_a_cancelled_workflow_is_not_given_again() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e")
        await server.submit_workflow("e", {"a": []})
        a = await server.assign("e")
        row = server.rooms.view.rows[bytes.fromhex(a.processid)]
        server.rooms.hand_over.doubt(row, key("e").id)
        assert row.workflow is not None
        row.workflow.graph.is_cancelled = True
        with pytest.raises(Refused):
            await server.assign("e", timeout=-1)
        row.workflow.graph.is_cancelled = False
        assert COLONY in server.rooms.view.colonies


@virtual
async def test_a_batch_that_comes_while_a_colony_is_swept_leaves_nothing() -> None:
    """A submit that is being staged guards its head alone: so heads are swept first."""

    class SweptStore(MemoryStore):
        async def range(self, prefix: bytes, **wanted: Any) -> Range:
            page = await super().range(prefix, **wanted)
            if prefix.startswith(keys.BIRTH) and not page.items and held:
                guards, ops = held.pop()
                await super().commit(guards, ops)
            return page

        async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
            if is_held and type(ops[0]) is Put and ops[0].key.startswith(keys.BIRTH):
                held.append((guards, ops))
                await asyncio.sleep(1)
                return None
            return await super().commit(guards, ops)

    held: list[tuple[Sequence[Guard], Sequence[Op]]] = []
    is_held = True
    async with SweptStore() as store, bench(store) as server:
        await server.found("e")
        nodes = {f"n{number}": list[str]() for number in range(200)}
        submit = asyncio.create_task(server.submit_workflow("e", nodes, env={"A": "a"}))
        await settle(30)
        assert held
        await server.call(RemoveColony(colonyname=COLONY), OWNER)
        with pytest.raises(Refused):
            await submit
        await asyncio.sleep(5)
        for prefix in (*keys.BY_TAG, b"ai/"):
            assert not keys_under(store, prefix)
