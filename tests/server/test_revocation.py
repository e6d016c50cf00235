"""Who is removed is out at every node, also at one that has not heard of it yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.envelope import Failure
from colonist_protocol.executor import ChangeExecutorId, RejectExecutor, RemoveExecutor
from colonist_protocol.function import AddFunction, Function, RemoveFunction
from colonist_protocol.log import AddExecutorLog, AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    ReleaseProcess,
    SetOutput,
    SubmitFunctionSpec,
)
from colonist_protocol.seal import OF_ATTEMPT
from colonist_protocol.user import ChangeUserId, RemoveUser
from tests.server.people import World
from tests.server.test_many_nodes import Two, two_nodes
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.crons import add_of as cron_of
from tests.support.enrolling import failed
from tests.support.rooms import COLONY, COLONY_OWNER, key, spec

ADA, UMA, NEW = key("ada"), key("uma"), key("new")

BY_EXECUTOR: Final[dict[str, Callable[[str], Message]]] = {
    "assign": lambda _: AssignProcess(colonyname=COLONY, timeout=1),
    "submit": lambda _: SubmitFunctionSpec(spec=spec()),
    "close": lambda id: CloseSuccessful(processid=id),
    "fail": lambda id: CloseFailed(processid=id, errors=["e"]),
    "output": lambda id: SetOutput(processid=id, out=msgspec.Raw(b"[1]")),
    "log": lambda id: AddLog(processid=id, message="m"),
    "attribute": lambda id: AddAttribute(
        attribute=Attribute(targetid=id, attributetype=AttributeType.OUT, key="k", value="v")
    ),
    "release": lambda id: ReleaseProcess(processid=id),
    "function": lambda _: AddFunction(
        function=Function(executorname="ada", colonyname=COLONY, funcname="f")
    ),
    "own log": lambda _: AddExecutorLog(colonyname=COLONY, executorname="ada", message="m"),
    "new id": lambda _: ChangeExecutorId(colonyname=COLONY, executorid=NEW.id),
    "cron": lambda _: cron_of("new"),
}
BY_USER: Final[dict[str, Callable[[str], Message]]] = {
    "submit": lambda _: SubmitFunctionSpec(spec=spec()),
    "cancel": lambda id: CancelProcess(processid=id),
    "new id": lambda _: ChangeUserId(colonyname=COLONY, userid=NEW.id),
    "cron": lambda _: cron_of("new"),
}
_HOUSE: Final = (b"n/", b"nl", b"nh/", b"m/", b"me", b"q/", b"qh/")


async def employed(two: Two) -> tuple[str, str]:
    """A process that ada runs, granted at `b` to a sealed assign; its attempt's token."""
    await two.a.found("ada", "ben")
    await two.a.enrol("uma")
    await two.a.submit("uma", maxretries=5)
    await asyncio.sleep(0.1)
    assign = AssignProcess(colonyname=COLONY, timeout=1)
    granted, _ = await present(two.b, assign, "ada")
    await two.a.submit("uma", maxretries=5)
    await asyncio.sleep(0.1)
    return granted["processid"], granted["attempt"]["token"]


async def present(made: World, message: Message, who: str, token: str = "") -> tuple[Any, Any]:
    """Under a seal of now, or of the attempt."""
    if message.msgtype() in OF_ATTEMPT:
        sent = sealing.of_attempt(made.dispatch, message, key(who), token, 9)
    else:
        sent = sealing.of_now(made.dispatch, message, key(who))
    return await sealing.present(made.dispatch, sent)


async def stored(made: World) -> dict[bytes, bytes]:
    """What is not of the house itself."""
    found = await made.dump()
    return {name: value for name, value in found.items() if not name.startswith(_HOUSE)}


async def refused_everywhere(
    two: Two, message: Message, who: str, removal: Message, token: str = ""
) -> None:
    """Remove at `a`, of which `b` has not heard: what was fresh at `b` has no effect there."""
    two.way_b.hold()
    await two.a.call(removal, COLONY_OWNER)
    await asyncio.sleep(0.1)  # what follows from the removal
    before = await stored(two.a)
    asked = asyncio.create_task(present(two.b, message, who, token))
    await asyncio.sleep(0.3)
    assert await stored(two.a) == before
    two.way_b.flow()
    reply, _ = await asked
    # To be told that it is given back is no effect: the removal has given it back.
    is_back = reply == {} and isinstance(message, ReleaseProcess)
    assert is_back or failed(reply, "access_denied"), reply
    assert await stored(two.a) == before


REMOVALS: Final[dict[str, Message]] = {
    "removed": RemoveExecutor(colonyname=COLONY, executorname="ada"),
    "rejected": RejectExecutor(colonyname=COLONY, executorname="ada"),
}


@pytest.mark.parametrize("what", BY_EXECUTOR)
@pytest.mark.parametrize("how", REMOVALS)
@virtual
async def test_s10_a_node_that_lags_behind_does_nothing_for_an_executor_that_is_out(
    what: str, how: str
) -> None:
    async with two_nodes() as two:
        id, token = await employed(two)
        await refused_everywhere(two, BY_EXECUTOR[what](id), "ada", REMOVALS[how], token)


@pytest.mark.parametrize("how", REMOVALS)
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "plain"])
@virtual
async def test_nor_does_it_withdraw_the_function_of_one(how: str, is_sealed: bool) -> None:
    """Which is found by its id, in no colony that the message names."""
    async with two_nodes() as two:
        await employed(two)
        function = await two.a.call(BY_EXECUTOR["function"](""), ADA)
        await asyncio.sleep(0.1)
        two.way_b.hold()
        await two.a.call(REMOVALS[how], COLONY_OWNER)
        await asyncio.sleep(0.1)
        before = await stored(two.a)
        withdraw = RemoveFunction(functionid=function["functionid"])
        asks = present(two.b, withdraw, "ada") if is_sealed else two.b.answer(withdraw, ADA)
        asked: asyncio.Task[Any] = asyncio.create_task(asks)
        await asyncio.sleep(0.3)
        assert await stored(two.a) == before
        two.way_b.flow()
        answer = await asked
        assert failed(answer[0], "not_found") if is_sealed else answer.status == 404
        assert await stored(two.a) == before


@pytest.mark.parametrize("what", BY_USER)
@virtual
async def test_nor_for_a_user_who_was_removed(what: str) -> None:
    async with two_nodes() as two:
        await employed(two)
        (id,) = [row.id for row in two.b.colony.running.values()]
        removal = RemoveUser(colonyname=COLONY, name="uma")
        await refused_everywhere(two, BY_USER[what](id), "uma", removal)


@pytest.mark.parametrize("how", REMOVALS)
@virtual
async def test_whoever_waits_at_another_node_is_told_within_a_second(how: str) -> None:
    async with two_nodes() as two:
        await employed(two)
        loop = asyncio.get_running_loop()
        never = AssignProcess(colonyname=COLONY, timeout=100)
        await present(two.b, never, "ada")  # takes what waits
        parked = asyncio.create_task(present(two.b, never, "ada"))
        await asyncio.sleep(1)
        assert not parked.done()
        began = loop.time()
        await two.a.call(REMOVALS[how], COLONY_OWNER)
        reply, _ = await parked
        assert isinstance(reply, Failure)
        assert loop.time() - began < 1
