"""Workflows: submit, cancel, add a child. `settling` ends and removes what these leave to be done.

A workflow appears whole or not at all (COLONIES-RPC W9), also when the server dies half way: what
was staged and not opened is swept at the next start. Every assign and close of a member guards the
head, so an edit or a cancel binds from its commit on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from colonist_core.process import SERVER, Cause
from colonist_protocol import codec
from colonist_protocol.errors import (
    AccessError,
    BusyError,
    ColonistError,
    ConflictError,
    ContendedError,
    InvalidValueError,
    NotFoundError,
    TooLargeError,
)
from colonist_protocol.function_spec import normal_form
from colonist_protocol.process import State
from colonist_protocol.workflow import MAX_MEMBERS, AddChild, WorkflowSpec
from colonist_server.repo import keys, once
from colonist_server.repo.births import Births
from colonist_server.repo.clock import Clock, Entropy
from colonist_server.repo.new_workflow import (
    NewWorkflow,
    Origin,
    in_workflow,
    member,
    new_workflow,
    new_workflow_gently,
)
from colonist_server.repo.nouns import Colony, Executor, Row, User, Workflow
from colonist_server.repo.processes import check_assignee
from colonist_server.repo.records import (
    EditRecord,
    WorkflowState,
    decode_workflow,
    encode,
)
from colonist_server.repo.settling import Settling
from colonist_server.repo.view import View
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import MAX_COMMIT_BYTES, Guard, Op, Put, Revision


def _nothing_else() -> Plan:
    return Plan((), ())


_SWEPT: Final = "the workflow was swept away, or taken over, while it was submitted"
RETRY_AFTER_S: Final = 1.0
_MAX_CHILD_BYTES: Final = MAX_COMMIT_BYTES - 65_536
"""The request that adds a child and the spec in it are stored by one commit."""


class _OtherTimeError(ConflictError):
    """What is staged was begun at another time: it has other bytes."""


class Workflows:
    """What happens to workflows at their callers' word."""

    __slots__ = ("_births", "_clock", "_entropy", "_settling", "_view", "_writes")

    def __init__(
        self,
        writes: Writes,
        births: Births,
        settling: Settling,
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._births = births
        self._settling = settling
        self._clock = clock
        self._entropy = entropy

    # -- making one

    async def submit(
        self,
        colony: Colony,
        submitter: Executor | User,
        spec: WorkflowSpec,
        *,
        payload: bytes,
        cause: Cause,
    ) -> NewWorkflow:
        """Store a workflow; all of its members appear in one commit. Raises `InvalidValueError`."""
        wid = once.derived_id()
        if not wid:
            now_ns = self._clock.now_ns()
            wid = keys.workflow_id(colony.tag, now_ns, self._entropy(keys.RANDOM_BYTES))
            origin = Origin(cause.who, submitter.name, now_ns, cause, payload)
            return await self._make(await new_workflow_gently(wid, colony, spec, origin))
        for _ in range(ATTEMPTS):
            # Whoever takes over what another try has staged has to write the same bytes.
            now_ns = await self._begun_ns(wid) or self._clock.now_ns()
            origin = Origin(cause.who, submitter.name, now_ns, cause, payload)
            new = await new_workflow_gently(wid, colony, spec, origin)
            try:
                return await self._make(new)
            except _OtherTimeError:
                continue
            except ConflictError as error:
                raise BusyError(f"{error}: try again", retry_after_s=RETRY_AFTER_S) from error
        raise ContendedError("others submit the same workflow")

    async def _make(self, new: NewWorkflow) -> NewWorkflow:
        if new.fits():
            await self._writes.apply(lambda: self._single(new))
            self.committed(new)
        else:
            await self.stage(new)
        return new

    async def _begun_ns(self, wid: bytes) -> int:
        """When the staging of a workflow was begun, whose making is taken over; 0: it was not."""
        head = await self._writes.read(keys.workflow(wid))
        record = decode_workflow(head.value) if head is not None else None
        is_staged = record is not None and record.state == WorkflowState.STAGING
        return record.submitted_ns if record is not None and is_staged else 0

    def check(self, colony: Colony, spec: WorkflowSpec) -> None:
        """Raise `InvalidValueError` for what `submit` would refuse."""
        new_workflow(bytes(keys.WID_BYTES), colony, spec, Origin("", "", 0))

    def plan(
        self,
        colony: Colony,
        spec: WorkflowSpec,
        *,
        wid: bytes,
        now_ns: int,
        initiator_id: str,
        initiator: str,
        cause: Cause = SERVER,
        payload: bytes = b"",
        source: bytes = b"",
        previous: bytes = b"",
        args: msgspec.Raw | None = None,
    ) -> NewWorkflow:
        """A workflow as a cron or a generator makes it: commit it when it fits, or `stage` it.

        `args` replace those of all roots. Raises `InvalidValueError`.
        """
        origin = Origin(initiator_id, initiator, now_ns, cause, payload, source, previous)
        return new_workflow(wid, colony, spec, origin, args)

    def committed(self, new: NewWorkflow) -> None:
        """A workflow has been made: keep in memory what will be asked for soon."""
        new.remember(self._births)

    def _single(self, new: NewWorkflow) -> Plan:
        _check_there(new.colony)
        return Plan(new.guards, new.ops)

    async def stage(self, new: NewWorkflow, also: Callable[[], Plan] = _nothing_else) -> None:
        """Make a workflow in several commits; nobody sees a part of it.

        Repeating it with the same content is safe as long as it is there: `also` is what the commit
        that opens it does besides, so that whoever might repeat it knows. Raises `ConflictError`
        when it is swept away meanwhile, `UnavailableError`, and what `also` raises.
        """
        if once.current() is not None:
            await self._writes.refresh([])  # made before and removed, it is not staged again
        self._settling.staging.add(new.wid)
        try:
            with once.aside():  # nobody sees that: the effect is the commit that opens it
                revision = await self._begin(new)
                if revision is not None:
                    for batch in new.batches():
                        await self._add_batch(new, revision, batch)
            if revision is None:
                await self._writes.refresh([])
                return  # it was opened before
            await self._writes.apply(lambda: self._opening(new, revision, also()))
        except ColonistError:
            self._settling.staging.discard(new.wid)
            self._settling.look_at(new.wid)
            raise
        finally:
            self._settling.staging.discard(new.wid)
        self.committed(new)

    async def _begin(self, new: NewWorkflow) -> Revision | None:
        """Write a head that nobody sees, or take it over; its revision, None when it is open.

        Whoever made it before then fails by its guard, and what is there of it serves.
        """
        instance = self._settling.instance
        record = msgspec.structs.replace(new.record, state=WorkflowState.STAGING, stager=instance)
        head = Put(new.key, encode(record))
        before: Revision = 0
        for _ in range(ATTEMPTS):
            _check_there(new.colony)
            guards = [Guard(new.key, before), Guard(new.colony.key, new.colony.revision)]
            revision = await self._writes.commit(guards, [head])
            if revision is not None:
                return revision
            item, _ = await self._writes.refresh([new.key, new.colony.key])
            before = item.modified if item is not None else 0
            found = decode_workflow(item.value) if item is not None else record
            if found.state == WorkflowState.REMOVING:
                raise ConflictError("an earlier try is being swept away")
            if found.state != WorkflowState.STAGING:
                return None
            if found.submitted_ns != record.submitted_ns:
                raise _OtherTimeError("it was begun at another time")
            if before and found.stager == instance:
                return before
        raise ContendedError("the colony changed too often while a workflow was submitted")

    async def _add_batch(self, new: NewWorkflow, revision: Revision, batch: list[Op]) -> None:
        first = batch[0]
        if type(first) is not Put:
            raise TypeError(first)
        guards = [Guard(new.key, revision), Guard(first.key, 0)]
        if await self._writes.commit(guards, batch) is not None:
            return
        head, there = await self._writes.read_many([new.key, first.key])
        if head is None or head.modified != revision or there is None:
            raise ConflictError(_SWEPT)

    def _opening(self, new: NewWorkflow, revision: Revision, also: Plan) -> Plan:
        _check_there(new.colony)
        workflow = self._view.workflows.get(new.wid)
        if workflow is None or workflow.revision != revision:
            raise ConflictError(_SWEPT)
        return Plan(
            [
                Guard(new.key, revision),
                Guard(new.colony.key, new.colony.revision),
                *also.guards,
            ],
            [Put(new.key, encode(new.record)), *also.ops],
        )

    # -- while it runs

    def find(self, wid: bytes) -> Workflow:
        """A workflow that has not ended. Raises `NotFoundError`."""
        workflow = self._view.workflows.get(wid)
        if workflow is None or not workflow.is_shown:
            raise NotFoundError("no such workflow")
        return workflow

    async def cancel(self, workflow: Workflow, cause: Cause) -> None:
        """Cancel what has not ended: from this commit on nothing of it is assigned or closed.

        Raises `ConflictError`.
        """

        def decide() -> Plan:
            check_open(self._view, workflow)
            record = msgspec.structs.replace(
                workflow.record,
                state=WorkflowState.CANCELLING,
                cancelled_by=bytes.fromhex(cause.who),
                cancel_digest=cause.digest,
                cancel_signature=cause.signature,
            )
            return Plan(
                [Guard(workflow.key, workflow.revision)], [Put(workflow.key, encode(record))]
            )

        await self._writes.apply(decide)
        with suppress(ColonistError):  # what it leaves undone is done by the loop
            await self._settling.settle(workflow)

    async def add_child(
        self, workflow: Workflow, message: AddChild, *, payload: bytes, cause: Cause
    ) -> bytes:
        """Add a member below one that the caller runs; its process id.

        Raises `ConflictError`, `AccessError`, `NotFoundError`, `InvalidValueError`,
        `TooLargeError`.
        """
        amounts = in_workflow(message.spec, workflow.colony.record.name)
        spec = normal_form(amounts)
        if len(payload) + len(codec.encode(spec)) > _MAX_CHILD_BYTES:
            raise TooLargeError(f"a child of more than {_MAX_CHILD_BYTES // 2} bytes")
        made = b""

        def decide() -> Plan:
            nonlocal made
            check_open(self._view, workflow)
            now_ns = self._clock.now_ns()
            parent = self._parent(workflow, message.parentprocessid, cause)
            child = None if message.insert else self._child(workflow, message.childprocessid)
            number = len(workflow.graph) + 1
            if number > 2 * MAX_MEMBERS:
                raise InvalidValueError(f"a workflow grows to {2 * MAX_MEMBERS} members at most")
            workflow.graph.check_may_grow()
            initiator = workflow.colony.members[cause.who].name
            origin = Origin(cause.who, initiator, now_ns, cause)
            made = keys.member(workflow.wid, number)
            once.say(made)
            shown, birth, live = member(made, spec, amounts, origin, has_parents=True)
            record = msgspec.structs.replace(
                workflow.record, size=workflow.record.size + 1, edits=workflow.record.edits + 1
            )
            edit = EditRecord(
                name=spec.nodename,
                parent=parent.number,
                child=child.number if child is not None else 0,
                insert=message.insert,
                who=bytes.fromhex(cause.who),
                time_ns=now_ns,
                payload=payload,
                signature=cause.signature,
                seal=cause.seal,
            )
            guards = [
                Guard(workflow.key, workflow.revision),
                Guard(keys.live(parent.pid), parent.revision),
            ]
            if child is not None:
                guards.append(Guard(keys.live(child.pid), child.revision))
            return Plan(
                guards,
                [
                    Put(workflow.key, encode(record)),
                    Put(keys.edit(workflow.wid, workflow.record.edits), encode(edit)),
                    Put(keys.birth(made), encode(birth)),
                    *(Put(keys.attribute_index(id), made) for id, _ in shown.env),
                    Put(keys.live(made), encode(live)),
                ],
            )

        await self._writes.apply(decide)
        return made

    def _parent(self, workflow: Workflow, id: str, cause: Cause) -> Row:
        row = self._member(workflow, id)
        if row is None or row.state != State.RUNNING:
            raise ConflictError(f"Process with Id {id[:64]} is not running")
        check_assignee(row.live(), cause, "Failed to add child", row.colony)
        return row

    def _child(self, workflow: Workflow, id: str) -> Row | None:
        if not id:
            return None
        row = self._member(workflow, id)
        if row is None:
            raise ConflictError("the child process has ended: it cannot wait")
        workflow.graph.check_may_wait(row.number)
        return row

    def _member(self, workflow: Workflow, id: str) -> Row | None:
        """A member that has not ended. Raises `NotFoundError` for what is no member."""
        pid = keys.parse_pid(id)
        if pid is None or pid[: keys.WID_BYTES] != workflow.wid:
            raise NotFoundError(f"Process with Id {id[:64]} does not belong to a processgraph")
        if not 0 < keys.number_of(pid) <= len(workflow.graph):
            raise NotFoundError(f"Process with Id {id[:64]} does not belong to a processgraph")
        return self._view.rows.get(pid)


def check_open(view: View, workflow: Workflow) -> None:
    """Raise `ConflictError` unless something of a workflow is still to be done."""
    is_held = view.workflows.get(workflow.wid) is workflow
    if not is_held or not workflow.is_shown:
        raise ConflictError("the workflow has ended meanwhile")
    if workflow.record.state == WorkflowState.CANCELLING:
        raise ConflictError("Tried to cancel already cancelled processgraph")
    if workflow.graph.is_over:
        raise ConflictError("the workflow has ended")


def _check_there(colony: Colony) -> None:
    if colony.is_gone:
        raise AccessError(f"Access denied, not a member of Colony with name <{colony.record.name}>")
