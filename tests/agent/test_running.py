"""What an agent does with work: runs it, converts, reports, closes."""

import asyncio
import threading
from typing import Any

import pytest

from colonist_agent.context import Context
from colonist_agent.outcome import FailError
from colonist_protocol.process import State
from tests.agent.conftest import Stage
from tests.support.clock import virtual


@virtual
async def test_result_of_a_function_closes_the_process() -> None:
    stage = Stage()

    @stage.agent.function("double")
    async def double(number: float) -> float:
        return 2 * number

    async with stage.running() as server:
        done = await server.until_final(await server.add("double", 21))
    assert (done.state, done.output()) == (State.SUCCESS, [42])
    assert stage.agent.counters.succeeded == stage.agent.counters.delivered == 1


@pytest.mark.parametrize(
    ("value", "out"),
    [
        (None, []),
        (7, [7]),
        ("seven", ["seven"]),
        ([1, "a", 2.5], [1, "a", 2.5]),
        ((1, 2), [1, 2]),
        ({"a": 1}, ['{"a":1}']),
        (True, ["true"]),
        ([None, [1]], ["null", "[1]"]),
        (float("nan"), ["nan"]),
        (2**70, [str(2**70)]),
    ],
)
@virtual
async def test_results_travel_as_every_sdk_can_read_them(value: Any, out: list[Any]) -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function() -> Any:
        return value

    async with stage.running() as server:
        assert (await server.until_final(await server.add("f"))).output() == out


@pytest.mark.parametrize(
    ("result", "reason"),
    [(object(), "cannot travel"), ("\ud800", "cannot travel"), ("x" * 2**20, "over the limit")],
)
@virtual
async def test_result_that_cannot_travel_fails_the_process(result: Any, reason: str) -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function() -> Any:
        return result

    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
    assert done.state == State.FAILED
    assert reason in done.errors[0]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "missing a required argument: 'count'"),
        (["many"], "argument 'count': Expected `int`, got `str`"),
        ([1, 2], "too many positional arguments"),
    ],
)
@virtual
async def test_argument_that_does_not_fit_fails_with_the_reason(
    args: list[Any], reason: str
) -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function(context: Context, count: int) -> int:
        return count

    async with stage.running() as server:
        done = await server.until_final(await server.add("f", *args))
    assert done.state == State.FAILED
    assert reason in done.errors[0]


@virtual
async def test_text_is_converted_to_what_the_signature_asks_for() -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function(context: Context, a: int, /, *rest: float, flag: bool = False) -> list[Any]:
        assert isinstance(context, Context)
        return [a, *rest, str(flag)]

    async with stage.running() as server:
        done = await server.until_final(await server.add("f", "1", "2.5"))
    assert done.output() == [1, 2.5, "False"]


@virtual
async def test_unknown_function_fails_and_says_what_there_is() -> None:
    stage = Stage()
    stage.agent.function("known")(lambda: None)
    async with stage.running() as server:
        done = await server.until_final(await server.add("unknown"))
    assert done.errors == ["no function 'unknown' on this agent; it has: known"]


@pytest.mark.parametrize(
    ("error", "errors"),
    [
        (ValueError("no sensor"), ["ValueError: no sensor"]),
        (FailError("door open", "motor hot"), ["door open", "motor hot"]),
        (SystemExit(3), ["SystemExit: 3"]),
        (asyncio.CancelledError(), ["the function was cancelled"]),
    ],
)
@virtual
async def test_function_that_raises_fails_its_process_only(
    error: BaseException, errors: list[str]
) -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function() -> None:
        raise error

    @stage.agent.function("g")
    async def other() -> str:
        return "alive"

    async with stage.running() as server:
        first = await server.until_final(await server.add("f"))
        second = await server.until_final(await server.add("g"))
    assert (first.state, first.errors) == (State.FAILED, errors)
    assert second.output() == ["alive"]


@virtual
async def test_no_more_work_is_asked_for_than_there_are_slots() -> None:
    stage = Stage(slots=2)
    gate = asyncio.Event()

    @stage.agent.function("f")
    async def function() -> None:
        await gate.wait()

    async with stage.running() as server:
        ids = [await server.add("f") for _ in range(5)]
        await asyncio.sleep(60)
        states = [server.processes[each].state for each in ids]
        assert states == [State.RUNNING] * 2 + [State.WAITING] * 3
        gate.set()
        for each in ids:
            assert (await server.until_final(each)).state == State.SUCCESS


@virtual
async def test_what_a_function_says_arrives_before_the_close() -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function(context: Context) -> int:
        context.log("first")
        context.log("second")
        context.attribute("colour", "red")
        context.progress(0.1)
        context.progress(0.5, "half")
        context.set_output("so far")
        return 1

    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
    assert server.logs[done.processid] == ["first", "second", "progress 50% half"]
    assert [(each.key, each.value) for each in done.attributes] == [("colour", "red")]
    assert done.output() == [1]
    assert stage.transport.count("addlogmsg") == 2
    assert stage.transport.count("setoutputmsg") == 1


@virtual
async def test_lines_over_the_limit_are_dropped_and_counted() -> None:
    stage = Stage(queue_limit=10)

    @stage.agent.function("f")
    async def function(context: Context) -> None:
        for number in range(25):
            context.log(str(number))

    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
    assert len(server.logs[done.processid]) == 10
    assert stage.agent.counters.lines_dropped == 15


@virtual
async def test_functions_are_announced_once() -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function(context: Context, count: int, name: str = "x") -> None:
        """Does it.

        At length.
        """

    async with stage.running() as server:
        await server.until(lambda: bool(server.functions))
    [announced] = stage.server.functions
    assert (announced.executorname, announced.funcname) == ("worker", "f")
    assert announced.description == "Does it."
    assert isinstance(announced.args, list)
    assert [(each.name, each.type, each.required) for each in announced.args] == [
        ("count", "int", True),
        ("name", "str", False),
    ]
    again = Stage()
    again.server = stage.server
    again.transport = stage.transport
    await stage.agent._announcer.run()
    assert len(stage.server.functions) == 1


async def test_sync_functions_run_in_a_thread() -> None:
    stage = Stage()

    @stage.agent.function("f")
    def function(context: Context) -> bool:
        context.log("from a thread")
        return threading.current_thread() is threading.main_thread()

    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
    assert done.output() == ["false"]
    assert server.logs[done.processid] == ["from a thread"]


async def test_exit_in_a_thread_does_not_end_the_agent() -> None:
    stage = Stage()

    @stage.agent.function("f")
    def function() -> None:
        raise KeyboardInterrupt

    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
    assert done.errors == ["the function raised KeyboardInterrupt"]


@virtual
async def test_whatever_a_function_says_the_agent_can_send() -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function(context: Context) -> int:
        context.log("half a pair \ud800")
        context.set_output("\ud800")
        return 1

    async with stage.running() as server:
        done = await server.until_final(await server.add("f"))
    assert done.output() == [1]
    assert server.logs[done.processid][0] == "half a pair ?"
    assert "cannot travel" in server.logs[done.processid][1]
