"""How many commits become one statement: the decisions of a batch, free of I/O.

A batch is applied by a single multi-row INSERT: into a view, whose triggers write, delete and sweep
(`file.py`), or straight into the table where all of it is puts, which takes a fifth less time. One
statement outside a transaction is begun, applied and committed in one call, so the writer gives up
the interpreter lock once per batch, and a failure can leave nothing half done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from colonist_server.store.interface import (
    Change,
    Delete,
    DeleteRange,
    Event,
    Guard,
    Op,
    Put,
    Revision,
)
from colonist_server.store.laws import prefix_end

OPS_PER_REVISION = 256
MARKER_KEY = b""
PROBE_BYTES = 65_536
COLUMNS = 5

Ticket = object
"""Whatever tells whose work this is; it is handed back with the answer."""


class Commit(NamedTuple):
    """A lawful commit on its way to the file."""

    guards: tuple[Guard, ...]
    ops: tuple[Op, ...]
    ticket: Ticket
    size: int
    prefixes: tuple[bytes, ...]


class LeaseEnd(NamedTuple):
    """Delete all keys of a lease; the answer is the revision of that."""

    lease: int
    ticket: Ticket


class Probe(NamedTuple):
    """Try whether the file takes writes again."""

    ticket: Ticket


Answers = list[tuple[Ticket, Revision | None]]


class Batch:
    """Commits planned one after another: rows for the statement, answers, events.

    `known` maps every key that is guarded or deleted to its revision (0 = absent); each planned
    commit updates it, so the next one sees it.
    """

    __slots__ = ("_last_put", "answers", "events", "is_all_puts", "known", "revision", "rows")

    def __init__(self, revision: Revision, known: dict[bytes, Revision]) -> None:
        self.revision = revision
        self.known = known
        self.rows: list[object] = []
        self.is_all_puts = True
        self.answers: Answers = []
        self.events: list[Event] = []
        self._last_put = revision

    def add(self, commit: Commit, swept: Mapping[bytes, list[bytes]]) -> None:
        """Plan one commit; `swept` has the stored keys under each of its prefixes."""
        known = self.known
        for key, revision in commit.guards:
            if known[key] != revision:
                self.answers.append((commit.ticket, None))
                return
        changes = self._apply(commit.ops, swept)
        self._record(changes)
        self.answers.append((commit.ticket, self.revision))

    def end_lease(self, end: LeaseEnd, keys: Iterable[bytes]) -> None:
        """Plan the end of a lease that has these keys."""
        changes = [Change(key, None) for key in keys]
        if changes:
            self.is_all_puts = False
            self.rows += (None, None, None, end.lease, None)
            self._record(changes)
        self.answers.append((end.ticket, self.revision))

    def seal(self) -> None:
        """Make sure that the newest revision is on file even if no row of it is left."""
        if self._last_put != self.revision:
            self._mark()

    def probe(self, probe: Probe) -> None:
        """Plan a write that needs as much room as a few commits do."""
        self._mark(bytes(PROBE_BYTES))
        self.answers.append((probe.ticket, self.revision))

    def _mark(self, value: bytes = b"") -> None:
        # Revision and op number of the marker row never meet those of an op.
        self.rows += ((self.revision + 1) * OPS_PER_REVISION - 1, MARKER_KEY, value, 0, None)

    def _apply(self, ops: tuple[Op, ...], swept: Mapping[bytes, list[bytes]]) -> list[Change]:
        known, rows = self.known, self.rows
        revision = self.revision + 1
        seq = revision * OPS_PER_REVISION
        changes: list[Change] = []
        for op in ops:
            if type(op) is Put:
                key, value, lease = op
                rows += (seq, key, value, lease, None)
                known[key] = revision
                changes.append(Change(key, value))
                seq += 1
                self._last_put = revision
            elif type(op) is Delete:
                key = op[0]
                if known[key]:
                    self.is_all_puts = False
                    rows += (None, key, None, None, None)
                    known[key] = 0
                    changes.append(Change(key, None))
            elif type(op) is DeleteRange:
                self._sweep(op.prefix, swept[op.prefix], changes)
        return changes

    def _sweep(self, prefix: bytes, keys: list[bytes], changes: list[Change]) -> None:
        self.is_all_puts = False
        self.rows += (None, prefix, None, None, prefix_end(prefix))
        for key in keys:
            if self.known.get(key, 1):
                self.known[key] = 0
                changes.append(Change(key, None))

    def _record(self, changes: list[Change]) -> None:
        if changes:
            self.revision += 1
            self.events.append(Event(self.revision, tuple(changes)))


def keys_to_know(commits: Iterable[Commit]) -> list[bytes]:
    """Every key whose revision decides something in these commits."""
    keys: dict[bytes, None] = {}
    for commit in commits:
        for guard in commit.guards:
            keys[guard[0]] = None
        for op in commit.ops:
            if type(op) is Delete:
                keys[op[0]] = None
    return list(keys)
