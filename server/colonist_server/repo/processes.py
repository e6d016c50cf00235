"""Processes: submit, close, cancel. `listing` reads, `handover` assigns, `removal` removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from colonist_core.lease import Flag
from colonist_core.process import (
    Cause,
    Closed,
    Live,
    What,
    ended,
    expired,
    returned,
    step,
)
from colonist_protocol.errors import (
    AccessError,
    ColonistError,
    ConflictError,
    ContendedError,
    NotFoundError,
    PlainRefusedError,
    UnavailableError,
)
from colonist_protocol.function_spec import FunctionSpec, normal_form
from colonist_protocol.process import State
from colonist_server.repo import chain, keys, once, render
from colonist_server.repo.births import Births, Submitted, submitted
from colonist_server.repo.clock import Clock, Entropy
from colonist_server.repo.handover import HandOver, Spawn
from colonist_server.repo.new_workflow import newborn
from colonist_server.repo.nouns import Colony, Executor, Row, User
from colonist_server.repo.outputs import Outputs
from colonist_server.repo.past import Past
from colonist_server.repo.records import (
    Birth,
    Ended,
    decode_closed,
    decode_live,
    encode,
)
from colonist_server.repo.view import View
from colonist_server.repo.waiting import Grant, Waiter
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import Delete, DeleteRange, Guard, Item, Op, Put

CLOSING: Final = {
    What.SUCCEEDED: "Failed to close process as successful",
    What.FAILED: "Failed to close process as failed",
}


MemberEnded = Callable[[bytes], None]
"""Told of the workflow of which this node has ended a member: no awaits."""


class Processes:
    """What happens to processes at their callers' word."""

    __slots__ = (
        "_births",
        "_clock",
        "_entropy",
        "_hand_over",
        "_member_ended",
        "_outputs",
        "_spawn",
        "_view",
        "_writes",
    )

    def __init__(
        self,
        writes: Writes,
        births: Births,
        hand_over: HandOver,
        outputs: Outputs,
        *,
        clock: Clock,
        entropy: Entropy,
        spawn: Spawn,
        member_ended: MemberEnded,
    ) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._births = births
        self._hand_over = hand_over
        self._outputs = outputs
        self._clock = clock
        self._entropy = entropy
        self._spawn = spawn
        self._member_ended = member_ended

    # -- submit

    async def submit(
        self,
        colony: Colony,
        member: Executor | User,
        spec: FunctionSpec,
        *,
        payload: bytes,
        cause: Cause,
    ) -> tuple[str, Submitted, Live]:
        """Store a process; a waiter that fits gets it in the same commit.

        The spec is as it was sent: its normal form rounds memory down, and amounts are matched to
        the byte. Returns the process as it was submitted: waiting. Raises `InvalidValueError`.
        """
        now_ns = self._clock.now_ns()
        pid = once.derived_id() or keys.process_id(
            colony.tag, now_ns, self._entropy(keys.RANDOM_BYTES)
        )
        shown = submitted(pid, normal_form(spec), cause.who, member.name)
        live = newborn(pid, spec, member.name, now_ns, cause, size=len(payload))
        birth = Birth(
            payload,
            cause.signature,
            cause.who,
            member.name,
            live.priority_ns,
            now_ns,
            cause.seal,
        )
        self._births.remember(pid, shown)
        ops: list[Op] = [Put(keys.birth(pid), encode(birth))]
        ops.extend(Put(keys.attribute_index(id), pid) for id, _ in shown.env)
        try:
            await self._store(colony, pid, live, ops)
        except BaseException:
            self._births.forget(pid)
            raise
        return pid.hex(), shown, live

    async def _store(self, colony: Colony, pid: bytes, live: Live, ops: Sequence[Op]) -> None:
        for _ in range(ATTEMPTS):
            if colony.is_gone:
                raise AccessError(
                    f"Access denied, not a member of Colony with name <{colony.record.name}>"
                )
            waiter = self._hand_over.claim_waiter(colony, live)
            if await self._store_once(colony, pid, live, ops, waiter):
                return
            await self._writes.refresh(
                [colony.key] if waiter is None else [colony.key, waiter.ask.executor.key]
            )
        raise ContendedError("the colony changed too often while a process was submitted")

    async def _store_once(
        self, colony: Colony, pid: bytes, live: Live, ops: Sequence[Op], waiter: Waiter | None
    ) -> bool:
        plan = Plan([Guard(keys.birth(pid), 0), Guard(colony.key, colony.revision)], ops)
        stored = live
        if waiter is not None:
            stored = self._hand_over.assigned_to(live, pid, waiter.ask.cause)
            plan = self._hand_over.granting(waiter, pid, stored, plan)
        ops = (*plan.ops, Put(keys.live(pid), encode(stored)))
        try:
            plan = Plan(*once.bind(plan.guards, ops))
            revision = await self._writes.commit(plan.guards, plan.ops)
        except asyncio.CancelledError:
            if waiter is not None:
                self._spawn(partial(self._settle, plan, Grant(pid, stored), waiter))
            raise
        except ColonistError as error:
            if waiter is not None and isinstance(error, UnavailableError):
                self._give_up(Grant(pid, stored), waiter)
            elif waiter is not None:
                self._hand_over.release_waiter(waiter)
            raise
        if waiter is not None:
            self._answer(waiter, Grant(pid, stored), is_made=revision is not None)
        return revision is not None

    def _answer(self, waiter: Waiter, grant: Grant, *, is_made: bool) -> None:
        if is_made:
            self._hand_over.grant_to(waiter, grant)
        else:
            self._hand_over.release_waiter(waiter)

    async def _settle(self, plan: Plan, grant: Grant, waiter: Waiter) -> None:
        """The submitter left in the middle of a commit that may hold an assignment."""
        key = keys.live(grant.pid)
        try:
            revision = await self._writes.commit(plan.guards, plan.ops)
            item = (await self._writes.refresh([key]))[0] if revision is None else None
        except ColonistError:
            self._give_up(grant, waiter)
            raise
        if revision is None and (item is None or decode_live(item.value).head != grant.live.head):
            self._hand_over.release_waiter(waiter)
        else:
            self._hand_over.grant_to(waiter, grant)

    def _give_up(self, grant: Grant, waiter: Waiter) -> None:
        """Nobody knows whether it was submitted and given away."""
        self._hand_over.note_unsure(grant.pid, grant.live)
        self._hand_over.release_waiter(waiter)

    # -- the end of a process

    async def close(
        self, row: Row, what: What, *, cause: Cause, payload: bytes, out: bytes = b""
    ) -> None:
        """End a process by its assignee's word; result or reasons are read from the `payload`.

        `out` is the output in it: children of a workflow's member are about to ask for it.
        Raises `ConflictError`, `AccessError`.
        """

        def decide() -> Plan:
            if row.workflow is not None and row.workflow.graph.is_cancelled:
                step(State.CANCELLED, what)
            self.check_current(row)
            live = row.live()
            check_assignee(live, cause, CLOSING[what], row.colony)
            closed = ended(
                live,
                row.id,
                what,
                now_ns=self._clock.now_ns(),
                cause=cause,
                payload=payload,
            )
            return self._end(row, closed)

        await self._apply(row, decide)
        self.counted(row, out)

    def counted(self, row: Row, out: bytes) -> None:
        """A result has ended a process; children of a workflow's member are about to ask for it."""
        self._births.forget(row.pid)
        if row.workflow is not None and out and not (row.has_output and render.is_empty(out)):
            self._outputs.remember(row.pid, out)

    async def _apply(self, row: Row, decide: Callable[[], Plan]) -> None:
        """Commit what may end a process."""
        await self._writes.apply(decide)
        self.look_after(row)

    def look_after(self, row: Row) -> None:
        """Something may have ended at this node: what its workflow leaves to be done is done."""
        if row.workflow is not None:
            self._member_ended(row.workflow.wid)

    async def cancel(self, row: Row, cause: Cause) -> bytes:
        """End a process by a member's word; the head after it. Raises `ConflictError`."""
        head = b""

        def decide() -> Plan:
            nonlocal head
            self.check_current(row)
            closed = ended(
                row.live(), row.id, What.CANCELLED, now_ns=self._clock.now_ns(), cause=cause
            )
            head = closed.live.head
            return self._end(row, closed)

        await self._apply(row, decide)
        return head

    async def expire(self, row: Row, deadline_ns: int) -> None:
        """Do what the end of this deadline asks for. Raises `ConflictError` when it was moved."""

        def decide() -> Plan:
            self.check_current(row)
            now_ns = self._clock.now_ns()
            if row.deadline_ns != deadline_ns:
                raise ConflictError("the deadline was moved")
            after = expired(row.live(), row.id, now_ns=now_ns)
            return self._end(row, after) if isinstance(after, Closed) else _rewrite(row, after)

        await self._apply(row, decide)

    async def orphan(self, row: Row, executor_id: str) -> None:
        """Put a process back into the queue because its executor was removed."""

        def decide() -> Plan:
            self.check_current(row)
            live = row.live()
            if live.executor != executor_id:
                raise ConflictError("assigned to another executor meanwhile")
            if live.flags & Flag.NEVER_OVERLAPS:
                raise ConflictError("its lease runs on: the executor may be at work")
            return _rewrite(row, returned(live, row.id, What.ORPHANED, now_ns=self._clock.now_ns()))

        await self._writes.apply(decide)

    async def release(self, row: Row, cause: Cause) -> bytes:
        """Put a process back into the queue by its assignee's word: no retry, no failure.

        The head after it. Raises `ConflictError`, `AccessError`.
        """
        head = b""

        def decide() -> Plan:
            nonlocal head
            self.check_current(row)
            live = row.live()
            check_assignee(live, cause, "Failed to release process", row.colony)
            now_ns = self._clock.now_ns()
            after = returned(live, row.id, What.RELEASED, now_ns=now_ns, cause=cause)
            head = after.head
            return _rewrite(row, after)

        await self._writes.apply(decide)
        return head

    def check_current(self, row: Row) -> None:
        """Raise `ConflictError` when the process has ended since the row was looked up."""
        if self._view.rows.get(row.pid) is not row:
            raise ConflictError("the process has ended meanwhile")
        if row.workflow is not None and row.workflow.graph.is_cancelled:
            raise ConflictError("the process was cancelled with its workflow")

    def _end(self, row: Row, closed: Closed) -> Plan:
        return Plan(guards_of_end(row), closing_ops(row, closed))

    async def refuse_close(self, pid: bytes, what: What, cause: Cause) -> None:
        """Answer a close of a process that has ended: the same request again is no error.

        Raises `NotFoundError`, `AccessError`, `ConflictError`.
        """
        _, closed = await find_closed(self._writes.past, pid)
        last = closed.live.events[-1]
        if last.digest == cause.digest and last.who.hex() == cause.who:
            return
        colony = self._view.tags.get(pid[: keys.TAG_BYTES])
        if colony is None:
            raise NotFoundError("Failed to get process, process not found")
        check_assignee(closed.live, cause, CLOSING[what], colony)
        step(State(closed.live.state), what)

    async def refuse_ended(self, pid: bytes, refusal: str, what: What | None) -> None:
        """Say why nothing more can be done to a process that has ended.

        Raises `NotFoundError`, `ConflictError`.
        """
        _, closed = await find_closed(self._writes.past, pid)
        if what is not None:
            step(State(closed.live.state), what)
        raise ConflictError(f"{refusal}, process is not running")

    # -- while it runs

    async def set_output(self, row: Row, out: bytes, cause: Cause) -> None:
        """Replace the output of a running process. Raises `ConflictError`, `AccessError`."""
        key = keys.output(row.pid)
        for _ in range(ATTEMPTS):
            before = await self._writes.read(key)
            live = check_running(row, self._view, cause, "Failed to set output")
            row.has_output = True
            guards = [
                Guard(keys.live(row.pid), row.revision),
                Guard(key, before.modified if before else 0),
            ]
            more = chain.noted(row, live) if self._writes.store.is_shared else []
            if await self._writes.commit(guards, [Put(key, out), *more]):
                return
            await self._writes.refresh([guards[0].key])
        raise ContendedError("the output changed too often")


async def find_closed(past: Past, pid: bytes) -> tuple[Item, Closed]:
    """A process that has ended. Raises `NotFoundError`."""
    item = await past.read(keys.closed(pid))
    if item is None:
        raise NotFoundError("Failed to get process, process not found")
    return item, decode_closed(item.value)


def is_assignee(live: Live, caller: str, colony: Colony) -> bool:
    """Whether it was assigned to the caller, under its id of now or a former one (W15)."""
    member = colony.members.get(caller)
    return isinstance(member, Executor) and colony.holder(live.executor) is member


def check_assignee(live: Live, cause: Cause, refusal: str, colony: Colony) -> None:
    """Raise `AccessError`, its text begun by `refusal`, unless it is assigned to the caller.

    What was granted to a sealed request takes sealed requests only: raises `PlainRefusedError`.
    """
    if not live.executor:
        raise AccessError(f"{refusal}, process is not assigned")
    if not is_assignee(live, cause.who, colony):
        raise AccessError(f"{refusal}, not allowed: the process is another executor's")
    if live.is_sealed and not cause.seal:
        raise PlainRefusedError(f"{refusal}, the attempt was granted to a sealed request: seal it")


def check_running(row: Row, view: View, cause: Cause, refusal: str) -> Live:
    """The live record, if the process runs and is the caller's. Ends a doubt.

    Raises `ConflictError`, `AccessError`, `PlainRefusedError`.
    """
    if view.rows.get(row.pid) is not row or row.state != State.RUNNING:
        raise ConflictError(f"{refusal}, process is not running")
    live = row.live()
    check_assignee(live, cause, refusal, row.colony)
    row.doubtful = False
    return live


def closing_ops(row: Row, closed: Closed) -> Sequence[Op]:
    """Move a process from those that live to those that have ended."""
    live = closed.live
    kin = row.workflow.graph if row.workflow is not None else None
    closed = msgspec.structs.replace(
        closed,
        has_attributes=row.has_attributes,
        has_output=row.has_output,
        parents=kin.parents(row.number) if kin is not None else (),
        children=tuple(kin.children(row.number)) if kin is not None else (),
    )
    listed = Ended(
        type=live.placement.type,
        label=live.label,
        initiator=live.initiator,
        executor=live.executor,
        funcname=live.funcname,
        submitted_ns=live.submitted_ns,
        started_ns=live.started_ns,
        ended_ns=live.changed_ns,
    )
    index = keys.ended(row.colony.tag, live.state, live.changed_ns, row.pid)
    return (
        Delete(keys.live(row.pid)),
        Put(keys.closed(row.pid), encode(closed)),
        Put(index, encode(listed)),
        *((DeleteRange(keys.marks_of(row.pid)),) if live.flags & Flag.MARKED else ()),
    )


def guards_of_end(row: Row) -> list[Guard]:
    """A member's workflow too: edits and cancels of it bind at once."""
    guards = [Guard(keys.live(row.pid), row.revision)]
    if row.workflow is not None:
        guards.append(Guard(row.workflow.key, row.workflow.revision))
    return guards


def _rewrite(row: Row, after: Live) -> Plan:
    return Plan([Guard(keys.live(row.pid), row.revision)], chain.rewrite(row.pid, after))
