"""Weaknesses S1 and S2 from a client's side: who sits between it and the server gains nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from colonist_client.caller import OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, Retry
from colonist_client.sealer import NotGenuineError, Pin
from colonist_client.transport import UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.attribute import AttributeType
from colonist_protocol.errors import AccessError, EpochStaleError, NotFoundError
from colonist_protocol.function import Function
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.process import AssignProcess, State
from colonist_protocol.workflow import WorkflowSpec
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, TYPE, Bench, bench, key

RETRY = Retry(backoff=Backoff(uniform=lambda _, high: high, base_s=0.1), attempts=3)
SPEC = FunctionSpec(
    funcname="f", conditions=Conditions(colonyname=COLONY, executortype=TYPE), maxexectime=600
)


class MiddleBox:
    """Sits between client and server. `lie` sees the genuine reply and says what is passed on."""

    way = "middle"

    def __init__(self, made: Bench) -> None:
        self._made = made
        self.sent: list[bytes] = []
        self.replies: list[bytes] = []
        self.lie: Callable[[bytes, bytes], bytes] | None = None
        self.loses = 0

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        async with asyncio.timeout(wait_s):
            reply = (await self._made.dispatch.answer(body)).body
        self.sent.append(body)
        self.replies.append(reply)
        if self.loses:
            self.loses -= 1
            raise UnreachableError("the reply was lost")
        return reply if self.lie is None else self.lie(body, reply)

    async def close(self) -> None:
        """Nothing to let go of."""


class Stage:
    """A colony, a box in front of it, and clients that have pinned it."""

    def __init__(self, made: Bench) -> None:
        self.made = made
        self.box = MiddleBox(made)
        self.pin = Pin(made.dispatch.rooms.server_keys.id)
        self.ada, self.boss = self.client("ada"), self.client("boss")
        self.owner = Client(self.box, COLONY_OWNER, pin=self.pin, retry=RETRY)

    def client(self, name: str) -> Client:
        return Client(self.box, key(name), pin=self.pin, retry=RETRY)


@contextlib.asynccontextmanager
async def stage() -> AsyncGenerator[Stage]:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        await made.hire("boss", type="boss")
        yield Stage(made)


async def _everything(made: Stage) -> None:
    """A write of each kind, and what comes of it."""
    one = await made.boss.submit(SPEC)
    got = await made.ada.assign(COLONY)
    assert got is not None
    await made.ada.add_log(one.processid, "line")
    await made.ada.add_attribute(one.processid, "k", "v", kind=AttributeType.OUT)
    await made.ada.set_output(one.processid, [1])
    await made.ada.close(one.processid, [2])
    two = await made.boss.submit(SPEC)
    assert await made.ada.assign(COLONY) is not None
    await made.ada.release(two.processid)
    await made.boss.cancel(two.processid)
    await made.boss.remove(two.processid)
    node = msgspec.structs.replace(SPEC, nodename="only")
    await made.boss.submit_workflow(WorkflowSpec(colonyname=COLONY, functionspecs=[node]))
    await made.ada.add_function(Function(executorname="ada", colonyname=COLONY, funcname="f"))
    await made.ada.add_executor_log(COLONY, "ada", "line")
    await made.owner.pause(COLONY)
    await made.owner.resume(COLONY)


async def _seen(made: Stage) -> tuple[Any, ...]:
    """All that a member can see."""
    ended = await made.boss.processes(COLONY, state=State.SUCCESS)
    return (
        await made.boss.colony_statistics(COLONY),
        [each.processid for each in ended],
        [each.output() for each in ended],
        [await made.boss.logs(COLONY, process_id=each.processid) for each in ended],
        await made.boss.logs(COLONY, executor="ada"),
        await made.boss.functions(COLONY, executor="ada"),
        await made.boss.is_paused(COLONY),
        len(await made.owner.member_history(COLONY)),
    )


@virtual
async def test_s1_everything_that_was_captured_changes_nothing_when_it_comes_again() -> None:
    chance = random.Random(7)
    async with stage() as made:
        await _everything(made)
        captured = [
            each
            for each in made.box.sent
            if envelope.parse_request(each).payloadtype != AssignProcess.msgtype()
        ]
        before = await _seen(made)
        for _ in range(3):
            chance.shuffle(captured)
            for body in captured:
                await made.made.dispatch.answer(body)
        assert await _seen(made) == before


@virtual
async def test_s1_every_write_may_lose_its_reply_and_is_there_once() -> None:
    async with stage() as plain, stage() as lossy:
        await _everything(plain)

        def lose_each_first_time(body: bytes, reply: bytes) -> bytes:
            if lossy.box.sent.count(body) < 2:
                raise UnreachableError("lost")
            return reply

        lossy.box.lie = lose_each_first_time
        await _everything(lossy)
        lossy.box.lie = None
        expected, found = await _seen(plain), await _seen(lossy)
        assert found[0] == expected[0]
        assert len(found[1]) == len(expected[1]) == 1
        assert [len(each) for each in found[3]] == [len(each) for each in expected[3]] == [1]
        assert len(found[4]) == len(expected[4]) == 2
        assert found[7] == expected[7]


def _strip(_: bytes, reply: bytes) -> bytes:
    tree = codec.scan(reply)
    return codec.encode({name: tree[name] for name in ("payloadtype", "payload", "error")})


def _alter(_: bytes, reply: bytes) -> bytes:
    tree = dict(codec.scan(reply))
    tree["payload"] = codec.to_base64(codec.from_base64(tree["payload"]) + b" ")
    return codec.encode(tree)


LIES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "unsealed": _strip,
    "altered": _alter,
    "echo": lambda body, _: body,
    "refused": lambda *_: envelope.pack_failure(AccessError("Access denied")),
    "missing": lambda *_: envelope.pack_failure(NotFoundError("no such thing")),
    "stale": lambda *_: envelope.pack_failure(EpochStaleError("seal anew")),
    "done": lambda *_: envelope.pack_reply("x", b"{}"),
}

Call = Callable[[Client], Coroutine[Any, Any, object]]
READS: dict[str, Call] = {
    "statistics": lambda client: client.colony_statistics(COLONY),
    "get": lambda client: client.get("ab" * 32),
    "assign": lambda client: client.assign(COLONY, timeout_s=-1),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("read", READS)
@virtual
async def test_s2_no_reply_but_the_servers_is_believed(lie: str, read: str) -> None:
    async with stage() as made:
        await made.boss.colony_statistics(COLONY)
        made.box.lie = LIES[lie]
        with pytest.raises(NotGenuineError):
            await READS[read](made.ada)
        with pytest.raises(OutcomeUnknownError):
            await made.boss.submit(SPEC)
        made.box.lie = None
        assert (await made.boss.colony_statistics(COLONY)).waitingprocesses == 1


@virtual
async def test_s2_replies_to_others_and_to_earlier_requests_are_not_believed() -> None:
    async with stage() as made:
        await made.boss.colony_statistics(COLONY)
        await made.ada.colony_statistics(COLONY)
        earlier = list(made.box.replies)
        for reply in earlier:
            made.box.lie = lambda _body, _reply, reply=reply: reply
            with pytest.raises(NotGenuineError):
                await made.ada.colony_statistics(COLONY)


@virtual
async def test_s2_refusals_too_are_signed_for_those_who_are_known() -> None:
    async with stage() as made:
        with pytest.raises(ServerError) as refused:
            await made.ada.remove_all(COLONY, state=State.WAITING)
        assert refused.value.code == "access_denied"
        with pytest.raises(NotGenuineError, match="unverified, something answered: 403"):
            await made.client("nobody").colony_statistics(COLONY)
