"""How an agent learns that what it runs is cancelled or not its own any more, and what it does."""

import asyncio
import contextlib
import itertools
import threading

import msgspec
import pytest

from colonist_agent.children import Children
from colonist_agent.context import Context
from colonist_agent.follower import SETTLE_S, Follower, judge
from colonist_agent.outcome import Stop
from colonist_agent.watch import Watch
from colonist_client.client import Client
from colonist_client.retry import Backoff
from colonist_protocol.envelope import pack_failure, pack_reply, parse_request
from colonist_protocol.errors import AccessError, BusyError, ColonistError, NotFoundError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process, State
from tests.agent.conftest import KEY, Stage
from tests.agent.workshop import Hand, workshop
from tests.support.clock import virtual
from tests.support.rooms import key
from tests.support.transports import DirectTransport

FOR_EVER = 10**9
AT_ONCE = Backoff(uniform=lambda _, high: high, base_s=1.0, cap_s=4.0)

GIVEN = Process(
    processid="1" * 64,
    initiatorid="",
    initiatorname="",
    assignedexecutorid="us",
    isassigned=True,
    state=State.RUNNING,
    prioritytime=0,
    submissiontime="",
    starttime="2027-01-01T00:00:00Z",
    spec=FunctionSpec(),
)


def _sleeper(hand: Hand | Stage, name: str = "f") -> list[float]:
    """A function that never ends by itself, and the times at which it was cancelled."""
    seen: list[float] = []

    @hand.agent.function(name)
    async def function(context: Context) -> None:
        try:
            await asyncio.sleep(FOR_EVER)
        finally:
            assert context.cancelled.is_set()
            seen.append(asyncio.get_running_loop().time())

    return seen


def _now() -> float:
    return asyncio.get_running_loop().time()


def _asked(transport: DirectTransport) -> list[float]:
    return [time_s for time_s, kind in transport.sent if kind == "getprocessmsg"]


# -- what the answer means


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, None),
        ({"out": msgspec.Raw(b"[1]")}, None),
        ({"state": State.CANCELLED}, Stop.CANCELLED),
        ({"state": State.FAILED}, Stop.LOST),
        ({"state": State.SUCCESS}, Stop.LOST),
        ({"state": State.WAITING, "assignedexecutorid": ""}, Stop.LOST),
        ({"assignedexecutorid": "them"}, Stop.LOST),
        ({"starttime": "2027-01-01T00:00:01Z"}, Stop.LOST),
    ],
)
def test_what_ends_an_attempt(changes: dict[str, object], verdict: Stop | None) -> None:
    assert judge(GIVEN, msgspec.structs.replace(GIVEN, **changes)) == verdict


# -- a server that holds


@virtual
async def test_cancel_reaches_a_running_function_at_once_and_no_close_is_sent() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada", check_s=FOR_EVER)
        seen = _sleeper(ada)
        async with ada.running():
            process_id = (await shop.bench.submit("boss")).processid
            await asyncio.sleep(500)
            cancelled_at = _now()
            await shop.cancel(process_id)
            await asyncio.sleep(1)
            assert len(seen) == 1
            assert seen[0] - cancelled_at < 0.1
            await asyncio.sleep(500)
    assert ada.closes == []
    assert ada.agent.counters.abandoned == 1


@virtual
async def test_cancel_right_after_the_start_is_seen_within_a_second() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada", check_s=FOR_EVER)
        seen = _sleeper(ada)
        async with ada.running():
            process_id = (await shop.bench.submit("boss")).processid
            await shop.while_in(process_id, State.WAITING)
            cancelled_at = _now()
            await shop.cancel(process_id)
            await asyncio.sleep(1)
            assert seen[0] - cancelled_at == pytest.approx(SETTLE_S)


@virtual
async def test_one_question_is_open_for_each_running_process_and_none_for_a_short_one() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada", slots=3, poll_s=30)
        _sleeper(ada)

        @ada.agent.function("short")
        async def short() -> None:
            await asyncio.sleep(SETTLE_S / 2)

        async with ada.running():
            await shop.ended((await shop.bench.submit("boss", funcname="short")).processid)
            assert _asked(ada.transport) == []
            ids = [(await shop.bench.submit("boss")).processid for _ in range(3)]
            await asyncio.sleep(301)
            assert shop.bench.rooms.subscriptions.parked == 3
            assert len(_asked(ada.transport)) == 3 * 11
            for each in ids:
                await shop.cancel(each)
            await asyncio.sleep(1)
            assert shop.bench.rooms.subscriptions.parked == 0


@virtual
async def test_process_that_is_taken_back_is_let_go_at_once() -> None:
    async with workshop("ada", "ben") as shop:
        ada = shop.hand("ada", check_s=FOR_EVER)
        seen = _sleeper(ada)
        async with ada.running():
            process_id = (await shop.bench.submit("boss", executornames=["ada"])).processid
            await asyncio.sleep(10)
            released_at = _now()
            await Client(DirectTransport(shop.answer), key("ada")).release(process_id)
            await asyncio.sleep(1)
            assert seen[0] - released_at < 0.1
            assert ada.agent.counters.assigned == 2  # it came back, as a new attempt
    assert "closesuccessfulmsg" not in ada.closes


@virtual
async def test_cancel_while_the_last_words_are_sent_keeps_the_close_back() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")

        @ada.agent.function("f")
        async def function(context: Context) -> str:
            await asyncio.sleep(10)
            context.log("almost done")
            gate.set()
            return "done"

        gate = asyncio.Event()
        answer = ada.transport.answer

        async def slow(body: bytes) -> bytes:
            if parse_request(body).payloadtype == "addlogmsg":
                await asyncio.sleep(3)
            return await answer(body)

        ada.transport.answer = slow
        async with ada.running():
            process_id = (await shop.bench.submit("boss")).processid
            await gate.wait()
            await shop.cancel(process_id)
            await asyncio.sleep(60)
    assert ada.closes == []
    assert ada.agent.counters.abandoned == 1


@virtual
async def test_cancel_during_an_outage_is_seen_when_it_is_over() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada")
        seen = _sleeper(ada)
        async with ada.running():
            process_id = (await shop.bench.submit("boss")).processid
            await asyncio.sleep(10)
            ada.transport.is_down = True
            await asyncio.sleep(40)  # the question that was open is answered: it comes to its end
            await shop.cancel(process_id)
            await asyncio.sleep(600)
            assert seen == []
            assert len(_asked(ada.transport)) < 100
            ada.transport.is_down = False
            await asyncio.sleep(31)
            assert len(seen) == 1


@virtual
async def test_agent_that_dies_leaves_nothing_parked_and_the_next_one_runs_the_process() -> None:
    async with workshop("ada") as shop:
        first = shop.hand("ada")
        seen = _sleeper(first)
        task = asyncio.get_running_loop().create_task(first.agent.run())
        process_id = (await shop.bench.submit("boss", maxexectime=60, maxretries=3)).processid
        await asyncio.sleep(10)
        assert shop.bench.rooms.subscriptions.parked == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert len(seen) == 1
        assert shop.bench.rooms.subscriptions.parked == 0
        second = shop.hand("ada")
        again = _sleeper(second)
        async with second.running():
            await asyncio.sleep(55)
            assert shop.bench.rooms.subscriptions.parked == 1  # the lease ended, it runs again
            await shop.cancel(process_id)
            await asyncio.sleep(1)
            assert len(again) == 1
    assert first.closes == second.closes == []


@virtual
async def test_cancelled_workflow_stops_its_members_on_two_agents() -> None:
    async with workshop("ada", "ben") as shop:
        hands = [shop.hand("ada", slots=2), shop.hand("ben", slots=1)]
        seen = [_sleeper(hand) for hand in hands]
        async with hands[0].running(), hands[1].running():
            graph = await shop.bench.submit_workflow(
                "boss", {"a": [], "b": [], "c": [], "d": ["a"]}
            )
            await asyncio.sleep(100)
            boss = Client(DirectTransport(shop.answer), key("boss"))
            cancelled_at = _now()
            await boss.cancel_workflow(graph.processgraphid)
            await asyncio.sleep(1)
            assert [len(each) for each in seen] == [2, 1]
            assert max(itertools.chain(*seen)) - cancelled_at < 0.1
            await asyncio.sleep(100)
    assert [hand.closes for hand in hands] == [[], []]


# -- a server that answers at once


@virtual
async def test_server_that_answers_at_once_is_asked_at_intervals() -> None:
    stage = Stage(check_s=15)
    _sleeper(stage)
    async with stage.running() as server:
        process_id = await server.add("f")
        await asyncio.sleep(150)
        asked = _asked(stage.transport)
        gaps = {round(after - before, 3) for before, after in itertools.pairwise(asked)}
        assert gaps == {15}
        assert len(asked) == 10
        await stage.client.cancel(process_id)
        await asyncio.sleep(16)
    assert stage.agent.counters.abandoned == 1


@virtual
async def test_more_than_may_be_held_are_asked_at_intervals() -> None:
    async with workshop("ada") as shop:
        watch = _watch(DirectTransport(shop.answer), key_name="boss", capacity=2)
        given: list[Process] = []
        for _ in range(5):
            await shop.bench.submit("boss")
            given.append(await shop.bench.assign("ada"))
        stopped: list[Stop] = []
        async with asyncio.TaskGroup() as group:
            for each in given:
                group.create_task(Follower(each, watch=watch, on_stop=stopped.append).run())
            await asyncio.sleep(100)
            assert watch.held == shop.bench.rooms.subscriptions.parked == 2
            for each in given:
                await shop.cancel(each.processid)
            await asyncio.sleep(1)
            assert len(stopped) == 2
            await asyncio.sleep(watch.check_s)
        assert stopped == [Stop.CANCELLED] * 5
        assert watch.held == 0


@virtual
async def test_waits_for_others_leave_half_of_the_places_to_what_the_agent_runs() -> None:
    async with workshop("ada") as shop:
        watch = _watch(DirectTransport(shop.answer), key_name="boss", capacity=4)
        submitted = [await shop.bench.submit("boss") for _ in range(5)]
        async with asyncio.TaskGroup() as group:
            for each in submitted:
                group.create_task(Children(GIVEN, watch).wait(each))
            await asyncio.sleep(100)
            assert watch.held == 2
            for each in submitted:
                await shop.cancel(each.processid)


# -- odd answers


def _watch(transport: DirectTransport, *, key_name: str = "", **options: int) -> Watch:
    client = Client(transport, key(key_name) if key_name else KEY)
    return Watch(client, backoff=AT_ONCE, **options)


class _Oracle:
    """Answers each read with the next of a list; the last one for ever."""

    def __init__(self, *answers: Process | ColonistError) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        self.stops: list[Stop] = []
        self.holds_s: list[float] = []

    async def answer(self, body: bytes) -> bytes:
        self.asked.append(_now())
        if self.holds_s:
            await asyncio.sleep(self.holds_s.pop(0))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ColonistError):
            return pack_failure(answer)
        return pack_reply(parse_request(body).payloadtype, msgspec.json.encode(answer))

    def follower(self, *, hold_s: int = 30) -> Follower:
        watch = _watch(DirectTransport(self.answer), hold_s=hold_s)
        return Follower(GIVEN, watch=watch, on_stop=self.stops.append)


LOST = msgspec.structs.replace(GIVEN, state=State.WAITING, assignedexecutorid="")


@virtual
async def test_process_that_is_gone_is_lost() -> None:
    oracle = _Oracle(NotFoundError("gone"))
    await oracle.follower().run()
    assert oracle.stops == [Stop.LOST]


@virtual
async def test_busy_server_is_asked_again_after_a_pause() -> None:
    oracle = _Oracle(BusyError("busy"), BusyError("busy"), NotFoundError("gone"))
    await oracle.follower().run()
    assert oracle.asked == [SETTLE_S, SETTLE_S + 1, SETTLE_S + 3]


@virtual
async def test_other_refusals_end_nothing_and_are_no_hot_loop() -> None:
    oracle = _Oracle(AccessError("no"), AccessError("no"), NotFoundError("gone"))
    await oracle.follower().run()
    assert oracle.asked == [SETTLE_S, SETTLE_S + 15, SETTLE_S + 30]


@virtual
async def test_late_answer_about_an_earlier_attempt_ends_nothing() -> None:
    oracle = _Oracle(LOST, GIVEN, LOST, LOST)
    await oracle.follower().run()
    assert oracle.asked == [SETTLE_S, SETTLE_S, SETTLE_S + 15, SETTLE_S + 15]
    assert oracle.stops == [Stop.LOST]


@virtual
async def test_server_that_held_and_holds_no_more_is_asked_again_soon_but_ever_more_rarely() -> (
    None
):
    oracle = _Oracle(GIVEN, GIVEN, GIVEN, GIVEN, GIVEN, GIVEN, NotFoundError("gone"))
    oracle.holds_s = [30, 3]
    await oracle.follower().run()
    gaps = [after - before for before, after in itertools.pairwise(oracle.asked)]
    assert gaps == [30, 3 + 1, 2, 4, 4, 4]


@virtual
async def test_question_that_must_not_wait_is_no_hot_loop() -> None:
    oracle = _Oracle(GIVEN, GIVEN, NotFoundError("gone"))
    await oracle.follower(hold_s=0).run()
    assert oracle.asked == [SETTLE_S, SETTLE_S + 15, SETTLE_S + 30]


@virtual
async def test_a_look_that_fails_says_nothing() -> None:
    for answer, stops in ((BusyError("busy"), []), (NotFoundError("gone"), [Stop.LOST])):
        oracle = _Oracle(answer)
        await oracle.follower().look()
        assert oracle.stops == stops


# -- threads


async def test_sync_function_sees_the_flag_of_a_cancel() -> None:
    async with workshop("ada") as shop:
        ada = shop.hand("ada", check_s=FOR_EVER)
        started, ended = threading.Event(), threading.Event()

        @ada.agent.function("f")
        def function(context: Context) -> str:
            started.set()
            if context.cancelled.wait(60):
                ended.set()
            return "ended early"

        async with ada.running():
            process_id = (await shop.bench.submit("boss")).processid
            await asyncio.to_thread(started.wait, 60)
            await shop.cancel(process_id)
            assert await asyncio.to_thread(ended.wait, 1)
    assert ada.closes == []
