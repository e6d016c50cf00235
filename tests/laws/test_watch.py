"""Laws of watches and leases, for every implementation."""

import asyncio
import contextlib
import tracemalloc

import pytest

from colonist_server.store.interface import (
    Change,
    CompactedError,
    Delete,
    Event,
    Guard,
    Item,
    LawError,
    Put,
    Store,
)
from colonist_server.store.ring import EVENTS, OVERHEAD_BYTES, EventRing
from tests.laws.harness import DEADLINE_S, Kind, events, has_news, next_event

A, B = b"a", b"b"
LONG_S = 60.0
# Quick enough to fill their memory of events, and one commit after the other.
EMBEDDED = ["memory", "sqlite", "sqlite-process"]


async def test_watch_yields_whole_revisions_in_order_and_without_gaps(store: Store) -> None:
    start = store.revision
    keys = [b"%03d" % number for number in range(300)]

    async def commit(key: bytes) -> int | None:
        return await store.commit([Guard(key, 0)], [Put(key, b"1"), Put(b"x" + key, b"")])

    watch = store.watch(start)
    async with contextlib.aclosing(watch), asyncio.timeout(DEADLINE_S):
        first = asyncio.ensure_future(anext(watch))  # it waits before there is anything
        answers = await asyncio.gather(*map(commit, keys))
        last = await store.commit([Guard(b"last", 0)], [Put(b"last", b"")])
        seen = [await first]
        while seen[-1].revision != last:
            seen.append(await anext(watch))
    found = [event.revision for event in seen]
    assert found == sorted(set(found))
    found = [event.revision for event in seen if has_news(store, event)]
    assert set(found) == {*answers, last}
    for key, answer in zip(keys, answers, strict=True):
        (event,) = [event for event in seen if event.revision == answer]
        assert {Change(key, b"1"), Change(b"x" + key, b"")} <= set(event.changes)
    assert sum(len(event.changes) for event in seen) == 2 * len(keys) + 1


@pytest.mark.parametrize("kind", EMBEDDED, indirect=True)
async def test_answers_come_in_revision_order_and_after_their_events(store: Store) -> None:
    answers: list[int] = []

    async def commit(key: bytes) -> None:
        answer = await store.commit([Guard(key, 0)], [Put(key, b"")])
        assert answer is not None
        assert store.revision >= answer
        answers.append(answer)

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(commit(b"%d" % number))
    assert answers == sorted(answers)


async def test_commit_after_an_answer_has_a_larger_revision(store: Store) -> None:
    """Whatever else is under way."""

    async def chain(name: bytes) -> None:
        for number in range(20):
            known = store.revision
            key = b"%b/%d" % (name, number)
            answer = await store.commit([Guard(key, 0)], [Put(key, b"")])
            assert answer is not None
            assert answer > known

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(chain(b"%d" % number))


async def test_watch_after_a_revision_starts_with_the_next(store: Store) -> None:
    revision = 0
    for value in (b"1", b"2", b"3"):
        revision = await store.commit([Guard(A, revision)], [Put(A, value)]) or 0
    (event,) = await events(store, revision - 1, revision)
    assert event.changes == (Change(A, b"3"),)


async def test_watch_tells_deletes_from_empty_values(store: Store) -> None:
    start = store.revision
    first = await store.commit([Guard(A, 0)], [Put(A, b"")])
    assert first is not None
    second = await store.commit([Guard(A, first)], [Delete(A)])
    assert second is not None
    seen = await events(store, start, second)
    assert [event.changes for event in seen] == [(Change(A, b""),), (Change(A, None),)]


async def test_two_watchers_see_the_same(store: Store) -> None:
    start = store.revision
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(next_event(store, start)) for _ in range(2)]
        await asyncio.sleep(0)
        group.create_task(store.commit([Guard(A, 0)], [Put(A, b"")]))
    assert both[0].result() == both[1].result()


async def test_watch_of_what_is_forgotten_is_told(store: Store, kind: Kind) -> None:
    start = store.revision
    first = await store.commit([Guard(A, 0)], [Put(A, b"1")])
    assert first is not None
    await kind.forget(store)
    with pytest.raises(CompactedError):
        await next_event(store, start)
    item = await store.get(A)
    assert item == Item(A, b"1", first, first)
    last = store.revision
    assert await store.commit([Guard(A, first)], [Put(A, b"2")])
    assert (await next_event(store, last)).changes == (Change(A, b"2"),)


@pytest.mark.parametrize("kind", EMBEDDED, indirect=True)
async def test_watcher_that_fell_behind_is_told_and_held_up_nobody(store: Store) -> None:
    chains = 50
    slow = store.watch(0)

    async def chain(key: bytes) -> None:
        revision: int | None = 0
        for _ in range(EVENTS // chains + 20):
            revision = await store.commit([Guard(key, revision or 0)], [Put(key, b"")])

    async with contextlib.aclosing(slow):
        assert await store.commit([Guard(A, 0)], [Put(A, b"")])
        assert (await anext(slow)).revision == 1
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            for number in range(chains):
                group.create_task(chain(b"%d" % number))
        with pytest.raises(CompactedError):
            async for _ in slow:
                pass
    with pytest.raises(CompactedError):
        await events(store, 0, 1)
    assert len(await events(store, store.revision - EVENTS, store.revision)) == EVENTS


async def test_ring_of_large_values_remembers_fewer_events() -> None:
    ring = EventRing(0, events=100, event_bytes=10 * (100 + 2 * OVERHEAD_BYTES))
    for revision in range(1, 51):
        ring.extend([Event(revision, (Change(A, bytes(99)),))])
    assert [event.revision for event in ring.since(40)] == list(range(41, 51))
    with pytest.raises(CompactedError):
        ring.since(39)


@pytest.mark.parametrize(
    ("size", "changes", "count"), [(1_000_000, 1, 300), (0, 128, 2_000), (40, 1, 30_000)]
)
async def test_ring_takes_no_more_memory_than_it_may(size: int, changes: int, count: int) -> None:
    allowed = 4_194_304
    tracemalloc.start()
    try:
        ring = EventRing(0, event_bytes=allowed)
        for revision in range(1, count + 1):
            texts = [(b"%050d" % (revision * 128 + n), bytes(size)) for n in range(changes)]
            ring.extend([Event(revision, tuple(Change(*text) for text in texts))])
        texts.clear()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert allowed / 4 < taken < allowed * 1.1
    assert ring.since(count - 1)[0].revision == count


async def test_lease_not_kept_alive_takes_its_keys_away(store: Store, kind: Kind) -> None:
    lease = await store.lease(kind.ttl_s)
    revision = await store.commit([Guard(A, 0)], [Put(A, b"1", lease), Put(B, b"2")])
    assert revision is not None
    await kind.pass_time(kind.ttl_s + 1)
    event = await next_event(store, revision)
    assert event.changes == (Change(A, None),)
    assert [item.key for item in (await store.range(b"")).items] == [B]
    assert not await store.keep_alive(lease)
    with pytest.raises(LawError):
        await store.commit([Guard(A, 0)], [Put(A, b"", lease)])


async def test_lease_kept_alive_keeps_its_keys(store: Store, kind: Kind) -> None:
    lease = await store.lease(kind.ttl_s)
    assert await store.commit([Guard(A, 0)], [Put(A, b"1", lease)])
    for _ in range(4):
        await kind.pass_time(kind.ttl_s * 2 / 3)
        assert await store.keep_alive(lease)
    assert await store.get(A) is not None


async def test_revoked_lease_takes_its_keys_away_at_once(store: Store) -> None:
    lease = await store.lease(LONG_S)
    assert await store.commit([Guard(A, 0)], [Put(A, b"", lease)])
    await store.revoke(lease)
    assert await store.get(A) is None
    assert not await store.keep_alive(lease)
    await store.revoke(lease)


async def test_key_put_again_without_its_lease_stays(store: Store) -> None:
    lease = await store.lease(LONG_S)
    revision = await store.commit([Guard(A, 0)], [Put(A, b"", lease)])
    assert revision is not None
    assert await store.commit([Guard(A, revision)], [Put(A, b"")])
    await store.revoke(lease)
    assert await store.get(A) is not None


async def test_put_that_waits_when_its_lease_ends_leaves_no_key(store: Store) -> None:
    """Whether it was answered before the lease ended or refused after it."""
    lease = await store.lease(LONG_S)
    put = asyncio.ensure_future(store.commit([Guard(A, 0)], [Put(A, b"", lease)]))
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await store.revoke(lease)
        with contextlib.suppress(LawError):
            assert await put is not None
    assert await store.get(A) is None
