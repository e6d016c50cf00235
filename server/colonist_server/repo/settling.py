"""What a workflow leaves to be done: its doomed members, its own end, its removal.

The state is the to-do list: whoever finds something undone does it, and every commit is guarded, so
doing it twice is harmless. A little at a time and one commit after the other, so that nobody else
waits long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from colonist_core.process import SERVER, Cause, What, ended
from colonist_protocol.errors import ColonistError, ConflictError
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.births import Births, nodename
from colonist_server.repo.clock import Clock
from colonist_server.repo.new_workflow import size_of
from colonist_server.repo.nouns import Row, Workflow
from colonist_server.repo.processes import closing_ops
from colonist_server.repo.records import WorkflowState, encode
from colonist_server.repo.view import View
from colonist_server.repo.workflow_removal import WorkflowRemoval
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import MAX_COMMIT_BYTES, Guard, Op, Put

log = logging.getLogger(__name__)

ENDED_AT_ONCE: Final = 40
_ENOUGH_BYTES: Final = MAX_COMMIT_BYTES // 4
"""A commit that holds so much ends no further member; a single one is smaller than the rest."""
RETRY_S: Final = 1.0
FAULT_RETRY_S: Final = 60.0


class Settling:
    """A listener of the graphs that finishes what is begun.

    `staging` names the workflows that are being made at this node just now.
    """

    __slots__ = (
        "_births",
        "_clock",
        "_locks",
        "_queued",
        "_removal",
        "_todo",
        "_view",
        "_wake",
        "_writes",
        "staging",
    )

    def __init__(
        self, writes: Writes, births: Births, removal: WorkflowRemoval, clock: Clock
    ) -> None:
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

    # -- what the view learns

    def workflow_changed(self, workflow: Workflow) -> None:
        """Look whether something is to be done."""
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
        """Finish what a stop interrupted, then whatever comes, until cancelled."""
        for workflow in list(self._view.workflows.values()):
            self.workflow_changed(workflow)
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
        self._clock.call_at(self._clock.monotonic() + after_s, lambda: self.look_at(wid))

    async def settle(self, workflow: Workflow) -> None:
        """Do all that is to be done about a workflow. Raises `UnavailableError`."""
        async with self._lock(workflow.wid):
            await self._settle(workflow)

    def _lock(self, wid: bytes) -> asyncio.Lock:
        return self._locks.setdefault(wid, asyncio.Lock())

    async def _settle(self, workflow: Workflow) -> None:
        wid = workflow.wid
        if workflow.record.state == WorkflowState.STAGING:
            if wid not in self.staging:
                await self._abort(workflow)
        elif workflow.record.state != WorkflowState.REMOVING:
            while workflow.graph.has_unfinished and await self._end_members(workflow):
                pass
            if workflow.graph.is_over:
                await self._end(workflow)
        if workflow.record.state == WorkflowState.REMOVING and wid in self._view.workflows:
            await self._removal.sweep(wid)

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
