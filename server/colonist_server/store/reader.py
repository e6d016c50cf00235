"""Reads, on a thread and a connection of their own: the writer's connection sees its open batch."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

from colonist_server.store.file import newest_revision
from colonist_server.store.interface import Item, Range, Revision, UnavailableError
from colonist_server.store.laws import prefix_end

T = TypeVar("T")
Read = Callable[[sqlite3.Connection], T]
JOBS_AT_ONCE = 64
KEYS_PER_SELECT = 512


class _Job(NamedTuple):
    read: Read[Any]
    answer: asyncio.Future[Any]


class _Result(NamedTuple):
    answer: asyncio.Future[Any]
    value: object
    error: Exception | None


class Reader:
    """Runs reads one after another; a read sees every commit answered before it was asked."""

    def __init__(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="colonist-store-read", daemon=True)
        self._thread.start()

    async def read(self, read: Read[T]) -> T:
        """Run one read. Raises `UnavailableError` when the file cannot be read."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(read, answer))
        return await answer

    def stop(self) -> asyncio.Future[None]:
        """Finish the reads that wait, then close the connection."""
        closed: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Job(sqlite3.Connection.close, closed))
        self._queue.put(None)
        return closed

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        queue = self._queue
        job = queue.get()
        while job is not None:
            results: list[_Result] = []
            # Answers of reads that wait already go to the loop together.
            while job is not None:
                results.append(_run_one(self._connection, job))
                if len(results) == JOBS_AT_ONCE or queue.empty():
                    break
                job = queue.get()
            self._post(results)
            if job is not None:
                job = queue.get()

    def _post(self, results: list[_Result]) -> None:
        # A loop that has ended waits for no answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_deliver, results)


def get_many(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[Item | None]:
    """The items with these keys, in this order, as of one revision."""
    if len(keys) <= KEYS_PER_SELECT:
        found = _select_keys(connection, keys)
    else:
        with _Snapshot(connection):
            found = {
                key: item
                for at in range(0, len(keys), KEYS_PER_SELECT)
                for key, item in _select_keys(connection, keys[at : at + KEYS_PER_SELECT]).items()
            }
    return [found.get(key) for key in keys]


class Scan(NamedTuple):
    """The arguments of `Store.range`."""

    prefix: bytes
    after: bytes
    limit: int
    since: Revision
    reverse: bool
    keys_only: bool

    def read(self, connection: sqlite3.Connection) -> Range:
        """Read the range as of one revision."""
        with _Snapshot(connection):
            revision = newest_revision(connection)
            rows = cast("list[tuple[bytes, bytes, int, int]]", self._select(connection))
        more = 0 < self.limit < len(rows)
        return Range(revision, [Item(*row) for row in (rows[:-1] if more else rows)], more)

    def _select(self, connection: sqlite3.Connection) -> list[Any]:
        low, high = max(self.prefix, b"\0"), prefix_end(self.prefix)
        if self.after and self.reverse:
            high = min(high, self.after)
        elif self.after:
            low = max(low, self.after + b"\0")
        value, order = "x''" if self.keys_only else "v", "DESC" if self.reverse else "ASC"
        return connection.execute(
            f"SELECT k, {value}, created, seq >> 8 FROM kv"  # noqa: S608 - words of ours only
            f" WHERE k >= ? AND k < ? AND seq >= ? ORDER BY k {order} LIMIT ?",
            (low, high, (self.since + 1) << 8, self.limit + 1 if self.limit else -1),
        ).fetchall()


class _Snapshot:
    """Statements inside see one revision."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("COMMIT")


def _select_keys(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Item]:
    marks = ",".join("?" * len(keys))
    rows = connection.execute(
        f"SELECT k, v, created, seq >> 8 FROM kv WHERE k > x'' AND k IN ({marks})",  # noqa: S608 - marks only
        keys,
    )
    return {row[0]: Item(*row) for row in rows}


def _run_one(connection: sqlite3.Connection, job: _Job) -> _Result:
    if job.answer.cancelled():
        return _Result(job.answer, None, None)
    try:
        return _Result(job.answer, job.read(connection), None)
    except sqlite3.Error as error:
        unavailable = UnavailableError(f"cannot read the store: {error}")
        unavailable.__cause__ = error
        return _Result(job.answer, None, unavailable)


def _deliver(results: list[_Result]) -> None:
    for answer, value, error in results:
        if answer.done():
            continue
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)
