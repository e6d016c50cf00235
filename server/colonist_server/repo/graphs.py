"""The view of workflows: their heads and graphs, and what may run of them.

Part of the view and fed with it. A member that may not run is *blocked*: it stands in no queue.
What frees or dooms it is the end of another member, which the list of closed processes tells
(`y/..`): so closing a member writes nothing about its children, however many it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from colonist_core.process import Live, deadline
from colonist_core.workflow import Graph
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony, Row, Workflow
from colonist_server.repo.records import (
    ENDED_WORKFLOW,
    WorkflowRecord,
    WorkflowState,
    decode_edit,
    decode_shape,
    decode_workflow,
)
from colonist_server.store.interface import Revision

_TAG: Final = slice(2, 2 + keys.TAG_BYTES)
_WID: Final = slice(3, 3 + keys.WID_BYTES)


class Places(Protocol):
    """Who keeps the rows: the view."""

    rows: dict[bytes, Row]
    tags: dict[bytes, Colony]

    def place(self, row: Row) -> None:
        """Let a row stand where its state puts it, and tell of it."""
        ...

    def displace(self, row: Row) -> None:
        """Take a row out of where it stands."""
        ...

    def bury(self, key: bytes, revision: Revision) -> None:
        """Let nothing that is older bring back what stood under a key."""
        ...


class GraphListener(Protocol):
    """Whoever acts on workflows. Calls are made in the middle of a change: no awaits."""

    def workflow_changed(self, workflow: Workflow) -> None:
        """A workflow was opened, cancelled, edited, has ended, or a member of it has ended."""
        ...

    def member_released(self, row: Row) -> None:
        """A member may run: it was submitted without parents, or the last of them succeeded."""
        ...


class Graphs:
    """Every workflow that has not ended, by what its members' ids begin with."""

    __slots__ = ("_listeners", "_places", "workflows")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._listeners: list[GraphListener] = []
        self.workflows: dict[bytes, Workflow] = {}

    def listen(self, listener: GraphListener) -> None:
        """Tell a listener of every change from now on."""
        self._listeners.append(listener)

    def of(self, pid: bytes) -> Workflow | None:
        """The workflow that a process is a member of, unless it has ended."""
        return self.workflows.get(pid[: keys.WID_BYTES])

    def rows(self, workflow: Workflow) -> Iterator[Row]:
        """The members that have not ended and may be seen."""
        for number in workflow.graph:
            row = self._places.rows.get(keys.member(workflow.wid, number))
            if row is not None:
                yield row

    # -- the head

    def apply_head(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A head was written, or deleted."""
        workflow = self.workflows.get(key[2:])
        if workflow is not None and workflow.revision >= revision:
            return
        record = decode_workflow(value) if value is not None else None
        if record is None or record.state in ENDED_WORKFLOW:
            self._places.bury(key, revision)
            if workflow is not None:
                self.drop(workflow)
                self._tell(workflow)
        elif workflow is not None:
            self._update(workflow, record, revision)
        else:
            self._add(key, record, revision)

    def _add(self, key: bytes, record: WorkflowRecord, revision: Revision) -> None:
        colony = self._places.tags.get(key[_TAG])
        if colony is not None:
            workflow = Workflow(key, colony, record, revision)
            self.workflows[workflow.wid] = colony.workflows[workflow.wid] = workflow
            self._tell(workflow)

    def _update(self, workflow: Workflow, record: WorkflowRecord, revision: Revision) -> None:
        was_shown = workflow.is_shown
        workflow.record, workflow.revision = record, revision
        if workflow.is_shown and not was_shown:
            self._show(workflow)
        elif was_shown and not workflow.is_shown:
            self._hide(workflow)
        if record.state == WorkflowState.CANCELLING:
            self._cancel(workflow)
        self._tell(workflow)

    def drop(self, workflow: Workflow) -> None:
        """Forget a workflow."""
        workflow.colony.open_workflows.dropped(workflow)
        del self.workflows[workflow.wid]
        del workflow.colony.workflows[workflow.wid]

    def _show(self, workflow: Workflow) -> None:
        rows, workflow.staged = workflow.staged, {}
        for row in rows.values():
            self.appear(row, workflow)

    def appear(self, row: Row, workflow: Workflow) -> None:
        """A member was written: it is seen once its workflow is, and its place in it is known."""
        if not workflow.is_shown or row.number > len(workflow.graph):
            workflow.staged[row.pid] = row
            return
        self._places.rows[row.pid] = row
        self._places.place(row)
        if workflow.graph.has_unfinished:
            self._tell(workflow)
        if row.state == State.WAITING and not row.blocked:
            self._tell_released(row)

    def hide(self, key: bytes) -> None:
        """Let nobody see the members of a workflow whose head cannot be read."""
        workflow = self.workflows.get(key[2:])
        if workflow is not None and workflow.is_shown:
            self._hide(workflow)

    def _hide(self, workflow: Workflow) -> None:
        for row in list(self.rows(workflow)):
            row.claimed = False
            self._places.displace(row)
            workflow.staged[row.pid] = self._places.rows.pop(row.pid)

    def _cancel(self, workflow: Workflow) -> None:
        workflow.graph.is_cancelled = True
        for row in self.rows(workflow):
            if row.state == State.WAITING and not row.blocked:
                self._block(row)

    # -- the graph

    def apply_shape(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A part of who waits for whom was written; it never changes."""
        del revision
        workflow = self.workflows.get(key[_WID])
        if value is None or workflow is None:
            return
        first = int.from_bytes(key[_WID.stop :], "big")
        if len(workflow.graph) or len(workflow.shape) + 1 != first:
            return
        workflow.shape.extend(decode_shape(value).parents)
        record = workflow.record
        if len(workflow.shape) == record.size - record.edits:
            workflow.graph = Graph(workflow.shape)
            workflow.graph.is_cancelled = record.state == WorkflowState.CANCELLING
            workflow.shape = []
            workflow.colony.open_workflows.changed(workflow)
            if workflow.is_shown:
                self._show(workflow)

    def apply_edit(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A member was added between or below others."""
        del revision
        workflow = self.workflows.get(key[_WID])
        if value is None or workflow is None:
            return
        if int.from_bytes(key[_WID.stop :], "big") != workflow.edits:
            return
        workflow.edits += 1
        workflow.colony.open_workflows.changed(workflow)
        edit = decode_edit(value)
        if edit.insert:
            number = workflow.graph.insert(edit.parent)
        else:
            number = workflow.graph.append(edit.parent, edit.child)
            child = self._places.rows.get(keys.member(workflow.wid, edit.child))
            if child is not None and not child.blocked and child.state == State.WAITING:
                self._block(child)
        new = workflow.staged.pop(keys.member(workflow.wid, number), None)
        if new is not None:
            self.appear(new, workflow)

    # -- members

    def place(self, row: Row, workflow: Workflow, live: Live) -> None:
        """Note a member's state, whether it may run, and until when it waits at most.

        Its time runs from the end of its last parent (COLONIES-RPC W8), or from when it was put
        back into the queue, whichever is later.
        """
        graph, number = workflow.graph, row.number
        graph.moved(number, State(row.state))
        if self.workflows.get(workflow.wid) is workflow:  # else its end was heard of before
            workflow.colony.open_workflows.changed(workflow)
        row.blocked = row.state == State.WAITING and not graph.may_run(number)
        if row.blocked:
            row.deadline_ns = 0
        elif row.state == State.WAITING:
            ready_ns = deadline(graph.ready_ns.get(number, 0), live.max_wait_s)
            row.deadline_ns = max(live.deadline_ns, ready_ns)

    def member_ended(self, pid: bytes, state: State, ended_ns: int) -> None:
        """A member's end is in the list of closed processes.

        That may be heard of after the end of its workflow, which is then being removed: of such a
        one nothing is known, nor needed.
        """
        workflow = self.of(pid)
        if workflow is None or keys.number_of(pid) > len(workflow.graph):
            return
        change = workflow.graph.ended(keys.number_of(pid), state, ended_ns)
        for number in change.released:
            row = self._places.rows.get(keys.member(workflow.wid, number))
            if row is not None and row.blocked:
                self._release(row)
        self._tell(workflow)

    def _release(self, row: Row) -> None:
        self._places.displace(row)
        self._places.place(row)
        self._tell_released(row)

    def _tell_released(self, row: Row) -> None:
        for listener in self._listeners:
            listener.member_released(row)

    def _block(self, row: Row) -> None:
        """It may not run any more; whoever claimed it has to look for something else."""
        row.claimed = False
        self._places.displace(row)
        self._places.place(row)

    def _tell(self, workflow: Workflow) -> None:
        if self.workflows.get(workflow.wid) is workflow:
            workflow.colony.open_workflows.changed(workflow)
        for listener in self._listeners:
            listener.workflow_changed(workflow)
