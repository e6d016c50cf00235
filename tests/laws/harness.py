"""What the law-suite needs to know of an implementation: how to open it, how its time passes."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from colonist_server.store.interface import Event, Revision, Store
from colonist_server.store.sqlite import SqliteStore
from tests.support.memory_store import MemoryStore

DEADLINE_S = 20.0


class Call:
    """A call that a `HandClock` will make."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class HandClock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._calls: list[tuple[float, int, Call]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Call:
        call = Call(callback)
        heapq.heappush(self._calls, (when, next(self._count), call))
        return call

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._calls and self._calls[0][0] <= end:
            self._now, _, call = heapq.heappop(self._calls)
            if call.callback is not None:
                call.callback()
        self._now = end


class MemoryKind:
    """Opens `MemoryStore`s."""

    is_durable = False

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()

    def open(self) -> AbstractAsyncContextManager[Store]:
        return MemoryStore(clock=self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class SqliteKind:
    """Opens `SqliteStore`s, all on one file, that write on a thread."""

    is_durable = True
    in_process = True

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()
        self._path = directory / "store.db"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[Store, None]:
        async with await SqliteStore.open(
            self._path, clock=self.clock, in_process=self.in_process
        ) as store:
            yield store

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class SqliteProcessKind(SqliteKind):
    """The same with a writer in a process of its own."""

    in_process = False


Kind = MemoryKind | SqliteKind
KINDS: dict[str, type[Kind]] = {
    "memory": MemoryKind,
    "sqlite": SqliteKind,
    "sqlite-process": SqliteProcessKind,
}


async def events(store: Store, after: Revision, until: Revision) -> list[Event]:
    """The events after a revision, up to and with another."""
    seen: list[Event] = []
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(store.watch(after)) as watch:
        async for event in watch:
            seen.append(event)
            if event.revision >= until:
                break
    return seen
