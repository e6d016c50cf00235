"""Replies that did not go out at once, and whose turn it is to go when they hold too much memory.

A reply is written whole, and nobody waits for its reader: a large one that is not taken stands in
memory as long as its connection. So all connections together have a budget for that. While it is
exceeded, who takes nothing for a while is cut off; and beyond what may ever be held, who has taken
nothing for the longest, then who has been reading for the longest.

A connection comes here when its transport says that its buffer is full (64 KiB; 16 where no member
spoke for it), and leaves when that is empty enough: a reply that goes out at once costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

BUDGET_BYTES: Final = 67_108_864
"""What may be unread without anybody looking how slowly."""
MAX_HELD_BYTES: Final = 268_435_456
STALL_S: Final = 5.0
SWEEP_S: Final = 1.0


class _Backlog:
    """What one connection has not taken yet, and since when it has been that much."""

    __slots__ = ("since", "size", "transport")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self.transport = transport
        self.size = transport.get_write_buffer_size()
        self.since = now

    def look(self, now: float) -> None:
        size = self.transport.get_write_buffer_size()
        if size < self.size:
            self.since = now
        self.size = size


class Unread:
    """All connections that have to be waited for."""

    __slots__ = ("_backlogs", "_held", "_loop", "_timer", "cut")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.Handle | None = None
        self._backlogs: dict[object, _Backlog] = {}  # in the order in which they came
        self._held = 0
        self.cut = 0
        """Connections that were cut off."""

    def enter(self, who: object, transport: asyncio.Transport) -> None:
        """The buffer of a connection is full."""
        backlog = _Backlog(transport, self._loop.time())
        self._backlogs[who] = backlog
        self._held += backlog.size
        if self._held > MAX_HELD_BYTES:
            self._again(0)
        elif self._timer is None:
            self._again(SWEEP_S)

    def leave(self, who: object) -> None:
        """It is not any more, or the connection has gone."""
        backlog = self._backlogs.pop(who, None)
        if backlog is not None:
            self._held -= backlog.size

    def _again(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        for backlog in self._backlogs.values():
            backlog.look(now)
        self._held = sum(backlog.size for backlog in self._backlogs.values())
        if self._held > BUDGET_BYTES:
            self._make_room(now)
        self._timer = None
        if self._backlogs:
            self._again(SWEEP_S)

    def _make_room(self, now: float) -> None:
        def idle_s(who: object) -> int:
            return int(now - self._backlogs[who].since)

        for who in sorted(self._backlogs, key=idle_s, reverse=True):
            has_stalled = now - self._backlogs[who].since >= STALL_S
            if self._held <= (BUDGET_BYTES if has_stalled else MAX_HELD_BYTES):
                return
            self._backlogs[who].transport.abort()
            self.leave(who)
            self.cut += 1
