"""What this node believes: colonies, executors, users, functions and every process not yet ended.

Fed twice: by this node's own commits at once, and by the watch in revision order. Per key the newer
revision wins, whoever brings it; a deleted key leaves a tombstone until the watch has passed it, so
that no late put revives it. Closed processes are counted, once each, and not held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from colonist_core.function import counted
from colonist_core.matching import Placement
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony, Executor, Function, Row, User
from colonist_server.repo.records import (
    ExecutorRecord,
    decode_colony,
    decode_ended,
    decode_executor,
    decode_function,
    decode_live,
    decode_user,
)
from colonist_server.store.interface import Delete, DeleteRange, Event, Op, Put, Revision

_TAG: Final = slice(2, 2 + keys.TAG_BYTES)
_NAME: Final = slice(3 + keys.TAG_BYTES, None)
_PREFIX: Final = slice(0, 2)


Applier = Callable[[bytes, bytes | None, Revision], None]


class Listener(Protocol):
    """Whoever acts on what the view learns. Calls are made in the middle of a change: no awaits."""

    def row_changed(self, row: Row) -> None:
        """A process is new, changed its state, or was put back into the queue."""
        ...

    def executor_changed(
        self, colony: Colony, executor: Executor, before: ExecutorRecord | None
    ) -> None:
        """An executor was added, approved, rejected, removed; `before` is None for a new one."""
        ...

    def colony_changed(self, colony: Colony) -> None:
        """A colony was paused, resumed or removed."""
        ...


class View:
    """The live part of the state."""

    __slots__ = (
        "_appliers",
        "_graves",
        "_listeners",
        "_own",
        "_placements",
        "colonies",
        "counted_revision",
        "held",
        "rows",
        "tags",
        "watched_revision",
    )

    def __init__(self) -> None:
        self.colonies: dict[str, Colony] = {}
        self.tags: dict[bytes, Colony] = {}
        self.rows: dict[bytes, Row] = {}
        self.watched_revision: Revision = 0
        self.counted_revision: Revision = 0
        self._graves: dict[bytes, Revision] = {}
        self._own: set[Revision] = set()
        self._placements: dict[Placement, Placement] = {}
        self._listeners: list[Listener] = []
        self.held: dict[bytes, Callable[[], set[bytes]]] = {}
        self._appliers: dict[bytes, Applier] = {
            keys.LIVE: self._apply_live,
            keys.COLONY: self._apply_colony,
            keys.EXECUTOR: self._apply_executor,
            keys.USER: self._apply_user,
            keys.FUNCTION: self._apply_function,
        }

    def hold(self, prefix: bytes, apply: Applier, held: Callable[[], set[bytes]]) -> None:
        """Let another holder keep what stands under a prefix: loaded, watched, newest wins.

        `apply(key, value, revision)`, value None where the key is gone, ignores what is older than
        what it holds; `held` names the keys it holds. A prefix is known by its first two bytes.
        """
        self._appliers[prefix[_PREFIX]] = apply
        self.held[prefix] = held

    def listen(self, listener: Listener) -> None:
        """Tell a listener of every change from now on."""
        self._listeners.append(listener)

    def committed(self, revision: Revision, ops: Iterable[Op]) -> None:
        """Apply this node's own commit; the watch then passes over it.

        What a delete-range deleted only the watch knows: it applies such a commit once more.
        """
        self.counted_revision = max(self.counted_revision, revision)
        if revision <= self.watched_revision:
            return
        change = self._change
        if any(type(op) is DeleteRange for op in ops):
            change = self.apply
        else:
            self._own.add(revision)
        for op in ops:
            if type(op) is Put:
                change(op.key, op.value, revision)
            elif type(op) is Delete:
                change(op.key, None, revision)

    def watched(self, event: Event) -> None:
        """Apply one revision of the watch, and forget graves it passed."""
        revision = event.revision
        if revision in self._own:
            self._own.discard(revision)
        else:
            for key, value in event.changes:
                self._change(key, value, revision)
        self.watched_revision = revision
        self.counted_revision = max(self.counted_revision, revision)
        if self._graves:
            passed = [key for key, at in self._graves.items() if at <= revision]
            for key in passed:
                del self._graves[key]

    def _change(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """Apply a change that comes once, and count what it closed."""
        if key[_PREFIX] == keys.ENDED:
            self.count_ended(key, value, revision)
        else:
            self.apply(key, value, revision)

    def apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """Take note that a key was written or deleted at a revision."""
        applier = self._appliers.get(key[_PREFIX])
        # What the watch has passed it has brought, and perhaps deleted since.
        if applier is None or revision <= self.watched_revision:
            return
        if self._graves.get(key, -1) >= revision:
            return
        if value is None:
            self._graves[key] = revision
        applier(key, value, revision)

    def count_ended(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """Count a closed process, or one that was removed; the caller sees each change once."""
        colony = self.tags.get(key[_TAG])
        if colony is None:
            return
        state = keys.state_of_ended(key)
        if revision <= colony.counted_at[state]:
            return
        change = 1 if value is not None else -1
        colony.closed[state] += change
        if colony.recent is not None:
            colony.recent.append((revision, state, change))
        if value is not None and state == State.SUCCESS and colony.functions:
            self.tally(colony, value, revision)

    def tally(self, colony: Colony, value: bytes, revision: Revision) -> None:
        """Add a run that was closed at a revision to its function's tally."""
        ended = decode_ended(value)
        executor = colony.members.get(ended.executor)
        if executor is None:
            return
        function = colony.functions.get(keys.function(colony.tag, executor.name, ended.funcname))
        if function is None or revision <= function.record.through:
            return
        wait_s = (ended.started_ns - ended.submitted_ns) / SECOND_NS
        exec_s = (ended.ended_ns - ended.started_ns) / SECOND_NS
        function.tally = counted(function.tally, wait_s, exec_s)

    def is_own(self, revision: Revision) -> bool:
        """Whether a commit of this node was applied of which the watch has yet to tell."""
        return revision in self._own

    def keys(self, prefix: bytes) -> set[bytes]:
        """The keys of what the view holds under a prefix."""
        if prefix in self.held:
            return self.held[prefix]()
        if prefix == keys.LIVE:
            return {keys.live(pid) for pid in self.rows}
        colonies = self.tags.values()
        if prefix == keys.COLONY:
            return {colony.key for colony in colonies}
        if prefix == keys.FUNCTION:
            return {key for colony in colonies for key in colony.functions}
        if prefix == keys.EXECUTOR:
            return {member.key for colony in colonies for member in colony.executors.values()}
        return {member.key for colony in colonies for member in colony.users.values()}

    # -- processes

    def _apply_live(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        pid = key[2:]
        row = self.rows.get(pid)
        if row is not None and row.revision >= revision:
            return
        if value is None:
            if row is not None:
                self._end_row(row)
        elif row is not None:
            self._update_row(row, value, revision)
        else:
            self._add_row(pid, value, revision)

    def _add_row(self, pid: bytes, raw: bytes, revision: Revision) -> None:
        colony = self.tags.get(pid[: keys.TAG_BYTES])
        if colony is None:
            return
        live = decode_live(raw)
        placement = self._placements.setdefault(live.placement, live.placement)
        row = Row(
            pid, colony, revision, live.state, live.priority_ns, placement, live.deadline_ns, raw
        )
        row.has_attributes = row.has_output = live.attempt > 1
        self.rows[pid] = row
        self._place_row(row)

    def _update_row(self, row: Row, raw: bytes, revision: Revision) -> None:
        live = decode_live(raw)
        is_redelivered = row.state == live.state == State.RUNNING
        if not is_redelivered:  # what is, keeps its place among those that run
            self._displace_row(row)
        row.revision = revision
        row.raw = raw
        row.state = live.state
        row.deadline_ns = live.deadline_ns
        row.claimed = False
        row.doubtful = row.doubtful and is_redelivered  # who redelivers decides on the doubt
        self._place_row(row)

    def _end_row(self, row: Row) -> None:
        del self.rows[row.pid]
        self._displace_row(row)

    def _place_row(self, row: Row) -> None:
        if row.state == State.WAITING:
            row.colony.waiting += 1
            row.colony.queue.add(row)
        else:
            row.colony.running[row.pid] = row
        for listener in self._listeners:
            listener.row_changed(row)

    def _displace_row(self, row: Row) -> None:
        if row.state == State.WAITING:
            row.colony.waiting -= 1
            row.colony.queue.discard(row)
        else:
            row.colony.running.pop(row.pid, None)

    # -- cold nouns

    def _apply_colony(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        colony = self.tags.get(key[_TAG])
        if colony is not None and colony.revision >= revision:
            return
        if value is None:
            if colony is not None:
                self._drop_colony(colony)
            return
        record = decode_colony(value)
        if colony is None:
            colony = self.tags[key[_TAG]] = Colony(key, record, revision)
            self.colonies[record.name] = colony
        else:
            colony.record = record
            colony.revision = revision
        self._tell_colony(colony)

    def _drop_colony(self, colony: Colony) -> None:
        del self.tags[colony.tag]
        if self.colonies.get(colony.record.name) is colony:
            del self.colonies[colony.record.name]
        colony.is_gone = True
        for row in [row for row in self.rows.values() if row.colony is colony]:
            self._end_row(row)
        self._tell_colony(colony)

    def _tell_colony(self, colony: Colony) -> None:
        for listener in self._listeners:
            listener.colony_changed(colony)

    def _apply_executor(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        colony = self.tags.get(key[_TAG])
        if colony is None:
            return
        name = key[_NAME].decode()
        executor = colony.executors.get(name)
        if executor is not None and executor.revision >= revision:
            return
        if executor is not None:
            colony.delist(executor)
        if value is None:
            colony.executors.pop(name, None)
            return
        record = decode_executor(value)
        before = executor.record if executor is not None else None
        if executor is None:
            executor = colony.executors[name] = Executor(key, name, record, revision)
        else:
            executor.record = record
            executor.revision = revision
        colony.enlist(executor)
        for listener in self._listeners:
            listener.executor_changed(colony, executor, before)

    def _apply_user(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        colony = self.tags.get(key[_TAG])
        if colony is None:
            return
        name = key[_NAME].decode()
        user = colony.users.get(name)
        if user is not None and user.revision >= revision:
            return
        if user is not None:
            del colony.users[name]
            colony.delist(user)
        if value is not None:
            user = colony.users[name] = User(key, name, decode_user(value), revision)
            colony.enlist(user)

    def _apply_function(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        colony = self.tags.get(key[_TAG])
        if colony is None:
            return
        function = colony.functions.get(key)
        if function is not None and function.revision >= revision:
            return
        if value is None:
            colony.functions.pop(key, None)
            return
        record = decode_function(value)
        if function is None:
            colony.functions[key] = Function(key, record, revision, record.tally)
        else:
            function.record = record
            function.revision = revision
