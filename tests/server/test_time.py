"""Limits, pauses and waiting for work. In virtual time; nothing here waits."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.colony import (
    GetPauseStatus,
    PauseAssignments,
    RemoveColony,
    ResumeAssignments,
)
from colonist_protocol.executor import (
    ApproveExecutor,
    ExecutorState,
    GetExecutor,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.process import CloseSuccessful, RemoveProcess, State
from colonist_protocol.times import SECOND_NS, from_text
from colonist_server.repo import keys
from tests.server.people import parked, refusal, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle
from tests.support.stores import GatedStore

ADA, BEN, UMA = key("ada"), key("ben"), key("uma")


def now_s() -> float:
    return asyncio.get_running_loop().time()


# -- limits


@virtual
async def test_waiting_too_long_fails_on_time_with_the_reason() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxwaittime=5)).processid
        await asyncio.sleep(4.99)
        assert (await made.read(id)).state == State.WAITING
        await asyncio.sleep(0.02)
        process = await made.read(id)
        assert (process.state, process.errors) == (
            State.FAILED,
            ["Maximum waiting time limit exceeded"],
        )
        late_ns = from_text(process.endtime) - from_text(process.waitdeadline)
        assert abs(late_ns) < SECOND_NS // 50
        assert not process.isassigned


@virtual
async def test_a_limit_on_waiting_ends_with_the_assignment() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxwaittime=5)).processid
        await made.assign("ada")
        await asyncio.sleep(100)
        assert (await made.read(id)).state == State.RUNNING


@virtual
async def test_running_too_long_goes_to_somebody_else_until_retries_are_used_up() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=5, maxretries=1)).processid
        start = now_s()
        await made.assign("ada")
        again = await made.assign("ben", timeout=60)
        assert (again.processid, again.retries) == (id, 1)
        assert abs(now_s() - start - 5) < 0.05
        refused = await made.refuse(CloseSuccessful(processid=id), ADA)
        assert (refused.failure.status, refused.failure.code) == (403, "access_denied")
        await asyncio.sleep(5.01)
        process = await made.read(id)
        assert process.state == State.FAILED
        assert process.errors == ["Maximum execution time limit exceeded"]
        assert (process.retries, process.assignedexecutorid) == (1, BEN.id)


@virtual
async def test_what_went_back_refuses_its_late_executor() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=5, maxretries=-1)).processid
        await made.assign("ada")
        await asyncio.sleep(6)
        refused = await made.refuse(CloseSuccessful(processid=id), ADA)
        assert (refused.failure.status, refused.failure.code) == (403, "access_denied")
        assert "process is not assigned" in refused.failure.message
        process = await made.read(id)
        assert (process.state, process.isassigned, process.assignedexecutorid) == (0, False, "")
        assert from_text(process.starttime) == 0


@virtual
async def test_a_requeued_process_keeps_its_place_and_waits_anew() -> None:
    async with world() as made:
        await made.populate()
        first = (await made.submit("uma", maxexectime=5, maxwaittime=50, maxretries=9)).processid
        second = (await made.submit("uma")).processid
        await made.assign("ada")
        await asyncio.sleep(6)
        assert await made.list(State.WAITING) == [first, second]
        process = await made.read(first)
        left_ns = from_text(process.waitdeadline) - from_text(process.submissiontime)
        assert abs(left_ns - 55 * SECOND_NS) < SECOND_NS // 50
        assert (await made.assign("ben")).processid == first


@pytest.mark.parametrize("is_down_s", [1, 60])
@virtual
async def test_deadlines_are_kept_over_a_restart(is_down_s: float) -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            waits = (await made.submit("uma", maxwaittime=10)).processid
            await made.submit("uma", maxexectime=10, priority=9)
            runs = (await made.assign("ada")).processid
        await asyncio.sleep(is_down_s)
        async with world(store) as made:
            await settle()
            if is_down_s < 10:
                assert (await made.read(waits)).state == State.WAITING
                await asyncio.sleep(10.01 - is_down_s)
            await settle()
            for id in (waits, runs):
                assert (await made.read(id)).state == State.FAILED


@virtual
async def test_hundreds_of_deadlines_at_once_are_all_kept() -> None:
    async with world() as made:
        await made.populate()
        ids = [(await made.submit("uma", maxwaittime=5)).processid for _ in range(1100)]
        await asyncio.sleep(6)
        await settle()
        assert (await made.statistics())["failedprocesses"] == len(ids)
        assert not made.rooms.view.rows


@virtual
async def test_a_deadline_that_loses_against_an_assignment_does_not_end_it() -> None:
    async with GatedStore() as store, world(store) as made:
        await made.populate()
        id = (await made.submit("uma", maxwaittime=5, maxexectime=100)).processid
        await asyncio.sleep(4.9)
        store.gate.clear()
        assign = asyncio.create_task(made.assign("ada"))
        await asyncio.sleep(0.2)  # now the deadline has rung too, and waits behind the assign
        store.gate.set()
        assert (await assign).processid == id
        await settle()
        process = await made.read(id)
        assert (process.state, process.retries) == (State.RUNNING, 0)


@virtual
async def test_a_deadline_is_kept_once_a_full_disk_has_room_again() -> None:
    async with MemoryStore() as store, world(store) as made:
        await made.populate()
        id = (await made.submit("uma", maxwaittime=5)).processid
        store.is_full = True
        await asyncio.sleep(8)
        assert (await made.read(id)).state == State.WAITING
        store.is_full = False
        await asyncio.sleep(1.5)
        assert (await made.read(id)).state == State.FAILED


@virtual
async def test_a_process_is_tried_for_ever_and_its_record_does_not_grow() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=1, maxretries=-1)).processid
        sizes = []
        for _ in range(60):
            assert (await made.assign("ada", timeout=60)).processid == id
            sizes.append(len(made.rooms.view.rows[bytes.fromhex(id)].raw))
        assert max(sizes[10:]) <= max(sizes[:10])
        await made.close("ada", id)
        assert (await made.read(id)).retries == 59
        await made.call(RemoveProcess(processid=id), UMA)
        left = [name for name in await made.dump() if bytes.fromhex(id) in name]
        assert left == [keys.removed(bytes.fromhex(id))]


# -- pause


@virtual
async def test_a_pause_holds_assigns_back_and_a_resume_serves_them() -> None:
    async with world() as made:
        await made.populate()
        await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        id = (await made.submit("uma")).processid
        waits = [await parked(made, name) for name in ("ada", "ben")]
        await asyncio.sleep(50)
        assert not any(task.done() for task in waits)
        await made.call(ResumeAssignments(colonyname=COLONY), COLONY_OWNER)
        assert (await waits[0]).processid == id
        await settle()
        assert not waits[1].done()
        second = (await made.submit("uma")).processid
        assert (await waits[1]).processid == second


@virtual
async def test_assigns_say_that_the_colony_is_paused() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        now = asyncio.create_task(made.assign("ada", -1))
        assert await refusal(now) == (503, "paused")
        start = now_s()
        later = asyncio.create_task(made.assign("ada", 7))
        assert await refusal(later) == (408, "paused_timeout")
        assert 7 <= now_s() - start < 7.1


@virtual
async def test_a_pause_outlives_a_restart_and_stops_nothing_else() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            running = await made.submit("uma")
            await made.assign("ada")
            await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        async with world(store) as made:
            status = await made.call(GetPauseStatus(colonyname=COLONY), ADA)
            assert status["ispaused"] is True
            await made.close("ada", running.processid)
            waiting = (await made.submit("uma", maxwaittime=5)).processid
            await asyncio.sleep(6)
            assert (await made.read(waiting)).state == State.FAILED


# -- waiting for work


@virtual
async def test_an_assign_waits_exactly_as_long_as_it_said() -> None:
    async with world() as made:
        await made.populate()
        for timeout in (1, 10, 3600):
            start = now_s()
            assert await refusal(asyncio.create_task(made.assign("ada", timeout))) == (
                404,
                "no_process",
            )
            assert timeout <= now_s() - start < timeout + 0.1
        assert await refusal(asyncio.create_task(made.assign("ada", -5))) == (404, "no_process")
        assert await refusal(asyncio.create_task(made.assign("ada", 0))) == (400, "invalid_value")


@virtual
async def test_nobody_waits_longer_than_an_hour() -> None:
    async with world() as made:
        await made.populate()
        start = now_s()
        assert await refusal(asyncio.create_task(made.assign("ada", 2**62))) == (404, "no_process")
        assert now_s() - start < 3601


@virtual
async def test_removing_an_executor_frees_its_work_and_wakes_another() -> None:
    async with world() as made:
        await made.populate()
        ids = [(await made.submit("uma")).processid for _ in range(2)]
        for _ in ids:
            await made.assign("ada")
        waits = [await parked(made, "ben") for _ in range(2)]
        own = await parked(made, "ada")
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert sorted([(await task).processid for task in waits]) == sorted(ids)
        assert await refusal(own) == (403, "access_denied")
        for id in ids:
            process = await made.get("ben", id)
            assert (process.retries, process.assignedexecutorid) == (0, BEN.id)
        removed = await made.call(GetExecutor(colonyname=COLONY, executorname="ada"), BEN)
        assert removed["state"] == ExecutorState.UNREGISTERED
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)


@virtual
async def test_who_is_rejected_while_parked_is_told_at_once() -> None:
    async with world() as made:
        await made.populate()
        task = await parked(made, "ada")
        await made.call(RejectExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert await refusal(task) == (403, "access_denied")
        await made.submit("uma")
        await made.call(ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        await made.assign("ada")


@virtual
async def test_who_waits_in_a_removed_colony_is_told_at_once() -> None:
    async with world() as made:
        await made.populate()
        task = await parked(made, "ada")
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        assert await refusal(task) == (403, "access_denied")
        assert made.rooms.hand_over.parked() == 0
