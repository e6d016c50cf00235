"""Removing workflows with all their members, and sweeping away what was staged and never opened.

The head says REMOVING first: from then on nobody sees anything of it, and nothing of it is
assigned. Members go in batches, the head goes last, so a stop in between is finished by the next
start. An assignment that was on its way just then guards the head as it was, and writes another
key: so before the first member goes, none may be found running; else the head says OPEN again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from colonist_core.process import SERVER, Cause, Closed, Live
from colonist_protocol.errors import ConflictError, NotFoundError
from colonist_protocol.process import FINAL, State
from colonist_server.repo import chain, keys, ledger, removed, tombstones
from colonist_server.repo.births import Births, env_ids
from colonist_server.repo.nouns import Colony, Workflow
from colonist_server.repo.past import ARCHIVED, Past
from colonist_server.repo.records import (
    ENDED_WORKFLOW,
    WorkflowRecord,
    WorkflowState,
    decode_closed,
    decode_live,
    decode_workflow,
    encode,
)
from colonist_server.repo.removal import Removal
from colonist_server.repo.view import View
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import MAX_OPS, Delete, DeleteRange, Guard, Item, Op, Put

RUNS: Final = "Failed to remove processgraph, cannot remove a running processgraph"

_PAGE: Final = 25
_LISTED: Final = 100


class WorkflowRemoval:
    """Takes workflows out of the store; never one that runs."""

    __slots__ = ("_births", "_removal", "_view", "_writes")

    def __init__(self, writes: Writes, births: Births, removal: Removal) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._births = births
        self._removal = removal

    async def remove(self, wid: bytes, cause: Cause = SERVER) -> None:
        """Remove a workflow that is not running. Raises `NotFoundError`, `ConflictError`."""
        workflow = self._view.workflows.get(wid)
        if workflow is not None and workflow.is_shown:
            await self._writes.apply(lambda: self._hiding(workflow, cause))
        else:
            await self._hide_ended(wid, cause)
        await self.sweep(wid)

    def _hiding(self, workflow: Workflow, cause: Cause) -> Plan:
        if self._view.workflows.get(workflow.wid) is not workflow or not workflow.is_shown:
            raise ConflictError("the workflow changed meanwhile")
        if workflow.state != State.WAITING:
            raise ConflictError(RUNS)
        record = _removing(workflow.record, cause)
        left = self._left(workflow.wid, workflow.record)
        return Plan([Guard(workflow.key, workflow.revision)], [Put(workflow.key, record), *left])

    def _left(self, wid: bytes, record: WorkflowRecord) -> list[Op]:
        """What keeps a repeated request from making it anew."""
        return tombstones.of_removed_workflow(wid, record, self._writes.n)

    async def _hide_ended(self, wid: bytes, cause: Cause) -> None:
        colony = self._view.tags.get(wid[: keys.TAG_BYTES])
        for _ in range(ATTEMPTS):
            if colony is not None:
                await ledger.wait_until_still(colony, [wid])
            account = ledger.guards(self._writes, colony) if colony is not None else []
            item, record = await find_ended(self._writes.past, wid)
            self._check_not_needed(wid)
            if item.modified == ARCHIVED and colony is not None:
                await self._removal.past.remove_workflow(colony, wid, cause)
                return
            index = keys.ended_workflow(
                wid[: keys.TAG_BYTES], record.state, record.submitted_ns, wid
            )
            done = await self._writes.commit(
                [Guard(item.key, item.modified), *account],
                [
                    Put(item.key, _removing(record, cause)),
                    Delete(index),
                    *self._left(wid, record),
                ],
            )
            # Without an archive a lost race is somebody else's removal: it is gone either way.
            if done or not account or colony is None:
                return
            await ledger.refresh(self._writes, colony)

    def _check_not_needed(self, wid: bytes) -> None:
        """The input of a cron's run is read from the run before, as long as it goes on."""
        colony = self._view.tags.get(wid[: keys.TAG_BYTES])
        for other in colony.workflows.values() if colony is not None else ():
            if other.record.previous == wid and other.is_shown:
                raise ConflictError(
                    f"its results are the input of workflow {other.id}, which has not ended"
                )

    async def remove_all(self, colony: Colony, states: Sequence[State], cause: Cause) -> None:
        """Remove all workflows in some states; never a running one."""
        if State.WAITING in states:
            for workflow in list(colony.workflows.values()):
                if workflow.is_shown and workflow.state == State.WAITING:
                    await self._try_remove(workflow.wid, cause)
        for state in states:
            prefix = keys.ended_in(colony.tag, state, keys.KIND_WORKFLOW)
            after = b""
            while True:
                page = await self._writes.past.range(
                    prefix, after=after, limit=_LISTED, keys_only=True
                )
                for item in page.items:
                    await self._try_remove(item.key[-keys.WID_BYTES :], cause)
                if not page.more:
                    break
                after = page.items[-1].key

    async def retire(self, colony: Colony, until_ns: int) -> None:
        """Remove the workflows that ended until then, oldest submission first."""
        for state in sorted(FINAL):
            after = b""
            while True:
                page = await self._writes.past.range(
                    keys.ended_in(colony.tag, state, keys.KIND_WORKFLOW),
                    after=after,
                    limit=_LISTED,
                    reverse=True,
                    keys_only=True,
                )
                heads = await self._writes.past.read_many(
                    [keys.workflow(item.key[-keys.WID_BYTES :]) for item in page.items]
                )
                for head in heads:
                    if head is not None and decode_workflow(head.value).ended_ns <= until_ns:
                        await self._try_remove(head.key[len(keys.WORKFLOW) :], SERVER)
                # Nothing that was submitted later has ended by then.
                is_past = page.items and keys.time_of_ended(page.items[-1].key) > until_ns
                if not page.more or is_past:
                    break
                after = page.items[-1].key

    async def _try_remove(self, wid: bytes, cause: Cause) -> None:
        try:
            await self.remove(wid, cause)
        except (ConflictError, NotFoundError):
            return  # it was started, or removed, meanwhile

    async def refuse_ended(self, wid: bytes) -> None:
        """Say why nothing more can be done to a workflow that has ended.

        Raises `NotFoundError`, `ConflictError`.
        """
        _, record = await find_ended(self._writes.past, wid)
        state = State(record.state).name.lower().replace("success", "successful")
        raise ConflictError(f"the processgraph is {state}: it has ended")

    async def sweep(self, wid: bytes) -> None:
        """Delete the members of a workflow that is being removed, then all else of it.

        Raises `ConflictError` when one of them was assigned just before.

        Once the head is gone the same workflow may be made anew, by a repeated request: so nothing
        is deleted but while the head says that it is being removed.
        """
        await self._check_still(wid)
        head = await self._removing(wid)
        while head is not None:
            page = await self._writes.range(keys.BIRTH + wid, limit=_PAGE)
            if not page.items:
                break
            await self._sweep_members(page.items, head)
            head = await self._removing(wid)
        if head is None:
            return
        ranges = (keys.shape_of(wid), keys.edits_of(wid), keys.request_of(wid))
        await self._writes.commit(
            [Guard(head.key, head.modified)],
            [Delete(head.key), *(DeleteRange(prefix) for prefix in ranges)],
        )

    async def _removing(self, wid: bytes) -> Item | None:
        """The head of a workflow that is being removed."""
        head = await self._writes.read(keys.workflow(wid))
        if head is None or decode_workflow(head.value).state != WorkflowState.REMOVING:
            return None
        return head

    async def _check_still(self, wid: bytes) -> None:
        lives = (await self._writes.range(keys.LIVE + wid)).items
        if all(decode_live(item.value).state != State.RUNNING for item in lives):
            return
        head = await self._writes.read(keys.workflow(wid))
        if head is not None and decode_workflow(head.value).state == WorkflowState.REMOVING:
            record = _as(decode_workflow(head.value), WorkflowState.OPEN)
            await self._writes.commit([Guard(head.key, head.modified)], [Put(head.key, record)])
        raise ConflictError(RUNS)

    async def _sweep_members(self, births: Sequence[Item], head: Item) -> None:
        """Delete some members while the head is as it is; of what nobody saw no trace is left."""
        record = decode_workflow(head.value)
        cause = _remover(record)
        pids = [item.key[len(keys.BIRTH) :] for item in births]
        lives = await self._writes.read_many([keys.live(pid) for pid in pids])
        closed = await self._writes.read_many([keys.closed(pid) for pid in pids])
        guards = [Guard(head.key, head.modified)]
        ops: list[Op] = []
        for pid, birth, live, end in zip(pids, births, lives, closed, strict=True):
            more = self._member_ops(pid, birth, live, end)
            if cause is not None:
                more += self._trace(pid, live, end, cause)
            if ops and len(ops) + len(more) > MAX_OPS:
                await self._writes.commit(guards, ops)
                guards, ops = guards[:1], []
            guards.append(Guard(birth.key, birth.modified))
            ops += more
            if _may_have_attributes(live, end):
                await self._removal.remove_attributes(pid)
        await self._writes.commit(guards, ops)
        for pid in pids:
            self._births.forget(pid)

    def _member_ops(self, pid: bytes, birth: Item, live: Item | None, end: Item | None) -> list[Op]:
        ops: list[Op] = [Delete(birth.key), Delete(keys.output(pid))]
        ops += [Delete(keys.attribute_index(id)) for id in env_ids(birth)]
        if live is not None:
            ops += [Delete(live.key), *chain.forget(pid, decode_live(live.value))]
        if end is not None:
            last = decode_closed(end.value).live
            index = keys.ended(pid[: keys.TAG_BYTES], last.state, last.changed_ns, pid)
            ops += [Delete(end.key), Delete(index), *chain.forget(pid, last)]
        return ops

    def _trace(self, pid: bytes, live: Item | None, end: Item | None, cause: Cause) -> Sequence[Op]:
        last: Live | Closed | None = None
        if end is not None:
            last = decode_closed(end.value)
        elif live is not None:
            last = decode_live(live.value)
        now_ns = self._removal.clock.now_ns()
        return [removed.trace(pid, last, cause, now_ns)] if last is not None else []


async def find_ended(past: Past, wid: bytes) -> tuple[Item, WorkflowRecord]:
    """A workflow that has ended. Raises `NotFoundError`."""
    item = await past.read(keys.workflow(wid))
    record = decode_workflow(item.value) if item is not None else None
    if item is None or record is None or record.state not in ENDED_WORKFLOW:
        raise NotFoundError("no such workflow")
    return item, record


def _as(record: WorkflowRecord, state: WorkflowState) -> bytes:
    return encode(msgspec.structs.replace(record, state=state))


def _removing(record: WorkflowRecord, cause: Cause) -> bytes:
    return encode(
        msgspec.structs.replace(
            record,
            state=WorkflowState.REMOVING,
            removed_by=bytes.fromhex(cause.who),
            remove_digest=cause.digest,
            remove_signature=cause.signature,
        )
    )


def _remover(record: WorkflowRecord) -> Cause | None:
    """Who removes a workflow; None for one that was never opened: nobody ever saw its members."""
    if record.stager:
        return None
    return Cause(record.removed_by.hex(), record.remove_digest, record.remove_signature)


def _may_have_attributes(live: Item | None, end: Item | None) -> bool:
    if end is not None:
        return decode_closed(end.value).has_attributes
    return live is not None and decode_live(live.value).attempt > 0
