"""The smallest HTTP/1.1 client that is right: one connection, one request at a time, kept alive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

OK = 200
NOT_FOUND = 404
LOST = 0

OnReply = Callable[[int, bytes], None]

_LENGTH = b"Content-Length: "


class Reply(NamedTuple):
    """Status and body; status 0 = the connection is gone."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """Sends ready-made requests and hands each reply to the callback given with its request."""

    __slots__ = ("_on_reply", "_rest", "_transport")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._on_reply: OnReply | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def send(self, request: bytes, on_reply: OnReply) -> None:
        """Send; the callback gets (status, body), status 0 when the connection is lost."""
        if self._transport is None:
            on_reply(LOST, b"not connected")
            return
        self._on_reply = on_reply
        self._transport.write(request)

    async def request(self, request: bytes) -> Reply:
        """Send and wait."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def on_reply(status: int, body: bytes) -> None:
            if not answer.done():
                answer.set_result(Reply(status, body))

        self.send(request, on_reply)
        return await answer

    def data_received(self, data: bytes) -> None:
        """Complete the reply, whole in almost every case."""
        if self._rest:
            data = self._rest + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._rest = data
            return
        body = end + 4
        total = body + _content_length(data, end)
        if len(data) < total:
            self._rest = data
            return
        self._rest = b""
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is not None:
            on_reply(int(data[9:12]), data[body:total])

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is not None:
            on_reply(LOST, repr(exc).encode())

    def close(self) -> None:
        """Drop the connection; a reply under way is not waited for."""
        self._on_reply = None
        if self._transport is not None:
            self._transport.abort()


def _content_length(data: bytes, end: int) -> int:
    at = data.find(_LENGTH, 0, end)
    if at < 0:
        at = data[:end].lower().find(_LENGTH.lower())
        if at < 0:
            raise ValueError(f"reply without Content-Length: {data[:end]!r}")
    return int(data[at + len(_LENGTH) : data.find(b"\r\n", at)])


async def connect(port: int, count: int = 1, at_once: int = 100) -> list[Connection]:
    """Open so many connections, `at_once` of them at a time."""
    loop = asyncio.get_running_loop()
    made: list[Connection] = []
    while len(made) < count:
        batch = min(at_once, count - len(made))
        pairs = await asyncio.gather(
            *(loop.create_connection(Connection, "127.0.0.1", port) for _ in range(batch))
        )
        made.extend(connection for _, connection in pairs)
    return made


async def send_all(port: int, requests: Iterable[bytes], width: int = 16) -> list[Reply]:
    """Send each request once over `width` connections, and the replies in their order.

    Raises `RuntimeError` at the first reply that is no success.
    """
    queue = deque(enumerate(requests))
    replies: list[Reply] = [Reply(LOST, b"")] * len(queue)

    async def drain(connection: Connection) -> None:
        while queue:
            at, request = queue.popleft()
            replies[at] = answer = await connection.request(request)
            if answer.status != OK:
                raise RuntimeError(f"{request!r} was answered {answer.status}: {answer.body!r}")

    connections = await connect(port, min(width, len(queue)))
    try:
        await asyncio.gather(*map(drain, connections))
    finally:
        for connection in connections:
            connection.close()
    return replies
