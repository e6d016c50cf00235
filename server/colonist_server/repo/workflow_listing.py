"""Reading workflows: one with its drawing, lists by state (COLONIES-RPC sections 2.7 and 3.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from typing import Final

from colonist_core.workflow import Graph
from colonist_protocol.errors import NotFoundError
from colonist_protocol.process import FINAL, State
from colonist_protocol.times import to_text
from colonist_protocol.workflow import Edge, Node, Position, ProcessGraph
from colonist_server.repo import keys
from colonist_server.repo.budget import Budget
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.nouns import Colony, Workflow
from colonist_server.repo.records import (
    WorkflowRecord,
    WorkflowState,
    decode_edit,
    decode_shape,
    decode_workflow,
)
from colonist_server.repo.view import View
from colonist_server.repo.workflow_removal import find_ended
from colonist_server.repo.writes import Writes

BOX: Final = 150
GAP: Final = 50
ROW: Final = 80

_BACKGROUND: Final = {
    State.WAITING: "#eee8d8",
    State.RUNNING: "#4689cd",
    State.SUCCESS: "#92d050",
    State.FAILED: "#cb4239",
    State.CANCELLED: "#f5a623",
}


class WorkflowListing:
    """Workflows as they are read."""

    __slots__ = ("_past", "_view")

    def __init__(self, writes: Writes) -> None:
        self._past = writes.past
        self._view: View = writes.view

    async def get(self, colony: Colony, wid: bytes, *, is_drawn: bool = True) -> ProcessGraph:
        """One workflow, with nodes and edges where it `is_drawn`. Raises `NotFoundError`."""
        workflow = self._view.workflows.get(wid)
        if workflow is not None and workflow.is_shown:
            _, names = await self._read_graph(wid, workflow.record)
            shown = _Shown(workflow.record, workflow.graph, workflow.started_ns)
            return _render(colony, wid, shown, names[: len(workflow.graph)] if is_drawn else None)
        _, record = await find_ended(self._past, wid)
        graph, names = await self._read_graph(wid, record)
        if len(graph) != len(record.states):
            raise NotFoundError("no such workflow")  # it was removed meanwhile
        _restore(graph, record)
        shown = _Shown(record, graph, record.started_ns)
        return _render(colony, wid, shown, names if is_drawn else None)

    async def states(self, wid: bytes) -> Sequence[State]:
        """The members' states, in order. Raises `NotFoundError`."""
        workflow = self._view.workflows.get(wid)
        if workflow is not None and workflow.is_shown:
            return [workflow.graph.state_of(number) for number in workflow.graph]
        _, record = await find_ended(self._past, wid)
        return [State(state) for state in record.states]

    async def by_state(
        self, colony: Colony, states: Sequence[State], count: int
    ) -> list[ProcessGraph]:
        """Up to `count` workflows in some states, newest submission first; without drawings.

        Fewer where those would be over `REPLY_BYTES`.
        """
        found: list[tuple[int, bytes, ProcessGraph]] = []
        room = Budget()
        for workflow in _newest_open(colony, states, count):
            shown = _Shown(workflow.record, workflow.graph, workflow.started_ns)
            drawn = _render(colony, workflow.wid, shown)
            if not room.holds(drawn):
                break
            found.append((workflow.record.submitted_ns, workflow.wid, drawn))
        for state in states:
            if state in FINAL:
                found += await self._ended(colony, state, count)
        # One that is just being recorded as ended may be met twice.
        newest = {wid: (at, graph) for at, wid, graph in found}
        ordered = sorted(newest.values(), key=lambda entry: -entry[0])
        return Budget().first([graph for _, graph in ordered[:count]])

    async def _ended(
        self, colony: Colony, state: State, count: int
    ) -> list[tuple[int, bytes, ProcessGraph]]:
        if not count:
            return []
        prefix = keys.ended_in(colony.tag, state, keys.KIND_WORKFLOW)
        page = await self._past.range(prefix, limit=count, keys_only=True)
        wids = [item.key[-keys.WID_BYTES :] for item in page.items]
        heads = await self._past.read_many([keys.workflow(wid) for wid in wids])
        found: list[tuple[int, bytes, ProcessGraph]] = []
        room = Budget()
        for wid, head in zip(wids, heads, strict=True):
            if head is None:
                continue  # removed meanwhile
            record = decode_workflow(head.value)
            graph, _ = await self._read_graph(wid, record)
            if len(graph) != len(record.states):
                continue  # it is being removed
            _restore(graph, record)
            shown = _Shown(record, graph, record.started_ns)
            drawn = _render(colony, wid, shown)
            if not room.holds(drawn):
                break
            found.append((record.submitted_ns, wid, drawn))
        return found

    async def _read_graph(self, wid: bytes, record: WorkflowRecord) -> tuple[Graph, list[str]]:
        """Who waits for whom, as it is stored, and the members' names."""
        parents: list[tuple[int, ...]] = []
        names: list[str] = []
        for item in (await self._past.range(keys.shape_of(wid))).items:
            part = decode_shape(item.value)
            parents += part.parents
            names += part.names
        graph = Graph(parents)
        if record.edits:
            for item in (await self._past.range(keys.edits_of(wid))).items:
                edit = decode_edit(item.value)
                names.append(edit.name)
                if edit.insert:
                    graph.insert(edit.parent)
                else:
                    graph.append(edit.parent, edit.child)
        return graph, names


class _Shown:
    __slots__ = ("graph", "record", "started_ns")

    def __init__(self, record: WorkflowRecord, graph: Graph, started_ns: int) -> None:
        self.record = record
        self.graph = graph
        self.started_ns = started_ns


def _restore(graph: Graph, record: WorkflowRecord) -> None:
    graph.restore(record.states)
    graph.is_cancelled = record.state == WorkflowState.CANCELLED


def _newest_open(colony: Colony, states: Sequence[State], count: int) -> list[Workflow]:
    """Up to `count` of those that have not ended; only these are worth drawing up."""
    found = (each for each in colony.workflows.values() if each.is_shown and each.state in states)
    return nlargest(count, found, key=lambda each: (each.record.submitted_ns, each.wid))


def is_made(head: bytes) -> bool:
    """Whether a workflow is, or was, open: not merely staged, nor on its way out."""
    return decode_workflow(head).state not in (WorkflowState.STAGING, WorkflowState.REMOVING)


def submitted(colony: Colony, new: NewWorkflow) -> ProcessGraph:
    """A workflow as the reply to its submit shows it."""
    ids = [keys.member(new.wid, number).hex() for number in range(1, len(new.specs) + 1)]
    return ProcessGraph(
        processgraphid=keys.graph_id(new.wid).hex(),
        initiatorid=new.record.initiator_id,
        initiatorname=new.record.initiator,
        colonyname=colony.record.name,
        rootprocessids=[id for id, parents in zip(ids, new.parents, strict=True) if not parents],
        submissiontime=to_text(new.record.submitted_ns),
        processids=ids,
    )


def _render(
    colony: Colony, wid: bytes, shown: _Shown, names: Sequence[str] | None = None
) -> ProcessGraph:
    graph, record = shown.graph, shown.record
    ids = ["", *(keys.member(wid, number).hex() for number in graph)]
    state = graph.state
    return ProcessGraph(
        processgraphid=keys.graph_id(wid).hex(),
        initiatorid=record.initiator_id,
        initiatorname=record.initiator,
        colonyname=colony.record.name,
        rootprocessids=[ids[number] for number in graph.roots],
        state=state,
        submissiontime=to_text(record.submitted_ns),
        starttime=to_text(shown.started_ns),
        endtime=to_text((record.ended_ns or graph.ended_ns) if state in FINAL else 0),
        processids=ids[1:],
        nodes=_nodes(graph, ids, names) if names is not None else [],
        edges=_edges(graph, ids) if names is not None else [],
    )


def _nodes(graph: Graph, ids: Sequence[str], names: Sequence[str]) -> list[Node]:
    depths = graph.depths()
    widths = Counter(depths[1:])
    placed: Counter[int] = Counter()
    nodes: list[Node] = []
    for number, name in zip(graph, names, strict=False):
        depth = depths[number]
        left = -(widths[depth] * (BOX + GAP) - GAP) // 2 + BOX // 2
        position = Position(left + placed[depth] * (BOX + GAP), depth * ROW)
        placed[depth] += 1
        nodes.append(
            Node(
                id=ids[number],
                data={"label": name},
                position=position,
                type=_kind(graph, number),
                style={"color": "", "background": _BACKGROUND[graph.state_of(number)]},
            )
        )
    return nodes


def _kind(graph: Graph, number: int) -> str:
    if not graph.parents(number):
        return "input"
    return "" if graph.children(number) else "output"


def _edges(graph: Graph, ids: Sequence[str]) -> list[Edge]:
    return [
        Edge(
            id=f"{ids[number]}-{ids[child]}",
            source=ids[number],
            target=ids[child],
            animated=graph.state_of(number) == State.RUNNING,
        )
        for number in graph
        for child in graph.children(number)
    ]
