"""Followers that have pinned their server: each event is checked."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from colonist_client.failure import ServerError
from colonist_client.sealer import NotGenuineError, Pin
from colonist_client.subscriptions import StreamEndedError, Subscriber
from colonist_protocol import codec
from colonist_protocol.executor import RejectExecutor
from colonist_protocol.identity import Identity
from colonist_protocol.process import CancelProcess, State
from tests.server.house import House
from tests.support.rooms import COLONY, COLONY_OWNER, key

WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


def follower(home: House, who: str = "uma") -> Subscriber:
    return Subscriber(home.url, key(who), pin=Pin(home.rooms.server_keys.id))


class Liar:
    """A socket on which somebody sits."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.heard: list[aiohttp.WSMessage] = []
        self.says: list[aiohttp.WSMessage] = []
        self.swallows = 0

    async def receive(self) -> aiohttp.WSMessage:
        if self.says:
            return self.says.pop(0)
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT and self.swallows:
                self.swallows -= 1
                continue
            self.heard.append(message)
            return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def sit_on(events: Any) -> Liar:
    events._socket = Liar(events._socket)
    return events._socket


def text(data: str) -> aiohttp.WSMessage:
    return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, data, None)


async def test_a_process_is_followed_to_its_end_and_the_token_is_kept(home: House) -> None:
    subscriber = follower(home)
    async with subscriber.subscribe_process(home.waiting) as events:
        await home.assign("ada")
        await home.close("ada", home.waiting)
        assert [each.state async for each in events] == [WAITING, RUNNING, SUCCESS]
    async with subscriber.subscribe_process(home.waiting) as events:
        assert events._request.was_sent is False
        assert [each.state async for each in events] == [SUCCESS]
    assert events.ended == (1000, "the process has ended")


async def test_the_goodbye_that_nobody_signs_is_no_end(home: House) -> None:
    async with follower(home).subscribe_process(home.waiting, state=SUCCESS, timeout_s=1) as events:
        with pytest.raises(StreamEndedError, match="the time is up"):
            await anext(events)


async def test_refusals_are_signed_before_and_after_the_beginning(home: House) -> None:
    async with follower(home).subscribe_process("ab" * 32) as events:
        with pytest.raises(ServerError) as refused:
            await anext(events)
    assert refused.value.code in ("access_denied", "not_found")
    async with follower(home, "ada").subscribe_processes(COLONY) as events:
        await home.call(CancelProcess(processid=home.waiting), key("uma"))
        assert (await anext(events)).state == CANCELLED
        await home.call(RejectExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        with pytest.raises(ServerError, match="not a member of the colony any more"):
            await anext(events)


async def test_a_stranger_is_told_nothing_that_he_could_believe(home: House) -> None:
    with pytest.raises(NotGenuineError, match="unverified, something answered: 403"):
        async with follower(home, "nobody").subscribe_process(home.waiting):
            pass


async def test_a_server_with_another_key_is_not_believed(home: House) -> None:
    pin = Pin(Identity(bytes(31) + b"\x09").id)
    with pytest.raises(NotGenuineError):
        async with Subscriber(home.url, key("uma"), pin=pin).subscribe_processes(COLONY):
            pass


@pytest.mark.parametrize("trick", ["swallow", "repeat", "invent", "change", "of_another"])
async def test_whoever_sits_on_the_socket_is_noticed(home: House, trick: str) -> None:
    subscriber = follower(home)
    async with (
        subscriber.subscribe_processes(COLONY) as events,
        subscriber.subscribe_processes(COLONY) as others,
    ):
        liar = sit_on(events)
        await home.submit("uma")
        assert (await anext(events)).state == WAITING
        first = liar.heard[-1].data
        if trick == "swallow":
            liar.swallows = 1
            await home.submit("uma")
        elif trick == "repeat":
            liar.says = [text(first)]
        elif trick == "invent":
            tree = codec.scan(first.encode())
            plain = {name: tree[name] for name in ("payloadtype", "payload", "error")}
            liar.says = [text(codec.encode(plain).decode())]
        elif trick == "change":
            await home.submit("uma")
            honest = (await liar._socket.receive()).data
            liar.says = [text(honest.replace('"payload":"eyJ', '"payload":"eyK', 1))]
        else:
            spied = sit_on(others)
            await home.submit("uma")
            await anext(others)
            await anext(others)
            liar.says = [spied.heard[-1]]
        await home.submit("uma")
        with pytest.raises(NotGenuineError):
            async with asyncio.timeout(10):
                await anext(events)


async def test_an_order_that_somebody_else_presented_is_sealed_anew(home: House) -> None:
    subscriber = follower(home)
    async with subscriber.subscribe_process(home.waiting, state=WAITING) as first:
        await anext(first)  # brings a token
    events = subscriber.subscribe_processes(COLONY)
    captured = events._request.body
    async with home.session.ws_connect(f"{home.url}/pubsub", autoping=False) as thief:
        await thief.send_str(captured.decode())
        await thief.ping()
        assert (await thief.receive()).type is aiohttp.WSMsgType.PONG
        async with events:
            assert events._request.body != captured
            id = (await home.submit("uma")).processid
            assert (await anext(events)).processid == id
