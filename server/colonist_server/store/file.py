"""The file of a `SqliteStore`: its lock, its schema, its connections.

`kv.seq` = revision * 256 + op number, so rows append and the newest revision is `max(seq) >> 8`.
The row with the empty key is the marker: it holds the newest revision when all rows of that
revision have gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

from colonist_server.store.interface import Revision, StoreError

APPLICATION_ID = 0x436F6C6F  # "Colo"
SCHEMA_VERSION = 1
CACHED_STATEMENTS = 256
CHECKED_BYTES = 268_435_456
"""A larger file is not checked page by page at start: 256 MiB take about a second."""
LOCK_S: Final = 5.0
"""How long a lock is waited for: the writer of a killed server has it until it has finished."""
LOCK_QUIET_S: Final = 1.0
LOCK_EVERY_S: Final = 0.05

log = logging.getLogger(__name__)

SCHEMA = (
    "CREATE TABLE kv(seq INTEGER PRIMARY KEY, k BLOB NOT NULL UNIQUE, v BLOB NOT NULL,"
    " created INTEGER NOT NULL, lease INTEGER NOT NULL)",
    "CREATE INDEX kv_lease ON kv(lease) WHERE lease <> 0",
)

UPSERT = " ON CONFLICT(k) DO UPDATE SET seq = excluded.seq, v = excluded.v, lease = excluded.lease"

# What an inserted row of the view does: write a key; delete one; delete from k up to hi; delete
# the keys of a lease. A row of nothing but NULLs does nothing: padding.
APPLY = (
    "CREATE TEMP VIEW op AS SELECT NULL AS seq, NULL AS k, NULL AS v, NULL AS lease, NULL AS hi",
    "CREATE TEMP TRIGGER op_put INSTEAD OF INSERT ON op WHEN NEW.v IS NOT NULL BEGIN"  # noqa: S608
    " INSERT INTO kv(seq, k, v, created, lease)"
    f" VALUES (NEW.seq, NEW.k, NEW.v, NEW.seq >> 8, NEW.lease){UPSERT}; END",
    "CREATE TEMP TRIGGER op_delete INSTEAD OF INSERT ON op"
    " WHEN NEW.v IS NULL AND NEW.hi IS NULL AND NEW.k IS NOT NULL"
    " BEGIN DELETE FROM kv WHERE k = NEW.k; END",
    "CREATE TEMP TRIGGER op_sweep INSTEAD OF INSERT ON op WHEN NEW.hi IS NOT NULL"
    " BEGIN DELETE FROM kv WHERE k > x'' AND k >= NEW.k AND k < NEW.hi; END",
    "CREATE TEMP TRIGGER op_lease INSTEAD OF INSERT ON op"
    " WHEN NEW.lease IS NOT NULL AND NEW.k IS NULL"
    " BEGIN DELETE FROM kv WHERE lease = NEW.lease AND lease <> 0; END",
)

Connect = Callable[[Path], sqlite3.Connection]


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions, usable from any one thread at a time."""
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
    )


class Opened(NamedTuple):
    """What a store has of its file."""

    lock: int
    writes: sqlite3.Connection
    reads: sqlite3.Connection
    copies: sqlite3.Connection
    revision: Revision
    path: Path


def open_file(path: Path, connect_: Connect) -> Opened:
    """Lock and open the file, made if it is not there. Raises `StoreError`.

    Keys of leases have gone then: a lease does not outlive its process.
    """
    path = path.resolve()
    with ExitStack() as undo:
        lock = _lock(path)
        undo.callback(os.close, lock)
        try:
            _make_private(path)
            writes = connect_(path)
            undo.callback(writes.close)
            revision = _prepare(writes, path)
            reads, copies = connect(path), connect(path)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: cannot open the store: {error}") from error
        undo.pop_all()
        return Opened(lock, writes, reads, copies, revision, path)


class Watch(Protocol):
    """What time it is, and waiting: the module `time`."""

    def monotonic(self) -> float:
        """Seconds."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


def _lock(path: Path, watch: Watch = time) -> int:
    """The lock of a store. Blocks for `LOCK_S` at most, then raises `StoreError`."""
    beside = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{beside}: cannot open the lock: {error.strerror}") from error
    started = watch.monotonic()
    is_told = False
    while not _has_locked(descriptor):
        waited_s = watch.monotonic() - started
        if waited_s >= LOCK_S:
            os.close(descriptor)
            raise StoreError(
                f"{path}: another server has this store open"
                " (or the writer process of one that was killed is still finishing)"
            )
        if waited_s >= LOCK_QUIET_S and not is_told:
            log.warning("%s: locked by another process, waiting for %.0f s", path, LOCK_S)
            is_told = True
        watch.sleep(LOCK_EVERY_S)
    return descriptor


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The write connection to a file that `open_file` has prepared and locked."""
    connection = connect(path)
    _set_up(connection)
    return connection


def _make_private(path: Path) -> None:
    """Arguments and results are nobody else's business; SQLite gives its log the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _prepare(connection: sqlite3.Connection, path: Path) -> Revision:
    _check_or_create(connection, path)
    _set_up(connection)
    return _end_leases(connection)


def _set_up(connection: sqlite3.Connection) -> None:
    for pragma in ("temp_store = MEMORY", "synchronous = FULL", "cache_size = -65536"):
        connection.execute("PRAGMA " + pragma)
    # The copier checkpoints.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    for statement in APPLY:
        connection.execute(statement)


def newest_revision(connection: sqlite3.Connection) -> Revision:
    """The newest revision that the connection sees."""
    return _number(connection, "SELECT coalesce(max(seq), 0) >> 8 FROM kv")


def _check_or_create(connection: sqlite3.Connection, path: Path) -> None:
    application_id = _number(connection, "PRAGMA application_id")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if application_id == 0 and tables == 0:
        _create(connection, path)
        return
    check_is_ours(connection, path)
    _check_whole(connection, path)


def check_is_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreError` unless the file is a store of this version."""
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise StoreError(f"{path}: an SQLite file, but not a Colonist store")
    version = _number(connection, "PRAGMA user_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path}: a Colonist store of version {version}, this server reads {SCHEMA_VERSION}"
        )


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if sorted(row[0] for row in found) != sorted(SCHEMA):
        raise StoreError(f"{path}: the schema is not that of version {SCHEMA_VERSION}")
    if path.stat().st_size <= CHECKED_BYTES:
        fault = cast("str", connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if fault != "ok":
            raise StoreError(f"{path}: the file is damaged, restore a backup: {fault}")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
    # The file's name must survive a power cut as well as what is in it.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _end_leases(connection: sqlite3.Connection) -> Revision:
    revision = newest_revision(connection)
    if not _number(connection, "SELECT count(*) FROM kv WHERE lease <> 0"):
        return revision
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM kv WHERE lease <> 0")
    connection.execute(
        "INSERT INTO op(seq, k, v, lease) VALUES (?, x'', x'', 0)", ((revision + 2) * 256 - 1,)
    )
    connection.execute("COMMIT")
    return revision + 1


def _number(connection: sqlite3.Connection, sql: str) -> int:
    return cast("int", connection.execute(sql).fetchone()[0])
