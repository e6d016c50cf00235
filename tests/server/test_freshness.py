"""The barrier: rounds, who shares which, ends in time, cancellation. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from colonist_protocol.errors import UnavailableError
from colonist_server.repo.freshness import DEADLINE_S, Freshness
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Event, Guard, Put
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import settle
from tests.support.shared_store import Connection, SharedStore

ANSWER_S = 0.010


def spawn(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    tasks.add(asyncio.ensure_future(work()))


tasks: set[asyncio.Task[None]] = set()


def now() -> float:
    return asyncio.get_running_loop().time()


class Place:
    """A view that hears of a store only what a test tells it."""

    def __init__(self) -> None:
        self.store = Connection(SharedStore(), answer_s=ANSWER_S)
        self.view = View()
        self.freshness = Freshness(Writes(self.store, self.view), spawn)
        self.written = 0

    async def write(self) -> int:
        self.written += 1
        key = b"%d" % self.written
        revision = await self.store.shared.commit([Guard(key, 0)], [Put(key, b"")])
        assert revision
        return revision

    def watch(self, revision: int) -> None:
        self.view.watched(Event(revision, ()))


@virtual
async def test_a_store_that_is_not_shared_is_not_asked() -> None:
    store = MemoryStore()
    freshness = Freshness(Writes(store, View()), spawn)
    await store.commit([Guard(b"k", 0)], [Put(b"k", b"")])
    await freshness.fresh()
    assert freshness.rounds == 0


@virtual
async def test_it_waits_until_the_view_has_come_as_far_as_the_store() -> None:
    place = Place()
    first, second = await place.write(), await place.write()
    waiting = asyncio.create_task(place.freshness.fresh())
    await asyncio.sleep(1)
    place.watch(first)
    await settle()
    assert not waiting.done()
    place.watch(second)
    await waiting
    assert now() == pytest.approx(1.0, abs=0.01)
    await place.freshness.fresh()  # nothing has happened since
    assert now() == pytest.approx(1.0 + ANSWER_S, abs=0.01)


@virtual
async def test_a_load_is_as_good_as_a_watch() -> None:
    place = Place()
    revision = await place.write()
    place.view.loaded(revision)
    await place.freshness.fresh()
    waiting = asyncio.create_task(place.freshness.fresh())
    place.view.loaded(await place.write())
    await waiting


@virtual
async def test_who_comes_while_a_round_is_under_way_waits_for_the_next() -> None:
    place = Place()
    place.watch(await place.write())
    early = asyncio.create_task(place.freshness.fresh())
    await asyncio.sleep(ANSWER_S * 0.9)  # the store has looked
    revision = await place.write()
    late = [asyncio.create_task(place.freshness.fresh()) for _ in range(100)]
    await early
    await asyncio.sleep(1)
    assert not any(one.done() for one in late)
    place.watch(revision)
    await asyncio.gather(*late)
    assert place.freshness.rounds == 2
    assert place.store.asked_newest == 2


@virtual
async def test_a_round_that_waits_for_the_watch_holds_up_nobody_else() -> None:
    place = Place()
    revision = await place.write()
    behind = [asyncio.create_task(place.freshness.fresh()) for _ in range(3)]
    await asyncio.sleep(2 * ANSWER_S)
    later = await place.write()
    last = asyncio.create_task(place.freshness.fresh())
    await asyncio.sleep(2 * ANSWER_S)
    assert place.freshness.rounds == 2
    place.watch(revision)
    await asyncio.gather(*behind)
    assert not last.done()
    place.watch(later)
    await last
    assert place.view.on_reached is None


@virtual
async def test_who_leaves_takes_nobody_along() -> None:
    place = Place()
    revision = await place.write()
    first, second, third = (asyncio.create_task(place.freshness.fresh()) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(2 * ANSWER_S)
    second.cancel()
    await settle()
    place.watch(revision)
    await third
    assert first.cancelled()
    assert second.cancelled()


@virtual
async def test_a_node_that_is_behind_says_so_in_time() -> None:
    place = Place()
    await place.write()
    with pytest.raises(UnavailableError, match="this node is behind"):
        await place.freshness.fresh()
    assert now() == pytest.approx(DEADLINE_S, abs=0.01)
    place.watch(place.store.shared.revision)
    await place.freshness.fresh()


@virtual
async def test_a_store_that_is_away_is_named_as_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place()
    await place.write()
    monkeypatch.setattr(SharedStore, "fault", "etcd at x:1: no answer in time")
    with pytest.raises(UnavailableError, match="etcd at x:1: no answer in time"):
        await place.freshness.fresh()


@virtual
async def test_a_store_that_cannot_be_asked_is_told_of_to_all_who_wait() -> None:
    place = Place()
    place.store.is_cut = True
    both = await asyncio.gather(
        place.freshness.fresh(), place.freshness.fresh(), return_exceptions=True
    )
    assert [str(each) for each in both] == ["the store cannot read now: the network is cut"] * 2
    place.store.is_cut = False
    await place.freshness.fresh()
