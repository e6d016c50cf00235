"""Attempts, as their executors speak of them: sealed requests, numbered."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import msgspec

from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.envelope import Failure
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CloseFailed,
    CloseSuccessful,
    ReleaseProcess,
    Renew,
    SetOutput,
)
from tests.support import sealing
from tests.support.rooms import COLONY, Bench, key
from tests.support.sealing import Sealed

OVER = "attempt_over"
INVALID = "attempt_invalid"
CONFLICT = "result_conflict"


class Held(NamedTuple):
    """What an executor holds of one attempt."""

    made: Bench
    identity: Identity
    process: str
    number: int
    token: str
    lease: float | None
    seqs: itertools.count[int]

    def sealed(self, message: Message, seq: int | None = None) -> Sealed:
        """A request of the attempt."""
        number = next(self.seqs) if seq is None else seq
        return sealing.of_attempt(self.made.dispatch, message, self.identity, self.token, number)

    async def say(self, message: Message, seq: int | None = None) -> Any:
        """Its reply, or the code of the failure."""
        return await told(self.made, self.sealed(message, seq))

    def success(self, out: str = "done") -> Message:
        return success_of(self.process, out)

    def failure(self, reason: str = "too hot") -> Message:
        return CloseFailed(processid=self.process, errors=[reason])

    async def succeed(self, out: str = "done") -> Any:
        return outcome(await self.say(self.success(out)))

    async def fail(self, reason: str = "too hot") -> Any:
        return outcome(await self.say(self.failure(reason)))

    async def renew(self, count: int = 0) -> Any:
        return await self.say(Renew(processid=self.process, count=count))

    async def release(self) -> Any:
        return await self.say(ReleaseProcess(processid=self.process))

    async def log(self, line: str = "at work", seq: int | None = None) -> Any:
        return await self.say(AddLog(processid=self.process, message=line), seq)

    async def put(self, out: str, seq: int | None = None) -> Any:
        message = SetOutput(processid=self.process, out=msgspec.Raw(f'["{out}"]'.encode()))
        return await self.say(message, seq)

    async def note(self, value: str, seq: int | None = None) -> Any:
        wanted = Attribute(
            targetid=self.process, attributetype=AttributeType.OUT, key="k", value=value
        )
        return await self.say(AddAttribute(attribute=wanted), seq)


def success_of(process: str, out: str = "done") -> Message:
    return CloseSuccessful(processid=process, out=msgspec.Raw(f'["{out}"]'.encode()))


def outcome(reply: Any) -> Any:
    """What became of a result; a code where it was refused."""
    return reply if isinstance(reply, str) else reply["outcome"]


async def told(made: Bench, sealed: Sealed) -> Any:
    """The reply to a request, or the code of the failure."""
    reply, _ = await sealing.present(made.dispatch, sealed)
    return reply.code if isinstance(reply, Failure) else reply


async def ask(made: Bench, message: Message, name: str) -> Any:
    """A reply to a sealed request of another kind, or the code of the failure."""
    return await told(made, sealing.of_now(made.dispatch, message, key(name)))


async def take(made: Bench, name: str, timeout: int = 10) -> Held:
    """Be granted work by a sealed assign."""
    shown = await ask(made, AssignProcess(colonyname=COLONY, timeout=timeout), name)
    return held(made, name, shown)


def held(made: Bench, name: str, shown: Any) -> Held:
    """The attempt in a process as it was shown."""
    attempt = shown["attempt"]
    return Held(
        made,
        key(name),
        shown["processid"],
        attempt["number"],
        attempt["token"],
        attempt.get("lease"),
        itertools.count(1),
    )
