"""The newest events of a store, and those who wait for more.

Lives on the loop. A watcher takes slices at its own pace; one that falls behind what is remembered
gets `CompactedError`, it never holds up the store.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from operator import attrgetter
from typing import Final

from colonist_server.store.interface import CompactedError, Event, Revision, UnavailableError

EVENTS = 10_000
EVENT_BYTES = 67_108_864
SLICE = 256

OVERHEAD_BYTES: Final = 256
"""What an event, or a change, takes besides its texts: tuples, their heads, those of two texts."""

_GONE: Final = Event(0, ())
"""In the place of an event that is forgotten, so that its values are let go at once."""

_revision = attrgetter("revision")


class EventRing:
    """Remembers the last `events` events, fewer when they take more memory than `event_bytes`."""

    def __init__(
        self, start: Revision, *, events: int = EVENTS, event_bytes: int = EVENT_BYTES
    ) -> None:
        self._start = start  # the newest revision that is not remembered
        self._events: list[Event] = []
        self._sizes: list[int] = []
        self._forgotten = 0  # leading entries of the list that are no longer remembered
        self._bytes = 0
        self._max_events = events
        self._max_bytes = event_bytes
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    def extend(self, events: Sequence[Event]) -> None:
        """Remember newer events and wake the watchers."""
        self._events.extend(events)
        sizes = [_size(event) for event in events]
        self._sizes.extend(sizes)
        self._bytes += sum(sizes)
        self._forget()
        self._wake()

    def restart(self, start: Revision) -> None:
        """Forget everything: events were lost, and the next one comes after `start`."""
        self._start = start
        self._events = []
        self._sizes = []
        self._forgotten = self._bytes = 0
        self._wake()

    def close(self) -> None:
        """End every watch with `UnavailableError`."""
        self._closed = True
        self._wake()

    def since(self, after: Revision) -> list[Event]:
        """The next events after a revision, a slice of them. Raises `CompactedError`."""
        if after < self._start:
            raise CompactedError(f"events after {after}: remembered are those after {self._start}")
        at = bisect_right(self._events, after, lo=self._forgotten, key=_revision)
        return self._events[at : at + SLICE]

    async def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        """The watch of the store interface."""
        while True:
            events = self.since(after)
            for event in events:
                yield event
                after = event.revision
            if not events:
                await self._more()

    def _forget(self) -> None:
        events = self._events
        while len(events) - self._forgotten > self._max_events or self._bytes > self._max_bytes:
            gone = events[self._forgotten]
            events[self._forgotten] = _GONE
            self._start = gone.revision
            self._bytes -= self._sizes[self._forgotten]
            self._forgotten += 1
        # One move for many events; until then the places of those that have gone stay, empty.
        if self._forgotten > self._max_events // 16:
            del events[: self._forgotten]
            del self._sizes[: self._forgotten]
            self._forgotten = 0

    async def _more(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


def _size(event: Event) -> int:
    """What it takes in memory, rather more than less: changes of a few bytes are mostly frame."""
    size = OVERHEAD_BYTES * (1 + len(event.changes))
    for key, value in event.changes:
        size += len(key) + (0 if value is None else len(value))
    return size
