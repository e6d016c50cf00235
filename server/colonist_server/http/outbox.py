"""What one connection has been sent and not taken yet: a bounded queue that nobody waits for.

While the socket takes what it is given, a frame goes straight to the transport; when it does not,
frames (the same objects for all connections) queue up here. Who is over its room and takes nothing
for a while is dropped; who takes something may catch up, within bounds that nobody gets over:
docs/reference/subscriptions.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

ROOM_FRAMES: Final = 1_000
ROOM_BYTES: Final = 4_194_304
"""More than this, and the connection has to take something every `STALL_S`."""
STALL_S: Final = 5.0
MAX_BYTES: Final = 67_108_864
"""What one connection may have queued, however much it takes."""
MAX_HELD_BYTES: Final = 268_435_456
"""What all of them may hold; a frame that many have queued is held once."""

_TEXT: Final = 0x81
_SHORT, _MEDIUM = 126, 65_536


class Shelf:
    """The frames that are queued anywhere, and whose turn it is to go when they are too many."""

    __slots__ = ("_copies", "_last", "_outboxes", "held_bytes")

    def __init__(self) -> None:
        self.held_bytes = 0
        self._copies: dict[int, int] = {}
        self._outboxes: set[Outbox] = set()
        self._last: tuple[bytes, bytes] = (b"", b"")

    def wire(self, frame: bytes) -> bytes:
        """A text frame as it travels, made once for all who get it one after another."""
        if self._last[0] is not frame:
            self._last = (frame, _header(len(frame)) + frame)
        return self._last[1]

    def hold(self, outbox: Outbox, frame: bytes) -> None:
        """Somebody queues a frame. While it is held its identity is nobody else's."""
        self._outboxes.add(outbox)
        copies = self._copies.get(id(frame), 0)
        self._copies[id(frame)] = copies + 1
        if not copies:
            self.held_bytes += len(frame)

    def release(self, outbox: Outbox, frame: bytes) -> None:
        """Somebody has it no more in the queue."""
        copies = self._copies.pop(id(frame)) - 1
        if copies:
            self._copies[id(frame)] = copies
        else:
            self.held_bytes -= len(frame)
        if not outbox.queued_bytes:
            self._outboxes.discard(outbox)

    def make_room(self) -> None:
        """Drop those that have the most queued until the rest is within bounds."""
        if self.held_bytes <= MAX_HELD_BYTES:
            return
        for outbox in sorted(self._outboxes, key=lambda each: each.queued_bytes, reverse=True):
            outbox.give_up()
            if self.held_bytes <= MAX_HELD_BYTES:
                return


class Outbox:
    """The queue of one connection."""

    __slots__ = (
        "_drainer",
        "_frames",
        "_give_up",
        "_given",
        "_judge",
        "_send",
        "_shelf",
        "_transport",
        "queued_bytes",
    )

    def __init__(
        self,
        shelf: Shelf,
        transport: asyncio.Transport,
        send: Callable[[bytes], Awaitable[None]],
        give_up: Callable[[], None],
    ) -> None:
        """`send` returns when the transport wants more; `give_up` is called at most once."""
        self.queued_bytes = 0
        self._shelf = shelf
        self._transport = transport
        self._send = send
        self._give_up: Callable[[], None] | None = give_up
        self._frames: deque[bytes] = deque()
        self._given = 0
        self._drainer: asyncio.Task[None] | None = None
        self._judge: asyncio.TimerHandle | None = None

    def put(self, frame: bytes) -> None:
        """Send a frame, or queue it; never waits. May give up."""
        transport = self._transport
        if not self._frames and self._drainer is None and not transport.get_write_buffer_size():
            if not transport.is_closing():
                transport.write(self._shelf.wire(frame))
            return
        self._frames.append(frame)
        self.queued_bytes += len(frame)
        self._shelf.hold(self, frame)
        if self._drainer is None:
            self._drainer = asyncio.create_task(self._drain())
        if self.queued_bytes > MAX_BYTES and len(self._frames) > 1:
            self.give_up()
        elif self._judge is None and self._is_over:
            self._watch()
        self._shelf.make_room()

    def give_up(self) -> None:
        """Let go of everything, and say so."""
        self.clear()
        if self._give_up is not None:
            call, self._give_up = self._give_up, None
            call()

    def clear(self) -> None:
        """Let go of everything."""
        if self._judge is not None:
            self._judge.cancel()
            self._judge = None
        while self._frames:
            self._take()

    def stop(self) -> None:
        """The connection is gone."""
        self.clear()
        if self._drainer is not None:
            self._drainer.cancel()

    async def drained(self) -> None:
        """Return when all that is queued now is on its way."""
        if self._drainer is not None:
            await self._drainer

    @property
    def _is_over(self) -> bool:
        return len(self._frames) > 1 and (
            len(self._frames) > ROOM_FRAMES or self.queued_bytes > ROOM_BYTES
        )

    @property
    def _taken(self) -> int:
        """Bytes that the socket took of what was queued, and a number that stays the same."""
        return self._given - self._transport.get_write_buffer_size()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._judge = loop.call_later(STALL_S, self._look_again, self._taken)

    def _look_again(self, taken: int) -> None:
        """Give up if nothing was taken since."""
        self._judge = None
        if not self._is_over:
            return
        if self._taken <= taken:  # less by a ping that was added to what is unsent
            self.give_up()
        else:
            self._watch()

    def _take(self) -> bytes:
        frame = self._frames.popleft()
        self.queued_bytes -= len(frame)
        self._shelf.release(self, frame)
        return frame

    async def _drain(self) -> None:
        with suppress(ConnectionError):
            while self._frames:
                frame = self._take()
                self._given += len(_header(len(frame))) + len(frame)
                await self._send(frame)
        self._drainer = None


def _header(length: int) -> bytes:
    """RFC 6455 section 5.2, of a whole text frame of a server."""
    if length < _SHORT:
        return bytes((_TEXT, length))
    if length < _MEDIUM:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big")
