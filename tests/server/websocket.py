"""A client of `GET /pubsub` over a real socket, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import WSMsgType

from colonist_protocol import codec, envelope
from colonist_protocol.envelope import Failure, pack_request
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import Process
from tests.server.house import DEADLINE_S, House
from tests.support.rooms import key

UMA = key("uma")


class Line:
    """One client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.early: list[aiohttp.WSMessage] = []

    async def order(self, message: Message, who: Identity = UMA) -> None:
        """Subscribe, and return when it stands: a ping is answered after what came before it."""
        await self.say(pack_request(message, who))

    async def say(self, text: bytes) -> None:
        """Send a frame as it is, and return when it was read."""
        await self.socket.send_str(text.decode())
        await self.until_read()

    async def until_read(self) -> None:
        """Until all that was sent was read, or the connection is closed."""
        await self.socket.ping(b"read")
        async with asyncio.timeout(DEADLINE_S):
            while (message := await self.socket.receive()).type is not WSMsgType.PONG:
                self.early.append(message)
                if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED):
                    break

    async def _next(self) -> aiohttp.WSMessage:
        if self.early:
            return self.early.pop(0)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message = await self.socket.receive()
                if message.type is WSMsgType.PING:
                    await self.socket.pong(message.data)
                elif message.type is not WSMsgType.PONG:
                    return message

    async def frame(self) -> bytes:
        """The next frame."""
        message = await self._next()
        assert message.type is WSMsgType.TEXT, message
        return message.data.encode()

    async def process(self) -> Process:
        """The next frame, which is an event."""
        frame = await self.frame()
        assert json.loads(frame)["payloadtype"] == "subscribeprocessmsg"
        payload = envelope.parse_reply(frame)
        assert isinstance(payload, bytes), payload
        return codec.decode(payload, Process, "event")

    async def error(self) -> Failure:
        """The next frame, which is a refusal."""
        frame = await self.frame()
        assert json.loads(frame)["payloadtype"] == "error"
        failure = envelope.parse_reply(frame)
        assert isinstance(failure, Failure), failure
        return failure

    async def closed(self) -> tuple[int, str]:
        """The close frame."""
        message = await self._next()
        assert message.type is WSMsgType.CLOSE, message
        return message.data, message.extra or ""


@asynccontextmanager
async def line(home: House, **headers: str) -> AsyncGenerator[Line]:
    """A connection, until the block is left."""
    async with home.session.ws_connect(
        f"{home.url}/pubsub", autoclose=False, autoping=False, headers=headers, max_msg_size=0
    ) as socket:
        yield Line(socket)
