"""Runs of crons: each planned time starts its workflow once, whoever tries it and however often.

One commit guards the cron, moves it on to its next turn and makes the workflow, whose id follows
from the cron, the number of its turn and the planned time. What does not fit one commit goes in
steps, of which each may be repeated: the cron moves on with the run *pending*; the workflow is
staged; pending is cleared.

A run that is due stands for all that were missed before it. While its creator may not work a cron
is held: nothing is written, and its turn waits. A cron that cannot start is disabled,
with the reason, and never tried in a circle (COLONIES-RPC P7); a run by hand that succeeds sets it
to work again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from colonist_core.cron import NEVER, Turn, following, start
from colonist_core.process import SERVER, Cause
from colonist_protocol.errors import ConflictError, NotFoundError
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys, once
from colonist_server.repo.clock import Clock
from colonist_server.repo.colonies import check_there
from colonist_server.repo.cron_view import Cron
from colonist_server.repo.definitions import (
    MAX_REASON_CHARS,
    REFUSED,
    HeldError,
    creator_of,
    why_held,
)
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.nouns import Executor, User
from colonist_server.repo.records import CronRecord, PendingRun, encode
from colonist_server.repo.workflows import Workflows
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Guard, Put

log = logging.getLogger(__name__)

IN_TIME_NS: Final = SECOND_NS
"""A run that is later than that was missed: it starts when it starts."""

_OVER: Final = "its calendar has ended"


class MovedError(ConflictError):
    """The cron was run, disabled or removed meanwhile: nothing is left to be done."""


class Move(NamedTuple):
    """A commit that moves a cron on, and the workflow that is whole in it."""

    plan: Plan
    new: NewWorkflow | None = None


class CronRuns:
    """Starts runs."""

    __slots__ = ("_clock", "_workflows", "_writes")

    def __init__(self, writes: Writes, workflows: Workflows, clock: Clock) -> None:
        self._writes = writes
        self._workflows = workflows
        self._clock = clock

    def input_of(self, cron: Cron) -> bytes:
        """The workflow whose results are the next run's input: the one before, if it has ended.

        Else the run has none: what it was given must not change while it runs.
        """
        previous = cron.record.previous
        return b"" if previous in self._writes.view.workflows else previous

    def is_held_up(self, cron: Cron) -> bool:
        """Whether its next run waits for a workflow that has not ended (W12)."""
        record = cron.record
        return record.waits and record.previous in self._writes.view.workflows

    async def serve(self, cron: Cron, at_ns: int) -> None:
        """Finish the run that is pending, or else start the one that was planned for `at_ns`.

        Raises `UnavailableError`, `ContendedError`, `HeldError` while its creator may not work, and
        `ConflictError` while what an earlier try has staged is being swept away.
        """
        try:
            async with cron.lock:
                if cron.record.pending is not None:
                    await self._finish(cron)
                elif at_ns != NEVER and not self.is_held_up(cron):
                    await self._start(cron, at_ns)
        except MovedError:
            return
        except REFUSED as error:
            await self._disable(cron, str(error))

    async def run(self, cron: Cron, cause: Cause, payload: bytes) -> CronRecord:
        """Start a run now, by hand; the cron as it was before.

        Raises `NotFoundError`, `ConflictError` where the cron cannot start, `MalformedError`.
        """
        async with cron.lock:
            with once.aside():
                await self._finish(cron)
            return await self._start_by_hand(cron, cause, payload)

    # -- starting

    async def _start(self, cron: Cron, at_ns: int) -> None:
        """The planned run, unless it was started. Raises `MovedError`, `HeldError`."""

        def decide() -> Move:
            record = cron.record
            if not cron.is_at_work or record.turn.at_ns != at_ns or record.pending is not None:
                raise MovedError("the cron has moved on")
            creator = creator_of(cron.colony, record)
            if creator is None:
                raise HeldError(why_held(cron.colony, record))
            return self.planned(cron, creator, self._clock.now_ns())

        await self._carry_out(cron, decide)

    def planned(self, cron: Cron, creator: Executor | User, now_ns: int) -> Move:
        """The commit of the turn that is due; one that is in time starts at its very time.

        Raises `MalformedError`, `TooLargeError`.
        """
        at_ns = cron.record.turn.at_ns
        if 0 <= now_ns - at_ns < IN_TIME_NS:
            now_ns = at_ns
        turn = following(cron.schedule, cron.record.turn, now_ns, cron.cid)
        pending = self._pending(cron, creator, now_ns, at_ns)
        return self._move(cron, creator, pending, turn, at_ns)

    async def _start_by_hand(self, cron: Cron, cause: Cause, payload: bytes) -> CronRecord:
        before = cron.record

        def decide() -> Move:
            nonlocal before
            if cron.is_gone:
                raise NotFoundError("cron not found")
            check_there(cron.colony)
            before = record = cron.record
            if record.pending is not None:
                raise ConflictError("a run of the cron is being started")
            creator = creator_of(cron.colony, record)
            if creator is None:
                raise HeldError(why_held(cron.colony, record))
            now_ns = self._clock.now_ns()
            turn = start(cron.schedule, now_ns, cron.cid, record.turn.number + 1)
            pending = msgspec.structs.replace(
                self._pending(cron, creator, now_ns, now_ns),
                who=cause.who,
                digest=cause.digest,
                signature=cause.signature,
                payload=payload,
                seal=cause.seal,
            )
            return self._move(cron, creator, pending, turn, now_ns)

        await self._carry_out(cron, decide)
        return before

    async def _carry_out(self, cron: Cron, decide: Callable[[], Move]) -> None:
        new: NewWorkflow | None = None

        def plan() -> Plan:
            nonlocal new
            move = decide()
            new = move.new
            return move.plan

        await self._writes.apply(plan)
        if new is not None:
            self._workflows.committed(new)
        else:
            await self._finish(cron)

    def _move(
        self,
        cron: Cron,
        creator: Executor | User,
        pending: PendingRun,
        turn: Turn,
        planned_ns: int,
    ) -> Move:
        new = self._workflow(cron, pending)
        record = msgspec.structs.replace(
            cron.record,
            turn=turn,
            planned_ns=planned_ns,
            last_ns=pending.fired_ns,
            previous=pending.wid,
            disabled=_OVER if turn.at_ns == NEVER else "",
        )
        guards = [
            Guard(cron.key, cron.revision),
            Guard(cron.colony.key, cron.colony.revision),
            Guard(creator.key, creator.revision),
        ]
        put = Put(cron.key, encode(record))
        if new.fits(1, len(put.key) + len(put.value)):
            # The workflow needs no guard: its id is that of a turn, and a cron leaves each once.
            return Move(Plan(guards, [put, *new.ops]), new)
        after = msgspec.structs.replace(record, pending=pending)
        return Move(Plan(guards, [Put(cron.key, encode(after))]))

    def _pending(
        self, cron: Cron, creator: Executor | User, now_ns: int, planned_ns: int
    ) -> PendingRun:
        return PendingRun(
            wid=keys.run_id(cron.cid, cron.record.turn.number, planned_ns),
            fired_ns=now_ns,
            initiator_id=creator.record.id,
            initiator=creator.name,
            previous=self.input_of(cron),
        )

    def _workflow(self, cron: Cron, pending: PendingRun) -> NewWorkflow:
        """The workflow of a run: the same, whoever makes it and however often."""
        cause = SERVER
        if pending.who:
            cause = Cause(pending.who, pending.digest, pending.signature, pending.seal)
        return self._workflows.plan(
            cron.colony,
            cron.spec,
            wid=pending.wid,
            now_ns=pending.fired_ns,
            initiator_id=pending.initiator_id,
            initiator=pending.initiator,
            cause=cause,
            payload=pending.payload,
            source=cron.cid,
            previous=pending.previous,
        )

    # -- in steps

    async def _finish(self, cron: Cron) -> None:
        """Stage the workflow of the pending run, if there is one.

        The commit that opens it clears what was pending, so it is not made again, whoever removes
        it and whenever this node dies.
        """
        pending = cron.record.pending
        if pending is None or cron.is_gone or cron.colony.is_gone:
            return
        reason = ""
        try:
            new = self._workflow(cron, pending)
            await self._workflows.stage(new, also=lambda: _clearing(cron, pending))
        except REFUSED as error:
            reason = str(error)
        if cron.record.pending == pending:  # it was refused, or had been opened before
            await self._writes.apply(lambda: _clearing(cron, pending, reason))

    # -- when it cannot start

    async def _disable(self, cron: Cron, reason: str) -> None:
        def decide() -> Plan:
            if not cron.is_at_work:
                raise MovedError("the cron has moved on")
            return _disabling(cron, reason)

        try:
            await self._writes.apply(decide)
        except MovedError:
            return


def _clearing(cron: Cron, pending: PendingRun, reason: str = "") -> Plan:
    record = cron.record
    if cron.is_gone or record.pending != pending:
        raise MovedError("the cron has moved on")
    after = msgspec.structs.replace(
        record, pending=None, disabled=reason[:MAX_REASON_CHARS] or record.disabled
    )
    return Plan([Guard(cron.key, cron.revision)], [Put(cron.key, encode(after))])


def _disabling(cron: Cron, reason: str) -> Plan:
    log.warning("disabling cron=%s: %s", cron.id, reason)
    after = msgspec.structs.replace(cron.record, disabled=reason[:MAX_REASON_CHARS])
    return Plan([Guard(cron.key, cron.revision)], [Put(cron.key, encode(after))])
