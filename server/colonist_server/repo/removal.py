"""Removing processes with all that stands by them but their log lines (COLONIES-RPC 2.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from colonist_core.process import Cause, Closed, Live
from colonist_protocol.errors import ConflictError, ContendedError
from colonist_protocol.process import FINAL, State
from colonist_server.repo import chain, keys, ledger, once, removed, tombstones
from colonist_server.repo.births import Births, Submitted
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony, Row
from colonist_server.repo.past import ARCHIVED
from colonist_server.repo.past_removal import PastRemoval
from colonist_server.repo.processes import find_closed
from colonist_server.repo.records import decode_birth, decode_closed
from colonist_server.repo.view import View
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import Delete, Guard, Item, Op

REMOVED_AT_ONCE: Final = 100
ATTRIBUTES_PER_COMMIT: Final = 60
PART_OF_WORKFLOW: Final = (
    "Failed to remove, cannot remove a process part of a workflow, "
    "delete the entire workflow instead"
)


class Removal:
    """Takes processes out of the store; never a running one."""

    __slots__ = ("_births", "_view", "_writes", "clock", "past")

    def __init__(self, writes: Writes, births: Births, clock: Clock) -> None:
        self._writes = writes
        self.clock = clock
        self._view: View = writes.view
        self._births = births
        self.past = PastRemoval(writes, births, clock)

    async def remove(self, pid: bytes, cause: Cause) -> None:
        """Remove a process that is not running. Raises `NotFoundError`, `ConflictError`."""
        if keys.number_of(pid):
            raise ConflictError(PART_OF_WORKFLOW)
        row = self._view.rows.get(pid)
        if row is not None:
            await self._remove_waiting(row, cause)
        else:
            item, closed = await find_closed(self._writes.past, pid)
            await self._remove_closed(pid, item, closed, cause)

    async def _try_remove_waiting(self, row: Row, cause: Cause) -> None:
        with suppress(ConflictError):  # it was assigned, or ended, meanwhile
            await self._remove_waiting(row, cause)

    async def _remove_waiting(self, row: Row, cause: Cause) -> None:
        birth = await self._births.of(row.pid)
        left = await self._left(row.pid)

        def decide() -> Plan:
            if self._view.rows.get(row.pid) is not row:
                raise ConflictError("the process changed meanwhile")
            if row.state == State.RUNNING:
                raise ConflictError("Failed to remove process, cannot remove a running process")
            key = keys.live(row.pid)
            ops = self._ops(row.pid, birth, row.live(), cause)
            return Plan([Guard(key, row.revision)], [Delete(key), *ops, *left])

        await self._writes.apply(decide)
        self._births.forget(row.pid)
        if row.has_attributes:
            await self.remove_attributes(row.pid)

    async def _remove_closed(self, pid: bytes, item: Item, closed: Closed, cause: Cause) -> None:
        colony = self._view.tags.get(pid[: keys.TAG_BYTES])
        if colony is None:
            return
        is_near = item.modified != ARCHIVED
        if is_near and await self._remove_stored(colony, pid, item, closed, cause):
            return
        await self.past.remove(colony, [pid], cause)

    async def _remove_stored(
        self, colony: Colony, pid: bytes, item: Item, closed: Closed, cause: Cause
    ) -> bool:
        """False when it was moved to the archive just before."""
        birth = await self._births.of(pid)
        left = await self._left(pid)
        if closed.has_attributes:
            with once.preparing():
                await self.remove_attributes(pid)
        live = closed.live
        index = keys.ended(colony.tag, live.state, live.changed_ns, pid)
        ops = [Delete(item.key), Delete(index), *self._ops(pid, birth, closed, cause), *left]
        self._births.forget(pid)
        for _ in range(ATTEMPTS):
            await ledger.wait_until_still(colony, [pid])
            account = ledger.guards(self._writes, colony)
            if await self._writes.commit([Guard(item.key, item.modified), *account], ops):
                return True
            if not account:
                return True  # a lost race is somebody else's removal
            await ledger.refresh(self._writes, colony)
            if await self._writes.read(item.key) is None:
                return False
        raise ContendedError("the account of the archive changed too often")

    def _ops(
        self, pid: bytes, birth: Submitted | None, last: Live | Closed, cause: Cause
    ) -> list[Op]:
        """What goes besides the record, and what is left."""
        traces = _traces(pid, birth, last.live if isinstance(last, Closed) else last)
        return [*traces, removed.trace(pid, last, cause, self.clock.now_ns())]

    async def _left(self, pid: bytes) -> list[Op]:
        """What keeps a repeated request from making it anew."""
        item = await self._writes.read(keys.birth(pid))
        birth = decode_birth(item.value) if item is not None else None
        return tombstones.of_removed_process(pid, birth, self._writes.n)

    def forget(self, pid: bytes) -> None:
        """Let go of what is held in memory of a process that somebody else removed."""
        self._births.forget(pid)

    async def remove_attributes(self, pid: bytes) -> None:
        """Remove what was attached while a process ran, each with its index entry.

        What a crash leaves goes with the colony.
        """
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

    async def remove_all(self, colony: Colony, states: Sequence[State], cause: Cause) -> None:
        """Remove all processes in some states; never a running one, nor a workflow's member."""
        if State.WAITING in states:
            waiting = [row for row in colony.queue if row.workflow is None]
            for start in range(0, len(waiting), REMOVED_AT_ONCE):
                part = waiting[start : start + REMOVED_AT_ONCE]
                await _together([self._try_remove_waiting(row, cause) for row in part])
        for state in states:
            if state in FINAL:
                await self._remove_all_closed(colony, state, cause)

    async def _remove_all_closed(self, colony: Colony, state: State, cause: Cause) -> None:
        prefix = keys.ended_in(colony.tag, state)
        after = b""
        while True:
            page = await self._writes.past.range(
                prefix, after=after, limit=REMOVED_AT_ONCE, keys_only=True
            )
            all = [item.key[-keys.PID_BYTES :] for item in page.items]
            pids = [pid for pid in all if not keys.number_of(pid)]
            items = await self._writes.past.read_many([keys.closed(pid) for pid in pids])
            far = [pid for pid, item in zip(pids, items, strict=True) if _is_far(item)]
            if far:
                await self.past.remove(colony, far, cause)
            await _together(
                [
                    self._remove_closed(pid, item, decode_closed(item.value), cause)
                    for pid, item in zip(pids, items, strict=True)
                    if item is not None and not _is_far(item)
                ]
            )
            if not page.more:
                return
            after = page.items[-1].key


def _is_far(item: Item | None) -> bool:
    return item is not None and item.modified == ARCHIVED


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do several things at once. Raises what the first of them raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def _traces(pid: bytes, birth: Submitted | None, live: Live) -> list[Op]:
    """All else that a process left behind; its log lines stay (section 2.6)."""
    env = birth.env if birth is not None else ()
    ops: list[Op] = [Delete(keys.birth(pid)), Delete(keys.output(pid)), *chain.forget(pid, live)]
    ops.extend(Delete(keys.attribute_index(id)) for id, _ in env)
    return ops
