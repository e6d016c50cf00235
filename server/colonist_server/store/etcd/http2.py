"""One HTTP/2 connection to an etcd member, which carries many calls of gRPC.

Settings, windows, pings and ends meet here; `frames` reads and writes them, `streams` are the
calls. All happens in the event loop's own callbacks: a call costs a future, a write and a read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, cast

from colonist_server.store.etcd import frames
from colonist_server.store.etcd.frames import (
    CallError,
    Code,
    Frame,
    Kind,
    ProtocolError,
    Reason,
    Setting,
)
from colonist_server.store.etcd.streams import WINDOW, Room, Stream

CONNECTION_WINDOW: Final = 4 * WINDOW
SILENT_S: Final = 10.0
ANSWER_S: Final = 3.0
"""After such a silence a ping is sent, and awaited so long."""
LEAVE_S: Final = 1.0
MAX_OWED_ACKS: Final = 1_000
MAX_NUMBER: Final = 1 << 30
_PING_BYTES: Final = 8
_GOAWAY_BYTES: Final = 8


class Connection(asyncio.Protocol):
    """The protocol of one transport. Await `ready` before the first call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.is_usable = True
        self._transport: asyncio.Transport | None = None
        self._reader = frames.Reader()
        self._block: Frame | None = None  # headers that go on
        self._streams: dict[int, Stream] = {}
        self._blocked: dict[int, Stream] = {}
        self._next = 1
        self._limit = MAX_NUMBER
        self._full: deque[asyncio.Future[None]] = deque()
        self._window = frames.DEFAULT_WINDOW
        self._stream_window = frames.DEFAULT_WINDOW
        self._room = Room(CONNECTION_WINDOW)
        self._out: list[bytes] = []
        self._is_reading = False
        self._is_paused = False
        self._owed_acks = 0
        self._is_left = False
        self._heard_at = loop.time()
        self._asked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._takes: Mapping[int, Callable[[Frame], None]] = {
            Kind.DATA: self._take_data,
            Kind.HEADERS: self._take_headers,
            Kind.RST_STREAM: self._take_reset,
            Kind.SETTINGS: self._take_settings,
            Kind.PUSH_PROMISE: self._take_promise,
            Kind.PING: self._take_ping,
            Kind.GOAWAY: self._take_goaway,
            Kind.WINDOW_UPDATE: self._take_update,
            Kind.CONTINUATION: self._take_continuation,
        }

    @property
    def has_room(self) -> bool:
        """Whether a call can begin now."""
        return self.is_usable and len(self._streams) < self._limit

    async def room(self) -> None:
        """Wait until a call can begin, or never can."""
        while self.is_usable and not self.has_room:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._full.append(waiter)
            await waiter

    def open(self, headers: bytes, request: bytes, *, is_single: bool) -> Stream:
        """Begin a call; our half stays open unless `is_single`. Raises `CallError`."""
        if len(headers) > frames.MAX_FRAME_BYTES:
            raise CallError(Code.INTERNAL, "the headers of a call are too long")
        stream = Stream(self, self._next, is_single=is_single)
        self._next += 2
        if self._next > MAX_NUMBER:
            self.is_usable = False  # the next call connects anew
        stream.window = self._stream_window
        stream.unsent = memoryview(frames.message(request))
        self._streams[stream.number] = stream
        self._out.append(frames.frame(Kind.HEADERS, frames.END_HEADERS, stream.number, headers))
        self._push(stream)
        self._flush()
        return stream

    def send(self, data: bytes) -> None:
        """Send a frame."""
        self._out.append(data)
        self._flush()

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        if self._streams.pop(stream.number, None) is None:
            return
        self._blocked.pop(stream.number, None)
        if not stream.is_closed:
            self.send(frames.reset(stream.number, Reason.CANCEL))
        self._let_in()
        if not self.is_usable and not self._streams and not self._is_left:
            self.leave()

    def leave(self, reason: Reason = Reason.NO_ERROR, words: str = "the connection ends") -> None:
        """Take no calls, break off those that are open, and close the connection soon."""
        self._lose(words)
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._is_reading = False
        self.send(frames.goaway(reason, words))
        transport.close()
        self._set_timer(LEAVE_S, transport.abort)

    def abort(self, words: str) -> None:
        """Close the connection at once."""
        self._lose(words)
        if self._transport is not None:
            self._transport.abort()

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._heard_at = self.loop.time()
        wanted = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: frames.MAX_HEADER_BYTES,
        }
        more = CONNECTION_WINDOW - frames.DEFAULT_WINDOW
        self.send(frames.PREFACE + frames.settings(wanted) + frames.window_update(0, more))
        self._set_timer(SILENT_S, self._look)

    def data_received(self, data: bytes) -> None:
        """Take the frames in it, and send in one piece what they ask for."""
        self._heard_at = self.loop.time()
        self._is_reading = True
        try:
            for got in self._reader.feed(data):
                self._take(got)
        except ProtocolError as error:
            self.leave(error.reason, f"etcd does not keep to HTTP/2: {error}")
        self._is_reading = False
        self._flush()

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The peer reads on."""
        self._is_paused = False
        self._owed_acks = 0
        self._push_blocked()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        if self._timer is not None:
            self._timer.cancel()
        self._lose("etcd closed the connection" if exc is None else f"connection lost: {exc}")
        if not self.closed.done():
            self.closed.set_result(None)

    # -- frames

    def _take(self, got: Frame) -> None:
        kind, flags, _, _ = got
        if not self.ready.done():
            if kind != Kind.SETTINGS or flags & frames.ACK:
                raise ProtocolError("it does not begin with SETTINGS")
            self.ready.set_result(None)
        if (self._block is not None) != (kind == Kind.CONTINUATION):
            raise ProtocolError("headers that break off, or go on without a beginning")
        take = self._takes.get(kind)
        if take is not None:
            take(got)

    def _take_data(self, got: Frame) -> None:
        _, flags, number, payload = got
        size = len(payload)
        self._room.take(size)
        given = self._room.give()
        if given:
            self.send(frames.window_update(0, given))
        stream = self._stream(number)
        if flags & frames.PADDED:
            payload = frames.unpadded(got)
        if stream is not None:
            stream.take_data(payload, size, is_last=bool(flags & frames.END_STREAM))

    def _take_headers(self, got: Frame) -> None:
        begun = got._replace(payload=frames.unpadded(got))
        if got.flags & frames.END_HEADERS:
            self._take_block(begun)
        else:
            self._block = begun

    def _take_continuation(self, got: Frame) -> None:
        begun = self._block
        if begun is None or begun.stream != got.stream:
            raise ProtocolError("headers that go on in another stream")
        whole = begun._replace(payload=begun.payload + got.payload)
        if len(whole.payload) > frames.MAX_HEADER_BYTES or not got.payload:
            raise ProtocolError("headers without end", Reason.ENHANCE_YOUR_CALM)
        self._block = whole
        if got.flags & frames.END_HEADERS:
            self._block = None
            self._take_block(whole)

    def _take_block(self, got: Frame) -> None:
        stream = self._stream(got.stream)
        if stream is not None:
            headers = frames.read_headers(got.payload)
            stream.take_headers(headers, is_last=bool(got.flags & frames.END_STREAM))

    def _take_reset(self, got: Frame) -> None:
        reason = frames.number(got.payload)
        stream = self._stream(got.stream)
        if stream is not None:
            stream.break_off(f"etcd broke off the call (HTTP/2 error {reason})")

    def _take_settings(self, got: Frame) -> None:
        if got.stream:
            raise ProtocolError("SETTINGS of a stream")
        if got.flags & frames.ACK:
            return
        for number, value in frames.read_settings(got.payload):
            if number == Setting.INITIAL_WINDOW_SIZE:
                self._resize(value - self._stream_window)
            elif number == Setting.MAX_CONCURRENT_STREAMS:
                self._limit = value
        self._acknowledge(frames.frame(Kind.SETTINGS, frames.ACK, 0))
        self._push_blocked()
        self._let_in()

    def _take_ping(self, got: Frame) -> None:
        if got.stream or len(got.payload) != _PING_BYTES:
            raise ProtocolError("a PING of a stream, or of another length than 8")
        if not got.flags & frames.ACK:
            self._acknowledge(frames.frame(Kind.PING, frames.ACK, 0, got.payload))

    def _take_goaway(self, got: Frame) -> None:
        if got.stream or len(got.payload) < _GOAWAY_BYTES:
            raise ProtocolError("a GOAWAY of a stream, or too short")
        self.is_usable = False
        last, reason = (int.from_bytes(got.payload[at : at + 4], "big") for at in (0, 4))
        words = got.payload[_GOAWAY_BYTES:].decode(errors="replace")[:200]
        for stream in list(self._streams.values()):
            if stream.number > last & frames.MAX_WINDOW:
                stream.break_off(f"etcd ends the connection (HTTP/2 error {reason}) {words}")
        self._let_in()
        if not self._streams:
            self.leave()

    def _take_update(self, got: Frame) -> None:
        more = frames.number(got.payload) & frames.MAX_WINDOW
        if not more:
            raise ProtocolError("a window that grows by nothing")
        if got.stream == 0:
            self._window = _grown(self._window, more)
            self._push_blocked()
            return
        stream = self._stream(got.stream)
        if stream is not None:
            stream.window = _grown(stream.window, more)
            self._push(stream)

    def _take_promise(self, got: Frame) -> None:
        raise ProtocolError(f"a PUSH_PROMISE in stream {got.stream}, which was turned off")

    def _stream(self, number: int) -> Stream | None:
        """An open stream; None if it is over, which the peer may not know yet."""
        stream = self._streams.get(number)
        if stream is None and (number % 2 == 0 or number >= self._next):
            raise ProtocolError(f"a frame of stream {number}, which was never opened")
        return stream

    # -- sending

    def _push(self, stream: Stream) -> None:
        """Send of a request what the windows let through."""
        unsent = stream.unsent
        while unsent and not self._is_paused:
            size = min(len(unsent), self._window, stream.window, frames.MAX_FRAME_BYTES)
            if size <= 0:
                break
            self._window -= size
            stream.window -= size
            data, unsent = unsent[:size], unsent[size:]
            flags = frames.END_STREAM if stream.is_single and not unsent else 0
            self._out.append(frames.frame(Kind.DATA, flags, stream.number, data))
        stream.unsent = unsent
        if unsent:
            self._blocked[stream.number] = stream
        else:
            self._blocked.pop(stream.number, None)

    def _push_blocked(self) -> None:
        for stream in list(self._blocked.values()):
            self._push(stream)

    def _resize(self, more: int) -> None:
        self._stream_window += more
        for stream in self._streams.values():
            stream.window = _grown(stream.window, more)

    def _acknowledge(self, answer: bytes) -> None:
        """Answer, unless the peer asks and asks, and reads no answers."""
        if self._is_paused:
            self._owed_acks += 1
            if self._owed_acks > MAX_OWED_ACKS:
                raise ProtocolError("it reads no answers", Reason.ENHANCE_YOUR_CALM)
        self.send(answer)

    def _flush(self) -> None:
        if self._is_reading or not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- the end

    def _lose(self, words: str) -> None:
        """No call can be made or answered any more."""
        self.is_usable = False
        self._is_left = True
        if not self.ready.done():
            self.ready.set_exception(CallError(Code.UNAVAILABLE, words))
            self.ready.exception()  # nobody need have waited for it
        for stream in list(self._streams.values()):
            stream.break_off(words)
        self._let_in()

    def _let_in(self) -> None:
        while self._full and (self.has_room or not self.is_usable):
            waiter = self._full.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if self.is_usable:
                    return

    def _look(self) -> None:
        """Ask a peer that is silent whether it is there."""
        now = self.loop.time()
        silent_s = now - self._heard_at
        if self._asked_at > self._heard_at:
            self.abort(f"no answer to a ping within {ANSWER_S:.0f} s")
        elif self._streams and silent_s >= SILENT_S:
            self._asked_at = now
            self.send(frames.frame(Kind.PING, 0, 0, bytes(_PING_BYTES)))
            self._set_timer(ANSWER_S, self._look)
        else:
            self._set_timer(max(SILENT_S - silent_s, 1.0), self._look)

    def _set_timer(self, delay_s: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(delay_s, then)


def _grown(window: int, more: int) -> int:
    if window + more > frames.MAX_WINDOW:
        raise ProtocolError("a window larger than 2^31-1", Reason.FLOW_CONTROL_ERROR)
    return window + more
