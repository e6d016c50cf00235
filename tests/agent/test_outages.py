"""What an agent does when server or network fail: waits with jitter, keeps results, goes on."""

import asyncio
import itertools
import logging

import pytest

from colonist_agent.context import Context
from colonist_client.retry import Backoff
from colonist_protocol.envelope import pack_failure
from colonist_protocol.errors import NoProcessError
from colonist_protocol.process import State
from tests.agent.conftest import KEY, Stage
from tests.support.clock import virtual

LONGEST = Backoff(uniform=lambda _, high: high, base_s=1.0, cap_s=8.0)


def _gaps(stage: Stage, kind: str) -> list[float]:
    times = [time_s for time_s, sent in stage.transport.sent if sent == kind]
    return [round(after - before, 3) for before, after in itertools.pairwise(times)]


@virtual
async def test_unreachable_server_is_tried_ever_more_rarely_and_found_again() -> None:
    stage = Stage(backoff=LONGEST)
    stage.agent.function("f")(_nothing)
    stage.transport.is_down = True
    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(60)
        assert _gaps(stage, "assignprocessmsg")[:6] == [1, 2, 4, 8, 8, 8]
        stage.transport.is_down = False
        assert (await server.until_final(process_id)).state == State.SUCCESS


@virtual
async def test_jitter_spreads_over_the_whole_pause() -> None:
    stage = Stage()
    stage.transport.is_down = True
    async with stage.running():
        await asyncio.sleep(3600)
    gaps = _gaps(stage, "assignprocessmsg")[10:]
    assert max(gaps) <= 30
    assert min(gaps) < 8
    assert max(gaps) > 22


@virtual
async def test_refused_key_is_tried_rarely_and_the_log_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(backoff=LONGEST)
    stage.server.executors.clear()
    with caplog.at_level(logging.ERROR):
        async with stage.running():
            await asyncio.sleep(3600)
    gaps = _gaps(stage, "assignprocessmsg")
    assert min(gaps) >= 30
    assert max(gaps) <= 300
    assert f"executor={KEY.id}" in caplog.text
    assert "add and approve" in caplog.text
    assert KEY.reveal() not in caplog.text


@virtual
async def test_answers_that_come_too_early_make_no_hot_loop() -> None:
    stage = Stage()

    async def impatient(_: bytes) -> bytes:
        return pack_failure(NoProcessError("No process available for assignment"))

    stage.transport.answer = impatient
    async with stage.running():
        await asyncio.sleep(3600)
    assert 100 < stage.transport.count("assignprocessmsg") < 600


@virtual
async def test_paused_colony_is_waited_for() -> None:
    stage = Stage()
    stage.agent.function("f")(_nothing)
    stage.server.is_paused = True
    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(600)
        assert stage.transport.count("assignprocessmsg") < 40
        server.is_paused = False
        await server._notify()
        assert (await server.until_final(process_id)).state == State.SUCCESS


@virtual
async def test_close_is_repeated_byte_for_byte_until_it_is_answered() -> None:
    stage = Stage()
    stage.agent.function("f")(_nothing)
    stage.transport.drop_replies_to = {"closesuccessfulmsg"}
    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
        assert done.state == State.SUCCESS
        await asyncio.sleep(120)
        assert stage.agent.counters.delivered == 0
        stage.transport.drop_replies_to = set()
    closes = {body for body in stage.transport.bodies if b"closesuccessfulmsg" in body}
    assert len(closes) == 1
    assert stage.transport.count("closesuccessfulmsg") > 3
    assert stage.agent.counters.delivered == 1


@virtual
async def test_result_is_delivered_once_the_outage_is_over() -> None:
    stage = Stage()
    started = asyncio.Event()

    @stage.agent.function("f")
    async def function(context: Context) -> str:
        started.set()
        context.log("a line from the dark")
        await asyncio.sleep(10)
        return "kept"

    async with stage.running() as server:
        process_id = await server.add("f", maxexectime=7200)
        await started.wait()
        stage.transport.is_down = True
        await asyncio.sleep(3600)
        assert server.processes[process_id].state == State.RUNNING
        stage.transport.is_down = False
        assert (await server.until_final(process_id)).output() == ["kept"]


@virtual
async def test_result_that_comes_after_the_lease_is_dropped_and_counted() -> None:
    stage = Stage()
    stage.transport.drop_replies_to = {"closesuccessfulmsg"}
    stage.agent.function("f")(_nothing)
    async with stage.running() as server:
        await server.until_final(await server.add("f", maxexectime=30))
        await asyncio.sleep(120)
        assert stage.agent.counters.undelivered == 1
        assert stage.agent._courier.pending == 0


@virtual
async def test_refused_close_is_not_repeated() -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function() -> None:
        await stage.server.requeue(next(iter(stage.server.processes)))
        stage.agent.registry._found.pop("f")

    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(60)
        # The same process came back to this agent, which knows the function no more.
        assert server.processes[process_id].state == State.FAILED
    assert stage.transport.count("closesuccessfulmsg") == 1
    assert stage.agent.counters.undelivered == 1


@virtual
async def test_logs_that_cannot_be_sent_do_not_hold_the_function_up() -> None:
    stage = Stage()
    took_s: list[float] = []

    @stage.agent.function("f")
    async def function(context: Context) -> None:
        stage.transport.is_down = True
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        for number in range(10_000):
            context.log(str(number))
        took_s.append(loop.time() - started_s)

    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(20)
        stage.transport.is_down = False
        await server.until_final(process_id)
    assert took_s == [0]
    assert stage.agent.counters.lines_dropped == 10_000


async def _nothing() -> None:
    """Does nothing."""
