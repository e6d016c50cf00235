"""Store invariant 7: whoever leaves, at whatever await, no assignment is lost and none doubled."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from colonist_protocol.colony import PauseAssignments, RemoveColony, ResumeAssignments
from colonist_protocol.executor import RejectExecutor, RemoveExecutor
from colonist_protocol.log import AddLog
from colonist_protocol.process import AssignProcess, Process, State
from colonist_server.repo import keys
from colonist_server.repo.records import decode_closed, decode_live
from colonist_server.store.interface import Put
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, Bench, Refused, bench, key, settle
from tests.support.stores import GatedStore, LateStore

# More than a request has awaits, so the last step of each sweep disturbs nothing.
STEPS = range(40)


async def _gone(task: asyncio.Task[Process]) -> bool:
    """Cancel an assign as its connection's end does; False when it had been answered."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return False
    return True


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_W16_parked_executor_that_leaves_during_a_submit_loses_no_process(
    steps: int,
) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        leaver = asyncio.create_task(server.assign("e1"))
        await settle()
        submit = asyncio.create_task(server.submit("e2"))
        await settle(steps)
        gone = await _gone(leaver)
        submitted = await submit
        await settle()
        await _expect(server, submitted.processid, gone=gone)


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_W16_executor_that_leaves_while_it_is_assigned_loses_no_process(steps: int) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        submitted = await server.submit("e2")
        leaver = asyncio.create_task(server.assign("e1"))
        await settle(steps)
        gone = await _gone(leaver)
        await settle()
        await _expect(server, submitted.processid, gone=gone)


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_W16_executor_that_leaves_when_woken_by_a_requeue_loses_no_process(
    steps: int,
) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "e2", "e3")
        submitted = await server.submit("e2", maxexectime=5, maxretries=-1)
        await server.assign("e2")
        leaver = asyncio.create_task(server.assign("e1", timeout=60))
        await asyncio.sleep(4.9)
        while server.rooms.view.rows[bytes.fromhex(submitted.processid)].state == State.RUNNING:
            await asyncio.sleep(0.01)
            if asyncio.get_running_loop().time() > 5.5:
                break
        await settle(steps)
        gone = await _gone(leaver)
        await settle()
        await _expect(server, submitted.processid, gone=gone)


@virtual
async def test_row_that_woke_a_waiter_goes_to_the_next_when_the_waiter_leaves_before_it_runs() -> (
    None
):
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "e2", "e3")
        submitted = await server.submit("e2", maxexectime=5, maxretries=-1)
        await server.assign("e2")
        first = asyncio.create_task(server.assign("e1", timeout=60))
        await settle()
        second = asyncio.create_task(server.assign("e3", timeout=60))
        await settle()
        row = server.rooms.view.rows[bytes.fromhex(submitted.processid)]
        await server.rooms.processes.orphan(row, row.live().executor)
        assert await _gone(first)  # woken by the row above, gone before it could run
        assert (await second).processid == submitted.processid


async def _expect(server: Bench, process_id: str, *, gone: bool) -> None:
    row = server.rooms.view.rows[bytes.fromhex(process_id)]
    if not gone:
        assert row.state == State.RUNNING
        assert server.colony.members[row.live().executor].name == "e1"
        await server.close("e1", process_id)
        return
    before = row.live()
    assert row.state == State.WAITING
    assert before.retries == (1 if before.max_exec_s else 0)
    got = await server.assign("e2", timeout=1)
    assert got.processid == process_id
    await server.close("e2", process_id)


@virtual
async def test_waiter_whose_time_ran_out_while_a_submit_held_it_is_answered() -> None:
    async with GatedStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        waiting = asyncio.create_task(server.assign("e1", timeout=3))
        await settle()
        store.gate.clear()
        submit = asyncio.create_task(server.submit("e2"))
        pause = asyncio.create_task(server.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER))
        await settle()
        await asyncio.sleep(5)
        # The submit's guard on the colony fails, because the colony is written before it.
        record = await store.get(server.colony.key)
        assert record is not None
        store._apply([Put(record.key, record.value)])
        store.gate.set()
        with pytest.raises(Refused) as refused:
            await waiting
        assert refused.value.failure.code in {"no_process", "paused_timeout"}
        await asyncio.gather(submit, pause)
        await server.call(ResumeAssignments(colonyname=COLONY), COLONY_OWNER)
        assert (await server.assign("e1", timeout=1)).processid == (await submit).processid


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("is_parked", [True, False])
@virtual
async def test_killed_server_gives_what_it_had_assigned_to_the_same_executor_once(
    steps: int, is_parked: bool
) -> None:
    async with MemoryStore() as store:
        begun = asyncio.Event()
        life = asyncio.create_task(_live(store, begun, is_parked=is_parked))
        await begun.wait()
        await settle(steps)
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
        async with bench(store) as server:
            for process in list(server.colony.running):
                # Another executor gets nothing: the first may be at it.
                with pytest.raises(Refused):
                    await server.assign("e2", timeout=1)
                again = await server.assign("e1", timeout=1)
                assert again.processid == process.hex()
                assert _attempt(store, process) == 1
                with pytest.raises(Refused):
                    await server.assign("e1", timeout=-1)
            if server.colony.queue:
                await server.assign("e2", timeout=1)


async def _live(store: MemoryStore, begun: asyncio.Event, *, is_parked: bool) -> None:
    async with bench(store) as server:
        await server.found("e1", "e2", "e3")
        if not is_parked:
            await server.submit("e3")
        assign = asyncio.create_task(server.assign("e1", timeout=60))
        if is_parked:
            await settle()
        begun.set()
        if is_parked:
            await server.submit("e3")
        await assign
        await asyncio.Event().wait()


def _attempt(store: MemoryStore, pid: bytes) -> int:
    live = store._items.get(keys.live(pid))
    if live is not None:
        return decode_live(live.value).attempt
    return decode_closed(store._items[keys.closed(pid)].value).live.attempt


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_redelivery_that_nobody_received_is_made_again_to_the_same_executor(
    steps: int,
) -> None:
    async with LateStore() as store:
        await _killed_after_an_assignment(store)
        async with bench(store) as server:
            await server.hire("e2")
            again = asyncio.create_task(server.assign("e1", timeout=1))
            await settle(steps)
            gone = await _gone(again)
            await settle()
            with pytest.raises(Refused):
                await server.assign("e2", timeout=-1)
            if gone:
                assert (await server.assign("e1", timeout=1)).retries == 0
            else:
                with pytest.raises(Refused):
                    await server.assign("e1", timeout=-1)


@virtual
async def test_redelivered_reply_that_was_lost_stays_with_its_executor() -> None:
    async with MemoryStore() as store:
        await _killed_after_an_assignment(store)
        async with bench(store) as server:
            await server.hire("e2")
            message = AssignProcess(colonyname=COLONY, timeout=1)
            answer = await server.answer(message, key("e1"))
            assert answer.lost is not None
            answer.lost()
            with pytest.raises(Refused):
                await server.assign("e2", timeout=-1)
            await server.assign("e1", timeout=-1)


@virtual
async def test_server_that_stopped_in_order_doubts_no_assignment() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            await server.submit("e1")
            await server.assign("e1")
        async with bench(store) as server:
            with pytest.raises(Refused):
                await server.assign("e1", timeout=1)


@virtual
async def test_log_line_about_a_doubtful_process_ends_the_doubt() -> None:
    async with MemoryStore() as store:
        await _killed_after_an_assignment(store)
        async with bench(store) as server:
            (pid,) = server.colony.running
            await server.call(AddLog(processid=pid.hex(), message="still at it"), key("e1"))
            with pytest.raises(Refused):
                await server.assign("e1", timeout=1)


async def _killed_after_an_assignment(store: MemoryStore) -> None:
    """A server dies that had assigned one process to e1."""
    begun = asyncio.Event()
    life = asyncio.create_task(_one_assignment(store, begun))
    await begun.wait()
    life.cancel()
    with suppress(asyncio.CancelledError):
        await life


async def _one_assignment(store: MemoryStore, begun: asyncio.Event) -> None:
    async with bench(store) as server:
        await server.found("e1")
        await server.submit("e1")
        await server.assign("e1")
        begun.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("message", [RemoveExecutor, RejectExecutor])
@virtual
async def test_executor_that_is_put_out_during_a_submit_gets_no_work(
    steps: int, message: type[RemoveExecutor | RejectExecutor]
) -> None:
    async with LateStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        waiting = asyncio.create_task(server.assign("e1", timeout=60))
        await settle()
        order = message(colonyname=COLONY, executorname="e1")
        put_out = asyncio.create_task(server.call(order, COLONY_OWNER))
        await settle(steps)
        submitted = await server.submit("e2")
        await put_out
        with suppress(Refused):
            await waiting
        await settle(200)
        row = server.rooms.view.rows[bytes.fromhex(submitted.processid)]
        is_kept = message is RejectExecutor and row.state == State.RUNNING
        if not is_kept:  # a rejected executor keeps what it had been given before
            assert row.state == State.WAITING
            assert (await server.assign("e2", timeout=1)).processid == submitted.processid


@pytest.mark.parametrize("steps", STEPS)
@virtual
async def test_colony_that_is_removed_during_a_submit_refuses_its_waiters(steps: int) -> None:
    async with LateStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        waiting = asyncio.create_task(server.assign("e1", timeout=60))
        await settle()
        remove = asyncio.create_task(server.call(RemoveColony(colonyname=COLONY), OWNER))
        await settle(steps)
        submit = asyncio.create_task(server.submit("e2"))
        await remove
        with suppress(Refused):
            await submit
        async with asyncio.timeout(1):
            with suppress(Refused):
                await waiting
        await settle(200)
        assert not server.rooms.hand_over._rooms
