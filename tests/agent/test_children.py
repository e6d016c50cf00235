"""What a function may do beside its own work: submit, wait, read its parents, grow a workflow."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from colonist_agent.blocking import Blocking, StoppedError
from colonist_agent.children import Children
from colonist_agent.context import Cancelled, Context
from colonist_agent.watch import Watch
from colonist_client.caller import OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.processes import raw
from colonist_client.retry import Backoff
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol import codec
from colonist_protocol.envelope import Failure, pack_failure
from colonist_protocol.errors import (
    BusyError,
    ColonistError,
    ContendedError,
    InvalidValueError,
    UnavailableError,
)
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import CancelProcess, Process, State
from colonist_protocol.workflow import WorkflowSpec
from tests.agent.conftest import Stage
from tests.agent.workshop import Hand, Workshop, workshop
from tests.support.clock import virtual
from tests.support.rooms import COLONY, key, spec
from tests.support.transports import DirectTransport

FOR_EVER = 10**9
SUBMIT = "submitfuncspecmsg"
HOLDS_S = 30


def _call(function: str, *values: Any, **changes: Any) -> FunctionSpec:
    return spec(funcname=function, args=raw(values), colonyname="", **changes)


def _functions(hand: Hand) -> None:
    @hand.agent.function("double")
    async def double(number: int) -> int:
        await asyncio.sleep(5)
        return 2 * number

    @hand.agent.function("total")
    async def total(context: Context) -> int:
        return sum(context.inputs)


async def _result(shop: Workshop, function: str, *values: Any) -> Process:
    submitted = await shop.bench.submit("boss", funcname=function, args=raw(values))
    return await shop.ended(submitted.processid)


# -- children


@virtual
async def test_function_submits_and_waits_for_processes() -> None:
    async with workshop("ada", "ben") as shop:
        ada, ben = shop.hand("ada"), shop.hand("ben", slots=3)
        _functions(ben)

        @ada.agent.function("spread")
        async def spread(context: Context, count: int) -> list[Any]:
            calls = [_call("double", number, executornames=["ben"]) for number in range(count)]
            submitted = [await context.submit(each) for each in calls]
            ended = [await context.wait(each) for each in submitted]
            assert all(each.initiatorid == key("ada").id for each in ended)
            return [each.output()[0] for each in ended]

        async with ada.running(), ben.running():
            submitted = await shop.bench.submit(
                "boss", funcname="spread", args=raw([3]), executornames=["ada"]
            )
            assert (await shop.ended(submitted.processid)).output() == [0, 2, 4]
            assert asyncio.get_running_loop().time() < 6


@virtual
async def test_wait_takes_an_id_and_tells_of_every_end() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        seen: list[int] = []

        @ada.agent.function("f")
        async def function(context: Context, process_id: str) -> None:
            seen.append((await context.wait(process_id)).state)

        other = await shop.bench.submit("boss", executortype="nobody")
        async with ada.running(), asyncio.TaskGroup() as group:
            group.create_task(_result(shop, "f", other.processid))
            await asyncio.sleep(200)
            assert shop.bench.rooms.subscriptions.parked == 2 + 1  # its wait, its follower, ours
            await shop.bench.call(CancelProcess(processid=other.processid), key("ada"))
        assert seen == [State.CANCELLED]


@virtual
async def test_wait_at_a_server_that_answers_at_once_grows_patient() -> None:
    stage = Stage(slots=2, check_s=FOR_EVER)

    @stage.agent.function("wait")
    async def wait(context: Context, process_id: str) -> str:
        return str(await context.wait(process_id))

    @stage.agent.function("slow")
    async def slow() -> None:
        await asyncio.sleep(600)

    async with stage.running() as server:
        slow_id = await server.add("slow")
        waiting = await server.add("wait", slow_id)
        assert (await server.until_final(waiting)).state == State.SUCCESS
    assert 100 < stage.transport.count("getprocessmsg") < 150


@virtual
async def test_process_that_was_removed_ends_the_wait_with_the_servers_words() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")

        @ada.agent.function("f")
        async def function(context: Context) -> None:
            await context.wait("0" * 64)

        async with ada.running():
            ended = await _result(shop, "f")
        assert ended.state == State.FAILED
        assert ended.errors[0].startswith("ServerError: ")


# -- workflows


@virtual
async def test_inputs_and_parents_are_what_the_nodes_before_gave() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        _functions(ada)
        seen: list[Any] = []

        @ada.agent.function("look")
        async def look(context: Context) -> None:
            parents = await context.parents()
            seen.append([(each.spec.nodename, each.output()) for each in parents])
            seen.append(context.inputs)

        nodes = [
            _call("double", 1, nodename="a"),
            _call("double", 2, nodename="b"),
            _call("look", nodename="c", dependencies=["a", "b"]),
        ]
        boss = Client(DirectTransport(shop.answer), key("boss"))
        async with ada.running():
            graph = await boss.submit_workflow(WorkflowSpec(colonyname=COLONY, functionspecs=nodes))
            await shop.ended(graph.processids[2])
        assert seen == [[("a", [2]), ("b", [4])], [2, 4]]


@virtual
async def test_process_outside_of_a_workflow_has_neither_inputs_nor_parents_nor_children() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")

        @ada.agent.function("f")
        async def function(context: Context) -> None:
            assert context.inputs == await context.parents() == []
            with pytest.raises(InvalidValueError, match="only a member of a workflow"):
                await context.add_child(_call("g", nodename="g"))

        async with ada.running():
            assert (await _result(shop, "f")).state == State.SUCCESS
        assert ada.transport.count("addchildmsg") == 0


@virtual
async def test_function_lets_its_workflow_grow_and_the_rest_waits_for_the_new_node() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        _functions(ada)

        @ada.agent.function("grow")
        async def grow(context: Context) -> int:
            new = await context.add_child(_call("double", 21, nodename="new"), insert=True)
            assert new.parents == [context.process.processid]
            return 1

        nodes = [
            _call("grow", nodename="a"),
            _call("total", nodename="b", dependencies=["a"]),
        ]

        @ada.agent.function("start")
        async def start(context: Context) -> str:
            return (await context.submit_workflow(WorkflowSpec(functionspecs=nodes))).processids[1]

        async with ada.running():
            last = (await _result(shop, "start")).output()[0]
            ended = await shop.ended(last)
        assert ended.output() == [42]  # of the new node, and no more of "a"


@virtual
async def test_child_between_two_nodes_keeps_their_edge() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        _functions(ada)

        @ada.agent.function("grow")
        async def grow(context: Context) -> int:
            after = context.process.children[0]
            await context.add_child(_call("double", 21, nodename="new"), child=after)
            return 1

        nodes = [_call("grow", nodename="a"), _call("total", nodename="b", dependencies=["a"])]
        boss = Client(DirectTransport(shop.answer), key("boss"))
        async with ada.running():
            graph = await boss.submit_workflow(WorkflowSpec(colonyname=COLONY, functionspecs=nodes))
            assert (await shop.ended(graph.processids[1])).output() == [1 + 42]


@virtual
async def test_function_packs_a_generator_and_its_workflow_runs() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        _functions(ada)
        boss = Client(DirectTransport(shop.answer), key("boss"))
        nodes = [_call("join", nodename="a")]
        made = await boss.add_generator(
            COLONY, "pairs", WorkflowSpec(colonyname=COLONY, functionspecs=nodes), trigger=2
        )
        joined: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        @ada.agent.function("join")
        async def join(first: str, second: str) -> None:
            joined.set_result([first, second])

        @ada.agent.function("feed")
        async def feed(context: Context, argument: str) -> None:
            await context.pack(made.generatorid, argument)

        async with ada.running():
            await _result(shop, "feed", "one")
            await _result(shop, "feed", "two")
            async with asyncio.timeout(60):
                assert await joined == ["one", "two"]


# -- failures


class _Faulty(DirectTransport):
    """Fails the first writes with what is given; None: the request arrives, its answer is lost."""

    def __init__(self, shop: Workshop, *faults: Exception | Failure | None) -> None:
        super().__init__(shop.answer)
        self.faults = list(faults)

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        kind = self._kind(body)
        if kind.startswith("get") or not self.faults:
            return await super().exchange(body, wait_s=wait_s)
        fault = self.faults.pop(0)
        self.sent.append((asyncio.get_running_loop().time(), kind))
        if fault is None:
            await self.answer(body)
            raise UnreachableError("the answer was lost")
        if isinstance(fault, ColonistError) and not isinstance(fault, NotSentError):
            return pack_failure(fault)
        if isinstance(fault, Failure):
            return _packed(fault)
        raise fault

    @staticmethod
    def _kind(body: bytes) -> str:
        kind: str = msgspec.json.decode(body)["payloadtype"]
        return kind


def _packed(failure: Failure) -> bytes:
    payload = codec.to_base64(codec.encode({"status": failure.status, "message": "no"}))
    return codec.encode({"payloadtype": "error", "payload": payload, "error": True})


async def _children(
    shop: Workshop, *faults: Exception | Failure | None
) -> tuple[Children, _Faulty]:
    await shop.bench.submit("boss")
    given = await shop.bench.assign("ada")
    transport = _Faulty(shop, *faults)
    backoff = Backoff(uniform=lambda _, high: high, base_s=1.0, cap_s=8.0)
    watch = Watch(Client(transport, key("ada")), backoff=backoff, hold_s=HOLDS_S)
    return Children(given, watch), transport


async def _waiting(shop: Workshop) -> int:
    boss = Client(DirectTransport(shop.answer), key("boss"))
    return len(await boss.processes(COLONY, state=State.WAITING))


@virtual
async def test_submit_that_never_left_or_was_turned_away_undone_is_repeated() -> None:
    async with workshop("ada") as shop:
        children, transport = await _children(
            shop,
            NotSentError("no way"),
            BusyError("busy"),
            ContendedError("contended"),
            Failure(status=429, message="from a proxy"),
        )
        await children.submit(_call("f"))
        assert await _waiting(shop) == 1
        assert [time_s for time_s, _ in transport.sent] == [0, 1, 3, 7, 15]


@pytest.mark.parametrize("fault", [None, UnavailableError("the store hangs")])
def test_submit_whose_outcome_is_not_known_is_not_repeated(fault: ColonistError | None) -> None:
    @virtual
    async def scenario() -> None:
        async with workshop("ada") as shop:
            children, transport = await _children(shop, fault)
            with pytest.raises(OutcomeUnknownError, match="outcome"):
                await children.submit(_call("f"))
            assert transport.count(SUBMIT) == 1
            assert await _waiting(shop) == (fault is None)

    scenario()


@virtual
async def test_refusal_is_raised_with_the_servers_status_and_code() -> None:
    async with workshop("ada") as shop:
        children, transport = await _children(shop)
        with pytest.raises(ServerError) as raised:
            await children.submit(_call("f", mem="much"))
        assert (raised.value.status, raised.value.code) == (400, "bad_amount")
        with pytest.raises(ServerError) as raised:
            await children.submit(_call("f", priority=10**6))
        assert raised.value.is_definite
        assert transport.count(SUBMIT) == 2


@virtual
async def test_function_that_lets_a_lost_answer_pass_fails_and_says_why() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")

        @ada.agent.function("f")
        async def function(context: Context) -> None:
            ada.transport.drop_replies_to.add(SUBMIT)
            await context.submit(_call("g", executortype="nobody"))

        async with ada.running():
            ended = await _result(shop, "f")
        assert ended.state == State.FAILED
        assert ended.errors[0].startswith(f"OutcomeUnknownError: {SUBMIT}: the outcome is unknown")


@virtual
async def test_outage_delays_a_function_that_waits_and_ends_nothing() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        other = await shop.bench.submit("boss", executortype="nobody")

        @ada.agent.function("f")
        async def function(context: Context) -> int:
            return (await context.wait(other.processid)).state

        async with ada.running():
            submitted = await shop.bench.submit("boss")
            await asyncio.sleep(10)
            ada.transport.is_down = True
            await asyncio.sleep(200)
            await shop.cancel(other.processid)
            ada.transport.is_down = False
            assert (await shop.ended(submitted.processid)).output() == [State.CANCELLED]


@virtual
async def test_spec_that_names_a_colony_keeps_it() -> None:
    async with workshop("ada") as shop:
        children, _ = await _children(shop)
        for call in (
            lambda: children.submit(spec(colonyname="elsewhere")),
            lambda: children.submit_workflow(
                WorkflowSpec(colonyname="elsewhere", functionspecs=[spec(nodename="a")])
            ),
        ):
            with pytest.raises(ServerError) as raised:
                await call()
            assert raised.value.code == "access_denied"


# -- threads


async def test_sync_functions_have_the_same_by_the_same_names() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada", slots=2)
        boss = Client(DirectTransport(shop.answer), key("boss"))
        generator = await boss.add_generator(
            COLONY,
            "g",
            WorkflowSpec(colonyname=COLONY, functionspecs=[_call("f", nodename="f")]),
            trigger=9,
        )

        @ada.agent.function("echo")
        async def echo(word: str) -> str:
            return word

        @ada.agent.function("first")
        def first(context: Context) -> str:
            calls = context.blocking
            ended = calls.wait(calls.submit(_call("echo", "hello")))
            calls.add_child(_call("echo", ended.output()[0], nodename="new"), insert=True)
            calls.pack(generator.generatorid, "x")
            return "mine"

        @ada.agent.function("second")
        def second(context: Context) -> list[Any]:
            calls = context.blocking
            names = [each.spec.nodename for each in calls.parents()]
            nodes = [_call("echo", "more", nodename="x")]
            more = calls.submit_workflow(WorkflowSpec(functionspecs=nodes))
            return [*names, *context.inputs, calls.wait(more.processids[0]).output()[0]]

        nodes = [_call("first", nodename="a"), _call("second", nodename="b", dependencies=["a"])]
        async with ada.running():
            graph = await boss.submit_workflow(WorkflowSpec(colonyname=COLONY, functionspecs=nodes))
            ended = await boss.wait(graph.processids[1], timeout_s=30)
        assert (ended.output(), ended.errors) == (["new", "hello", "more"], [])
        assert (await boss.generator(generator.generatorid)).queuesize == 1


async def _in_thread(shop: Workshop, function: Callable[[Context], None]) -> tuple[Hand, str]:
    ada = shop.hand("ada", stop_grace_s=0)
    ada.agent.function("f")(function)
    return ada, (await shop.bench.submit("boss")).processid


async def test_thread_that_waits_is_let_go_by_a_cancel_and_asks_nothing_more() -> None:
    async with workshop("ada") as shop:
        other = await shop.bench.submit("boss", executortype="nobody")
        waits, seen, done = threading.Event(), list[str](), threading.Event()

        def function(context: Context) -> None:
            for _ in range(2):
                try:
                    waits.set()
                    context.blocking.wait(other)
                except StoppedError as error:
                    seen.append(str(error))
            done.set()

        ada, process_id = await _in_thread(shop, function)
        async with ada.running():
            await asyncio.to_thread(waits.wait, 30)
            await shop.cancel(process_id)
            assert await asyncio.to_thread(done.wait, 1)
        assert seen == [
            "the attempt was told to end; the outcome is unknown",
            "the attempt was told to end",
        ]
        assert ada.closes == []
        assert shop.bench.rooms.subscriptions.parked == 0


async def test_thread_that_waits_does_not_keep_the_agent_from_stopping() -> None:
    async with workshop("ada") as shop:
        other = await shop.bench.submit("boss", executortype="nobody")
        waits = threading.Event()

        def function(context: Context) -> None:
            waits.set()
            context.blocking.wait(other)

        ada, process_id = await _in_thread(shop, function)
        async with ada.running():
            await asyncio.to_thread(waits.wait, 30)
        assert (await shop.get(process_id)).state == State.WAITING  # given back
        assert ada.agent.counters.returned == 1


async def test_blocking_call_in_the_loop_is_refused_and_not_a_deadlock() -> None:
    stage = Stage()

    @stage.agent.function("f")
    async def function(context: Context) -> None:
        context.blocking.wait("p")

    async with stage.running() as server:
        ended = await server.until_final(await server.add("f"))
    assert ended.errors[0].startswith("RuntimeError: this would block the agent")


async def test_call_by_a_thread_that_outlives_its_function_is_refused() -> None:
    stage = Stage()
    kept: list[Context] = []

    @stage.agent.function("f")
    def function(context: Context) -> None:
        kept.append(context)

    async with stage.running() as server:
        await server.until_final(await server.add("f"))
        with pytest.raises(StoppedError):
            await asyncio.to_thread(kept[0].blocking.wait, "p")


def test_names_are_the_same_in_both_worlds() -> None:
    names = {"submit", "submit_workflow", "add_child", "pack", "wait", "parents"}
    for kind in (Context, Blocking, Children):
        assert names <= set(vars(kind))


@virtual
async def test_async_function_may_wait_for_the_flag() -> None:
    cancelled = Cancelled()
    async with asyncio.TaskGroup() as group:
        group.create_task(cancelled.wait_async())
        await asyncio.sleep(5)
        cancelled.set()
    await cancelled.wait_async()
    assert asyncio.get_running_loop().time() == 5
