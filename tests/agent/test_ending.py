"""How attempts end before their functions do: leases, cancellation, the agent's own end."""

import asyncio
import threading

import pytest

from colonist_agent.context import Context
from colonist_protocol.process import State
from tests.agent.conftest import Stage
from tests.support.clock import virtual

FOR_EVER = 10**9


def _sleeper(stage: Stage) -> list[str]:
    seen: list[str] = []

    @stage.agent.function("sleep")
    async def sleep(context: Context, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            assert context.cancelled.is_set()
            seen.append(f"cancelled at {asyncio.get_running_loop().time():.0f}")
            raise
        return "slept"

    return seen


@virtual
async def test_function_is_cancelled_when_its_lease_ends_and_nothing_is_closed() -> None:
    stage = Stage(check_s=FOR_EVER)
    seen = _sleeper(stage)
    async with stage.running() as server:
        process_id = await server.add("sleep", 600, maxexectime=60)
        await asyncio.sleep(100)
        assert seen == ["cancelled at 60"]
        assert server.processes[process_id].state == State.RUNNING  # the server's to put back
    assert stage.agent.counters.abandoned == 1
    assert not {"closesuccessfulmsg", "closefailedmsg"} & set(stage.server.seen)


@virtual
async def test_cancelled_process_cancels_its_function_within_the_interval() -> None:
    stage = Stage(check_s=15)
    seen = _sleeper(stage)
    async with stage.running() as server:
        process_id = await server.add("sleep", 600)
        await asyncio.sleep(50)
        await stage.client.cancel(process_id)
        await asyncio.sleep(15)
        assert seen == ["cancelled at 60"]
    assert server.processes[process_id].state == State.CANCELLED
    assert stage.agent.counters.abandoned == 1


@virtual
async def test_refused_log_line_makes_the_agent_look_at_once() -> None:
    stage = Stage(check_s=FOR_EVER)
    seen: list[str] = []

    @stage.agent.function("f")
    async def function(context: Context) -> None:
        try:
            while True:
                await asyncio.sleep(5)
                context.log("still here")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(11)
        await stage.client.cancel(process_id)
        await asyncio.sleep(6)
        assert seen == ["cancelled"]


@virtual
async def test_process_that_was_taken_back_and_given_again_is_run_once_at_a_time() -> None:
    stage = Stage(slots=2, check_s=FOR_EVER)
    running = 0
    most = 0

    @stage.agent.function("f")
    async def function() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(50)
        finally:
            running -= 1

    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(10)
        await server.requeue(process_id)
        assert (await server.until_final(process_id)).state == State.SUCCESS
    assert most == 1
    assert stage.agent.counters.assigned == 2


@virtual
async def test_stop_lets_a_function_finish_and_asks_for_no_more() -> None:
    stage = Stage(slots=2)
    _sleeper(stage)
    async with stage.running() as server:
        first = await server.add("sleep", 10)
        await asyncio.sleep(1)
        stage.agent.stop()
        await asyncio.sleep(0)
        second = await server.add("sleep", 1)
    assert server.processes[first].output() == ["slept"]
    assert server.processes[second].state == State.WAITING
    assert asyncio.get_running_loop().time() < 12


@virtual
async def test_stop_fails_what_has_no_lease_and_leaves_what_has_one() -> None:
    stage = Stage(slots=2, stop_grace_s=20)
    seen = _sleeper(stage)
    async with stage.running() as server:
        endless = await server.add("sleep", FOR_EVER)
        leased = await server.add("sleep", FOR_EVER, maxexectime=3600)
        await asyncio.sleep(1)
        stage.agent.stop()
    assert seen == ["cancelled at 21"] * 2
    assert server.processes[endless].errors == ["agent stopped"]
    assert server.processes[leased].state == State.RUNNING


@virtual
async def test_stop_ends_though_the_server_is_gone() -> None:
    stage = Stage(stop_grace_s=5)
    _sleeper(stage)
    async with stage.running() as server:
        await server.add("sleep", 2)
        await asyncio.sleep(1)
        stage.transport.is_down = True
    assert stage.agent._courier.pending == 1
    assert asyncio.get_running_loop().time() < 30


@virtual
async def test_cancelled_agent_cancels_its_functions_at_once() -> None:
    stage = Stage()
    seen = _sleeper(stage)
    task = asyncio.get_running_loop().create_task(stage.agent.run())
    await stage.server.add("sleep", FOR_EVER)
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled at 10"]


async def test_sync_function_learns_that_it_should_end() -> None:
    stage = Stage(stop_grace_s=0)
    started = threading.Event()

    @stage.agent.function("f")
    def function(context: Context) -> str:
        started.set()
        assert context.cancelled.wait(60)
        return "ended early"

    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.to_thread(started.wait, 60)
        stage.agent.stop()
    assert server.processes[process_id].errors == ["agent stopped"]


async def test_thread_that_never_looks_does_not_keep_the_agent_from_ending() -> None:
    stage = Stage(stop_grace_s=0, abandon_s=0.05)
    started, gate = threading.Event(), threading.Event()

    @stage.agent.function("f")
    def function() -> None:
        started.set()
        gate.wait(60)

    async with stage.running() as server:
        await server.add("f")
        await asyncio.to_thread(started.wait, 60)
        stage.agent.stop()
    gate.set()


@virtual
async def test_earlier_attempt_is_told_to_end_when_its_process_comes_again() -> None:
    stage = Stage(slots=2, check_s=FOR_EVER)
    runs = 0

    @stage.agent.function("f")
    async def function() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(FOR_EVER if runs == 1 else 1)
        return runs

    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(10)
        await server.requeue(process_id)
        async with asyncio.timeout(60):
            assert (await server.until_final(process_id)).output() == [2]


@virtual
async def test_process_given_to_this_key_again_is_another_attempt() -> None:
    stage = Stage(check_s=15)
    seen = _sleeper(stage)
    async with stage.running() as server:
        process_id = await server.add("sleep", FOR_EVER)
        await asyncio.sleep(10)
        await server.requeue(process_id)
        assert await stage.client.assign("home") is not None  # a second agent with the same key
        await asyncio.sleep(15)
        assert seen == ["cancelled at 15"]


@virtual
async def test_lines_of_an_abandoned_attempt_are_counted_as_dropped() -> None:
    stage = Stage(check_s=FOR_EVER)

    @stage.agent.function("f")
    async def function(context: Context) -> None:
        stage.transport.is_down = True
        for number in range(5):
            context.log(str(number))
            await asyncio.sleep(1)
        await asyncio.sleep(FOR_EVER)

    async with stage.running() as server:
        await server.add("f", maxexectime=60)
        await asyncio.sleep(70)
    assert stage.agent.counters.lines_dropped == 5
