"""Laws of commits and reads, for every implementation."""

import asyncio

import pytest

from colonist_server.store.interface import (
    MAX_COMMIT_BYTES,
    MAX_KEY_BYTES,
    MAX_OPS,
    MAX_VALUE_BYTES,
    Change,
    Delete,
    DeleteRange,
    Guard,
    Item,
    LawError,
    Op,
    Put,
    Store,
    UnavailableError,
)
from tests.laws.harness import DEADLINE_S, Kind, events, next_event

A, B, C = b"a", b"b", b"c"


async def put(store: Store, key: bytes, value: bytes = b"v") -> int:
    item = await store.get(key)
    revision = await store.commit([Guard(key, item.modified if item else 0)], [Put(key, value)])
    assert revision is not None
    return revision


async def assert_nothing_happened(store: Store, since: int) -> None:
    """No event but that of a commit made now."""
    revision = await put(store, b"sign of life")
    assert [event.revision for event in await events(store, since, revision)] == [revision]


async def test_commit_is_seen_by_the_next_read(store: Store) -> None:
    revision = await put(store, A, b"1")
    assert await store.get(A) == Item(A, b"1", revision, revision)
    assert store.revision >= revision


async def test_rewriting_a_key_keeps_its_creation(store: Store) -> None:
    first = await put(store, A, b"1")
    second = await put(store, A, b"2")
    assert second > first
    assert await store.get(A) == Item(A, b"2", first, second)


async def test_key_made_anew_has_a_new_creation(store: Store) -> None:
    first = await put(store, A)
    assert await store.commit([Guard(A, first)], [Delete(A)])
    third = await put(store, A)
    assert await store.get(A) == Item(A, b"v", third, third)


async def test_all_ops_of_a_commit_carry_one_revision(store: Store) -> None:
    revision = await store.commit([Guard(A, 0)], [Put(A, b""), Put(B, b""), Put(C, b"")])
    items = (await store.range(b"")).items
    assert [(item.key, item.modified) for item in items] == [(k, revision) for k in (A, B, C)]


async def test_failed_guard_changes_nothing(store: Store) -> None:
    first = await put(store, A)
    assert await store.commit([Guard(A, 0)], [Put(A, b"2"), Put(B, b"")]) is None
    assert await store.commit([Guard(A, first), Guard(B, 9)], [Put(A, b"2")]) is None
    assert await store.commit([Guard(B, 0), Guard(A, first + 1)], [Put(B, b"")]) is None
    assert (await store.range(b"")).items == [Item(A, b"v", first, first)]
    await assert_nothing_happened(store, first)


async def test_repeated_commit_succeeds_once(store: Store) -> None:
    answers = [await store.commit([Guard(A, 0)], [Put(A, b"")]) for _ in range(3)]
    assert [answer is not None for answer in answers] == [True, False, False]


async def test_of_commits_at_once_on_one_guard_exactly_one_succeeds(store: Store) -> None:
    commits = [
        store.commit([Guard(A, 0)], [Put(A, b"%d" % number), Put(b"x%d" % number, b"")])
        for number in range(100)
    ]
    answers = await asyncio.gather(*commits)
    winners = [number for number, answer in enumerate(answers) if answer is not None]
    item = await store.get(A)
    assert item is not None
    assert [item.value] == [b"%d" % number for number in winners]
    keys = [item.key for item in (await store.range(b"x")).items]
    assert keys == [b"x%d" % number for number in winners]


async def test_failed_guard_among_waiting_commits_fails_only_its_own(store: Store) -> None:
    def commit(number: int) -> object:
        bad = [Guard(b"no", 7)] if number % 3 == 0 else []
        key = b"%03d" % number
        return store.commit([Guard(key, 0), *bad], [Put(key, b"")])

    answers = await asyncio.gather(*[commit(number) for number in range(200)])
    good = [b"%03d" % number for number in range(200) if number % 3]
    assert [b"%03d" % n for n, answer in enumerate(answers) if answer is not None] == good
    assert [item.key for item in (await store.range(b"")).items] == good


async def test_delete_of_an_absent_key_makes_no_event(store: Store) -> None:
    before = store.revision
    revision = await store.commit([Guard(A, 0)], [Put(A, b""), Delete(B)])
    assert revision is not None
    (event,) = await events(store, before, revision)
    assert [change.key for change in event.changes] == [A]


async def test_revision_after_only_deletes_is_larger(store: Store) -> None:
    first = await put(store, A)
    second = await store.commit([Guard(A, first)], [Delete(A)])
    assert second is not None
    assert second > first
    assert await put(store, A) > second


async def test_delete_range_deletes_exactly_the_keys_with_its_prefix(store: Store) -> None:
    keys = [b"o", b"p", b"p\0", b"p\xff", b"p\xff\xff", b"pa", b"q", b"\xff", b"\xff\xff"]
    for key in keys:
        await put(store, key)
    head = await put(store, b"h")
    assert await store.commit([Guard(b"h", head)], [DeleteRange(b"p"), Delete(b"h")])
    left = [b"o", b"q", b"\xff", b"\xff\xff"]
    assert [item.key for item in (await store.range(b"")).items] == left
    head = await put(store, b"h")
    assert await store.commit([Guard(b"h", head)], [DeleteRange(b"\xff"), Delete(b"h")])
    assert [item.key for item in (await store.range(b"")).items] == left[:2]


async def test_delete_range_takes_thousands_of_keys(store: Store) -> None:
    for start in range(0, 40 * MAX_OPS, MAX_OPS):
        keys = [b"m/%05d" % number for number in range(start, start + MAX_OPS)]
        assert await store.commit([Guard(keys[0], 0)], [Put(key, b"") for key in keys])
    before = store.revision
    revision = await store.commit([Guard(b"h", 0)], [DeleteRange(b"m/"), Put(b"h", b"")])
    assert revision is not None
    assert [item.key for item in (await store.range(b"")).items] == [b"h"]
    (event,) = await events(store, before, revision)
    assert len(event.changes) == 40 * MAX_OPS + 1


async def test_guard_sees_a_delete_range_that_waits_before_it(store: Store, kind: Kind) -> None:
    first = await put(store, b"p1")
    answers = await asyncio.gather(
        store.commit([Guard(b"h", 0)], [Put(b"h", b"")]),
        store.commit([Guard(b"p1", first)], [DeleteRange(b"p")]),
        store.commit([Guard(b"p1", first)], [Put(b"p1", b"late")]),
        store.commit([Guard(b"p1", 0)], [Put(b"p1", b"new")]),
    )
    assert answers[0] is not None
    assert_lawful(kind, await store.get(b"p1"), answers[1:])


def assert_lawful(kind: Kind, item: Item | None, answers: list[int | None]) -> None:
    """What a delete, a late put over the same guard and a put of the absent key made of it."""
    deleted, late, new = answers
    if kind.is_fifo:
        assert new is not None
    assert (deleted is None) != (late is None)  # they guard the same revision
    assert new is None or (deleted is not None and new > deleted)
    if new is not None:
        assert item is not None
        assert item[1:] == (b"new", new, new)
    elif late is not None:
        assert item is not None
        assert (item.value, item.modified) == (b"late", late)
    else:
        assert item is None


async def test_guard_sees_a_delete_that_waits_before_it(store: Store, kind: Kind) -> None:
    first = await put(store, A)
    answers = await asyncio.gather(
        *[store.commit([Guard(b"h%d" % n, 0)], [Put(b"h%d" % n, b"")]) for n in range(9)],
        store.commit([Guard(A, first)], [Delete(A)]),
        store.commit([Guard(A, first)], [Put(A, b"late")]),
        store.commit([Guard(A, 0)], [Put(A, b"new")]),
    )
    assert None not in answers[:9]
    assert_lawful(kind, await store.get(A), answers[9:])


UNLAWFUL: dict[str, tuple[list[Guard], list[Op]]] = {
    "no ops": ([Guard(A, 0)], []),
    "too many ops": ([Guard(b"0", 0)], [Put(b"%d" % n, b"") for n in range(MAX_OPS + 1)]),
    "too many guards": ([Guard(b"%d" % n, 0) for n in range(MAX_OPS + 1)], [Put(b"0", b"")]),
    "value too long": ([Guard(A, 0)], [Put(A, bytes(MAX_VALUE_BYTES + 1))]),
    "commit too long": ([Guard(A, 0)], [Put(A, bytes(MAX_COMMIT_BYTES // 2)) for A in (A, B)]),
    "key too long": ([Guard(A, 0)], [Put(A, b""), Delete(bytes(MAX_KEY_BYTES + 1))]),
    "guard key too long": ([Guard(A, 0), Guard(bytes(MAX_KEY_BYTES + 1), 0)], [Put(A, b"")]),
    "prefix too long": ([Guard(A, 0)], [Put(A, b""), DeleteRange(bytes(MAX_KEY_BYTES + 1))]),
    "empty key": ([Guard(b"", 0)], [Put(b"", b"")]),
    "key twice": ([Guard(A, 0)], [Put(A, b""), Put(A, b"")]),
    "key put and deleted": ([Guard(A, 0)], [Put(A, b""), Delete(A)]),
    "put under a range": ([Guard(A, 0)], [DeleteRange(A), Put(b"ab", b""), Put(A, b"")]),
    "nothing guarded": ([], [Put(A, b"")]),
    "guard on another key": ([Guard(B, 0)], [Put(A, b"")]),
    "delete of what is guarded as absent": ([Guard(A, 0)], [Delete(A), Put(B, b"")]),
    "range over what is guarded as absent": ([Guard(A, 0)], [DeleteRange(A), Put(B, b"")]),
    "unknown lease": ([Guard(A, 0)], [Put(A, b"", 77)]),
}


@pytest.mark.parametrize("case", list(UNLAWFUL))
async def test_unlawful_commit_is_refused_and_does_nothing(store: Store, case: str) -> None:
    guards, ops = UNLAWFUL[case]
    before = store.revision
    with pytest.raises(LawError):
        await store.commit(guards, ops)
    assert (await store.range(b"")).items == []
    await assert_nothing_happened(store, before)


async def test_largest_lawful_commits_succeed(store: Store) -> None:
    keys = [b"%03d" % number + bytes(509) for number in range(MAX_OPS)]
    assert await store.commit([Guard(key, 0) for key in keys], [Put(key, b"") for key in keys])
    assert await store.commit([Guard(A, 0)], [Put(A, bytes(MAX_VALUE_BYTES))])
    assert len((await store.range(b"")).items) == MAX_OPS + 1


async def test_many_large_commits_at_once_succeed(store: Store) -> None:
    keys = [b"%03d" % number for number in range(24)]
    value = bytes(MAX_VALUE_BYTES)
    answers = await asyncio.gather(*[store.commit([Guard(k, 0)], [Put(k, value)]) for k in keys])
    assert None not in answers
    items = (await store.range(b"", keys_only=True)).items
    assert [item.key for item in items] == keys


async def test_delete_range_over_a_guarded_key_is_lawful(store: Store) -> None:
    revision = await put(store, b"ab")
    assert await store.commit([Guard(b"ab", revision)], [DeleteRange(A)])
    assert await store.commit([Guard(b"ab", revision)], [DeleteRange(A)]) is None


async def test_cancelled_caller_cancels_neither_commit_nor_event(store: Store) -> None:
    before = store.revision
    task = asyncio.ensure_future(store.commit([Guard(A, 0)], [Put(A, b"")]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (await next_event(store, before)).changes == (Change(A, b""),)
    assert await store.get(A) is not None


async def test_cancelled_caller_does_not_hold_up_those_beside_it(store: Store) -> None:
    keys = [b"%02d" % number for number in range(50)]
    tasks = [asyncio.ensure_future(store.commit([Guard(key, 0)], [Put(key, b"")])) for key in keys]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    async with asyncio.timeout(DEADLINE_S):
        assert None not in await asyncio.gather(*tasks[1::2])
    assert [item.key for item in (await store.range(b"")).items] == keys


async def test_range_pages_in_key_order_in_both_directions(store: Store) -> None:
    revisions = [await put(store, key) for key in (b"p3", b"p1", b"q", b"p2", b"o", b"p")]
    first = await store.range(b"p", limit=2)
    assert ([item.key for item in first.items], first.more) == ([b"p", b"p1"], True)
    second = await store.range(b"p", limit=2, after=b"p1")
    assert ([item.key for item in second.items], second.more) == ([b"p2", b"p3"], False)
    back = await store.range(b"p", limit=2, reverse=True)
    assert ([item.key for item in back.items], back.more) == ([b"p3", b"p2"], True)
    rest = await store.range(b"p", reverse=True, after=b"p2")
    assert ([item.key for item in rest.items], rest.more) == ([b"p1", b"p"], False)
    assert first.revision == revisions[-1]


async def test_range_since_has_only_later_changes(store: Store) -> None:
    await put(store, A)
    second = await put(store, B)
    third = await put(store, A)
    assert [item.key for item in (await store.range(b"", since=second)).items] == [A]
    assert (await store.range(b"", since=third)).items == []


async def test_range_of_keys_only_has_no_values(store: Store) -> None:
    await put(store, A, b"1")
    (item,) = (await store.range(b"", keys_only=True)).items
    assert (item.key, item.value) == (A, b"")


async def test_get_many_answers_in_the_order_asked(store: Store) -> None:
    await put(store, A)
    await put(store, C)
    items = await store.get_many([C, B, A, C, b""])
    assert [item and item.key for item in items] == [C, None, A, C, None]
    many = await store.get_many([A, *[b"none%d" % n for n in range(2_000)], C])
    assert [item.key for item in many if item] == [A, C]


async def test_range_is_one_revision_while_commits_go_on(store: Store) -> None:
    written: list[int] = []

    async def write() -> None:
        for number in range(60):
            value = b"%d" % number
            before = written[-1] if written else 0
            revision = await store.commit([Guard(A, before)], [Put(A, value), Put(B, value)])
            assert revision is not None
            written.append(revision)

    async def read() -> None:
        while len(written) < 60:
            answered = written[-1] if written else 0
            found = await store.range(b"")
            assert len({item[1:] for item in found.items}) <= 1
            assert all(answered <= item.modified <= found.revision for item in found.items)
            many = await store.get_many([A, B])
            assert len({item.value for item in many if item}) <= 1

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(read())


async def test_closed_store_refuses_everything(kind: Kind) -> None:
    async with kind.open() as store:
        pass
    assert store.fault
    with pytest.raises(UnavailableError):
        await store.commit([Guard(A, 0)], [Put(A, b"")])
    with pytest.raises(UnavailableError):
        await store.get(A)
    with pytest.raises(UnavailableError):
        await next_event(store, store.revision)
    await store.close()


async def test_close_finishes_what_was_accepted(kind: Kind) -> None:
    async with kind.open() as store:
        tasks = [
            asyncio.ensure_future(store.commit([Guard(b"%d" % n, 0)], [Put(b"%d" % n, b"")]))
            for n in range(50)
        ]
        await asyncio.sleep(0)
    assert None not in await asyncio.gather(*tasks)
