"""The one writer of a store file: turns waiting commits into batches.

It runs on a thread of its own (`writer_thread.py`) or in a process of its own
(`writer_process.py`), and knows only where work comes from and where outcomes go.

What it promises the loop: answers and events of a batch arrive together, after the batch is
durable, in revision order. A batch that did not fit on the disk took no effect and is answered
with `ReadOnlyError`. After any other failure nobody knows what is on file: nobody is answered and
`on_fatal` ends the process; the next start reads the file anew.
"""

from __future__ import annotations

import logging
import sqlite3
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from colonist_server.store.batch import (
    COLUMNS,
    Answers,
    Batch,
    Commit,
    LeaseEnd,
    Probe,
    keys_to_know,
)
from colonist_server.store.copier import Copier, checkpoint
from colonist_server.store.file import UPSERT
from colonist_server.store.interface import Event, Revision
from colonist_server.store.laws import prefix_end

MAX_WEIGHT = 2_048
"""Guards and ops of a batch, at most (SQLite: 32 766 parameters a statement)."""
MAX_LOOKED_UP = 1_024
"""Keys that are looked up by one statement, at most (SQLite: 2 000 columns)."""
MAX_BYTES = 8_388_608
COPIED_ROWS = 4_096
"""So many rows are written before the log is copied into the file."""

# The transaction was rolled back whole and is known to have left nothing.
_UNDONE = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY))

# A statement is compiled once for each of these sizes; what is missing to the next is padding.
# `sqlite3` takes numbers and bytearrays as they are. For bytes and None it first looks for an
# adapter, which costs 0.3 us each: more than half of what it costs to put a small row.
_SIZES = (
    *(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024),
    *(1_536, 2_048, 2_560),
)
_LOOK_UP_ONE = "(SELECT seq FROM kv WHERE k = ?)"
_LOOK_UP = {
    size: "SELECT " + ", ".join([_LOOK_UP_ONE] * size) for size in _SIZES if size <= MAX_LOOKED_UP
}
_APPLY = {
    size: "INSERT INTO op VALUES " + ", ".join(["(?, ?, ?, ?, ?)"] * size)  # noqa: S608
    for size in _SIZES
}
_PUT = {
    size: "INSERT INTO kv(seq, k, v, created, lease)"  # noqa: S608 - marks only
    " SELECT column1, column2, column3, column1 >> 8, column4 FROM (VALUES "
    + ", ".join(["(?, ?, ?, ?)"] * size)
    + f") WHERE column1 > 0{UPSERT}"
    for size in _SIZES
}

_LOGGER = logging.getLogger(__name__)

Work = Commit | LeaseEnd | Probe


class Outcome(NamedTuple):
    """What the loop learns about one batch; with a `fault`, its answers are that it failed."""

    revision: Revision
    answers: Answers
    events: list[Event]
    wrote: bool = False
    fault: str = ""
    last: bool = False


class Inbox(Protocol):
    """Where work comes from; None asks the writer to stop."""

    def take(self, *, wait: bool) -> list[Work | None]:
        """All that waits, in order; when nothing does and `wait` is set, the next to come."""
        ...


class Writer:
    """Plans and applies batches until it is told to stop."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        revision: Revision,
        copier: Copier,
        inbox: Inbox,
        *,
        deliver: Callable[[Outcome], None],
        on_fatal: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._copier = copier
        self._revision = revision
        self._inbox = inbox
        self._deliver = deliver
        self._on_fatal = on_fatal
        self._backlog: deque[Work | None] = deque()
        self._uncopied = 0

    def run(self) -> None:
        """Write until told to stop; then copy the log into the file and close the connection."""
        try:
            while work := self._collect():
                self._deliver(self._write(work))
                if self._uncopied > COPIED_ROWS:
                    self._copy()
            self._copier.close()
            checkpoint(self._connection, "TRUNCATE")
        except Exception:
            _LOGGER.critical("store: writing failed, nobody knows what is on file", exc_info=True)
            self._on_fatal()
        finally:
            self._copier.close()
            self._connection.close()
            self._deliver(
                Outcome(
                    self._revision, self._unanswered(), [], fault="the store is closed", last=True
                )
            )

    def _collect(self) -> list[Work]:
        """The works that go into the next batch; none when it is time to stop."""
        backlog = self._backlog
        backlog.extend(self._inbox.take(wait=not backlog))
        first = backlog.popleft()
        if first is None:
            return []
        works: list[Work] = [first]
        if type(first) is Commit:
            self._join_commits(first, works)
        return works

    def _join_commits(self, first: Commit, works: list[Work]) -> None:
        # A delete-range is planned from what is stored, so it comes first in a batch.
        backlog = self._backlog
        weight, size = _weight(first), first.size
        while backlog and type(commit := backlog[0]) is Commit and not commit.prefixes:
            weight += _weight(commit)
            size += commit.size
            if weight > MAX_WEIGHT or size > MAX_BYTES:
                return
            works.append(commit)
            backlog.popleft()

    def _write(self, works: list[Work]) -> Outcome:
        try:
            batch = self._plan(works)
            if batch.rows:
                self._apply(batch)
        except sqlite3.Error as error:
            if not self._is_undone(error):
                self._backlog.extendleft(reversed(works))
                raise
            return Outcome(self._revision, _answers(works), [], fault=str(error))
        self._revision = batch.revision
        return Outcome(batch.revision, batch.answers, batch.events, wrote=bool(batch.rows))

    def _plan(self, works: list[Work]) -> Batch:
        first = works[0]
        if type(first) is Commit:
            commits = cast("list[Commit]", works)
            batch = Batch(self._revision, self._look_up(keys_to_know(commits)))
            swept = {prefix: self._keys_under(prefix) for prefix in first.prefixes}
            for commit in commits:
                batch.add(commit, swept)
            batch.seal()
            return batch
        batch = Batch(self._revision, {})
        if type(first) is LeaseEnd:
            batch.end_lease(first, self._keys("lease = ? AND lease <> 0", (first.lease,)))
            batch.seal()
        elif type(first) is Probe:
            batch.probe(first)
        return batch

    def _look_up(self, keys: list[bytes]) -> dict[bytes, Revision]:
        known: dict[bytes, Revision] = {}
        for start in range(0, len(keys), MAX_LOOKED_UP):
            part = keys[start : start + MAX_LOOKED_UP]
            size = _padded(len(part))
            marks = [*map(bytearray, part), *[0] * (size - len(part))]
            found = self._connection.execute(_LOOK_UP[size], marks)
            for key, seq in zip(part, found.fetchone(), strict=False):
                known[key] = 0 if seq is None else seq >> 8
        return known

    def _keys_under(self, prefix: bytes) -> list[bytes]:
        return self._keys("k > x'' AND k >= ? AND k < ?", (prefix, prefix_end(prefix)))

    def _keys(self, where: str, parameters: tuple[object, ...]) -> list[bytes]:
        # In one row, because every row costs a turn of the interpreter lock.
        sql = f"SELECT group_concat(hex(k)) FROM kv WHERE {where}"  # noqa: S608 - our own words
        found = cast("str | None", self._connection.execute(sql, parameters).fetchone()[0])
        return sorted(map(bytes.fromhex, found.split(","))) if found else []

    def _apply(self, batch: Batch) -> None:
        rows = batch.rows
        count = len(rows) // COLUMNS
        size = _padded(count)
        if batch.is_all_puts:
            del rows[COLUMNS - 1 :: COLUMNS]
            columns = COLUMNS - 1
            for blobs in (slice(1, None, columns), slice(2, None, columns)):
                rows[blobs] = map(bytearray, cast("list[bytes]", rows[blobs]))
            rows += [0] * ((size - count) * columns)
            self._connection.execute(_PUT[size], rows)
        else:
            rows += [None] * ((size - count) * COLUMNS)
            self._connection.execute(_APPLY[size], rows)
        self._uncopied += count

    def _is_undone(self, error: sqlite3.Error) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        return code in _UNDONE and not self._connection.in_transaction

    def _copy(self) -> None:
        self._uncopied = 0
        if self._copier.is_log_long:
            checkpoint(self._connection, "PASSIVE")
        self._copier.copy()

    def _unanswered(self) -> Answers:
        self._backlog.extend(self._inbox.take(wait=False))
        return _answers([work for work in self._backlog if work is not None])


def _answers(works: list[Work]) -> Answers:
    return [(work.ticket, None) for work in works]


def _weight(commit: Commit) -> int:
    return len(commit.guards) + len(commit.ops)


def _padded(count: int) -> int:
    return _SIZES[bisect_left(_SIZES, count)]
