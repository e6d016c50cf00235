"""The load: clients that send the next request the moment they have the last reply.

Callbacks, not coroutines: a task switch an answer would be a third of the generator's work.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import repeat

from benchmarks.connection import NOT_FOUND, OK, Connection
from benchmarks.meter import Meter, Used
from benchmarks.wire import Key, process_id

_SHOWN_CHARS = 200


class Tally:
    """Counts what is done within a window, and every answer that was no success."""

    __slots__ = ("count", "failures", "is_counting", "is_over", "taken")

    def __init__(self) -> None:
        self.count = 0
        self.taken: list[float] = []
        self.failures: Counter[str] = Counter()
        self.is_counting = False
        self.is_over = False

    def done(self, seconds: float) -> None:
        """One operation ended; it counts if it ended within the window."""
        if self.is_counting:
            self.count += 1
            self.taken.append(seconds)

    def fail(self, status: int, body: bytes) -> None:
        """One answer was no success."""
        self.failures[f"{status} {body[:_SHOWN_CHARS].decode(errors='replace')}"] += 1

    def notes(self) -> tuple[str, ...]:
        """The failures, for the row."""
        return tuple(f"{count} x {text}" for text, count in self.failures.most_common(3))


async def window(tally: Tally, meter: Meter, warmup_s: float, span_s: float) -> Used:
    """Let the load run, count within the span, then tell the workers that it is over."""
    await asyncio.sleep(warmup_s)
    meter.start()
    tally.is_counting = True
    await asyncio.sleep(span_s)
    tally.is_counting = False
    used = meter.stop()
    tally.is_over = True
    return used


class Submitter:
    """Submits one process after another."""

    __slots__ = ("_connection", "_sent", "_submits", "_tally")

    def __init__(self, connection: Connection, submits: Iterator[bytes], tally: Tally) -> None:
        self._connection = connection
        self._submits = submits
        self._tally = tally
        self._sent = 0.0

    def start(self) -> None:
        """Send the next."""
        self._sent = time.perf_counter()
        self._connection.send(next(self._submits), self._answered)

    def _answered(self, status: int, body: bytes) -> None:
        if status == OK:
            self._tally.done(time.perf_counter() - self._sent)
        else:
            self._tally.fail(status, body)
        if status and not self._tally.is_over:
            self.start()


class Lifecycle:
    """Submits a process, takes whichever comes, closes that: as one executor.

    `close` makes the request that closes what a reply has granted.
    """

    __slots__ = ("_began", "_close", "_connection", "_polls", "_submits", "_tally")

    def __init__(
        self,
        connection: Connection,
        submits: Iterator[bytes],
        polls: Iterator[bytes],
        close: Callable[[bytes], bytes],
        tally: Tally,
    ) -> None:
        self._connection = connection
        self._submits = submits
        self._polls = polls
        self._close = close
        self._tally = tally
        self._began = 0.0

    @classmethod
    def plain(
        cls, connection: Connection, key: Key, poll: bytes, submits: Iterator[bytes], tally: Tally
    ) -> Lifecycle:
        """One of plain requests."""
        return cls(
            connection, submits, repeat(poll), lambda reply: key.close(process_id(reply)), tally
        )

    def start(self) -> None:
        """Begin the next round."""
        if not self._tally.is_over:
            self._began = time.perf_counter()
            self._connection.send(next(self._submits), self._submitted)

    def _submitted(self, status: int, body: bytes) -> None:
        if status == OK:
            self._connection.send(next(self._polls), self._assigned)
        else:
            self._stumbled(status, body)

    def _assigned(self, status: int, body: bytes) -> None:
        if status == OK:
            self._connection.send(self._close(body), self._closed)
        else:
            self._stumbled(status, body)

    def _closed(self, status: int, body: bytes) -> None:
        if status == OK:
            self._tally.done(time.perf_counter() - self._began)
            self.start()
        else:
            self._stumbled(status, body)

    def _stumbled(self, status: int, body: bytes) -> None:
        self._tally.fail(status, body)
        if status:
            self.start()


class Drain:
    """Takes processes and closes them until its share of tickets is used up."""

    __slots__ = ("_connection", "_key", "_on_close", "_poll", "_tally", "_tickets")

    def __init__(
        self,
        connection: Connection,
        key: Key,
        poll: bytes,
        *,
        tickets: Iterator[int],
        tally: Tally,
        on_close: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._key = key
        self._poll = poll
        self._tickets = tickets
        self._tally = tally
        self._on_close = on_close

    def start(self) -> None:
        """Take the next, if there is one left to take."""
        if next(self._tickets, None) is not None:
            self._connection.send(self._poll, self._assigned)

    def _assigned(self, status: int, body: bytes) -> None:
        if status == OK:
            self._connection.send(self._key.close(process_id(body)), self._closed)
        else:
            self._stumbled(status, body)

    def _closed(self, status: int, body: bytes) -> None:
        if status == OK:
            self._on_close()
            self.start()
        else:
            self._stumbled(status, body)

    def _stumbled(self, status: int, body: bytes) -> None:
        self._tally.fail(status, body)
        self._on_close()
        if status:
            self.start()


class Parked:
    """An executor that long-polls; what it is handed goes to `on_work`, then it waits."""

    __slots__ = ("_connection", "_on_work", "_poll", "_tally", "is_over", "key", "polls")

    def __init__(
        self,
        connection: Connection,
        key: Key,
        poll: bytes,
        tally: Tally,
        on_work: Callable[[Parked, bytes], None],
    ) -> None:
        self._connection = connection
        self._poll = poll
        self._tally = tally
        self._on_work = on_work
        self.key = key
        self.polls = 0
        self.is_over = False

    def park(self) -> None:
        """Ask for work."""
        self.polls += 1
        self._connection.send(self._poll, self._answered)

    def close_and_park(self, process: bytes) -> None:
        """Close a process, then ask for work again."""
        self._connection.send(self.key.close(process), self._closed)

    def _answered(self, status: int, body: bytes) -> None:
        if status == OK:
            self._on_work(self, process_id(body))
        elif status == NOT_FOUND:
            if not self.is_over:
                self.park()
        else:
            self._tally.fail(status, body)

    def _closed(self, status: int, body: bytes) -> None:
        if status != OK:
            self._tally.fail(status, body)
        if status and not self.is_over:
            self.park()
