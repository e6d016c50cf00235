"""What subscribers see of the members of workflows, which are told of when they may run."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from colonist_core.process import What, assigned, ended, redelivered, returned
from colonist_protocol.process import (
    CloseFailed,
    ReleaseProcess,
    State,
)
from colonist_protocol.workflow import CancelProcessGraph
from colonist_server.repo import moments
from tests.server.following import (
    LaggingStore,
    follow,
    stream,
)
from tests.server.people import world
from tests.support.clock import virtual
from tests.support.rooms import key, settle

ADA, UMA = key("ada"), key("uma")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


def test_a_blocked_member_is_not_waiting_when_it_is_submitted() -> None:
    live = _live()
    lone, member = bytes(32), bytes(28) + b"\x00\x00\x00\x02"
    assert [each.state for each in moments.entered(lone, live, is_born=True)] == [WAITING]
    assert moments.entered(member, live, is_born=True) == []
    running = assigned(live, lone.hex(), executor="e", node="n", now_ns=5, cause=_cause())
    states = [each.state for each in moments.entered(lone, running, is_born=True)]
    assert states == [WAITING, RUNNING]
    assert [each.state for each in moments.entered(member, running, is_born=True)] == [RUNNING]
    back = returned(running, lone.hex(), What.REQUEUED, now_ns=9)
    assert moments.entered(member, back, is_born=False) == [back]


def test_an_event_that_changes_no_state_is_none() -> None:
    id = bytes(32)
    running = assigned(_live(), id.hex(), executor="e", node="n", now_ns=5, cause=_cause())
    again = redelivered(running, id.hex(), node="n", now_ns=6, cause=_cause())
    assert moments.entered(id, running, is_born=False) == [running]
    assert moments.entered(id, again, is_born=False) == []
    [born, now] = moments.entered(id, again, is_born=True)
    assert (born.state, now.state) == (WAITING, RUNNING)


def test_what_was_born_is_as_it_was_born() -> None:
    id = bytes(32)
    live = _live()
    running = assigned(live, id.hex(), executor="e", node="n", now_ns=5, cause=_cause())
    [born, _] = moments.entered(id, running, is_born=True)
    assert msgspec.structs.replace(born, head=live.head) == live
    done = ended(running, id.hex(), What.SUCCEEDED, now_ns=9)
    assert done.live.state == SUCCESS


def _cause() -> Any:
    from colonist_core.process import Cause  # noqa: PLC0415

    return Cause(who="ab" * 32)


def _live() -> Any:
    from colonist_core.matching import placement  # noqa: PLC0415
    from colonist_core.process import Limits, born  # noqa: PLC0415

    return born(
        bytes(32).hex(),
        now_ns=1,
        priority_ns=1,
        placement=placement(type="t", names=(), location="", cpu=0, mem=0),
        limits=Limits(10, 20, 3),
        label="",
        initiator="i",
        funcname="f",
        cause=_cause(),
    )


@pytest.mark.parametrize("lag", [0, 30])
@virtual
async def test_members_of_a_workflow_wait_when_they_may_run(lag: int) -> None:
    async with LaggingStore(lag) as store, world(store) as made:
        await made.found("ada")
        await made.enrol("uma")
        await settle(2000)
        everything = await stream(made)
        graph = await made.submit_workflow(
            "uma", {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "x": []}
        )
        await settle(200)
        a, b, c, d, x = graph.processids
        assert sorted(everything.pairs) == sorted([(a, WAITING), (x, WAITING)])
        everything.frames.clear()
        blocked = await follow(made, b, WAITING)
        for id in (a, x):
            assert (await made.assign("ada")).processid == id
        await made.call(ReleaseProcess(processid=x), ADA)
        await settle(200)
        assert everything.pairs == [(a, RUNNING), (x, RUNNING), (x, WAITING)]
        everything.frames.clear()
        await made.close("ada", a, b"[7]")
        await settle(300)
        assert sorted(everything.pairs) == sorted([(a, SUCCESS), (b, WAITING), (c, WAITING)])
        assert [shown.waitforparents for shown in blocked.heard] == [False]
        everything.frames.clear()
        for id in (b, c):
            assert (await made.assign("ada")).processid == id
        await made.call(CloseFailed(processid=b, errors=["no"]), ADA)
        await settle(500)
        assert everything.pairs == [(b, RUNNING), (c, RUNNING), (b, FAILED), (d, FAILED)]
        everything.frames.clear()
        await made.call(CancelProcessGraph(processgraphid=graph.processgraphid), UMA)
        await settle(500)
        assert sorted(everything.pairs) == sorted([(x, CANCELLED), (c, CANCELLED)])
        assert blocked.states == [WAITING, FAILED]


@virtual
async def test_a_released_member_is_told_of_at_once() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made), await stream(made, WAITING), await stream(made, RUNNING)]
        one, other = await follow(made, id, WAITING), await follow(made, id, RUNNING)
        held = asyncio.create_task(
            made.rooms.subscriptions.changed(made.colony, bytes.fromhex(id), UMA.id)
        )
        await settle()
        made.rooms.subscriptions.member_released(made.rooms.view.rows[bytes.fromhex(id)])
        await settle()
        assert [ear.states for ear in ears] == [[WAITING], [WAITING], []]
        assert (one.states, other.states) == ([WAITING, WAITING], [])
        assert held.done()
        await made.assign("ada")
        await settle()
        assert ears[0].states == [WAITING, RUNNING]


@virtual
async def test_nobody_listens_to_a_release() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        made.rooms.subscriptions.member_released(made.rooms.view.rows[bytes.fromhex(id)])
