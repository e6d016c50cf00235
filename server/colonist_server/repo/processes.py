"""Processes: submit, close, cancel, remove. `listing` reads them, `handover` assigns them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from colonist_core import queue
from colonist_core.matching import placement
from colonist_core.process import (
    Cause,
    Closed,
    Limits,
    Live,
    What,
    born,
    ended,
    expired,
    returned,
    step,
)
from colonist_protocol import units
from colonist_protocol.errors import (
    AccessError,
    ColonistError,
    ConflictError,
    ContendedError,
    NotFoundError,
)
from colonist_protocol.function_spec import FunctionSpec, normal_form
from colonist_protocol.process import FINAL, State
from colonist_server.repo import chain, keys
from colonist_server.repo.births import Births, Submitted, submitted
from colonist_server.repo.clock import Clock, Entropy
from colonist_server.repo.handover import Grant, HandOver, Spawn, Waiter
from colonist_server.repo.records import (
    Birth,
    Ended,
    decode_closed,
    decode_live,
    encode,
)
from colonist_server.repo.view import Colony, Executor, Row, User, View
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import Delete, Guard, Item, Op, Put

REMOVED_AT_ONCE: Final = 100
ATTRIBUTES_PER_COMMIT: Final = 60

CLOSING: Final = {
    What.SUCCEEDED: "Failed to close process as successful",
    What.FAILED: "Failed to close process as failed",
}


class Processes:
    """What happens to processes at their callers' word."""

    __slots__ = ("_births", "_clock", "_entropy", "_hand_over", "_spawn", "_view", "_writes")

    def __init__(
        self,
        writes: Writes,
        births: Births,
        hand_over: HandOver,
        *,
        clock: Clock,
        entropy: Entropy,
        spawn: Spawn,
    ) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._births = births
        self._hand_over = hand_over
        self._clock = clock
        self._entropy = entropy
        self._spawn = spawn

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
        pid = keys.process_id(colony.tag, now_ns, self._entropy(keys.RANDOM_BYTES))
        shown = submitted(pid, normal_form(spec), cause.who, member.name)
        live = _newborn(pid, spec, member, now_ns, cause)
        birth = Birth(payload, cause.signature, cause.who, member.name, live.priority_ns, now_ns)
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
                [colony.key] if waiter is None else [colony.key, waiter.executor.key]
            )
        raise ContendedError("the colony changed too often while a process was submitted")

    async def _store_once(
        self, colony: Colony, pid: bytes, live: Live, ops: Sequence[Op], waiter: Waiter | None
    ) -> bool:
        guards = [Guard(keys.birth(pid), 0), Guard(colony.key, colony.revision)]
        stored = live
        if waiter is not None:
            stored = self._hand_over.assigned_to(live, pid, waiter.cause)
            guards.append(Guard(waiter.executor.key, waiter.executor.revision))
        plan = Plan(guards, (*ops, Put(keys.live(pid), encode(stored))))
        try:
            revision = await self._writes.commit(plan.guards, plan.ops)
        except asyncio.CancelledError:
            if waiter is not None:
                self._spawn(partial(self._settle, plan, Grant(pid, stored), waiter))
            raise
        except ColonistError:
            if waiter is not None:
                self._hand_over.release_waiter(waiter)
            raise
        if waiter is not None:
            if revision is not None:
                self._hand_over.grant_to(waiter, Grant(pid, stored))
            else:
                self._hand_over.release_waiter(waiter)
        return revision is not None

    async def _settle(self, plan: Plan, grant: Grant, waiter: Waiter) -> None:
        """The submitter left in the middle of a commit that may hold an assignment."""
        key = keys.live(grant.pid)
        if not await self._writes.commit(plan.guards, plan.ops):
            item = (await self._writes.refresh([key]))[0]
            if item is None or decode_live(item.value).head != grant.live.head:
                self._hand_over.release_waiter(waiter)
                return
        self._hand_over.grant_to(waiter, grant)

    # -- the end of a process

    async def close(self, row: Row, what: What, *, cause: Cause, payload: bytes) -> None:
        """End a process by its assignee's word; result or reasons are read from the `payload`.

        Raises `ConflictError`, `AccessError`.
        """

        def decide() -> Plan:
            self.check_current(row)
            live = row.live()
            check_assignee(live, cause.who, CLOSING[what])
            closed = ended(
                live,
                row.id,
                what,
                now_ns=self._clock.now_ns(),
                cause=cause,
                payload=payload,
            )
            return self._end(row, closed)

        await self._writes.apply(decide)
        self._births.forget(row.pid)

    async def cancel(self, row: Row, cause: Cause) -> None:
        """End a process by a member's word. Raises `ConflictError`."""

        def decide() -> Plan:
            self.check_current(row)
            closed = ended(
                row.live(), row.id, What.CANCELLED, now_ns=self._clock.now_ns(), cause=cause
            )
            return self._end(row, closed)

        await self._writes.apply(decide)

    async def expire(self, row: Row, deadline_ns: int) -> None:
        """Do what the end of this deadline asks for. Raises `ConflictError` when it was moved."""

        def decide() -> Plan:
            self.check_current(row)
            now_ns = self._clock.now_ns()
            live = row.live()
            if live.deadline_ns != deadline_ns:
                raise ConflictError("the deadline was moved")
            after = expired(live, row.id, now_ns=now_ns)
            return self._end(row, after) if isinstance(after, Closed) else _rewrite(row, after)

        await self._writes.apply(decide)

    async def orphan(self, row: Row, executor_id: str) -> None:
        """Put a process back into the queue because its executor was removed."""

        def decide() -> Plan:
            self.check_current(row)
            live = row.live()
            if live.executor != executor_id:
                raise ConflictError("assigned to another executor meanwhile")
            return _rewrite(row, returned(live, row.id, What.ORPHANED, now_ns=self._clock.now_ns()))

        await self._writes.apply(decide)

    def check_current(self, row: Row) -> None:
        """Raise `ConflictError` when the process has ended since the row was looked up."""
        if self._view.rows.get(row.pid) is not row:
            raise ConflictError("the process has ended meanwhile")

    def _end(self, row: Row, closed: Closed) -> Plan:
        live = closed.live
        closed = msgspec.structs.replace(
            closed, has_attributes=row.has_attributes, has_output=row.has_output
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
        key = keys.live(row.pid)
        index = keys.ended(row.colony.tag, live.state, live.changed_ns, row.pid)
        return Plan(
            [Guard(key, row.revision)],
            [Delete(key), Put(keys.closed(row.pid), encode(closed)), Put(index, encode(listed))],
        )

    async def closed(self, pid: bytes) -> tuple[Item, Closed]:
        """A process that has ended. Raises `NotFoundError`."""
        item = await self._writes.read(keys.closed(pid))
        if item is None:
            raise NotFoundError("Failed to get process, process not found")
        return item, decode_closed(item.value)

    async def refuse_close(self, pid: bytes, what: What, cause: Cause) -> None:
        """Answer a close of a process that has ended: the same request again is no error.

        Raises `NotFoundError`, `AccessError`, `ConflictError`.
        """
        _, closed = await self.closed(pid)
        last = closed.live.events[-1]
        if last.digest == cause.digest and last.who.hex() == cause.who:
            return
        check_assignee(closed.live, cause.who, CLOSING[what])
        step(State(closed.live.state), what)

    async def refuse_ended(self, pid: bytes, refusal: str, what: What | None) -> None:
        """Say why nothing more can be done to a process that has ended.

        Raises `NotFoundError`, `ConflictError`.
        """
        _, closed = await self.closed(pid)
        if what is not None:
            step(State(closed.live.state), what)
        raise ConflictError(f"{refusal}, process is not running")

    # -- while it runs

    async def set_output(self, row: Row, out: bytes, cause: Cause) -> None:
        """Replace the output of a running process. Raises `ConflictError`, `AccessError`."""
        row.has_output = True
        key = keys.output(row.pid)
        for _ in range(ATTEMPTS):
            before = await self._writes.read(key)
            check_running(row, self._view, cause.who, "Failed to set output")
            guards = [
                Guard(keys.live(row.pid), row.revision),
                Guard(key, before.modified if before else 0),
            ]
            if await self._writes.commit(guards, [Put(key, out)]):
                return
            await self._writes.refresh([guards[0].key])
        raise ContendedError("the output changed too often")

    # -- removal

    async def remove(self, pid: bytes) -> None:
        """Remove a process that is not running. Raises `NotFoundError`, `ConflictError`."""
        row = self._view.rows.get(pid)
        if row is not None:
            await self._remove_waiting(row)
        else:
            item, closed = await self.closed(pid)
            await self._remove_closed(pid, item, closed)

    async def _try_remove_waiting(self, row: Row) -> None:
        with suppress(ConflictError):  # it was assigned, or ended, meanwhile
            await self._remove_waiting(row)

    async def _remove_waiting(self, row: Row) -> None:
        birth = await self._births.of(row.pid)

        def decide() -> Plan:
            if self._view.rows.get(row.pid) is not row:
                raise ConflictError("the process changed meanwhile")
            if row.state == State.RUNNING:
                raise ConflictError("Failed to remove process, cannot remove a running process")
            key = keys.live(row.pid)
            traces = _traces(row.pid, birth, row.live())
            return Plan([Guard(key, row.revision)], [Delete(key), *traces])

        await self._writes.apply(decide)
        self._births.forget(row.pid)
        if row.has_attributes:
            await self._remove_attributes(row.pid)

    async def _remove_closed(self, pid: bytes, item: Item, closed: Closed) -> None:
        birth = await self._births.of(pid)
        if closed.has_attributes:
            await self._remove_attributes(pid)
        live = closed.live
        index = keys.ended(pid[: keys.TAG_BYTES], live.state, live.changed_ns, pid)
        ops = [Delete(item.key), Delete(index), *_traces(pid, birth, live)]
        # A lost race is somebody else's removal: the process is gone either way.
        await self._writes.commit([Guard(item.key, item.modified)], ops)
        self._births.forget(pid)

    async def _remove_attributes(self, pid: bytes) -> None:
        """Each with its index entry; what a crash leaves goes with the colony."""
        while True:
            page = await self._writes.range(keys.attributes(pid), limit=ATTRIBUTES_PER_COMMIT)
            if not page.items:
                return
            ids = [item.key[-keys.ATTRIBUTE_BYTES :].hex() for item in page.items]
            await self._writes.commit(
                [Guard(item.key, item.modified) for item in page.items],
                [
                    *(Delete(item.key) for item in page.items),
                    *(Delete(keys.attribute_index(id)) for id in ids),
                ],
            )

    async def remove_all(self, colony: Colony, states: Sequence[State]) -> None:
        """Remove all processes in some states; never a running one."""
        if State.WAITING in states:
            waiting = list(colony.queue)
            for start in range(0, len(waiting), REMOVED_AT_ONCE):
                part = waiting[start : start + REMOVED_AT_ONCE]
                await _together([self._try_remove_waiting(row) for row in part])
        for state in states:
            if state in FINAL:
                await self._remove_all_closed(colony, state)

    async def _remove_all_closed(self, colony: Colony, state: State) -> None:
        prefix = keys.ended_in(colony.tag, state)
        while True:
            page = await self._writes.range(prefix, limit=REMOVED_AT_ONCE, keys_only=True)
            pids = [item.key[-keys.PID_BYTES :] for item in page.items]
            items = await self._writes.read_many([keys.closed(pid) for pid in pids])
            await _together(
                [
                    self._remove_closed(pid, item, decode_closed(item.value))
                    for pid, item in zip(pids, items, strict=True)
                    if item is not None
                ]
            )
            if not page.more:
                return


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do several things at once. Raises what the first of them raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def check_assignee(live: Live, caller: str, refusal: str) -> None:
    """Raise `AccessError`, its text begun by `refusal`, unless it is assigned to the caller."""
    if not live.executor:
        raise AccessError(f"{refusal}, process is not assigned")
    if live.executor != caller:
        raise AccessError(f"{refusal}, not allowed: the process is another executor's")


def check_running(row: Row, view: View, caller: str, refusal: str) -> Live:
    """The live record, if the process runs and is the caller's. Ends a doubt.

    Raises `ConflictError`, `AccessError`.
    """
    if view.rows.get(row.pid) is not row or row.state != State.RUNNING:
        raise ConflictError(f"{refusal}, process is not running")
    live = row.live()
    check_assignee(live, caller, refusal)
    row.doubtful = False
    return live


def _newborn(
    pid: bytes, spec: FunctionSpec, member: Executor | User, now_ns: int, cause: Cause
) -> Live:
    conditions = spec.conditions
    return born(
        pid.hex(),
        now_ns=now_ns,
        priority_ns=queue.priority_time(now_ns, spec.priority),
        placement=placement(
            type=conditions.executortype,
            names=conditions.executornames,
            location=conditions.locationname or "",
            cpu=units.parse_cpu(conditions.cpu),
            mem=units.parse_memory(conditions.mem),
        ),
        limits=Limits(spec.maxwaittime, spec.maxexectime, spec.maxretries),
        label=spec.label,
        initiator=member.name,
        funcname=spec.funcname,
        cause=cause,
    )


def _traces(pid: bytes, birth: Submitted | None, live: Live) -> list[Op]:
    """All else that a process left behind; its log lines stay (section 2.6)."""
    env = birth.env if birth is not None else ()
    ops: list[Op] = [Delete(keys.birth(pid)), Delete(keys.output(pid)), *chain.forget(pid, live)]
    ops.extend(Delete(keys.attribute_index(id)) for id, _ in env)
    return ops


def _rewrite(row: Row, after: Live) -> Plan:
    return Plan([Guard(keys.live(row.pid), row.revision)], chain.rewrite(row.pid, after))
