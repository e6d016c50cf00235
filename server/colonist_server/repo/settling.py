"""What a workflow leaves to be done: its doomed members, its own end, its removal.

The state is the to-do list, and every commit is guarded, so doing it twice is harmless. A node does
at once what follows from its own commits; what another node leaves undone the leader finishes. A
little at a time and one commit after the other, so that nobody else waits long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from colonist_core.process import SERVER, Cause, What, ended
from colonist_protocol.errors import ColonistError, ConflictError
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.births import Births, nodename
from colonist_server.repo.clock import Clock
from colonist_server.repo.new_workflow import size_of
from colonist_server.repo.nodes import Nodes
from colonist_server.repo.nouns import Row, Workflow
from colonist_server.repo.processes import closing_ops
from colonist_server.repo.records import WorkflowState, encode
from colonist_server.repo.view import View
from colonist_server.repo.workflow_removal import WorkflowRemoval
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import MAX_COMMIT_BYTES, Guard, Op, Put, Revision

log = logging.getLogger(__name__)

ENDED_AT_ONCE: Final = 40
_ENOUGH_BYTES: Final = MAX_COMMIT_BYTES // 4
"""A commit that holds so much ends no further member; a single one is smaller than the rest."""
RETRY_S: Final = 1.0
FAULT_RETRY_S: Final = 60.0
PENDING_S: Final = 2.0
"""What is undone for so long is left to the leader by whoever began it."""
IDLE_S: Final = 60.0
"""A workflow of which nothing was written for so long is not made any more."""
LOOK_S: Final = 10.0
_REMEMBERED: Final = 1000


class _Progress(NamedTuple):
    """How much there was of a workflow that another node makes, and since when."""

    revision: Revision
    amount: int
    since: float


class Settling:
    """A listener of the graphs that finishes what is begun.

    `staging` names the workflows that are being made at this node just now.
    """

    __slots__ = (
        "_births",
        "_clock",
        "_is_shared",
        "_late",
        "_leads",
        "_locks",
        "_mine",
        "_nodes",
        "_progress",
        "_queued",
        "_removal",
        "_todo",
        "_view",
        "_wake",
        "_writes",
        "staging",
    )

    def __init__(
        self,
        writes: Writes,
        births: Births,
        removal: WorkflowRemoval,
        clock: Clock,
        *,
        nodes: Nodes,
        leads: Callable[[], bool],
    ) -> None:
        self._is_shared = writes.store.is_shared
        self._nodes = nodes
        self._leads = leads
        self._late: set[bytes] = set()
        self._mine: dict[bytes, float] = {}
        self._progress: dict[bytes, _Progress] = {}
        self._writes = writes
        self._view: View = writes.view
        self._births = births
        self._removal = removal
        self._clock = clock
        self._todo: dict[bytes, None] = {}
        self._queued: set[bytes] = set()
        self._wake = asyncio.Event()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self.staging: set[bytes] = set()
        self._view.graphs.listen(self)
        nodes.listen(self._node_changed)

    @property
    def instance(self) -> bytes:
        """What tells this start of this node from all others."""
        return self._nodes.instance

    # -- what the view learns

    def workflow_changed(self, workflow: Workflow) -> None:
        """Look whether something is to be done, now or, where it is another's, in a while."""
        wid = workflow.wid
        if not _is_unsettled(workflow):
            return
        if not self._is_shared or self._mine.get(wid, 0.0) > self._clock.monotonic():
            self.look_at(wid)
        elif wid not in self._late and self._leads():
            self._look_later(wid, PENDING_S)

    def _node_changed(self, name: str, is_alive: bool) -> None:
        """What a node that is gone was making is made no more."""
        del name
        if not is_alive and self._leads():
            for workflow in self._view.workflows.values():
                if workflow.record.state == WorkflowState.STAGING:
                    self.look_at(workflow.wid)

    def look_at_own(self, wid: bytes) -> None:
        """A member was ended by this node: what follows from it is done here, at once.

        The last members may end at two nodes at once; both then look again when they hear of it.
        """
        if self._is_shared:
            now = self._clock.monotonic()
            if len(self._mine) > _REMEMBERED:
                self._mine = {each: until for each, until in self._mine.items() if until > now}
            self._mine[wid] = now + PENDING_S
            workflow = self._view.workflows.get(wid)
            if workflow is not None and _is_unsettled(workflow):
                self.look_at(wid)

    async def look_at_all(self) -> None:
        """Finish what a stop interrupted, of this node or another."""
        for workflow in self._view.workflows.values():
            if _is_unsettled(workflow):
                self.look_at(workflow.wid)

    def member_released(self, row: Row) -> None:
        """Nothing is to be done about what may run."""

    def look_at(self, wid: bytes) -> None:
        """Settle a workflow soon."""
        self._todo[wid] = None
        self._wake.set()

    # -- doing it

    async def run(self) -> None:
        """Do whatever comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                wids = [wid for wid in self._todo if wid not in self._queued]
                self._todo = {}
                self._queued.update(wids)
                for wid in wids:  # a large one does not hold up the others
                    group.create_task(self._try_settle(wid))

    async def _try_settle(self, wid: bytes) -> None:
        workflow = self._view.workflows.get(wid)
        if workflow is None:
            self._queued.discard(wid)
            return
        try:
            async with self._lock(wid):
                self._queued.discard(wid)  # what changes from now on is looked at once more
                await self._settle(workflow)
        except ColonistError as error:
            log.warning("workflow=%s not settled, trying again: %s", workflow.id, error)
            self._retry(wid, RETRY_S)
        except Exception:  # one must not end the others, nor the server at each start (P1)
            log.exception("workflow=%s not settled", workflow.id)
            self._retry(wid, FAULT_RETRY_S)

    def _retry(self, wid: bytes, after_s: float) -> None:
        self._clock.call_at(self._clock.monotonic() + after_s, partial(self.look_at, wid))

    def _look_later(self, wid: bytes, after_s: float) -> None:
        def look() -> None:
            self._late.discard(wid)
            if self._leads():
                self.look_at(wid)

        self._late.add(wid)
        self._clock.call_at(self._clock.monotonic() + after_s, look)

    async def settle(self, workflow: Workflow) -> None:
        """Do all that is to be done about a workflow. Raises `UnavailableError`."""
        async with self._lock(workflow.wid):
            await self._settle(workflow)

    def _lock(self, wid: bytes) -> asyncio.Lock:
        return self._locks.setdefault(wid, asyncio.Lock())

    async def _settle(self, workflow: Workflow) -> None:
        wid = workflow.wid
        if workflow.record.state == WorkflowState.STAGING:
            if self._is_abandoned(workflow):
                await self._abort(workflow)
        elif workflow.record.state != WorkflowState.REMOVING:
            while workflow.graph.has_unfinished and await self._end_members(workflow):
                pass
            if workflow.graph.is_over:
                await self._end(workflow)
        if workflow.record.state == WorkflowState.REMOVING and wid in self._view.workflows:
            await self._removal.sweep(wid)

    def _is_abandoned(self, workflow: Workflow) -> bool:
        """Whether nobody makes it any more, as far as this node is to judge."""
        stager = workflow.record.stager
        if workflow.wid in self.staging:
            return False
        if stager == self.instance or not self._is_shared:
            return True
        return self._leads() and (not self._nodes.is_at_work(stager) or self._is_idle(workflow))

    def _is_idle(self, workflow: Workflow) -> bool:
        """Whether nothing came of it for long; else look again."""
        amount = len(workflow.staged) + len(workflow.shape) + len(workflow.graph)
        now = self._clock.monotonic()
        before = self._progress.get(workflow.wid)
        if before is None or (before.revision, before.amount) != (workflow.revision, amount):
            self._forget_progress()
            before = self._progress[workflow.wid] = _Progress(workflow.revision, amount, now)
        if workflow.wid not in self._late:
            self._look_later(workflow.wid, LOOK_S)
        return now - before.since >= IDLE_S

    def _forget_progress(self) -> None:
        gone = self._progress.keys() - self._view.workflows.keys()
        for wid in gone:
            del self._progress[wid]

    async def _end_members(self, workflow: Workflow) -> bool:
        """Record as ended what is doomed, or cancelled with its workflow; False: nothing was."""
        numbers = workflow.graph.unfinished()
        has_ended = False
        for start in range(0, len(numbers), ENDED_AT_ONCE):
            part = numbers[start : start + ENDED_AT_ONCE]
            reasons = await self._reasons(workflow, part)

            def decide(part: Sequence[int] = part, reasons: Sequence[str] = reasons) -> Plan:
                guards = [Guard(workflow.key, workflow.revision)]
                ops: list[Op] = []
                for row, reason in self._rows(workflow, part, reasons):
                    if size_of(ops) > _ENOUGH_BYTES:
                        break
                    guards.append(Guard(keys.live(row.pid), row.revision))
                    ops += self._ending(workflow, row, reason)
                if not ops:
                    raise ConflictError("all of them have ended")
                return Plan(guards, ops)

            with suppress(ConflictError):
                await self._writes.apply(decide)
                has_ended = True
        return has_ended

    def _rows(
        self, workflow: Workflow, numbers: Sequence[int], reasons: Sequence[str]
    ) -> Iterator[tuple[Row, str]]:
        for number, reason in zip(numbers, reasons, strict=True):
            row = self._view.rows.get(keys.member(workflow.wid, number))
            if row is not None:
                yield row, reason

    def _ending(self, workflow: Workflow, row: Row, reason: str) -> Sequence[Op]:
        what, cause = What.PARENT_FAILED, SERVER
        if workflow.graph.is_cancelled:
            head, what = workflow.record, What.CANCELLED
            cause = Cause(head.cancelled_by.hex(), head.cancel_digest, head.cancel_signature)
        closed = ended(
            row.live(),
            row.id,
            what,
            now_ns=self._clock.now_ns(),
            cause=cause,
            errors=(reason,) if reason else (),
        )
        return closing_ops(row, closed)

    async def _reasons(self, workflow: Workflow, numbers: Sequence[int]) -> list[str]:
        """Why each of them is ended, in words; "" where the whole workflow is cancelled."""
        graph = workflow.graph
        if graph.is_cancelled:
            return [""] * len(numbers)
        doomers = sorted({graph.doomed_by(number) for number in numbers})
        births = await self._births.of_many([keys.member(workflow.wid, each) for each in doomers])
        texts = {
            each: doomed_text(
                keys.member(workflow.wid, each), nodename(birth), graph.stored_state(each)
            )
            for each, birth in zip(doomers, births, strict=True)
        }
        return [texts[graph.doomed_by(number)] for number in numbers]

    async def _end(self, workflow: Workflow) -> None:
        """All members are final: so is the head, and the workflow leaves the view."""

        def decide() -> Plan:
            head, graph = workflow.record, workflow.graph
            is_there = self._view.workflows.get(workflow.wid) is workflow
            if not (is_there and workflow.is_shown and graph.is_over):
                raise ConflictError("it has ended, is removed, or has grown")
            state = graph.state
            record = msgspec.structs.replace(
                head,
                state=state,
                started_ns=workflow.started_ns,
                ended_ns=graph.ended_ns,
                states=graph.states,
                leaves=tuple(graph.leaves),
            )
            index = keys.ended_workflow(workflow.colony.tag, state, head.submitted_ns, workflow.wid)
            return Plan(
                [Guard(workflow.key, workflow.revision)],
                [Put(workflow.key, encode(record)), Put(index, b"")],
            )

        try:
            await self._writes.apply(decide)
        except ConflictError:
            return

    async def _abort(self, workflow: Workflow) -> None:
        """Nobody makes it any more: what is there of it is removed."""

        def decide() -> Plan:
            if workflow.record.state != WorkflowState.STAGING:
                raise ConflictError("it was opened, or removed")
            record = msgspec.structs.replace(workflow.record, state=WorkflowState.REMOVING)
            return Plan(
                [Guard(workflow.key, workflow.revision)], [Put(workflow.key, encode(record))]
            )

        try:
            await self._writes.apply(decide)
        except ConflictError:
            return
        log.info("workflow=%s was not finished by its submitter: removed", workflow.id)


def doomed_text(pid: bytes, name: str, state: State) -> str:
    """Why a member cannot run any more."""
    how = "was cancelled" if state == State.CANCELLED else "failed"
    return f"Parent {name!r} {how} (process {pid.hex()})"


def _is_unsettled(workflow: Workflow) -> bool:
    if not workflow.is_shown:
        return True
    return workflow.graph.has_unfinished or workflow.graph.is_over
