"""The embedded store: one SQLite file, one writer, group commit.

All commits that wait when the writer is free share one statement and one fsync. Reads have their
own thread and connection. The file is locked: one server at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from colonist_server.store import file, reader, snapshot
from colonist_server.store.batch import Commit, LeaseEnd, Probe
from colonist_server.store.interface import (
    Event,
    Guard,
    Item,
    LawError,
    Op,
    Range,
    ReadOnlyError,
    Revision,
    UnavailableError,
)
from colonist_server.store.laws import check
from colonist_server.store.leases import Clock, Leases, Timer
from colonist_server.store.reader import Reader, Scan
from colonist_server.store.ring import EventRing
from colonist_server.store.writer import Outcome, Work
from colonist_server.store.writer_process import WriterProcess
from colonist_server.store.writer_thread import WriterThread

T = TypeVar("T")
Answer = asyncio.Future[Revision | None]

FATAL_EXIT = 70
PROBE_S = 1.0
STALLED_S = 5.0
SWITCH_INTERVAL_S = 2e-5
"""How long the writer may wait for the interpreter lock before it insists.

A thread that waits starts its wait anew whenever the lock is let go for a moment and taken back,
as a busy event loop does at every system call. With Python's 5 ms the writer then starves: p99 of
a batch beside a loop that is busy for 90 us between calls was 2.5 s, with 20 us it is 12 ms.
"""

_LOGGER = logging.getLogger(__name__)


def exit_process() -> None:
    """End the process at once: what is on file must be read anew."""
    os._exit(FATAL_EXIT)


class SqliteStore:
    """The store interface on one file. Use as `async with await SqliteStore.open(path)`."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        connect: file.Connect = file.connect,
        on_fatal: Callable[[], None] = exit_process,
        in_process: bool = True,
    ) -> Self:
        """Open or create a store. Raises `StoreError` if it is in use, foreign or damaged.

        `in_process`: write on a thread of this process, else in a process of its own, which is
        faster for many clients (`writer_process.py`) and takes no `connect`.

        `clock` drives leases and the recovery from a full disk; by default it is the running loop.
        `on_fatal` is called on the writer's thread when nobody can know what is on file.
        """
        opened = await asyncio.to_thread(file.open_file, path, connect)
        store = cls(opened, clock or asyncio.get_running_loop())
        await store._start(opened, on_fatal, in_process=in_process)
        return store

    def __init__(self, opened: file.Opened, clock: Clock) -> None:
        self._lock = opened.lock
        self._path = opened.path
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._revision = opened.revision
        self._ring = EventRing(opened.revision)
        self._leases = Leases(clock, self._let_lease_end)
        self._fault = ""  # why writes are refused
        self._unanswered = 0
        self._moved_at = 0.0
        self._retry_at = 0.0
        self._probe_timer: Timer | None = None
        self._closing = False
        self._written: asyncio.Future[None] = self._loop.create_future()

    async def _start(
        self, opened: file.Opened, on_fatal: Callable[[], None], *, in_process: bool
    ) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._reader = Reader(opened.reads, self._loop)
        self._writer: WriterThread | WriterProcess
        if in_process:
            self._writer = WriterThread(opened, deliver=self._post, on_fatal=on_fatal)
            return
        opened.writes.close()
        opened.copies.close()
        writer = WriterProcess(self._loop, deliver=self._settle, on_fatal=on_fatal)
        try:
            await writer.start(opened.path, opened.lock)
        except BaseException:
            await self._reader.stop()
            os.close(opened.lock)
            raise
        self._writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def revision(self) -> Revision:
        """The newest revision known to be durable."""
        return self._revision

    @property
    def is_shared(self) -> bool:
        """The file is locked: nobody else writes to it."""
        return False

    async def newest(self) -> Revision:
        """The newest revision."""
        return self._revision

    @property
    def fault(self) -> str:
        """Why it refuses writes, or that the disk hangs."""
        if self._fault:
            return f"the store refuses writes: {self._fault}"
        stalled_s = self._clock.time() - self._moved_at if self._unanswered else 0.0
        if stalled_s > STALLED_S:
            return f"the store has answered no commit for {stalled_s:.0f} s"
        return ""

    async def get(self, key: bytes) -> Item | None:
        """One key, or None."""
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Several keys as of one revision, in the order asked."""
        return await self._read(partial(reader.get_many, keys=tuple(keys)))

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        since: Revision = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Range:
        """Keys with `prefix` in key order, at one revision; see the interface."""
        scan = Scan(prefix, after, limit, since, reverse, keys_only)
        return await self._read(scan.read)

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        """All ops at once if every guard holds: the revision, durable. None when a guard failed."""
        shape = check(guards, ops)
        if self._fault:
            self._refuse()
        for lease in shape.leases:
            if lease not in self._leases:
                raise LawError(f"lease {lease} has ended")
        answer: Answer = self._loop.create_future()
        self._put(Commit(tuple(guards), tuple(ops), answer, shape.size, shape.prefixes))
        # A cancelled caller cancels the answer only: the writer never asks for it.
        return await answer

    def _put(self, work: Work) -> None:
        if not self._unanswered:
            self._moved_at = self._clock.time()
        self._unanswered += 1
        self._writer.put(work)

    def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        """Events with revisions larger than `after`, in order, for ever."""
        return self._ring.watch(after)

    async def lease(self, ttl_s: float) -> int:
        """A lease of this process; its keys do not outlive it either."""
        return self._leases.grant(ttl_s)

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False when it has already ended."""
        return self._leases.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """End a lease now and delete its keys; if that fails, it is tried again."""
        if self._leases.end(lease):
            await asyncio.shield(self._end_lease(lease))

    def snapshot(self) -> AsyncGenerator[Range]:
        """Every key that no lease holds, in key order, in pages, all as of one revision."""
        return snapshot.pages(self._path, check=self._check_open)

    async def close(self) -> None:
        """Finish what was accepted, then close the file and give up its lock."""
        if not self._closing:
            self._closing = True
            self._fault = self._fault or "the store is closed"
            self._leases.close()
            if self._probe_timer is not None:
                self._probe_timer.cancel()
            self._writer.stop()
            self._read_all = self._reader.stop()
        await asyncio.shield(self._written)
        await asyncio.shield(self._read_all)
        if self._lock >= 0:
            self._writer.join()
            self._reader.join()
            os.close(self._lock)
            self._lock = -1

    async def _read(self, read: reader.Read[T]) -> T:
        self._check_open()
        return await self._reader.read(read)

    def _check_open(self) -> None:
        if self._closing:
            raise UnavailableError("the store is closed")

    def _refuse(self) -> None:
        if self._closing or self._written.done():
            raise UnavailableError(self._fault)
        if self._clock.time() < self._retry_at:
            raise ReadOnlyError(self._fault)

    def _end_lease(self, lease: int) -> Answer:
        answer: Answer = self._loop.create_future()
        answer.add_done_callback(partial(self._lease_ended, lease))
        self._put(LeaseEnd(lease, answer))
        return answer

    def _let_lease_end(self, lease: int) -> None:
        self._end_lease(lease)

    def _lease_ended(self, lease: int, answer: Answer) -> None:
        if answer.exception() is not None and not self._closing:
            retry_at = self._clock.time() + PROBE_S
            self._clock.call_at(retry_at, partial(self._let_lease_end, lease))

    def _post(self, outcome: Outcome) -> None:
        """Hand an outcome from the writer's thread to the loop."""
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            _LOGGER.warning("store: the loop ended before the store was closed")

    def _settle(self, outcome: Outcome) -> None:
        self._unanswered = max(0, self._unanswered - len(outcome.answers))
        self._moved_at = self._clock.time()
        if outcome.fault:
            self._fail(outcome)
            return
        self._revision = outcome.revision
        if self._fault and outcome.wrote and not self._closing:
            _LOGGER.warning("store: writable again")
            self._fault = ""
        if outcome.events:
            self._ring.extend(outcome.events)
        for ticket, revision in outcome.answers:
            answer = cast("Answer", ticket)
            if not answer.done():
                answer.set_result(revision)

    def _fail(self, outcome: Outcome) -> None:
        kind = UnavailableError if outcome.last else ReadOnlyError
        for ticket, _ in outcome.answers:
            answer = cast("Answer", ticket)
            if not answer.done():
                answer.set_exception(kind(outcome.fault))
        if outcome.last:
            self._fault = outcome.fault
            self._ring.close()
            self._written.set_result(None)
        elif not self._closing:
            self._go_read_only(outcome.fault)

    def _go_read_only(self, fault: str) -> None:
        if not self._fault:
            _LOGGER.error("store: read-only: %s", fault)
        self._fault = fault
        self._retry_at = self._clock.time() + PROBE_S
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        self._probe_timer = self._clock.call_at(self._retry_at, self._probe)

    def _probe(self) -> None:
        answer: Answer = self._loop.create_future()
        answer.add_done_callback(_retrieve)
        self._put(Probe(answer))


def _retrieve(answer: Answer) -> None:
    """A failed probe is no news: the timer has been set anew."""
    answer.exception()
