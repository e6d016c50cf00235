"""What an identity may ask in a time and at once, what may wait, how large a message may be."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colonist_core.limits import Limits
from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.colony import GetColonies, GetColony
from colonist_protocol.envelope import Failure, pack_request, parse_reply
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.generator import PackGenerator, RemoveGenerator
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddExecutorLog, AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CloseFailed,
    CloseSuccessful,
    SetOutput,
    SubmitFunctionSpec,
)
from colonist_protocol.workflow import AddChild, SubmitWorkflowSpec, WorkflowSpec
from colonist_server.config import LIMITS_VARIABLE, ServerConfig
from colonist_server.config import limits as read
from colonist_server.main import configure
from colonist_server.rpc.limits import CROWDED_S, FULL_S, SIZES, births_of
from tests.server.house import house
from tests.server.people import World, parked, refusal, world
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.crons import add_of as cron_of
from tests.support.generators import add_of as generator_of
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, OWNER, Refused, key, settle, spec

ADA, BEN, UMA = key("ada"), key("ben"), key("uma")
ASK = GetColony(colonyname=COLONY)


def limits(**changes: int) -> dict[str, Any]:
    return {"limits": Limits(**changes)}


async def busy(made: World, message: Message, identity: Identity) -> float:
    """The message meets a limit; how long to wait."""
    failure = (await made.refuse(message, identity)).failure
    assert (failure.status, failure.code) == (429, "busy")
    return failure.retry_after_s


# -- requests in a time


@virtual
async def test_an_identity_has_a_burst_and_then_its_rate() -> None:
    async with world(**limits(rate=2, burst=50)) as made:
        await made.populate()
        await asyncio.sleep(100)
        for _ in range(50):
            await made.call(ASK, UMA)
        assert await busy(made, ASK, UMA) == pytest.approx(0.5)
        await made.call(ASK, ADA)  # nobody else is held up
        await asyncio.sleep(0.5)
        await made.call(ASK, UMA)
        assert await busy(made, ASK, UMA) == pytest.approx(0.5)
        assert made.dispatch.limiter.refused["rate"] == 2


@virtual
async def test_sealed_and_plain_requests_count_together() -> None:
    async with world(**limits(rate=1, burst=40)) as made:
        await made.populate()
        await asyncio.sleep(100)
        for _ in range(20):
            await made.call(ASK, UMA)
            assert (await sealing.present(made.dispatch, sealing.of_now(made.dispatch, ASK, UMA)))[
                1
            ].ok
        reply, seal = await sealing.present(made.dispatch, sealing.of_now(made.dispatch, ASK, UMA))
        assert (reply.code, seal.ok, reply.retry_after_s) == ("busy", False, pytest.approx(1.0))
        assert await busy(made, ASK, UMA) == pytest.approx(1.0)


@virtual
async def test_a_sealed_request_that_is_repeated_counts_each_time() -> None:
    async with world(**limits(rate=1, burst=40)) as made:
        await made.populate()
        await asyncio.sleep(100)
        sent = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), UMA)
        for _ in range(40):
            assert (await sealing.present(made.dispatch, sent))[1].ok
        assert (await sealing.present(made.dispatch, sent))[0].code == "busy"
        await asyncio.sleep(1)
        assert (await sealing.present(made.dispatch, sent))[1].ok
        assert made.colony.waiting == 1


@virtual
async def test_the_server_owner_has_its_rate_too() -> None:
    async with world(**limits(rate=1, burst=40)) as made:
        await made.populate()
        await asyncio.sleep(100)
        for _ in range(40):
            await made.call(GetColonies(), OWNER)
        assert await busy(made, GetColonies(), OWNER) == pytest.approx(1.0)


@virtual
async def test_strangers_hold_no_memory_and_take_nothing_from_members() -> None:
    async with world(**limits(rate=1, burst=40)) as made:
        await made.populate()
        before = len(made.dispatch.limiter._identities)
        for number in range(100):
            refused = await made.refuse(ASK, key(f"stranger {number}"))
            assert refused.failure.code == "access_denied"
        assert len(made.dispatch.limiter._identities) == before
        assert made.dispatch.limiter.under_way == {}
        await made.call(ASK, UMA)


# -- requests at once


@virtual
async def test_an_executor_has_so_many_assigns_under_way() -> None:
    async with world(**limits(polls=2)) as made:
        await made.populate()
        first = await parked(made, "ada", 100)
        second = await parked(made, "ada", 100)
        ask = AssignProcess(colonyname=COLONY, timeout=100)
        assert await busy(made, ask, ADA) == FULL_S
        other = await parked(made, "ben", 100)
        assert not first.done()  # no older one made room
        assert not second.done()
        await made.submit("uma")
        await settle()
        assert first.done()
        again = await parked(made, "ada", 100)
        for task in (second, again, other):
            task.cancel()
        await settle()
        assert made.dispatch.limiter.polls == {}
        assert made.dispatch.limiter.under_way == {}


@virtual
async def test_a_colony_has_so_many_assigns_under_way() -> None:
    async with world(**limits(colony_polls=2)) as made:
        await made.populate()
        tasks = [await parked(made, name, 10) for name in ("ada", "ben")]
        assert await busy(made, AssignProcess(colonyname=COLONY, timeout=100), ADA) == FULL_S
        foreign = AssignProcess(colonyname="other", timeout=-1)
        assert (await made.refuse(foreign, key("eve"))).failure.code == "no_process"
        await asyncio.sleep(11)
        assert [await refusal(task) for task in tasks] == [(404, "no_process")] * 2
        task = await parked(made, "ada", 10)
        task.cancel()


@virtual
async def test_an_identity_has_so_many_requests_under_way() -> None:
    async with world(**limits(requests=2)) as made:
        await made.populate()
        tasks = [await parked(made, "ada", 10) for _ in range(2)]
        assert await busy(made, ASK, ADA) == CROWDED_S
        await made.call(ASK, BEN)
        await asyncio.sleep(11)
        assert [await refusal(task) for task in tasks] == [(404, "no_process")] * 2
        await made.call(ASK, ADA)


@virtual
async def test_work_whose_caller_left_counts_until_it_is_done() -> None:
    async with world(**limits(requests=1)) as made:
        await made.populate()
        nodes = [spec(nodename=f"n{n}") for n in range(200)]
        message = SubmitWorkflowSpec(spec=WorkflowSpec(colonyname=COLONY, functionspecs=nodes))
        task = asyncio.create_task(made.call(message, UMA))
        while not made.dispatch.limiter.under_way:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await busy(made, ASK, UMA) == CROWDED_S
        await settle(500)
        await made.call(ASK, UMA)
        assert made.colony.waiting == 200


# -- what waits


@virtual
async def test_a_colony_has_so_many_processes_that_wait() -> None:
    async with world(**limits(waiting=3)) as made:
        await made.populate()
        for _ in range(3):
            await made.submit("uma")
        assert await busy(made, SubmitFunctionSpec(spec=spec()), UMA) == FULL_S
        assert made.colony.waiting == 3
        assert made.dispatch.limiter.refused["waiting"] == 1
        foreign = SubmitFunctionSpec(spec=spec(colonyname="other"))
        await made.call(foreign, key("eve"))
        await made.assign("ada")
        await made.submit("uma")


@virtual
async def test_a_workflow_counts_with_all_its_nodes() -> None:
    async with world(**limits(waiting=3)) as made:
        await made.populate()
        with pytest.raises(Refused) as refused:
            await made.submit_workflow("uma", {"a": [], "b": ["a"], "c": ["a"], "d": ["a"]})
        failure = refused.value.failure
        assert (failure.code, failure.status, failure.retry_after_s) == ("too_large", 413, 0)
        await made.submit("uma")
        with pytest.raises(Refused, match="busy"):
            await made.submit_workflow("uma", {"a": [], "b": ["a"], "c": ["a"]})
        await made.submit_workflow("uma", {"a": [], "b": ["a"]})
        assert made.colony.waiting == 3


@virtual
async def test_packed_arguments_wait_too() -> None:
    async with MemoryStore() as store:
        async with world(store, **limits(waiting=5)) as made:
            await made.populate()
            message = generator_of(name="g", trigger=100)
            gid = (await made.call(message, UMA))["generatorid"]
            pack = PackGenerator(generatorid=gid, arg="a")
            for _ in range(4):
                await made.call(pack, UMA)
            process = (await made.submit("uma")).processid
            for refused in (pack, SubmitFunctionSpec(spec=spec())):
                assert await busy(made, refused, UMA) == FULL_S
            assert made.dispatch.limiter.refused["waiting"] == 2
            await made.call(SubmitFunctionSpec(spec=spec(colonyname="other")), key("eve"))
            assert (await made.assign("ada")).processid == process
            await made.call(pack, UMA)
        async with world(store, **limits(waiting=5)) as made:
            assert await busy(made, pack, UMA) == FULL_S
            await made.call(RemoveGenerator(generatorid=gid), UMA)
            for _ in range(5):
                await made.submit("uma")


@virtual
async def test_arguments_of_a_generator_wait_no_more_once_it_has_fired() -> None:
    async with world(**limits(waiting=6)) as made:
        await made.populate()
        gid = (await made.call(generator_of(name="g", trigger=3), UMA))["generatorid"]
        for _ in range(4):
            await made.call(PackGenerator(generatorid=gid, arg="a"), UMA)
        await settle(400)
        assert made.colony.waiting == 1
        assert made.rooms.generators.view.arguments(made.colony.tag) == 1


def test_what_makes_processes_is_counted_before() -> None:
    two = WorkflowSpec(colonyname=COLONY, functionspecs=[spec(), spec()])
    assert births_of(SubmitWorkflowSpec(spec=two)) == 2
    assert births_of(SubmitFunctionSpec(spec=spec())) == 1
    assert births_of(AddChild(processgraphid="", spec=spec())) == 1
    assert births_of(PackGenerator(generatorid="", arg="a")) == 1
    assert births_of(cron_of()) == 0


# -- sizes


def sized(made: World, kind: type[Message], text: str) -> tuple[Message, Identity]:
    """A message of a kind that stores a text."""
    raw = msgspec.Raw(msgspec.json.encode([text]))
    running = made.running
    return {
        SubmitFunctionSpec: (SubmitFunctionSpec(spec=spec(label=text)), UMA),
        AddChild: (AddChild(processgraphid=made.workflow, spec=spec(label=text)), ADA),
        SubmitWorkflowSpec: (
            SubmitWorkflowSpec(
                spec=WorkflowSpec(colonyname=COLONY, functionspecs=[spec(nodename="n", label=text)])
            ),
            UMA,
        ),
        PackGenerator: (PackGenerator(generatorid=made.generator, arg=text), UMA),
        CloseSuccessful: (CloseSuccessful(processid=running, out=raw), ADA),
        CloseFailed: (CloseFailed(processid=running, errors=[text]), ADA),
        SetOutput: (SetOutput(processid=running, out=raw), ADA),
        AddAttribute: (
            AddAttribute(
                attribute=Attribute(
                    targetid=running, attributetype=AttributeType.OUT, key="k", value=text
                )
            ),
            ADA,
        ),
        AddLog: (AddLog(processid=running, message=text), ADA),
        AddExecutorLog: (
            AddExecutorLog(colonyname=COLONY, executorname="ada", message=text),
            ADA,
        ),
    }[kind]


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.msgtype())
def test_what_is_stored_has_its_size(kind: type[Message]) -> None:
    @virtual
    async def scenario() -> None:
        async with world(**limits(**{SIZES[kind]: 2_000})) as made:
            await made.populate()
            await made.employ()
            await made.weave()
            before = await made.dump()
            message, identity = sized(made, kind, "x" * 2_000)
            failure = (await made.refuse(message, identity)).failure
            assert (failure.status, failure.code, failure.retry_after_s) == (413, "too_large", 0)
            assert await made.dump() == before
            assert made.dispatch.limiter.refused[SIZES[kind]] == 1
            reply = parse_reply((await made.answer(*sized(made, kind, "x" * 900))).body)
            assert not isinstance(reply, Failure) or reply.code != "too_large"

    scenario()


# -- how they are told, and set


async def test_a_refusal_says_in_a_header_when_to_come_again(tmp_path: Path) -> None:
    async with house(tmp_path, **limits(rate=1, burst=60)) as made:
        await made.populate()
        body = pack_request(ASK, UMA)
        got = await made.post(body)
        while got.status == 200:
            got = await made.post(body)
        assert (got.status, got.code, got.headers["Retry-After"]) == (429, "busy", "1")
        while got.status == 200 or "Access-Control-Allow-Origin" not in got.headers:
            got = await made.post(body, {"Origin": "https://somewhere.example"})
        assert (got.status, got.headers["Retry-After"]) == (429, "1")
        told = (await made.request("GET", "/metrics")).body.decode()
        assert re.search(r"^colonist_limited_rate_total [2-9]$", told, re.MULTILINE)


def test_flags_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMITS_VARIABLE, "rate=7,polls=8")
    assert configure(["--limits", "rate=9"]).limits == Limits(rate=9, polls=8)
    assert configure([]).limits == Limits(rate=7, polls=8)
    assert ServerConfig().limits == Limits()
    with pytest.raises(InvalidValueError, match="no limit 'speed'"):
        read("speed=1", {})
