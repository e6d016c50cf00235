"""What this node believes: colonies, executors, users, functions and every process not yet ended.

Fed twice: by this node's own commits at once, and by the watch in revision order. Per key the newer
revision wins, whoever brings it; a deleted key leaves a tombstone until the watch has passed it, so
that no late put revives it. Closed processes are counted, once each, and not held.

Rows of processes are kept here; `colony_view` keeps colonies with their members and functions,
`graphs` workflows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final, Protocol

from colonist_core.function import counted
from colonist_core.matching import Placement
from colonist_core.process import Live
from colonist_protocol.errors import CorruptRecordError
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys
from colonist_server.repo.colony_view import Colonies
from colonist_server.repo.graphs import Graphs
from colonist_server.repo.known_ids import KnownIds
from colonist_server.repo.nouns import Colony, Executor, Row, User, Workflow
from colonist_server.repo.records import ExecutorRecord, decode_ended, decode_live
from colonist_server.repo.soundness import key_text
from colonist_server.store.interface import Delete, Event, Op, Put, Revision

log = logging.getLogger(__name__)

_HEADS: Final = (keys.COLONY, keys.WORKFLOW)
"""Without them nothing is held of what hangs on them."""

MAX_PLACEMENTS: Final = 10_000

_TAG: Final = slice(2, 2 + keys.TAG_BYTES)
_PREFIX: Final = slice(0, 2)
_NONE: Final[frozenset[bytes]] = frozenset()


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
    """The live part of the state. `is_shared`: other nodes write to the same store as well."""

    __slots__ = (
        "_appliers",
        "_graves",
        "_is_ahead",
        "_listeners",
        "_member_changed",
        "_node",
        "_own",
        "_placements",
        "colonies",
        "corrupt",
        "counted_revision",
        "graphs",
        "held",
        "is_loading",
        "is_shared",
        "known",
        "loaded_revision",
        "on_closed",
        "on_reached",
        "rows",
        "tags",
        "watched_revision",
    )

    def __init__(self, *, node: str = "", is_shared: bool = False) -> None:
        self._node = node
        self.is_shared = is_shared
        self.is_loading = False
        """Whether what is applied stood in the store for some time."""
        self._is_ahead = False
        nouns = Colonies(self)
        self.colonies: dict[str, Colony] = nouns.by_name
        self.tags: dict[bytes, Colony] = nouns.by_tag
        self.known: KnownIds = nouns.known
        """Ids of owners and members, of now and before; `gone` knows those of nobody."""
        self.rows: dict[bytes, Row] = {}
        self.watched_revision: Revision = 0
        self.loaded_revision: Revision = 0
        self.counted_revision: Revision = 0
        self._graves: dict[bytes, Revision] = {}
        self._own: dict[Revision, set[bytes]] = {}
        self._placements: dict[Placement, Placement] = {}
        self._listeners: list[Listener] = []
        self._member_changed: list[Callable[[Colony, str], None]] = []
        self.graphs = Graphs(self)
        self.on_closed: list[Callable[[Colony], None]] = []
        """Told of each process that ended, after it was counted: no awaits."""
        self.on_reached: Callable[[Revision], None] | None = None
        """Told when the view has come to a revision: no awaits."""
        self.held: dict[bytes, Callable[[], set[bytes]]] = {}
        self.corrupt: dict[bytes, str] = {}
        """Records that cannot be read, with the reason: nothing is held of them."""
        self._appliers: dict[bytes, Applier] = {
            keys.LIVE: self._apply_live,
            keys.COLONY: nouns.apply_colony,
            keys.EXECUTOR: nouns.apply_executor,
            keys.USER: nouns.apply_user,
            keys.FUNCTION: nouns.apply_function,
            keys.WORKFLOW: self.graphs.apply_head,
            keys.SHAPE[_PREFIX]: self.graphs.apply_shape,
            keys.EDIT[_PREFIX]: self.graphs.apply_edit,
        }

    @property
    def reached(self) -> Revision:
        """Everything up to here is known, whoever wrote it."""
        return max(self.watched_revision, self.loaded_revision)

    def loaded(self, revision: Revision) -> None:
        """Everything up to a revision was read from the store."""
        self.loaded_revision = revision
        self.counted_revision = max(self.counted_revision, revision)
        if self.on_reached is not None:
            self.on_reached(revision)

    @property
    def workflows(self) -> dict[bytes, Workflow]:
        """Every workflow that has not ended."""
        return self.graphs.workflows

    def hold(self, prefix: bytes, apply: Applier, held: Callable[[], set[bytes]]) -> None:
        """Let another holder keep what stands under a prefix: loaded, watched, newest wins.

        `apply(key, value, revision)`, value None where the key is gone, ignores what is older than
        what it holds; `held` names the keys it holds. A prefix is known by its first two bytes.
        """
        self._appliers[prefix[_PREFIX]] = apply
        self.held[prefix] = held

    def follow(self, prefix: bytes, apply: Applier) -> None:
        """Tell somebody of what is committed under a prefix from now on; nothing of it is held."""
        self._appliers[prefix[_PREFIX]] = apply

    def listen(self, listener: Listener) -> None:
        """Tell a listener of every change from now on."""
        self._listeners.append(listener)

    def listen_to_members(self, changed: Callable[[Colony, str], None]) -> None:
        """Tell somebody of executors and users, by name, that were added or changed: no awaits."""
        self._member_changed.append(changed)

    def committed(self, revision: Revision, ops: Iterable[Op]) -> None:
        """Apply this node's own commit; the watch then passes over its keys.

        What a delete-range deleted only the watch knows. Commits may share a revision, and the
        callers of some may have been cancelled: the watch passes over keys, not over revisions.

        Where others write too, what they committed before may be on its way still. So tallies, of
        which a sum up to a revision is stored, are added to in the order of the watch.
        """
        if not self.is_shared:
            self.counted_revision = max(self.counted_revision, revision)
        if revision <= self.watched_revision:
            return
        own = self._own.setdefault(revision, set())
        self._is_ahead = self.is_shared
        try:
            for op in ops:
                if type(op) is Put:
                    own.add(op.key)
                    self._change(op.key, op.value, revision)
                elif type(op) is Delete:
                    own.add(op.key)
                    self._change(op.key, None, revision)
        finally:
            self._is_ahead = False

    def watched(self, event: Event) -> None:
        """Apply one revision of the watch, and forget graves it passed."""
        revision = event.revision
        own = self._own.pop(revision, _NONE) if self._own else _NONE
        for key, value in event.changes:
            if key not in own:
                self._change(key, value, revision)
            elif self.is_shared and key[_PREFIX] == keys.ENDED:
                self._tally_own(key, value, revision)
        self.watched_revision = revision
        self.counted_revision = max(self.counted_revision, revision)
        if self._graves:
            passed = [key for key, at in self._graves.items() if at <= revision]
            for key in passed:
                del self._graves[key]
        if self.on_reached is not None:
            self.on_reached(revision)

    def _change(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """Apply a change that comes once, and count what it closed."""
        if key[_PREFIX] not in self._appliers:
            self.lift(key)
        if key[_PREFIX] == keys.ENDED:
            try:
                self.count_ended(key, value, revision)
            except (CorruptRecordError, ValueError, IndexError) as error:
                self.quarantine(key, str(error))
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
            self.bury(key, revision)
        try:
            applier(key, value, revision)
            self.lift(key)
        except (CorruptRecordError, UnicodeDecodeError) as error:
            self.quarantine(key, str(error))
            if key[_PREFIX] == keys.WORKFLOW:
                self.graphs.hide(key)
            applier(key, None, revision)

    def quarantine(self, key: bytes, why: str) -> None:
        """Hold nothing of a record that cannot be read, and say so once."""
        if key not in self.corrupt:
            name = key_text(key)
            log.error(
                "record %s: %s; what it stands for is out of use: look with `colonist store check`,"
                " then restore a backup, or give it up with `colonist store drop %s`",
                name,
                why,
                name,
            )
        self.corrupt[key] = why

    def lift(self, key: bytes) -> None:
        """A record was written, or is gone: if it could not be read, that is over."""
        if self.corrupt.pop(key, None) is None:
            return
        advice = "; restart the servers to take it up" if key[_PREFIX] in _HEADS else ""
        log.warning("record %s: written anew or deleted%s", key_text(key), advice)

    def corrupt_note(self) -> str:
        """Which records cannot be read, for a person; "" where all can."""
        if not self.corrupt:
            return ""
        names = ", ".join(key_text(key) for key in list(self.corrupt)[:3])
        return f"{len(self.corrupt)} stored records cannot be read: {names}"

    def bury(self, key: bytes, revision: Revision) -> None:
        """Let nothing that is older bring back what stood under a key."""
        self._graves[key] = revision

    def count_ended(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """Count what has ended, or was removed after; the caller sees each change once."""
        colony = self.tags.get(key[_TAG])
        if colony is None:
            return
        state = keys.state_of_ended(key)
        kind = keys.kind_of_ended(key)
        is_process = kind == keys.KIND_PROCESS
        pid = key[-keys.PID_BYTES :]
        if is_process and value is not None and keys.number_of(pid):
            self.graphs.member_ended(pid, State(state), keys.time_of_ended(key))
        counted_at = colony.counted_at if is_process else colony.counted_workflows_at
        if revision <= counted_at[state]:
            return
        change = 1 if value is not None else -1
        (colony.closed if is_process else colony.closed_workflows)[state] += change
        if colony.recent is not None:
            colony.recent.append((revision, kind, state, change))
        if is_process and change > 0:
            for told in self.on_closed:
                told(colony)
        if is_process and value is not None and state == State.SUCCESS and not self._is_ahead:
            self._tally_in(colony, value, revision)

    def _tally_own(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """Add a run that this node closed, now that the watch has come to it."""
        colony = self.tags.get(key[_TAG])
        is_success = (
            keys.kind_of_ended(key) == keys.KIND_PROCESS
            and keys.state_of_ended(key) == State.SUCCESS
        )
        if value is None or colony is None or not is_success:
            return
        if revision > colony.counted_at[State.SUCCESS]:
            self._tally_in(colony, value, revision)

    def _tally_in(self, colony: Colony, value: bytes, revision: Revision) -> None:
        if colony.functions:
            self.tally(colony, value, revision)

    def tally(self, colony: Colony, value: bytes, revision: Revision) -> None:
        """Add a run that was closed at a revision to its function's tally."""
        ended = decode_ended(value)
        executor = colony.holder(ended.executor)
        if executor is None:
            return
        function = colony.functions.get(keys.function(colony.tag, executor.name, ended.funcname))
        if function is None or revision <= function.record.through:
            return
        wait_s = (ended.started_ns - ended.submitted_ns) / SECOND_NS
        exec_s = (ended.ended_ns - ended.started_ns) / SECOND_NS
        function.tally = counted(function.tally, wait_s, exec_s)

    def is_own(self, key: bytes, revision: Revision) -> bool:
        """Whether this node's commit of a key was applied of which the watch has yet to tell."""
        return key in self._own.get(revision, _NONE)

    def keys(self, prefix: bytes) -> set[bytes]:
        """The keys of what the view holds under a prefix."""
        held = self.held.get(prefix)
        return held() if held is not None else set(self._own_keys(prefix))

    def _own_keys(self, prefix: bytes) -> Iterator[bytes]:
        colonies = self.tags.values()
        match prefix:
            case keys.LIVE:
                staged = (pid for workflow in self.workflows.values() for pid in workflow.staged)
                yield from (keys.live(pid) for pid in chain(self.rows, staged))
            case keys.WORKFLOW:
                yield from (workflow.key for workflow in self.workflows.values())
            case keys.COLONY:
                yield from (colony.key for colony in colonies)
            case keys.FUNCTION:
                yield from (key for colony in colonies for key in colony.functions)
            case keys.EXECUTOR:
                yield from (each.key for colony in colonies for each in colony.executors.values())
            case _:
                yield from (each.key for colony in colonies for each in colony.users.values())

    # -- processes

    def _apply_live(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        pid = key[2:]
        row = self.rows.get(pid)
        if row is None and keys.number_of(pid):
            self._apply_member(pid, value, revision)
            return
        if row is not None and row.revision >= revision:
            return
        if value is None:
            if row is not None:
                self._end_row(row)
        elif row is not None:
            self._update_row(row, value, revision)
        else:
            row = self._new_row(pid, value, revision, None)
            if row is not None:
                self.rows[pid] = row
                self.place(row)

    def _apply_member(self, pid: bytes, value: bytes | None, revision: Revision) -> None:
        """A member that is not among the rows; without its workflow's head it does not exist."""
        workflow = self.graphs.of(pid)
        if workflow is None:
            return
        before = workflow.staged.get(pid)
        if before is not None and before.revision >= revision:
            return
        if value is None:
            workflow.staged.pop(pid, None)
            return
        row = self._new_row(pid, value, revision, workflow)
        if row is not None:
            self.graphs.appear(row, workflow)

    def _new_row(
        self, pid: bytes, raw: bytes, revision: Revision, workflow: Workflow | None
    ) -> Row | None:
        colony = self.tags.get(pid[: keys.TAG_BYTES])
        if colony is None:
            return None
        live = decode_live(raw)
        if len(self._placements) > MAX_PLACEMENTS:
            self._placements.clear()  # those in use stay with their rows
        placement = self._placements.setdefault(live.placement, live.placement)
        row = Row(
            pid, colony, revision, live.state, live.priority_ns, placement, live.deadline_ns, raw
        )
        row.has_attributes = row.has_output = live.attempt > 1 or live.has_more
        row.workflow = workflow
        if workflow is not None:
            note_start(workflow, live)
        return row

    def _update_row(self, row: Row, raw: bytes, revision: Revision) -> None:
        live = decode_live(raw)
        is_redelivered = row.state == live.state == State.RUNNING
        if not is_redelivered:  # what is, keeps its place among those that run
            self.displace(row)
        row.revision = revision
        row.raw = raw
        row.state = live.state
        row.deadline_ns = live.deadline_ns
        row.claimed = False
        if live.has_more:
            row.has_attributes = row.has_output = True
        # Who redelivers decides on the doubt; where another node did, it is over here.
        row.doubtful = row.doubtful and is_redelivered and live.node == self._node
        if row.workflow is not None:
            note_start(row.workflow, live)
        self.place(row)

    def _end_row(self, row: Row) -> None:
        del self.rows[row.pid]
        self.displace(row)

    def place(self, row: Row) -> None:
        """Let a row stand where its state puts it, and tell of it."""
        if row.workflow is not None:
            self.graphs.place(row, row.workflow, row.live())
        if row.state == State.RUNNING:
            row.colony.running[row.pid] = row
        else:
            row.colony.waiting += 1
            if row.blocked:
                row.colony.blocked[row.pid] = row
            else:
                row.colony.queue.add(row)
        for listener in self._listeners:
            listener.row_changed(row)

    def displace(self, row: Row) -> None:
        """Take a row out of where it stands."""
        if row.state == State.RUNNING:
            row.colony.running.pop(row.pid, None)
            return
        row.colony.waiting -= 1
        if row.blocked:
            row.colony.blocked.pop(row.pid, None)
        else:
            row.colony.queue.discard(row)

    # -- colonies

    def empty(self, colony: Colony) -> None:
        """Forget the processes and workflows of a colony that is gone."""
        for workflow in list(colony.workflows.values()):
            self.graphs.drop(workflow)
        for row in [row for row in self.rows.values() if row.colony is colony]:
            self._end_row(row)

    def colony_changed(self, colony: Colony) -> None:
        """Tell of a colony that was founded, paused, resumed or removed."""
        for listener in self._listeners:
            listener.colony_changed(colony)

    def executor_changed(
        self, colony: Colony, executor: Executor, before: ExecutorRecord | None
    ) -> None:
        """Tell of an executor that was added or changed; `before` is None for a new one."""
        for listener in self._listeners:
            listener.executor_changed(colony, executor, before)
        self._tell_of_member(colony, executor.name)

    def user_changed(self, colony: Colony, user: User) -> None:
        """Tell of a user that was added or changed."""
        self._tell_of_member(colony, user.name)

    def _tell_of_member(self, colony: Colony, name: str) -> None:
        for changed in self._member_changed:
            changed(colony, name)


def note_start(workflow: Workflow, live: Live) -> None:
    """A workflow begins with the first assignment of a member."""
    started_ns = live.started_ns
    if started_ns and not 0 < workflow.started_ns <= started_ns:
        workflow.started_ns = started_ns
