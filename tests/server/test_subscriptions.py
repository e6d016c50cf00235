"""The hub: what subscribers see of processes, in virtual time (COLONIES-RPC section 1.8)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from colonist_core.process import What, assigned, ended, redelivered, returned
from colonist_protocol.colony import RemoveColony
from colonist_protocol.executor import RejectExecutor, RemoveExecutor
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
from colonist_protocol.user import RemoveUser
from colonist_protocol.workflow import CancelProcessGraph
from colonist_server.repo import delivery, keys, moments
from colonist_server.repo import subscriptions as hub
from colonist_server.repo.records import encode
from colonist_server.repo.topics import Ending
from colonist_server.store.interface import Change, Event
from tests.server.following import Ear, LaggingStore, failure_of, follow, stream, subscribe
from tests.server.people import OTHER_OWNER, STRANGER, WHO, World, attribute_of, out_of, world
from tests.server.test_reload import HeldStore
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle
from tests.support.stores import CountingStore

ADA, EVE, UMA = key("ada"), key("eve"), key("uma")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


async def _populated(made: World) -> World:
    await made.populate()
    return made


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


# -- workflows: members are told of when they may run


def _member(made: World, id: bytes, live: Any) -> Event:
    changes = (Change(keys.birth(id), b"b"), Change(keys.live(id), encode(live)))
    return Event(made.rooms.members._writes.store.revision + 1, changes)


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
        assert [shown.waitforparents for shown in blocked.heard] == [True, False]
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
        assert blocked.states == [WAITING, WAITING, FAILED]


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


# -- who may


@pytest.mark.parametrize("who", WHO)
@virtual
async def test_members_may_follow_and_nobody_else(who: str) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for message in (
            SubscribeProcess(processid=made.running, state=1, timeout=9),
            SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9),
        ):
            got = await subscribe(made, message, WHO[who])
            if who in ("user", "approved", "approved too"):
                assert isinstance(got, Ear)
            else:
                assert failure_of(got).code == "access_denied"
                assert not got.is_fatal


@virtual
async def test_unknown_and_foreign_are_refused_alike() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        texts = set()
        for id in (made.running, "ab" * 32):
            message = SubscribeProcess(processid=id, state=1, timeout=9)
            texts.add(str(failure_of(await subscribe(made, message, EVE))))
        for name in (COLONY, "no such"):
            message = SubscribeProcesses(colonyname=name, state=1, timeout=9)
            failure = failure_of(await subscribe(made, message, EVE))
            assert failure.status == 403
        assert len(texts) == 1
        unknown = made.running[:-2] + "ff"
        message = SubscribeProcess(processid=unknown, state=1, timeout=9)
        assert failure_of(await subscribe(made, message, UMA)).code == "not_found"


@pytest.mark.parametrize("state", [-2, 5, 2**40])
@virtual
async def test_a_state_that_is_none_is_refused(state: int) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for message in (
            SubscribeProcess(processid=made.running, state=state, timeout=9),
            SubscribeProcesses(colonyname=COLONY, state=state, timeout=9),
        ):
            got = await subscribe(made, message, UMA)
            assert failure_of(got).code == "invalid_value"
            assert not got.is_fatal


@pytest.mark.parametrize(
    ("leaving", "who"),
    [
        (RemoveExecutor(colonyname=COLONY, executorname="ada"), "ada"),
        (RejectExecutor(colonyname=COLONY, executorname="ada"), "ada"),
        (RemoveUser(colonyname=COLONY, name="uma"), "uma"),
    ],
)
@virtual
async def test_who_leaves_hears_nothing_more(leaving: Any, who: str) -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("ben")).processid
        ears = [await stream(made, who=who), await follow(made, id, who=who)]
        others = [await stream(made, who="ben"), await follow(made, id, who="ben")]
        await made.call(leaving, COLONY_OWNER)
        await settle()
        await made.assign("ben")
        await made.close("ben", id)
        await settle()
        assert [(ear.endings, ear.frames) for ear in ears] == [([Ending.REFUSED], [])] * 2
        assert [ear.states for ear in others] == [[RUNNING, SUCCESS], [SUCCESS]]
        assert made.rooms.subscriptions.count == 1


@virtual
async def test_a_removed_colony_ends_everything() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made), await follow(made, id)]
        held = asyncio.create_task(made.call(_held(id), UMA))
        await settle()
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await settle()
        assert [ear.endings for ear in ears] == [[Ending.REFUSED]] * 2
        with pytest.raises(Exception, match="access_denied"):
            await held
        assert made.rooms.subscriptions._topics == {}


@virtual
async def test_one_caller_may_not_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_OF_CALLER", 3)
    async with world() as made:
        await made.populate()
        ears = [await stream(made) for _ in range(3)]
        message = SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9)
        assert failure_of(await subscribe(made, message, UMA)).code == "busy"
        await stream(made, who="ada")
        subscription = ears[0].subscription
        assert subscription is not None
        for _ in range(2):
            made.rooms.subscriptions.cancel(subscription)
        await stream(made)


# -- what goes wrong


@virtual
async def test_when_the_watch_was_lost_nobody_misses_anything_silently() -> None:
    async with HeldStore(is_late=False) as store, world(store) as made:
        await made.populate()
        ids = [(await made.submit("uma")).processid for _ in range(5)]
        moved, done, seen, gone, same = ids
        for id in (moved, done):
            assert (await made.assign("ada")).processid == id
        await settle()
        everything = await stream(made)
        ears = {id: await follow(made, id, FAILED) for id in ids}
        leaver = await stream(made, who="ben")
        held = asyncio.create_task(made.call(_held(moved, 1), UMA))
        assert (await made.assign("ada")).processid == seen
        await settle()
        assert everything.pairs == [(seen, RUNNING)]
        store.gate.clear()
        store.forget()
        await settle()
        await made.call(ReleaseProcess(processid=moved), ADA)
        await made.close("ada", done)
        await made.call(RemoveProcess(processid=gone), UMA)
        await made.call(RejectExecutor(colonyname=COLONY, executorname="ben"), COLONY_OWNER)
        store.gate.set()
        store.remember()
        await settle()
        assert (len(everything.frames), everything.endings) == (1, [Ending.BEHIND])
        assert leaver.endings == [Ending.REFUSED]
        assert ears[moved].states == [WAITING]  # not what was asked for, but something was missed
        assert (ears[done].states, ears[done].endings) == ([SUCCESS], [Ending.DONE])
        assert (ears[gone].states, ears[gone].endings) == ([], [Ending.REMOVED])
        for id in (same, seen):
            assert (ears[id].states, ears[id].endings) == ([], [])
        assert (await held)["state"] == WAITING
        await made.call(CancelProcess(processid=moved), UMA)
        await settle()
        assert ears[moved].states == [WAITING, CANCELLED]


class Unreadable(MemoryStore):
    """Reads may fail."""

    fails = False

    async def get_many(self, keys: Any) -> Any:
        if self.fails:
            from colonist_server.store.interface import (  # noqa: PLC0415
                UnavailableError as StoreUnavailableError,
            )

            raise StoreUnavailableError("the disk is gone")
        return await super().get_many(keys)


@virtual
async def test_a_store_that_cannot_be_read_ends_subscriptions_and_not_the_server() -> None:
    async with Unreadable() as store, world(store) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        everything, one = await stream(made), await follow(made, id)
        made.rooms.listing._births.forget(bytes.fromhex(id))
        await made.close("ada", id)
        store.fails = True
        await settle()
        assert everything.endings == one.endings == [Ending.UNREADABLE]
        store.fails = False
        later = await stream(made)
        await made.submit("uma")
        await settle()
        assert later.states == [WAITING]


@virtual
async def test_a_fault_in_rendering_ends_subscriptions_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as made:
        await made.populate()
        ear = await stream(made)

        async def broken(self: Any, wanted: Any) -> Any:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(type(made.rooms.listing), "of_moments", broken)
            await made.submit("uma")
            await settle()
        assert ear.endings == [Ending.UNREADABLE]
        assert "ZeroDivisionError" in caplog.text
        later = await stream(made)
        await made.submit("uma")
        await settle()
        assert later.states == [WAITING]


@virtual
async def test_what_cannot_be_handed_out_in_time_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "MAX_PENDING", 10)
    async with world() as made:
        await made.populate()
        gate = asyncio.Event()
        original = type(made.rooms.listing).of_moments

        async def slow(self: Any, wanted: Any) -> Any:
            await gate.wait()
            return await original(self, wanted)

        monkeypatch.setattr(type(made.rooms.listing), "of_moments", slow)
        first = (await made.submit("uma", priority=9)).processid
        everything, one = await stream(made), await follow(made, first)
        await made.assign("ada")
        await made.close("ada", first)
        for _ in range(40):
            await made.submit("uma")
        await settle()
        assert len(made.rooms.subscriptions._delivery._jobs) < 20
        gate.set()
        await settle()
        assert everything.endings == [Ending.BEHIND]
        assert (one.states, one.endings) == ([SUCCESS], [Ending.DONE])


@virtual
async def test_the_end_of_the_server_ends_everything() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made), await follow(made, id)]
        held = asyncio.create_task(made.call(_held(id), UMA))
        await settle()
        called: list[str] = []
        made.rooms.subscriptions.at_close(lambda: called.append("closed"))
        made.rooms.subscriptions.close()
        assert [ear.endings for ear in ears] == [[Ending.CLOSING]] * 2
        assert (await held)["state"] == WAITING
        assert called == ["closed"]
        message = SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9)
        assert failure_of(await subscribe(made, message, UMA)).code == "unavailable"
        assert (await made.call(_held(id), UMA))["state"] == WAITING


# -- a read that waits


def _held(id: str, waitwhile: int = 0, timeout: int = 100) -> GetProcess:
    return GetProcess(processid=id, waitwhile=waitwhile, timeout=timeout)


@virtual
async def test_a_read_waits_until_the_state_is_another() -> None:
    loop = asyncio.get_running_loop()
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        held = asyncio.create_task(made.call(_held(id), UMA))
        await asyncio.sleep(50)
        assert not held.done()
        assert made.rooms.subscriptions.parked == 1
        await made.assign("ada")
        assert (await held)["state"] == RUNNING
        assert loop.time() < 51
        held = asyncio.create_task(made.call(_held(id, RUNNING), ADA))
        await asyncio.sleep(5)
        await made.close("ada", id)
        shown = await held
        assert (shown["state"], shown["out"]) == (SUCCESS, ["done"])
        assert made.rooms.subscriptions.parked == 0


@virtual
async def test_a_read_ends_with_its_time_or_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with world() as made:
        await made.populate()
        await made.employ()
        start = loop.time()
        for message in (
            GetProcess(processid=made.waiting),
            _held(made.waiting, WAITING, 0),
            _held(made.waiting, WAITING, -3),
            _held(made.waiting, -1, 50),
            _held(made.waiting, RUNNING, 50),
            _held(made.succeeded, SUCCESS, 50),
        ):
            await made.call(message, UMA)
        assert loop.time() == start
        assert (await made.call(_held(made.waiting, timeout=50), UMA))["state"] == WAITING
        assert loop.time() == pytest.approx(start + 50)
        await made.call(_held(made.waiting, timeout=10**6), UMA)
        assert loop.time() == pytest.approx(start + 3650)
        assert made.rooms.subscriptions._topics == {}


@virtual
async def test_another_attempt_is_another_state(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        held = asyncio.create_task(made.call(_held(id, RUNNING), UMA))
        await settle()
        events: list[Event] = []
        with monkeypatch.context() as patch:
            patch.setattr(hub.Subscriptions, "watched", lambda _, event: events.append(event))
            await made.call(ReleaseProcess(processid=id), ADA)
            await made.assign("ben")
            await settle()
        assert not held.done()
        for event in events:
            made.rooms.subscriptions.watched(event)
        assert (await held)["assignedexecutorid"] == key("ben").id
        assert asyncio.get_running_loop().time() < 1


@virtual
async def test_an_executor_whose_read_waits_is_not_taken_for_dead() -> None:
    async with world(stale_s=100, presence_every_s=10) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.get("ben", id)
        held = asyncio.create_task(made.call(_held(id, timeout=1000), ADA))
        await asyncio.sleep(500)
        assert made.colony.executors["ada"].is_approved
        assert not made.colony.executors["ben"].is_approved
        assert (await held)["state"] == WAITING


@virtual
async def test_who_leaves_does_not_wait_any_more() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("ben")).processid
        held = asyncio.create_task(made.call(_held(id), UMA))
        gone = asyncio.create_task(made.call(_held(id), ADA))
        await settle()
        gone.cancel()
        await settle()
        assert made.rooms.subscriptions.parked == 1
        still = asyncio.create_task(made.call(_held(id), ADA))
        await made.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        with pytest.raises(Exception, match="access_denied"):
            await held
        assert made.rooms.subscriptions.parked == 1
        await made.call(CancelProcess(processid=id), key("ben"))
        assert (await still)["state"] == CANCELLED
        assert made.rooms.subscriptions._topics == {}


@virtual
async def test_a_read_that_waits_asks_nothing_of_the_store() -> None:
    async with (
        CountingStore() as store,
        world(store, presence_every_s=1e6, tallies_every_s=1e6) as made,
    ):
        await made.populate()
        id = (await made.submit("uma")).processid
        held = [asyncio.create_task(made.call(_held(id, 0, 3000), UMA)) for _ in range(10)]
        await settle()
        before = store.asked.count("get")
        await asyncio.sleep(2900)
        assert store.asked.count("get") == before
        for task in held:
            task.cancel()


@virtual
async def test_foreign_processes_cannot_be_waited_for() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for who in (EVE, STRANGER, OTHER_OWNER):
            refused = await made.refuse(_held(made.running, RUNNING), who)
            assert refused.failure.code == "access_denied"


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
