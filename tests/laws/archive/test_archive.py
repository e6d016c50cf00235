"""The laws of an archive, held by SQLite and PostgreSQL alike."""

import asyncio
import random
from bisect import bisect_right

import pytest

from colonist_server.archive import sql
from colonist_server.archive.interface import (
    Archive,
    ArchiveError,
    ArchiveFormatError,
    Page,
    Row,
)
from colonist_server.archive.sql import SqlArchive
from colonist_server.store.interface import MAX_KEY_BYTES, MAX_VALUE_BYTES, StoreError

ODD = [
    b"a",
    b"a\0",
    b"a\xff",
    b"a\xff\xff",
    b"ab",
    b"b",
    b"\0",
    b"\xff",
    b"\xff\xff",
    b"\x80",
    b"Z",
]


def rows_of(keys: list[bytes]) -> list[Row]:
    return [Row(key, b"v" + key) for key in keys]


async def test_what_was_put_is_read_by_the_next_who_opens_it(address: str) -> None:
    async with await SqlArchive.open(address) as first:
        identity = first.identity
        await first.put(rows_of(ODD))
    async with await SqlArchive.open(address) as again:
        assert again.identity == identity
        assert await again.get_many([b"b", b"absent", b"a", b"b"]) == [
            Row(b"b", b"vb"),
            None,
            Row(b"a", b"va"),
            Row(b"b", b"vb"),
        ]


async def test_two_archives_have_two_identities(address: str, tmp_path: object) -> None:
    async with (
        await SqlArchive.open(address) as one,
        await SqlArchive.open(f"sqlite:{tmp_path}/other.db") as other,
    ):
        assert one.identity != other.identity


async def test_many_who_open_it_at_once_agree(address: str) -> None:
    opened = await asyncio.gather(*(SqlArchive.open(address) for _ in range(6)))
    assert len({archive.identity for archive in opened}) == 1
    for archive in opened:
        await archive.close()


async def test_putting_again_is_harmless_and_the_last_value_stands(archive: Archive) -> None:
    await archive.put([Row(b"k", b"1"), Row(b"l", b"1")])
    await archive.put([Row(b"l", b"2"), Row(b"k", b"1"), Row(b"m", b"")])
    page = await archive.range(b"")
    assert page == Page([Row(b"k", b"1"), Row(b"l", b"2"), Row(b"m", b"")], more=False)


async def test_a_put_is_whole_or_not_at_all(archive: Archive) -> None:
    bad = [Row(b"k", b"1"), Row(b"l", None)]  # type: ignore[arg-type]  # refused by the table
    with pytest.raises(ArchiveError):
        await archive.put(bad)
    assert (await archive.range(b"")).rows == []


async def test_the_largest_key_and_value_of_a_store_fit(archive: Archive) -> None:
    row = Row(b"\xff" * MAX_KEY_BYTES, random.Random(1).randbytes(MAX_VALUE_BYTES))
    await archive.put([row])
    assert await archive.get_many([row.key]) == [row]


@pytest.mark.parametrize("prefix", [b"", b"a", b"a\xff", b"b", b"\xff", b"\xff\xff", b"\x80", b"q"])
@pytest.mark.parametrize("reverse", [False, True])
async def test_keys_are_ordered_by_their_bytes(
    archive: Archive, prefix: bytes, reverse: bool
) -> None:
    await archive.put(rows_of(ODD))
    expected = sorted((key for key in ODD if key.startswith(prefix)), reverse=reverse)
    page = await archive.range(prefix, reverse=reverse)
    assert page == Page(rows_of(expected), more=False)
    bare = await archive.range(prefix, reverse=reverse, keys_only=True)
    assert bare.rows == [Row(key, b"") for key in expected]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 11])
async def test_pages_follow_each_other_without_gaps(
    archive: Archive, limit: int, reverse: bool
) -> None:
    await archive.put(rows_of(ODD))
    seen: list[bytes] = []
    more = True
    while more:
        after = seen[-1] if seen else b""
        page = await archive.range(b"", after=after, limit=limit, reverse=reverse)
        assert 0 < len(page.rows) <= limit
        seen += [row.key for row in page.rows]
        more = page.more
    assert seen == sorted(ODD, reverse=reverse)


async def test_deleting_takes_what_is_there(archive: Archive) -> None:
    await archive.put(rows_of(ODD))
    await archive.delete([b"a", b"absent", b"\xff"])
    left = sorted(set(ODD) - {b"a", b"\xff"})
    assert [row.key for row in (await archive.range(b"")).rows] == left
    await archive.delete([])


@pytest.mark.parametrize("prefix", [b"a", b"a\xff", b"\xff", b"q", b""])
async def test_a_range_is_deleted_whole(
    archive: Archive, prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "SWEPT_AT_ONCE", 2)
    await archive.put(rows_of(ODD))
    await archive.delete_range(prefix)
    left = sorted(key for key in ODD if not key.startswith(prefix))
    assert [row.key for row in (await archive.range(b"")).rows] == left


async def test_more_keys_than_a_statement_takes(archive: Archive) -> None:
    keys = [number.to_bytes(3, "big") for number in range(3 * sql.KEYS_AT_ONCE + 1)]
    await archive.put(rows_of(keys))
    assert [row and row.key for row in await archive.get_many(keys[::-1])] == keys[::-1]
    await archive.delete(keys[1:])
    assert [row.key for row in (await archive.range(b"")).rows] == keys[:1]


async def test_a_snapshot_has_every_row_in_pages_of_bounded_size(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "PAGE_BYTES", 100)
    monkeypatch.setattr(sql, "PAGE_ROWS", 4)
    keys = [number.to_bytes(3, "big") for number in range(20)]
    rows = [Row(key, b"x" * (number * 13 % 150)) for number, key in enumerate(keys)]
    await archive.put(rows)
    pages = [page async for page in archive.snapshot()]
    assert [row for page in pages for row in page] == rows
    for page in pages:
        assert len(page) <= 4
        assert len(page) == 1 or sum(len(row.value) for row in page) <= 100


async def test_any_sequence_leaves_it_as_it_leaves_a_dict(archive: Archive, seed: int) -> None:
    chance = random.Random(seed)
    model: dict[bytes, bytes] = {}
    keys = [bytes(chance.choices(b"\0a\xff", k=chance.randint(1, 4))) for _ in range(30)]
    for _ in range(60):
        some = chance.sample(keys, chance.randint(1, 5))
        match chance.randrange(4):
            case 0 | 1:
                rows = [Row(key, chance.randbytes(3)) for key in dict.fromkeys(some)]
                await archive.put(rows)
                model.update(rows)
            case 2:
                await archive.delete(some)
                for key in some:
                    model.pop(key, None)
            case _:
                await archive.delete_range(some[0])
                model = {key: model[key] for key in model if not key.startswith(some[0])}
        ordered = sorted(model)
        after = chance.choice(keys)
        expected = ordered[bisect_right(ordered, after) :][:3]
        page = await archive.range(b"", after=after, limit=3)
        assert page.rows == [Row(key, model[key]) for key in expected]
    assert (await archive.range(b"")).rows == [Row(key, model[key]) for key in sorted(model)]


async def test_readers_and_writers_do_not_hinder_each_other(archive: Archive) -> None:
    async def write(number: int) -> None:
        for each in range(5):
            await archive.put([Row(bytes((number, i)), bytes((each,))) for i in range(20)])

    async def read(number: int) -> None:
        for _ in range(10):
            values = {row.value for row in (await archive.range(bytes((number,)))).rows}
            assert len(values) <= 1, "half of a put was seen"

    await asyncio.gather(*(work(number) for number in range(4) for work in (write, read)))


async def test_an_empty_archive_takes_the_identity_of_the_one_it_copies(archive: Archive) -> None:
    await archive.adopt("5" * 32)
    assert archive.identity == "5" * 32
    await archive.put([Row(b"k", b"v")])
    with pytest.raises(ArchiveError, match="not empty"):
        await archive.adopt("6" * 32)
    assert archive.identity == "5" * 32


async def test_another_schema_is_refused_by_name(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sql, "SCHEMA", "7")
        await (await SqlArchive.open(address)).close()
    with pytest.raises(ArchiveFormatError, match=r"archive_meta says schema '7'.*run the version"):
        await SqlArchive.open(address)


async def test_a_closed_archive_says_so(address: str) -> None:
    archive = await SqlArchive.open(address)
    await archive.close()
    with pytest.raises(StoreError, match="closed"):
        await archive.get_many([b"k"])
