"""An acknowledged commit survives what may happen to a process and its disk; others are whole."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colonist_server.store import file
from colonist_server.store.interface import (
    Delete,
    Guard,
    Put,
    ReadOnlyError,
    StoreError,
    UnavailableError,
)
from colonist_server.store.sqlite import FATAL_EXIT, PROBE_S, SqliteStore
from tests.laws.harness import DEADLINE_S, HandClock, events

CHILD = Path(__file__).with_name("crash_child.py")
ROUNDS = 5
PAGES = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


class Acknowledged:
    """What a child said before it died: the last number of each chain."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self.newest = 0

    def add(self, line: bytes) -> None:
        name, number, revision = line.split()
        self.numbers[name] = int(number)
        self.newest = max(self.newest, int(revision))


def start_child(path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(CHILD), str(path), *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n"
    return child


def complete_lines(data: bytes) -> Iterator[bytes]:
    yield from data.split(b"\n")[:-1]


async def check(path: Path, said: Acknowledged) -> None:
    """All that was said is there; each chain is whole: its twin and every step agree."""
    async with await SqliteStore.open(path) as store:
        assert store.revision >= said.newest
        for name, number in said.numbers.items():
            head, twin = await store.get_many([name, name + b"/twin"])
            assert head is not None
            assert twin is not None
            assert (head.value, head.modified) == (twin.value, twin.modified)
            found = int.from_bytes(head.value[:8], "big")
            # One commit of a chain is under way at most.
            assert number <= found <= number + 1
            steps = (await store.range(name + b"/")).items
            assert len(steps) == found + 1
            assert await store.get(b"%b/%d" % (name, found)) is not None


async def test_killed_process_loses_nothing_acknowledged_and_leaves_commits_whole(
    path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    said = Acknowledged()
    for _ in range(ROUNDS):
        child = start_child(path, "k")
        assert child.stdout is not None
        taken = b"".join(child.stdout.readline() for _ in range(dice.randrange(1, 3_000)))
        child.send_signal(signal.SIGKILL)
        taken += child.stdout.read()
        child.stdout.close()
        child.wait()
        for line in complete_lines(taken):
            said.add(line)
        await check(path, said)
    assert len(said.numbers) == 16


async def test_failed_commit_ends_the_process_and_loses_nothing_acknowledged(path: Path) -> None:
    said = Acknowledged()
    for limit in (700_000, 2_500_001):
        child = start_child(path, "f", str(limit))
        data, _ = child.communicate(timeout=30)
        assert child.returncode == FATAL_EXIT
        for line in complete_lines(data):
            said.add(line)
        await check(path, said)
    assert said.newest > 50


def content(path: Path) -> bytes:
    return path.read_bytes()


def remove(path: Path) -> None:
    path.unlink()


def scribble(path: Path) -> None:
    """A file that is no database."""
    path.write_bytes(b"something else" * 1_000)


def damage(path: Path) -> None:
    """Spoil a few pages in the middle."""
    data = bytearray(path.read_bytes())
    data[8 * 4_096 : 12 * 4_096] = b"\xa5" * (4 * 4_096)
    path.write_bytes(data)


class Gate:
    """Holds the writer in a write, so that what is committed meanwhile becomes one batch."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._open.wait(DEADLINE_S)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, DEADLINE_S)

    def open(self) -> None:
        self._open.set()


class Faulty(sqlite3.Connection):
    """A connection whose writes can be slow, fail, or fail after they took effect."""

    slow_s = 0.0
    fail: tuple[int, bool] | None = None
    gate: Gate | None = None
    writes = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        is_write = sql.startswith("INSERT INTO")
        if is_write and self.fail is not None and not self.fail[1]:
            raise self._error(self.fail[0])
        cursor = super().execute(sql, parameters)
        if is_write:
            self.writes += 1
            time.sleep(self.slow_s)
            if self.gate is not None:
                self.gate.pass_through()
            if self.fail is not None:
                raise self._error(self.fail[0])
        return cursor

    def _error(self, code: int) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = code
        return error


class FaultyDisk:
    """Gives a store connections to play tricks with."""

    def __init__(self) -> None:
        self.connection: Faulty | None = None

    def connect(self, path: Path) -> sqlite3.Connection:
        self.connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Faulty
        )
        return self.connection

    @property
    def write(self) -> Faulty:
        assert self.connection is not None
        return self.connection


def put(store: SqliteStore, key: bytes, value: bytes = b"") -> asyncio.Future[int | None]:
    return asyncio.ensure_future(store.commit([Guard(key, 0)], [Put(key, value)]))


async def barrier(store: SqliteStore) -> None:
    """Wait until the writer has done all that was asked of it, by a commit that writes nothing."""
    assert await store.commit([Guard(b"barrier", 7)], [Put(b"barrier", b"")]) is None


def cap(disk: FaultyDisk, pages: int) -> None:
    """Let the file grow no further than this."""
    sqlite3.Connection.execute(disk.write, f"PRAGMA max_page_count = {pages}")


async def test_full_disk_fails_the_whole_batch_then_recovers(path: Path) -> None:
    disk, clock = FaultyDisk(), HandClock()
    async with await SqliteStore.open(path, clock=clock, connect=disk.connect) as store:
        first = await put(store, b"first")
        cap(disk, PAGES)
        disk.write.gate = gate = Gate()
        holder = put(store, b"holder")
        await gate.reached()
        big = [put(store, b"big%d" % n, bytes(100_000)) for n in range(8)]
        small = [put(store, b"small%d" % n) for n in range(8)]
        await asyncio.sleep(0)
        gate.open()
        answers = await asyncio.gather(*big, *small, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ReadOnlyError}
        assert await holder is not None
        assert store.fault
        keys = [item.key for item in (await store.range(b"")).items]
        assert keys == [b"first", b"holder"]
        with pytest.raises(ReadOnlyError):
            await put(store, b"refused at once")
        cap(disk, 1_000_000)
        clock.advance(PROBE_S)
        revision = await put(store, b"after")
        assert not store.fault
        assert (first, revision) == (1, 3)
    async with await SqliteStore.open(path) as store:
        keys = [item.key for item in (await store.range(b"")).items]
        assert keys == [b"after", b"first", b"holder"]


async def test_store_finds_by_itself_that_the_disk_has_room_again(path: Path) -> None:
    disk, clock = FaultyDisk(), HandClock()
    async with await SqliteStore.open(path, clock=clock, connect=disk.connect) as store:
        cap(disk, PAGES)
        with pytest.raises(ReadOnlyError):
            await put(store, b"big", bytes(1_000_000))
        clock.advance(PROBE_S)
        await barrier(store)
        assert not store.fault
        assert await store.get(b"") is None
        assert (await store.range(b"")).items == []
    async with await SqliteStore.open(path) as store:
        assert store.revision == 0


async def test_guard_that_fails_is_no_sign_of_room(path: Path) -> None:
    disk, clock = FaultyDisk(), HandClock()
    async with await SqliteStore.open(path, clock=clock, connect=disk.connect) as store:
        disk.write.fail = (sqlite3.SQLITE_FULL, False)
        with pytest.raises(ReadOnlyError):
            await put(store, b"a")
        clock.advance(PROBE_S)
        await barrier(store)
        assert store.fault
        disk.write.fail = None


async def test_lease_that_ends_while_the_disk_is_full_takes_its_keys_later(path: Path) -> None:
    disk, clock = FaultyDisk(), HandClock()
    async with await SqliteStore.open(path, clock=clock, connect=disk.connect) as store:
        lease = await store.lease(3)
        assert await store.commit([Guard(b"a", 0)], [Put(b"a", b"", lease)])
        disk.write.fail = (sqlite3.SQLITE_FULL, False)
        clock.advance(3)
        await barrier(store)
        assert store.fault
        disk.write.fail = None
        clock.advance(PROBE_S)
        await events(store, 1, 2)
        assert await store.get(b"a") is None


@pytest.mark.parametrize("took_effect", [False, True])
async def test_commit_that_failed_with_an_io_error_is_fatal_and_its_fate_unknown(
    path: Path, took_effect: bool
) -> None:
    disk, ends = FaultyDisk(), list[str]()
    store = await SqliteStore.open(
        path, connect=disk.connect, on_fatal=lambda: ends.append("fatal")
    )
    assert await put(store, b"before")
    disk.write.fail = (sqlite3.SQLITE_IOERR, took_effect)
    with pytest.raises(UnavailableError) as raised:
        await put(store, b"lost")
    assert not isinstance(raised.value, ReadOnlyError)
    assert ends == ["fatal"]
    with pytest.raises(UnavailableError):
        await put(store, b"later")
    await store.close()
    async with await SqliteStore.open(path) as store:
        assert await store.get(b"before") is not None
        assert (await store.get(b"lost") is not None) == took_effect


async def test_slow_disk_lets_waiting_commits_share_a_sync(path: Path) -> None:
    disk = FaultyDisk()
    async with await SqliteStore.open(path, connect=disk.connect) as store:
        disk.write.slow_s = 0.002
        answers = await asyncio.gather(*[put(store, b"%d" % n) for n in range(400)])
        assert sorted(answer or 0 for answer in answers) == list(range(1, 401))
        assert disk.write.writes <= 12


async def test_second_server_on_a_file_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "LOCK_S", 0.1)
    async with await SqliteStore.open(path) as store:
        with pytest.raises(StoreError, match="another server has this store open"):
            await SqliteStore.open(path)
        with pytest.raises(StoreError, match="another server has this store open"):
            await SqliteStore.open(path.parent / "." / path.name)
        assert await put(store, b"a")
    child = start_child(path, "k")
    with pytest.raises(StoreError, match="another server"):
        await SqliteStore.open(path)
    child.kill()
    child.communicate()


async def test_keys_of_leases_of_an_earlier_process_have_gone(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        lease = await store.lease(60)
        assert await store.commit([Guard(b"a", 0)], [Put(b"a", b"", lease), Put(b"b", b"")])
    async with await SqliteStore.open(path) as store:
        assert [item.key for item in (await store.range(b"")).items] == [b"b"]
        assert store.revision == 2
        assert await store.commit([Guard(b"a", 0)], [Put(b"a", b"")]) == 3


async def test_revision_never_goes_back_even_if_its_rows_have_gone(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        revision = await put(store, b"a")
        assert await store.commit([Guard(b"a", revision or 0)], [Delete(b"a")]) == 2
    async with await SqliteStore.open(path) as store:
        assert store.revision == 2
        assert await put(store, b"a") == 3


async def test_foreign_file_is_refused_and_left_as_it_was(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine(x)")
    connection.close()
    before = content(path)
    with pytest.raises(StoreError, match="not a Colonist store"):
        await SqliteStore.open(path)
    assert content(path) == before


async def test_file_that_is_no_database_is_refused(path: Path) -> None:
    scribble(path)
    with pytest.raises(StoreError, match=r"store\.db: cannot open the store"):
        await SqliteStore.open(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("PRAGMA user_version = 9", "a Colonist store of version 9, this server reads 1"),
        ("ALTER TABLE kv ADD COLUMN more", "the schema is not that of version 1"),
    ],
)
async def test_store_of_another_version_is_refused(path: Path, change: str, reason: str) -> None:
    await (await SqliteStore.open(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.close()
    with pytest.raises(StoreError, match=reason):
        await SqliteStore.open(path)


async def test_damaged_file_is_refused_and_says_so(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        await asyncio.gather(*[put(store, b"%d" % n, bytes(900)) for n in range(200)])
    damage(path)
    with pytest.raises(StoreError, match="the file is damaged, restore a backup"):
        await SqliteStore.open(path)


async def test_store_that_could_not_open_leaves_the_lock(path: Path) -> None:
    scribble(path)
    with pytest.raises(StoreError, match="cannot open"):
        await SqliteStore.open(path)
    remove(path)
    await (await SqliteStore.open(path)).close()
