"""A workflow's members as they are shown: parents, children, inputs, and what is settled already.

A member's input is not stored with it: it is read from its parents' ends (COLONIES-RPC section
4.7), a root's from the leaves of the workflow that its cron started before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeGuard

from colonist_core.process import Closed, Live
from colonist_core.workflow import Parents
from colonist_protocol.process import FINAL, State
from colonist_server.repo import keys
from colonist_server.repo.budget import Budget
from colonist_server.repo.graphs import Graphs
from colonist_server.repo.nouns import Workflow
from colonist_server.repo.outputs import Outputs
from colonist_server.repo.past import Reads
from colonist_server.repo.records import decode_workflow
from colonist_server.repo.render import NO_OUTPUT, Kin
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes

TOO_LONG: Final = (
    "the input is over {} bytes (in a list: with those before it): read the parents' outputs"
)

_ID_BYTES: Final = 67
"""An id in a list, as JSON."""

_Member = tuple[bytes, Live, Closed | None]


class Family:
    """Looks up kin."""

    __slots__ = ("_graphs", "_outputs", "_view", "_writes")

    def __init__(self, writes: Writes, outputs: Outputs) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._graphs: Graphs = writes.view.graphs
        self._outputs = outputs

    def of_many(self, shown: Iterable[_Member]) -> dict[bytes, Kin]:
        """The kin of those that are members of a workflow, by process id, without their inputs.

        To be asked in the moment in which a record is looked at: what is said of an end that is
        still to be written fits that record. No more of them than a reply may hold.
        """
        found: dict[bytes, Kin] = {}
        room = Budget()
        for pid, live, closed in shown:
            if keys.number_of(pid) and not room.is_spent:
                found[pid] = kin = self._kin(pid, live, closed)
                room.takes((len(kin.parents) + len(kin.children)) * _ID_BYTES)
        return found

    async def with_inputs(
        self, shown: Iterable[_Member], family: dict[bytes, Kin], room: Budget
    ) -> dict[bytes, Kin]:
        """The same with their inputs, as far as there is room for them; few reads for all."""
        members = [entry for entry in shown if entry[0] in family]
        if not members:
            return family
        sources = await self._sources(members)
        # Those that have the same parents share what is read; it is shown at each of them.
        inputs: dict[tuple[bytes, ...], bytes] = {}
        found: dict[bytes, Kin] = {}
        for pid, _, closed in members:
            kin, wanted = family[pid], sources.get(pid)
            joined: bytes | None = NO_OUTPUT
            if wanted is not None and wanted in inputs:
                joined = inputs[wanted] if room.takes(len(inputs[wanted])) else None
            elif wanted is not None:
                joined = await self._outputs.joined(wanted, room, is_past=closed is not None)
                inputs.update({wanted: joined} if joined is not None else {})
            if joined is None:
                found[pid] = kin._replace(reason=kin.reason or TOO_LONG.format(room.size))
            else:
                found[pid] = kin._replace(inputs=joined)
        return found

    def _kin(self, pid: bytes, live: Live, closed: Closed | None) -> Kin:
        wid, number = pid[: keys.WID_BYTES], keys.number_of(pid)
        workflow = self._graphs.of(pid)
        parents, children = _relations(workflow, number, closed)
        kin = Kin(
            graph=keys.graph_id(wid).hex(),
            parents=[keys.member(wid, each).hex() for each in parents],
            children=[keys.member(wid, each).hex() for each in children],
            deadline_ns=0,
        )
        if closed is not None or not _is_known(workflow, number):
            return kin
        graph = workflow.graph
        row = self._view.rows.get(pid)
        kin = kin._replace(
            waits=live.state == State.WAITING and graph.waits_for_parents(number),
            deadline_ns=row.deadline_ns if row is not None else 0,
        )
        state = graph.state_of(number)
        if state not in FINAL or live.state in FINAL:
            return kin
        doomer = graph.doomed_by(number)
        reason = f"Parent failed (process {keys.member(wid, doomer).hex()})" if doomer else ""
        return kin._replace(state=state, reason=reason, ended_ns=graph.ended_ns, waits=False)

    async def _sources(self, members: Sequence[_Member]) -> dict[bytes, tuple[bytes, ...]]:
        """Whose outputs are a member's input, where it has one already."""
        sources: dict[bytes, tuple[bytes, ...]] = {}
        roots: list[bytes] = []
        is_past = any(closed is not None for _, _, closed in members)
        for pid, live, closed in members:
            workflow, number = self._graphs.of(pid), keys.number_of(pid)
            parents, _ = _relations(workflow, number, closed)
            is_ready = live.attempt > 0 or (
                _is_known(workflow, number) and workflow.graph.has_inputs(number)
            )
            if parents and is_ready:
                wid = pid[: keys.WID_BYTES]
                sources[pid] = tuple(keys.member(wid, each) for each in parents)
            elif not parents:
                roots.append(pid)
        if roots:
            source = self._writes.past if is_past else self._writes
            await self._add_previous(roots, sources, source)
        return sources

    async def _add_previous(
        self,
        roots: Sequence[bytes],
        sources: dict[bytes, tuple[bytes, ...]],
        source: Reads,
    ) -> None:
        """The leaves of what their cron started before."""
        before = await self._previous({pid[: keys.WID_BYTES] for pid in roots}, source)
        if not before:
            return
        leaves = await self._leaves(set(before.values()), source)
        for pid in roots:
            previous = before.get(pid[: keys.WID_BYTES])
            if previous is not None and leaves.get(previous):
                sources[pid] = tuple(keys.member(previous, each) for each in leaves[previous])

    async def _previous(self, wids: Iterable[bytes], source: Reads) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        ended: list[bytes] = []
        for wid in wids:
            workflow = self._graphs.workflows.get(wid)
            if workflow is None:
                ended.append(wid)
            elif workflow.record.previous:
                found[wid] = workflow.record.previous
        if ended:
            for item in await source.read_many([keys.workflow(wid) for wid in ended]):
                previous = decode_workflow(item.value).previous if item is not None else b""
                if item is not None and previous:
                    found[item.key[len(keys.WORKFLOW) :]] = previous
        return found

    async def _leaves(self, wids: set[bytes], source: Reads) -> dict[bytes, Sequence[int]]:
        found: dict[bytes, Sequence[int]] = {
            wid: self._graphs.workflows[wid].graph.leaves
            for wid in wids
            if wid in self._graphs.workflows
        }
        ended = [wid for wid in wids if wid not in found]
        if ended:
            for item in await source.read_many([keys.workflow(wid) for wid in ended]):
                if item is not None:
                    wid = item.key[len(keys.WORKFLOW) :]
                    found[wid] = decode_workflow(item.value).leaves
        return found


def _is_known(workflow: Workflow | None, number: int) -> TypeGuard[Workflow]:
    """Whether a member's place is known: not while a view is being loaded."""
    return workflow is not None and number <= len(workflow.graph)


def _relations(
    workflow: Workflow | None, number: int, closed: Closed | None
) -> tuple[Parents, Sequence[int]]:
    if closed is not None:
        return closed.parents, closed.children
    if not _is_known(workflow, number):
        return (), ()
    return workflow.graph.parents(number), workflow.graph.children(number)
