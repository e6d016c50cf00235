"""Subscribers on a bench: sinks that keep what they are given."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from colonist_protocol import codec, envelope
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import GetProcess, Process
from colonist_protocol.subscription import SubscribeProcess, SubscribeProcesses
from colonist_server.repo.topics import Ending, Subscription
from colonist_server.rpc.dispatch import Refusal
from colonist_server.store.interface import Event, Revision
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, key, settle


class LaggingStore(MemoryStore):
    """The watch tells of a commit some turns of the loop after its caller was answered."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self._turns = turns

    async def watch(self, after: Revision) -> AsyncGenerator[Event]:
        async with aclosing(super().watch(after)) as events:
            async for event in events:
                await settle(self._turns)
                yield event


class Ear:
    """A sink that hears everything."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.endings: list[Ending] = []
        self.subscription: Subscription | None = None

    def deliver(self, frame: bytes) -> None:
        self.frames.append(frame)

    def over(self, subscription: Subscription, ending: Ending) -> None:
        self.endings.append(ending)

    @property
    def heard(self) -> list[Process]:
        return [process_of(frame) for frame in self.frames]

    @property
    def states(self) -> list[int]:
        return [process.state for process in self.heard]

    @property
    def pairs(self) -> list[tuple[str, int]]:
        return [(process.processid, process.state) for process in self.heard]


def process_of(frame: bytes) -> Process:
    """The process in an event."""
    payload = envelope.parse_reply(frame)
    assert isinstance(payload, bytes), payload
    assert codec.scan(frame)["payloadtype"] == "subscribeprocessmsg"
    return codec.decode(payload, Process, "event")


async def subscribe(made: Bench, message: Message, who: Identity) -> Ear | Refusal:
    """What the frame of a client comes to."""
    ear = Ear()
    body = envelope.pack_request(message, who)
    opened = await made.dispatch.subscribe(body, ear, lambda _: None)
    if isinstance(opened, Refusal):
        return opened
    ear.subscription = opened
    return ear


async def follow(
    made: Bench, id: str, state: int = 2, timeout: int = 100, *, who: str = "uma", type: str = ""
) -> Ear:
    message = SubscribeProcess(
        processid=id, state=state, timeout=timeout, executortype=type, colonyname=COLONY
    )
    ear = await subscribe(made, message, key(who))
    assert isinstance(ear, Ear), ear
    return ear


async def stream(
    made: Bench, state: int = -1, type: str = "", timeout: int = 1000, *, who: str = "uma"
) -> Ear:
    message = SubscribeProcesses(colonyname=COLONY, executortype=type, state=state, timeout=timeout)
    ear = await subscribe(made, message, key(who))
    assert isinstance(ear, Ear), ear
    return ear


def failure_of(refusal: Any) -> envelope.Failure:
    assert isinstance(refusal, Refusal), refusal
    failure = envelope.parse_reply(refusal.body)
    assert isinstance(failure, envelope.Failure)
    return failure


def held_read(id: str, waitwhile: int = 0, timeout: int = 100) -> GetProcess:
    """A read that waits while the process is in that state."""
    return GetProcess(processid=id, waitwhile=waitwhile, timeout=timeout)
