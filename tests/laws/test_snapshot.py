"""Laws of snapshots, for every implementation."""

import asyncio
import contextlib
import itertools
from pathlib import Path

import pytest

from colonist_server.store.interface import (
    MAX_OPS,
    Delete,
    Guard,
    Item,
    Put,
    Range,
    Store,
    UnavailableError,
)
from tests.laws.harness import DEADLINE_S, Kind

A, B, C = b"a", b"b", b"c"
TTL_S = 3.0
OPENED = 40
PAGE_ITEMS = 1_000
PAGE_BYTES = 4_194_304


async def fill(store: Store, count: int, value: bytes = b"v") -> None:
    names = iter([b"%06d" % number for number in range(count)])
    while some := list(itertools.islice(names, MAX_OPS)):
        assert await store.commit([Guard(some[0], 0)], [Put(name, value) for name in some])


def count_open() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def pages_of(store: Store) -> list[Range]:
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(store.snapshot()) as pages:
        return [page async for page in pages]


async def items_of(store: Store) -> list[Item]:
    return [item for page in await pages_of(store) for item in page.items]


async def test_snapshot_of_nothing_is_one_empty_page(store: Store) -> None:
    before = store.revision
    (page,) = await pages_of(store)
    assert page == Range(page.revision, [], more=False)
    assert page.revision >= before


async def test_snapshot_is_what_a_range_over_everything_gives(store: Store) -> None:
    first = await store.commit([Guard(A, 0)], [Put(A, b"1"), Put(b"\0", b""), Put(b"\xff", b"x")])
    assert first is not None
    second = await store.commit([Guard(A, first)], [Put(A, b"2"), Put(B, b"3")])
    assert second is not None
    third = await store.commit([Guard(B, second)], [Delete(B)])
    (page,) = await pages_of(store)
    assert third is not None
    assert page.items == (await store.range(b"")).items
    assert page.revision >= third
    assert Item(A, b"2", first, second) in page.items


async def test_pages_are_exact_and_as_of_one_revision(store: Store) -> None:
    await fill(store, 2_500)
    before = store.revision
    pages = await pages_of(store)
    assert max(len(page.items) for page in pages) <= PAGE_ITEMS
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
    (revision,) = {page.revision for page in pages}
    assert before <= revision <= (await store.range(b"")).revision
    assert [item for page in pages for item in page.items] == (await store.range(b"")).items


@pytest.mark.parametrize("count", [999, 1_000, 1_001, 2_000])
async def test_no_key_is_missing_or_twice_where_a_page_ends(store: Store, count: int) -> None:
    await fill(store, count)
    assert [item.key for item in await items_of(store)] == [b"%06d" % n for n in range(count)]
    assert not (await pages_of(store))[-1].more


async def test_page_of_large_values_holds_few(store: Store) -> None:
    value = bytes(1_000_000)
    for number in range(12):
        name = b"%06d" % number
        assert await store.commit([Guard(name, 0)], [Put(name, value)])
    pages = await pages_of(store)
    sizes = [sum(len(item.value) for item in page.items) for page in pages]
    assert sum(sizes) == 12 * len(value)
    assert max(sizes) <= PAGE_BYTES + len(value)


async def test_snapshot_sees_nothing_of_what_is_committed_after_its_first_page(
    store: Store,
) -> None:
    await fill(store, 2_500)
    before = await store.range(b"")
    seen: list[Item] = []
    revisions: set[int] = set()
    taken = 0
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(store.snapshot()) as pages:
        async for page in pages:
            seen += page.items
            revisions.add(page.revision)
            last = before.items[-1 - taken]
            taken += 1
            assert await store.commit([Guard(last.key, last.modified)], [Delete(last.key)])
            name = b"9%d" % len(seen)
            assert await store.commit([Guard(name, 0)], [Put(name, b"late")])
    assert seen == before.items
    assert len(revisions) == 1


async def test_every_snapshot_beside_a_busy_writer_is_some_revision_whole(store: Store) -> None:
    """Each commit raises two counters, at both ends of the keys: no snapshot shows them apart."""
    await fill(store, 2_500)
    low, high = b"!", b"~"
    revision = await store.commit([Guard(low, 0)], [Put(low, b"0"), Put(high, b"0")])
    is_over = False

    async def count_up(revision: int | None) -> None:
        number = 0
        while not is_over:
            number += 1
            value = b"%d" % number
            assert revision is not None
            ops = [Put(low, value), Put(high, value)]
            revision = await store.commit([Guard(low, revision)], ops)

    async with asyncio.TaskGroup() as group:
        group.create_task(count_up(revision))
        for _ in range(5):
            items = await items_of(store)
            assert items[0].value == items[-1].value
            assert items[0].modified == items[-1].modified
        is_over = True


async def test_snapshot_has_every_commit_that_was_answered_before_it(store: Store) -> None:
    for number in range(30):
        name = b"%02d" % number
        revision = await store.commit([Guard(name, 0)], [Put(name, b"")])
        assert revision is not None
        pages = await pages_of(store)
        assert pages[-1].items[-1].key == name
        assert pages[0].revision >= revision


async def test_keys_of_a_lease_are_left_out(store: Store) -> None:
    lease = await store.lease(TTL_S)
    revision = await store.commit([Guard(A, 0)], [Put(A, b"1", lease), Put(B, b"2", lease)])
    assert revision is not None
    assert await store.commit([Guard(C, 0), Guard(B, revision)], [Put(C, b"3"), Put(B, b"4")])
    assert [item.key for item in await items_of(store)] == [B, C]


async def test_snapshots_that_are_given_up_hold_nothing(store: Store) -> None:
    await fill(store, 1_500)
    open_before = count_open()
    for _ in range(OPENED):
        async with contextlib.aclosing(store.snapshot()) as pages:
            assert (await anext(pages)).more
    async with asyncio.timeout(DEADLINE_S):
        while count_open() > open_before + OPENED // 4:
            await asyncio.sleep(0.01)
    assert len(await items_of(store)) == 1_500


async def test_snapshot_of_a_cancelled_reader_ends(store: Store) -> None:
    await fill(store, 1_500)
    for _ in range(OPENED):
        pages = store.snapshot()
        first = asyncio.ensure_future(anext(pages))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await pages.aclose()
    assert len(await items_of(store)) == 1_500


async def test_snapshot_ends_when_its_store_is_closed(kind: Kind) -> None:
    async with kind.open() as store:
        await fill(store, 1_500)
        pages = store.snapshot()
        assert (await anext(pages)).more
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(5):  # nobody waits for what does not come back
            await anext(pages)
    await pages.aclose()
