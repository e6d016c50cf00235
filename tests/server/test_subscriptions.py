"""The hub: what subscribers see of processes, in virtual time (COLONIES-RPC section 1.8)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from colonist_protocol.executor import RemoveExecutor
from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    GetProcess,
    ReleaseProcess,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_protocol.subscription import SubscribeProcess, SubscribeProcesses
from colonist_server.repo.topics import Ending
from tests.server.following import (
    LaggingStore,
    failure_of,
    follow,
    stream,
    subscribe,
)
from tests.server.people import attribute_of, out_of, world
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle

ADA, UMA = key("ada"), key("uma")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


# -- one process


@virtual
async def test_a_follower_sees_the_state_that_it_asked_for_and_the_end() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ear = await follow(made, id, RUNNING)
        await settle()
        assert ear.frames == []
        await made.assign("ada")
        await settle()
        assert ear.states == [RUNNING]
        assert ear.heard[0].assignedexecutorid == ADA.id
        await made.close("ada", id)
        await settle()
        assert ear.states == [RUNNING, SUCCESS]
        assert ear.endings == [Ending.DONE]
        assert made.rooms.subscriptions.count == 0


@virtual
async def test_a_state_that_is_there_already_is_shown_at_once() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for id, state in (
            (made.waiting, WAITING),
            (made.running, RUNNING),
            (made.succeeded, SUCCESS),
            (made.failed, FAILED),
            (made.cancelled, CANCELLED),
        ):
            for timeout in (0, 10):
                ear = await follow(made, id, state, timeout)
                await settle()
                assert ear.pairs == [(id, state)]
                is_final = state in (SUCCESS, FAILED, CANCELLED)
                if timeout == 0 or is_final:
                    assert ear.endings == [Ending.DONE if is_final else Ending.TIME_IS_UP]


@pytest.mark.parametrize("wanted", [-1, *State])
@virtual
async def test_the_end_is_shown_whatever_was_asked_for(wanted: int) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        late = await follow(made, made.failed, wanted)
        early = await follow(made, made.running, wanted)
        await made.call(CancelProcess(processid=made.running), UMA)
        await settle()
        assert late.states == [FAILED]
        assert early.states == ([RUNNING] if wanted in (-1, RUNNING) else []) + [CANCELLED]
        assert late.endings == early.endings == [Ending.DONE]


@virtual
async def test_the_end_is_fresh() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ear = await follow(made, id)
        await asyncio.sleep(1)
        await made.assign("ada")
        await made.call(attribute_of(id), ADA)
        await asyncio.sleep(1)
        await made.close("ada", id, b'["result", 1.10]')
        await settle()
        [shown] = ear.heard
        assert shown == await made.read(id)
        assert out_of(shown) == ["result", 1.10]
        assert bytes(shown.out) == b'["result", 1.10]'
        assert shown.attributes
        assert shown.endtime > shown.starttime > shown.submissiontime


@virtual
async def test_time_is_up_to_the_moment() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await follow(made, id, SUCCESS, timeout) for timeout in (-5, 0, 10, 10**9)]
        await settle()
        assert [ear.endings for ear in ears] == [[Ending.TIME_IS_UP]] * 2 + [[], []]
        await asyncio.sleep(9.9)
        assert ears[2].endings == []
        await asyncio.sleep(0.2)
        assert ears[2].endings == [Ending.TIME_IS_UP]
        await asyncio.sleep(3580)
        assert ears[3].endings == []
        await asyncio.sleep(20)
        assert ears[3].endings == [Ending.TIME_IS_UP]
        assert made.rooms.subscriptions.count == 0


@virtual
async def test_a_wrong_type_does_not_make_a_follower_deaf() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ear = await follow(made, id, RUNNING, type="no such type")
        await made.assign("ada")
        await settle()
        assert ear.states == [RUNNING]


@virtual
async def test_a_process_that_is_removed_ends_its_subscriptions() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ear = await follow(made, id, RUNNING)
        all = await stream(made)
        await made.call(RemoveProcess(processid=id), UMA)
        await settle()
        assert ear.endings == [Ending.REMOVED]
        assert (all.states, all.endings) == ([], [])


# -- a colony's processes


@virtual
async def test_who_follows_a_colony_sees_what_was_asked_for() -> None:
    async with world() as made:
        await made.populate()
        await made.hire("tom", type="truck")
        everything = await stream(made)
        starts = await stream(made, RUNNING)
        trucks = await stream(made, -1, "truck")
        nothing = await stream(made, SUCCESS, "truck")
        first = (await made.submit("uma")).processid
        second = (await made.submit("uma", executortype="truck")).processid
        await made.assign("ada")
        await made.assign("tom")
        await made.close("ada", first)
        await made.call(CloseFailed(processid=second, errors=["flat tyre"]), key("tom"))
        await settle()
        assert everything.pairs == [
            (first, WAITING),
            (second, WAITING),
            (first, RUNNING),
            (second, RUNNING),
            (first, SUCCESS),
            (second, FAILED),
        ]
        assert starts.pairs == [(first, RUNNING), (second, RUNNING)]
        assert trucks.pairs == [(second, WAITING), (second, RUNNING), (second, FAILED)]
        assert trucks.heard[-1].errors == ["flat tyre"]
        assert nothing.pairs == []


@virtual
async def test_a_hand_over_is_two_events_in_one_put() -> None:
    async with world() as made:
        await made.populate()
        everything, waits = await stream(made), await stream(made, WAITING)
        task = asyncio.create_task(made.assign("ada"))
        await settle()
        before = made.rooms.members._writes.store.revision
        submitted = await made.submit("uma", maxwaittime=50, maxexectime=60)
        assert made.rooms.members._writes.store.revision == before + 1
        await settle()
        assert everything.states == [WAITING, RUNNING]
        assert everything.heard == [submitted, await task]
        assert waits.heard == [submitted]


@virtual
async def test_every_way_back_into_the_queue_is_seen() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=5, maxretries=3)).processid
        ear = await stream(made)
        await made.assign("ada")
        await made.call(ReleaseProcess(processid=id), ADA)
        await made.assign("ada")
        await asyncio.sleep(6)
        await made.assign("ben")
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ben"), COLONY_OWNER)
        await settle()
        assert ear.states == [RUNNING, WAITING] * 3
        assert [shown.retries for shown in ear.heard] == [0, 0, 0, 1, 1, 1]


@virtual
async def test_a_process_that_waits_in_vain_fails_before_all_eyes() -> None:
    async with world() as made:
        await made.populate()
        everything = await stream(made)
        id = (await made.submit("uma", maxwaittime=5)).processid
        one = await follow(made, id)
        await asyncio.sleep(6)
        assert everything.states == [WAITING, FAILED]
        assert one.states == [FAILED]
        assert one.heard[0].errors


@virtual
async def test_output_so_far_is_shown_of_a_process_that_is_tried_again() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=5, maxretries=3)).processid
        await made.assign("ada")
        await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[1]")), ADA)
        ear = await stream(made)
        await asyncio.sleep(6)
        assert [(shown.state, bytes(shown.out)) for shown in ear.heard] == [(WAITING, b"[1]")]


@virtual
async def test_everybody_gets_the_same_bytes_and_a_process_is_rendered_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as made:
        await made.populate()
        rendered: list[int] = []
        listing = made.rooms.listing
        original = type(listing).of_moments

        async def counting(self: Any, wanted: Any) -> Any:
            rendered.append(len(wanted))
            return await original(self, wanted)

        monkeypatch.setattr(type(listing), "of_moments", counting)
        ears = [await stream(made) for _ in range(200)]
        id = (await made.submit("uma")).processid
        await settle()
        followers = [await follow(made, id, RUNNING) for _ in range(50)]
        await made.assign("ada")
        await settle()
        assert sum(rendered) == 2
        assert {len(ear.frames) for ear in ears} == {2}
        frames = [ear.frames[-1] for ear in [*ears, *followers]]
        assert all(frame is frames[0] for frame in frames)


@virtual
async def test_nothing_that_was_before_is_seen() -> None:
    """A commit may be answered before the watch brings it: the view is ahead of it."""
    async with LaggingStore(30) as store, world(store) as made:
        await made.populate()
        await settle(2000)
        for _ in range(20):
            id = (await made.submit("uma")).processid
            everything, one = await stream(made), await follow(made, id, WAITING)
            await made.assign("ada")
            again = await follow(made, id, RUNNING)
            await made.close("ada", id)
            await settle(300)
            assert everything.pairs == [(id, RUNNING), (id, SUCCESS)]
            assert one.states == [WAITING, SUCCESS]
            assert again.states == [RUNNING, SUCCESS]


# -- the door


@virtual
async def test_each_message_has_its_door() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for message in (
            SubscribeProcess(processid=made.running, state=1, timeout=9),
            SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9),
        ):
            refused = await made.refuse(message, UMA)
            assert (refused.failure.status, refused.failure.code) == (400, "wrong_door")
            assert "/pubsub" in refused.failure.message
        got = await subscribe(made, GetProcess(processid=made.running), UMA)
        assert failure_of(got).code == "wrong_door"
        assert "POST /api" in failure_of(got).message
        assert got.is_fatal
