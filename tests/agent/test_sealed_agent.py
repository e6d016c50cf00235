"""Agents that have pinned their server, on the rooms of a real one, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from colonist_agent.agent import Agent, Limits
from colonist_agent.context import Context
from colonist_agent.function import Registry
from colonist_client.client import Client
from colonist_client.retry import Backoff
from colonist_client.sealer import Pin
from colonist_client.transport import UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.errors import (
    AccessError,
    ColonistError,
    PlainRefusedError,
    TooOldError,
    WrongServerError,
)
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process, State
from colonist_protocol.seal import AttemptSeal, read_request_seal
from colonist_server.repo import keys
from colonist_server.repo.results import Results
from colonist_server.store.interface import DeleteRange, Guard, Put
from tests.agent.workshop import Workshop, workshop
from tests.support.clock import virtual
from tests.support.rooms import COLONY, TYPE, key
from tests.support.transports import DirectTransport


class Lossy(DirectTransport):
    """A way on which replies get lost, and that remembers what was sealed how."""

    def __init__(self, shop: Workshop) -> None:
        super().__init__(shop.answer)
        self.lose: dict[str, int] = {}
        self.slow: dict[str, float] = {}
        self.seqs: list[tuple[str, str, int]] = []
        self.plain: list[str] = []

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        sent = envelope.parse_request(body)
        kind = sent.payloadtype
        if sent.seal:
            seal, _ = read_request_seal(sent.seal, kind)
            if isinstance(seal, AttemptSeal):
                self.seqs.append((kind, seal.attempt, seal.seq))
        else:
            self.plain.append(kind)
        await asyncio.sleep(self.slow.get(kind, 0.0))
        reply = await super().exchange(body, wait_s=wait_s)
        if self.lose.get(kind, 0):
            self.lose[kind] -= 1
            raise UnreachableError("the reply was lost")
        return reply

    def bodies_of(self, kind: str) -> list[bytes]:
        return [each for each in self.bodies if envelope.parse_request(each).payloadtype == kind]


class Hand:
    """One sealed agent with a way of its own."""

    def __init__(self, shop: Workshop, name: str, **limits: Any) -> None:
        self.transport = Lossy(shop)
        pin = Pin(shop.bench.dispatch.rooms.server_keys.id)
        self.client = Client(self.transport, key(name), pin=pin)
        self.registry = Registry()
        self.agent = Agent(
            self.client,
            COLONY,
            name=name,
            registry=self.registry,
            backoff=Backoff(uniform=random.Random(1).uniform),
            limits=Limits(**limits),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.agent.run())
            try:
                yield
            finally:
                self.agent.stop()

    async def submit(self, name: str, **spec: Any) -> str:
        made = await self.client.submit(_spec(name, **spec))
        return made.processid


def _spec(name: str, **spec: Any) -> FunctionSpec:
    conditions = {"colonyname": COLONY, "executortype": TYPE}
    tree = {"funcname": name, "conditions": conditions, **spec}
    return codec.decode(codec.encode(tree), FunctionSpec, "spec")


@contextlib.asynccontextmanager
async def stage(**limits: Any) -> AsyncGenerator[tuple[Workshop, Hand]]:
    async with workshop("ada") as shop:
        yield shop, Hand(shop, "ada", **limits)


@virtual
async def test_everything_is_sealed_and_each_attempt_counts_its_own_requests() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("talk")
        async def talk(context: Context) -> int:
            context.log("one")
            context.attribute("k", "v")
            context.set_output(1)
            await asyncio.sleep(1)
            context.log("two")
            return 7

        async with hand.running():
            done = [await shop.ended(await hand.submit("talk")) for _ in range(2)]
        assert [(each.state, each.output()) for each in done] == [(State.SUCCESS, [7])] * 2
        assert hand.transport.plain == []
        tokens = {token for _, token, _ in hand.transport.seqs}
        assert len(tokens) == 2
        for token in tokens:
            used = [seq for _, each, seq in hand.transport.seqs if each == token]
            assert used == list(range(len(used)))
            assert len(used) >= 4


@pytest.mark.parametrize("slots", [1, 4])
@virtual
async def test_one_signature_asks_for_many_grants(slots: int) -> None:
    async with stage(slots=slots) as (shop, hand):

        @hand.registry.function("nap")
        async def nap() -> int:
            await asyncio.sleep(1)
            return 1

        async with hand.running():
            made = [await hand.submit("nap") for _ in range(12)]
            await asyncio.gather(*map(shop.ended, made))
        asks = [
            envelope.parse_request(body) for body in hand.transport.bodies_of("assignprocessmsg")
        ]
        assert len({ask.signature for ask in asks}) == 1
        assert [*dict.fromkeys(ask.index for ask in asks)] == list(range(13))


@virtual
async def test_no_result_on_its_way_holds_up_the_next_process() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        hand.transport.slow = {"closesuccessfulmsg": 0.5}
        async with hand.running():
            made = [await hand.submit("f") for _ in range(4)]
            await asyncio.gather(*map(shop.ended, made))
        assert hand.agent.counters.assign_errors == 0


@virtual
async def test_a_grant_after_a_long_wait_has_its_whole_lease() -> None:
    async with stage(poll_s=30) as (shop, hand):

        @hand.registry.function("nap")
        async def nap() -> int:
            await asyncio.sleep(20)
            return 1

        async with hand.running():
            await asyncio.sleep(600)  # the same question was open all the time
            done = await shop.ended(await hand.submit("nap", maxexectime=1_000))
        assert done.state == State.SUCCESS
        assert hand.transport.count("renewmsg") == 1  # which says that it has begun


@pytest.mark.parametrize("kind", ["assignprocessmsg", "closesuccessfulmsg", "addlogmsg"])
@virtual
async def test_lost_replies_are_asked_for_with_the_same_bytes(kind: str) -> None:
    async with stage() as (shop, hand):
        runs: list[int] = []

        @hand.registry.function("f")
        async def f(context: Context) -> int:
            runs.append(1)
            context.log("a line")
            await asyncio.sleep(1)
            return 1

        hand.transport.lose = {kind: 2}
        async with hand.running():
            done = await shop.ended(await hand.submit("f"))
        assert (done.state, done.retries, runs) == (State.SUCCESS, 0, [1])
        sent = hand.transport.bodies_of(kind)
        assert max(sent.count(each) for each in sent) == 3
        logs = await hand.client.logs(COLONY, process_id=done.processid)
        assert [each.message for each in logs] == ["a line"]


@virtual
async def test_long_work_is_renewed_in_time_and_counts_once() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("long")
        async def long() -> str:
            await asyncio.sleep(95)
            return "done"

        async with hand.running():
            done = await shop.ended(await hand.submit("long", maxexectime=10, maxretries=1))
        assert (done.state, done.output(), done.retries) == (State.SUCCESS, ["done"], 0)
        renewals = hand.transport.count("renewmsg")
        assert 9 <= renewals <= 11


@virtual
async def test_a_function_that_opts_out_ends_with_its_lease() -> None:
    async with stage() as (shop, hand):
        ends: list[float] = []

        @hand.registry.function("short", is_renewed=False)
        async def short() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ends.append(asyncio.get_running_loop().time())

        async with hand.running():
            began = asyncio.get_running_loop().time()
            done = await shop.ended(await hand.submit("short", maxexectime=10, maxretries=0))
        assert done.state == State.FAILED
        assert ends[0] - began <= 10.5
        assert hand.transport.count("renewmsg") == 1  # which says that it has begun


@virtual
async def test_work_that_says_nothing_has_begun_all_the_same() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("silent", is_renewed=False)
        async def silent() -> None:
            await asyncio.sleep(1000)

        async with hand.running():
            done = await shop.ended(await hand.submit("silent", maxexectime=2, maxretries=2))
        assert (done.state, done.retries) == (State.FAILED, 2)
        assert "never started" not in str(done.errors)


@virtual
async def test_renewals_end_where_the_spec_says() -> None:
    async with stage() as (shop, hand):
        ends: list[float] = []

        @hand.registry.function("long")
        async def long() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ends.append(asyncio.get_running_loop().time())

        async with hand.running():
            began = asyncio.get_running_loop().time()
            done = await shop.ended(
                await hand.submit("long", maxexectime=10, maxretries=0, maxrenewals=2)
            )
        assert done.state == State.FAILED
        assert 29 <= ends[0] - began <= 31


@virtual
async def test_where_no_two_may_run_the_work_ends_at_nine_tenths_without_a_way() -> None:
    async with stage() as (_, hand):
        ends: list[float] = []

        @hand.registry.function("alone")
        async def alone() -> None:
            began = asyncio.get_running_loop().time()
            hand.transport.is_down = True
            try:
                await asyncio.sleep(1000)
            finally:
                ends.append(asyncio.get_running_loop().time() - began)

        async with hand.running():
            await hand.submit("alone", maxexectime=100, maxretries=0, overlap="never")
            await asyncio.sleep(120)
            assert 85 <= ends[0] <= 90.1
            hand.transport.is_down = False


@virtual
async def test_late_success_counts_when_the_way_was_away_for_longer_than_the_lease() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("late")
        async def late() -> str:
            hand.transport.is_down = True
            await asyncio.sleep(60)
            hand.transport.is_down = False
            return "late"

        async with hand.running():
            process_id = await hand.submit("late", maxexectime=10, maxretries=5)
            done = await shop.ended(process_id)
        assert (done.state, done.output()) == (State.SUCCESS, ["late"])


@virtual
async def test_what_an_earlier_run_had_is_given_back_and_run_anew() -> None:
    async with stage() as (shop, hand):
        process_id = await hand.submit("f")
        before = Hand(shop, "ada")
        lost = await before.client.assign(COLONY)
        assert lost is not None
        assert lost.processid == process_id

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async with hand.running():
            done: Process = await shop.ended(process_id)
        assert (done.state, done.output()) == (State.SUCCESS, [1])
        assert hand.transport.count("releaseprocessmsg") == 1


@virtual
async def test_what_may_never_run_twice_at_once_is_not_given_back_at_a_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as (shop, hand):
        process_id = await hand.submit("f", overlap="never", maxexectime=60, maxretries=3)
        loop = asyncio.get_running_loop()
        granted_s, began = loop.time(), list[float]()
        assert await Hand(shop, "ada").client.assign(COLONY) is not None  # and that agent died

        @hand.registry.function("f")
        async def f() -> int:
            began.append(loop.time() - granted_s)
            return 1

        async with hand.running():
            done = await shop.ended(process_id)
        assert done.output() == [1]
        assert began == [pytest.approx(66, abs=2)]  # 110 % of the lease
        assert hand.transport.count("releaseprocessmsg") == 0
        assert f"lost_grant_left process={process_id}" in caplog.text
        assert "it is granted again, or fails where no retry is left" in caplog.text


@virtual
async def test_grant_whose_reply_was_lost_for_ever_is_found() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async with hand.running():
            await asyncio.sleep(1)
            process_id = await hand.submit("f")
            hand.transport.lose = {"assignprocessmsg": 10_000}
            await asyncio.sleep(20)
            hand.transport.is_down = True
            hand.transport.lose = {}
            rooms = shop.bench.dispatch.rooms
            for _ in range(130):  # an hour of its ttl, and one of its record
                await rooms.epochs.move_on()
            stand_in = Put(b"zz", b"")  # whatever a commit has to guard
            guards = [Guard(stand_in.key, 0)]
            await rooms.writes.store.commit(guards, [stand_in, DeleteRange(keys.SEALED)])
            hand.transport.is_down = False
            done = await shop.ended(process_id)
        assert done.state == State.SUCCESS
        assert hand.transport.count("releaseprocessmsg") == 1


@virtual
async def test_a_child_whose_answer_was_lost_is_there_once() -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("parent")
        async def parent(context: Context) -> int:
            for kind in ("submitfuncspecmsg", "getprocessmsg"):
                hand.transport.lose[kind] = 3
            child = await context.submit(_spec("child"))
            return len(child.processid)

        async with hand.running():
            done = await shop.ended(await hand.submit("parent"))
            waiting = await hand.client.colony_statistics(COLONY)
        assert done.output() == [64]
        assert waiting.waitingprocesses + waiting.failedprocesses + waiting.runningprocesses == 1


@virtual
async def test_result_of_which_nothing_is_known_any_more_is_dropped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing_left(*_: Any) -> Any:
        raise TooOldError("nothing is known any more")

    monkeypatch.setattr(Results, "take", nothing_left)
    async with stage() as (_, hand):

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async with hand.running():
            process_id = await hand.submit("f")
            await asyncio.sleep(300)
        assert hand.transport.count("closesuccessfulmsg") == 1
        assert f"result_dropped process={process_id}" in caplog.text


@virtual
async def test_result_that_came_too_late_is_kept_as_evidence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with stage() as (shop, hand):

        @hand.registry.function("late")
        async def late() -> int:
            hand.transport.is_down = True
            await asyncio.sleep(60)
            return 1

        async with hand.running():
            process_id = await hand.submit("late", maxexectime=10, maxretries=5)
            await asyncio.sleep(30)
            await shop.cancel(process_id)
            await asyncio.sleep(60)
            hand.transport.is_down = False
            await asyncio.sleep(120)
        assert (await shop.get(process_id)).state == State.CANCELLED
        assert f"result_recorded process={process_id}" in caplog.text


@pytest.mark.parametrize("overlap", ["allow", "never"])
@virtual
async def test_short_lease_granted_to_an_old_question_is_no_reason_to_give_up(
    overlap: str,
) -> None:
    async with stage(poll_s=60) as (shop, hand):

        @hand.registry.function("nap", is_renewed=False)
        async def nap() -> int:
            await asyncio.sleep(1)
            return 1

        async with hand.running():
            await asyncio.sleep(50)  # the question is older than the lease to come
            spec = {"maxexectime": 3, "maxretries": 0, "overlap": overlap}
            done = await shop.ended(await hand.submit("nap", **spec))
        assert (done.state, done.output(), done.retries) == (State.SUCCESS, [1], 0)
        assert hand.transport.count("renewmsg") == 1


@virtual
async def test_without_a_word_from_the_server_an_old_question_gives_no_more_than_its_lease() -> (
    None
):
    async with stage(poll_s=60) as (_, hand):
        ran: list[float] = []

        @hand.registry.function("nap", is_renewed=False)
        async def nap() -> None:
            began = asyncio.get_running_loop().time()
            hand.transport.is_down = True
            try:
                await asyncio.sleep(1000)
            finally:
                ran.append(asyncio.get_running_loop().time() - began)

        async with hand.running():
            await asyncio.sleep(50)
            await hand.submit("nap", maxexectime=3, maxretries=0)
            await asyncio.sleep(30)
            hand.transport.is_down = False
        assert ran[0] == pytest.approx(3, abs=0.1)


@virtual
async def test_agent_that_nobody_knows_says_so_and_begins_when_it_is_added(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as (shop, _):
        hand = Hand(shop, "newcomer")

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async with hand.running():
            await asyncio.sleep(100)
            assert "not_begun executor=" + key("newcomer").id in caplog.text
            assert "unverified, something answered: 403" in caplog.text
            await shop.bench.hire("newcomer")
            done = await shop.ended((await Hand(shop, "ada").client.submit(_spec("f"))).processid)
        assert done.output() == [1]


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (AccessError("Access denied"), "add and approve an executor with this id; where its key"),
        (AccessError("Access denied"), "enrolled and was removed, it needs a new key and a card"),
        (PlainRefusedError("seal it"), "only sealed requests are taken here: set server_id"),
        (WrongServerError("not me"), "compare server_id (COLONIST_SERVER_ID)"),
    ],
)
@virtual
async def test_refused_agent_says_what_would_help(
    refusal: ColonistError, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage() as (_, hand), hand.running():
        await asyncio.sleep(5)

        async def refuse(_: bytes) -> bytes:
            return envelope.pack_failure(refusal)

        hand.transport.answer = refuse
        await asyncio.sleep(60)
        told = [each.message for each in caplog.records if "key_refused" in each.message]
        assert told
        assert all(remedy in each for each in told)


@virtual
async def test_unsigned_refusals_make_an_agent_patient_and_it_goes_on_after_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as (shop, hand):

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async def refuse(_: bytes) -> bytes:
            return envelope.pack_failure(AccessError("Access denied"))

        async with hand.running():
            await asyncio.sleep(5)
            honest, hand.transport.answer = hand.transport.answer, refuse
            await asyncio.sleep(60)
            sent = hand.transport.count("assignprocessmsg")
            await asyncio.sleep(300)
            assert hand.transport.count("assignprocessmsg") - sent <= 300 / 30
            assert "key_refused" in caplog.text
            hand.transport.answer = honest
            done = await shop.ended(await hand.submit("f"))
        assert done.output() == [1]
