"""One call of gRPC on an HTTP/2 connection: what came of it, and how much more may come."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol, Self

from colonist_server.store.etcd import frames
from colonist_server.store.etcd.frames import CallError, Code, ProtocolError, Reason

WINDOW: Final = 16_777_216
"""How much may be on its way in one stream, and wait there for whoever reads it."""


class Carrier(Protocol):
    """The connection, as a stream knows it."""

    loop: asyncio.AbstractEventLoop

    def send(self, data: bytes) -> None:
        """Send a frame."""

    def forget(self, stream: Stream) -> None:
        """A stream is over."""


class Room:
    """How much a peer may still send; half of it is given back at a time."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._step = size // 2
        self._owed = 0

    def take(self, size: int) -> None:
        """Count what came. Raises `ProtocolError`."""
        self._left -= size
        self._owed += size
        if self._left < 0:
            raise ProtocolError("more data than the window has", Reason.FLOW_CONTROL_ERROR)

    def give(self) -> int:
        """How much to tell the peer that it may send again; 0: not yet."""
        if self._owed < self._step:
            return 0
        given, self._owed = self._owed, 0
        self._left += given
        return given


class Stream:
    """One call. Iterate over its messages, or await the only one."""

    def __init__(self, connection: Carrier, number: int, *, is_single: bool) -> None:
        self._connection = connection
        self.number = number
        self.is_single = is_single
        self.window = 0
        """How much the peer still takes."""
        self.unsent = memoryview(b"")
        self.is_heard = False
        """Whether the peer has closed its half."""
        self.is_broken = False
        """Whether the peer has broken it off, or is gone."""
        self._is_over = False
        self._error: CallError | None = None
        self._is_answered = False
        self._joined = frames.Messages()
        self._messages: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._room = Room(WINDOW)
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the peer holds nothing of it any more."""
        return self.is_broken or (self.is_heard and self.is_single and not self.unsent)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next message. Raises `CallError`."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            await self._wait()
        message = self._messages.popleft()
        self._waiting_bytes -= len(message) + frames.PREFIX_BYTES
        self._give()
        return message

    async def only(self) -> bytes:
        """The one message of an answer that has ended. Raises `CallError`."""
        while not self._is_over:
            await self._wait()
        if self._error is not None:
            raise self._error
        if len(self._messages) != 1:
            raise CallError(Code.INTERNAL, f"etcd sent {len(self._messages)} messages for one")
        return self._messages.popleft()

    def expire(self) -> None:
        """The caller's time is over."""
        self.end(CallError(Code.DEADLINE_EXCEEDED, "no answer in time"))

    def close(self) -> None:
        """Wait for no more of it."""
        self.end(None)

    def end(self, error: CallError | None) -> None:
        """No more comes."""
        if self._is_over:
            return
        self._is_over = True
        self._error = error
        self._wake()
        self._connection.forget(self)

    def break_off(self, words: str) -> None:
        """The peer has ended it, or is gone."""
        self.is_broken = True
        self.end(CallError(Code.UNAVAILABLE, words))

    def take_headers(self, headers: dict[str, str], *, is_last: bool) -> None:
        """Headers or trailers came. Raises `ProtocolError`."""
        if is_last:
            self.is_heard = True
            error = frames.status(headers)
            if error is None and self._joined.is_cut:
                error = CallError(Code.INTERNAL, "etcd ended the call within a message")
            self.end(error)
        elif self._is_answered:
            raise ProtocolError("trailers that do not end the stream")
        elif not headers.get(":status", "").startswith("1"):
            self._is_answered = True
            if not frames.is_answer(headers):
                told = headers.get(":status", "none")
                self.end(CallError(Code.UNKNOWN, f"HTTP status {told}, and no answer of gRPC"))

    def take_data(self, payload: bytes, size: int, *, is_last: bool) -> None:
        """Data came, `size` with its padding. Raises `ProtocolError`."""
        if not self._is_answered:
            raise ProtocolError("data before headers")
        self._room.take(size)
        try:
            found = self._joined.feed(payload)
        except CallError as error:
            self.end(error)
            return
        if is_last:
            self.is_heard = True
            self.end(CallError(Code.UNKNOWN, "etcd ended the call without a status"))
            return
        if found:
            self._messages += found
            self._waiting_bytes += sum(map(len, found)) + len(found) * frames.PREFIX_BYTES
            if not self.is_single:
                self._wake()
        self._give()

    def _give(self) -> None:
        # A part of a message must make room for the rest of it; what waits for a reader need not.
        if not self._is_over and (self.is_single or self._waiting_bytes < WINDOW):
            given = self._room.give()
            if given:
                self._connection.send(frames.window_update(self.number, given))

    async def _wait(self) -> None:
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
