"""Moving what has ended from the store to the archive.

Marked in the account, copied, durable there, then deleted here and counted there by one commit. A
stop in between leaves both, which reads as one; the mark tells the next leader to do it again.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from colonist_core.process import MILLISECOND_NS, Closed
from colonist_protocol.errors import ContendedError
from colonist_server.archive.interface import LATEST_S, Archive, Row
from colonist_server.repo import chain, keys, ledger, tombstones
from colonist_server.repo.births import env_ids
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past import reading
from colonist_server.repo.records import (
    ENDED_WORKFLOW,
    NewestRecord,
    PastRecord,
    decode_birth,
    decode_checkpoint,
    decode_closed,
    decode_removed,
    decode_workflow,
)
from colonist_server.repo.retirement import remove_items, with_lines
from colonist_server.repo.writes import ATTEMPTS, Writes
from colonist_server.store.interface import MAX_OPS, Delete, DeleteRange, Guard, Item, Op, Revision

BATCH: Final = 40

_PAGE: Final = 50
_PUT_BYTES: Final = 4_194_304
_INDEX_OPS: Final = 40
"""More entries in the index of attributes go before, in commits of their own."""
_MARK_BYTES: Final = 8
_NO_BOUND: Final = 2**63


class _Part(NamedTuple):
    """One process: what is copied at once, and what is deleted after."""

    pid: bytes
    closed: Item
    state: int
    rows: list[Row]
    ops: list[Op]


class Archiving:
    """Moves processes, workflows and log lines; one at a time for each colony.

    `moved_bytes` and `moved` tell how large the processes were.
    """

    __slots__ = ("_archive", "_mark", "_newest", "_writes", "moved", "moved_bytes")

    def __init__(
        self,
        writes: Writes,
        archive: Archive,
        newest: Callable[[bytes], NewestRecord] | None = None,
    ) -> None:
        self._newest = newest
        self._writes = writes
        self._archive = archive
        self._mark = os.urandom(_MARK_BYTES)
        self.moved = 0
        self.moved_bytes = 0

    async def resume(self, colony: Colony) -> None:
        """Do again what was under way when its mover stopped."""
        ids = colony.past.moving
        if not ids:
            return
        if colony.past.mover != self._mark and self._writes.store.is_shared:
            await asyncio.sleep(LATEST_S)  # nothing of it is still on its way to the archive
        for id in ids:
            if len(id) == keys.WID_BYTES:
                await self.move_workflow(colony, id)
        lone = [id for id in ids if len(id) == keys.PID_BYTES]
        if lone:
            await self.move(colony, lone)

    async def move(self, colony: Colony, pids: Sequence[bytes], then: Sequence[bytes] = ()) -> None:
        """Move processes that belong to no workflow; `then` are marked as the next.

        Raises `ContendedError`, `UnavailableError`.
        """
        await self._begin(colony, pids)
        parts = await self._copy(colony, pids)
        left = list(dict.fromkeys((*then, *pids)))
        for pid in set(pids) - {part.pid for part in parts}:
            left.remove(pid)  # it was removed before it was marked
        for some in _chunks(parts):
            for part in some:
                left.remove(part.pid)
            await self._finish(colony, some, left)
        if not parts:
            await self._change(colony, [], [], PastRecord(moving=tuple(left)))

    async def move_workflow(self, colony: Colony, wid: bytes) -> None:
        """Move a workflow that has ended: its head, then its members."""
        await self._begin(colony, [wid])
        head = await self._writes.read(keys.workflow(wid))
        if head is None or decode_workflow(head.value).state in ENDED_WORKFLOW:
            if head is not None:
                await self._move_head(colony, wid, head)
            more = True
            while more:
                page = await self._writes.range(keys.CLOSED + wid, limit=BATCH, keys_only=True)
                pids = [item.key[len(keys.CLOSED) :] for item in page.items]
                for some in _chunks(await self._copy(colony, pids)):
                    await self._finish(colony, some, [wid])
                more = page.more
        await self._change(colony, [], [], PastRecord())

    async def move_lines(self, colony: Colony, until_ns: int) -> AsyncGenerator[int]:
        """Move the lines of executors' own logs that were written until then, a page at a time."""
        after = b""
        while True:
            page = await self._writes.range(
                keys.executor_logs(colony.tag), after=after, limit=_PAGE
            )
            young = [item for item in page.items if keys.time_of_log(item.key) > until_ns]
            old = [item for item in page.items if keys.time_of_log(item.key) <= until_ns]
            if old:
                await self._move(colony, old)
                yield len(old)
            if young:  # behind it, up to the next executor, all is younger
                after = keys.after_logs(keys.pid_of_log(young[0].key))
            elif page.more:
                after = page.items[-1].key
            if not young and not page.more:
                return

    async def move_results(self, colony: Colony) -> AsyncGenerator[int]:
        """Move results that came for processes which have left the store, a page at a time."""
        after = b""
        more = True
        while more:
            page = await self._writes.range(keys.RESULT + colony.tag, after=after, limit=_PAGE)
            pids = [keys.pid_of_result(item.key) for item in page.items]
            ends = await self._writes.read_many([keys.closed(pid) for pid in pids])
            left = [
                item
                for item, pid, end in zip(page.items, pids, ends, strict=True)
                if end is None and pid not in self._writes.view.rows
            ]
            if left:
                await self._move(colony, left)
                yield len(left)
            more = page.more
            after = page.items[-1].key if page.items else b""

    async def _move(self, colony: Colony, items: Sequence[Item]) -> None:
        """Move keys as they are."""
        if not colony.past_revision:
            await self._change(colony, [], [], PastRecord())
        await self._put([Row(item.key, item.value) for item in items])
        await remove_items(self._writes, items)

    def covered(self, colony: Colony) -> Revision:
        """The revision up to which all ends of chains are in checkpoints."""
        return self._newest(colony.tag).through if self._newest is not None else _NO_BOUND

    async def move_evidence(self, colony: Colony, until_ns: int) -> AsyncGenerator[int]:
        """Move checkpoints that were signed until then, and ends of removed processes.

        The newest checkpoint stays; an end stays until it is in one.
        """
        for prefix in (keys.CHECKPOINT, keys.REMOVED):
            after = b""
            more = True
            while more:
                page = await self._writes.range(prefix + colony.tag, after=after, limit=_PAGE)
                old = [item for item in page.items if self._is_old(colony, item, until_ns)]
                if old:
                    await self._move(colony, old)
                yield len(old)
                is_done = prefix == keys.CHECKPOINT and len(old) < len(page.items)
                more = page.more and not is_done
                after = page.items[-1].key if page.items else b""

    def _is_old(self, colony: Colony, item: Item, until_ns: int) -> bool:
        if item.key.startswith(keys.CHECKPOINT):
            k = keys.number_of_checkpoint(item.key)
            is_newest = self._newest is None or k >= self._newest(colony.tag).k
            time_ms = decode_checkpoint(item.value).time_ms
            return not is_newest and time_ms * MILLISECOND_NS <= until_ns
        time_ms = decode_removed(item.value).time_ms
        return time_ms * MILLISECOND_NS <= until_ns and item.modified <= self.covered(colony)

    # -- the account

    async def _begin(self, colony: Colony, ids: Sequence[bytes]) -> None:
        """From now on nobody else touches these."""
        record = colony.past
        if record.mover != self._mark or set(ids) != set(record.moving):
            await self._change(colony, [], [], PastRecord(moving=tuple(ids)))

    async def _finish(self, colony: Colony, some: Sequence[_Part], left: Sequence[bytes]) -> None:
        change = PastRecord(
            processes=ledger.counted(
                PastRecord().processes, Counter(part.state for part in some), 1
            ),
            moving=tuple(left),
        )
        guards = [Guard(part.closed.key, part.closed.modified) for part in some]
        await self._change(colony, guards, [op for part in some for op in part.ops], change)
        self.moved += len(some)
        self.moved_bytes += sum(len(row.value) for part in some for row in part.rows)

    async def _change(
        self, colony: Colony, guards: Sequence[Guard], ops: Sequence[Op], change: PastRecord
    ) -> None:
        """Commit with the account: counts are added, what moves is replaced."""
        for _ in range(ATTEMPTS):
            before = colony.past
            if colony.is_gone:
                raise ContendedError("the colony was removed")
            if guards and before.mover != self._mark:
                raise ContendedError("another node moves what this one was moving")
            record = msgspec.structs.replace(
                before,
                processes=_sum(before.processes, change.processes),
                workflows=_sum(before.workflows, change.workflows),
                moving=change.moving,
                mover=self._mark,
            )
            together = [ledger.guard(colony), *guards]
            if await self._writes.commit(together, [ledger.put(colony, record), *ops]):
                return
            items = await self._writes.refresh([each.key for each in together])
            now = [item.modified if item is not None else 0 for item in items[1:]]
            if now != [each.revision for each in guards]:
                raise ContendedError("what was being moved has changed")
        raise ContendedError("the account of the archive changed too often")

    # -- copying

    async def _move_head(self, colony: Colony, wid: bytes, head: Item) -> None:
        record = decode_workflow(head.value)
        index = keys.ended_workflow(colony.tag, record.state, record.submitted_ns, wid)
        listed = await self._writes.read(index)
        ranges = (keys.shape_of(wid), keys.edits_of(wid), keys.request_of(wid))
        for prefix in ranges:
            await self._copy_range(prefix)
        both = [item for item in (head, listed) if item is not None]
        await self._put([Row(item.key, item.value) for item in both])
        change = PastRecord(
            workflows=ledger.counted(PastRecord().workflows, {record.state: 1}, 1), moving=(wid,)
        )
        ops: list[Op] = [
            *(Delete(item.key) for item in both),
            *(DeleteRange(each) for each in ranges),
            *tombstones.of_moved_workflow(wid, record, self._writes.n),
        ]
        await self._change(colony, [Guard(head.key, head.modified)], ops, change)

    async def _copy(self, colony: Colony, pids: Sequence[bytes]) -> list[_Part]:
        """Copy processes with all that stands by them; durable on return."""
        items = await self._writes.read_many([*map(keys.closed, pids), *map(keys.birth, pids)])
        logged = set(await with_lines(self._writes, colony, pids))
        parts: list[_Part] = []
        for pid, item, birth in zip(pids, items, items[len(pids) :], strict=False):
            if item is not None:
                parts.append(await self._part(pid, item, birth, has_lines=pid in logged))
        await self._put([row for part in parts for row in part.rows])
        for part in parts:
            await self._thin_out(part)
        return parts

    async def _part(self, pid: bytes, item: Item, birth: Item | None, *, has_lines: bool) -> _Part:
        closed: Closed = decode_closed(item.value)
        live = closed.live
        index = keys.ended(pid[: keys.TAG_BYTES], live.state, live.changed_ns, pid)
        wanted = [index, *([keys.output(pid)] if closed.has_output else [])]
        ids = env_ids(birth) if birth is not None else []
        ops: list[Op] = []
        if closed.has_attributes:
            found = await self._copy_range(keys.attributes(pid))
            ids += [key[-keys.ATTRIBUTE_BYTES :].hex() for key in found]
            ops.append(DeleteRange(keys.attributes(pid)))
        for prefix in chain.ranges(pid, live):
            await self._copy_range(prefix)
            ops.append(DeleteRange(prefix))
        if has_lines:
            await self._copy_range(keys.logs(pid))
            ops.append(DeleteRange(keys.logs(pid)))
        wanted += map(keys.attribute_index, dict.fromkeys(ids))
        others = [each for each in await self._writes.read_many(wanted) if each is not None]
        all = [each for each in (item, birth, *others) if each is not None]
        ops += [Delete(each.key) for each in all]
        born = decode_birth(birth.value) if birth is not None else None
        ops += tombstones.of_moved_process(pid, born, self._writes.n)
        return _Part(pid, item, live.state, [Row(each.key, each.value) for each in all], ops)

    async def _copy_range(self, prefix: bytes) -> list[bytes]:
        """Copy all under a prefix; the keys."""
        found: list[bytes] = []
        more = True
        while more:
            after = found[-1] if found else b""
            page = await self._writes.range(prefix, after=after, limit=_PAGE)
            await self._put([Row(item.key, item.value) for item in page.items])
            found += [item.key for item in page.items]
            more = page.more
        return found

    async def _thin_out(self, part: _Part) -> None:
        """Of a long index the copy is enough already; one commit would not hold it."""
        index = [op.key for op in part.ops if isinstance(op, Delete) and _is_index(op.key)]
        if len(index) <= _INDEX_OPS:
            return
        for start in range(0, len(index), MAX_OPS):
            items = await self._writes.read_many(index[start : start + MAX_OPS])
            await remove_items(self._writes, [item for item in items if item is not None])
        part.ops[:] = [op for op in part.ops if isinstance(op, DeleteRange) or op.key not in index]

    async def _put(self, rows: Sequence[Row]) -> None:
        """Durable on return; a bounded number of bytes at a time."""
        some: list[Row] = []
        size = 0
        async with reading():
            for row in rows:
                some.append(row)
                size += len(row.value)
                if size > _PUT_BYTES:
                    await self._archive.put(some)
                    some, size = [], 0
            await self._archive.put(some)


def _chunks(parts: Sequence[_Part]) -> list[list[_Part]]:
    """As many as one commit holds beside the account."""
    chunks: list[list[_Part]] = []
    room = 0
    for part in parts:
        if not chunks or len(part.ops) > room:
            chunks.append([])
            room = MAX_OPS - 1
        chunks[-1].append(part)
        room -= len(part.ops)
    return chunks


def _is_index(key: bytes) -> bool:
    return key.startswith(keys.ATTRIBUTE_INDEX)


def _sum(counts: Sequence[int], change: Sequence[int]) -> tuple[int, ...]:
    return tuple(one + other for one, other in zip(counts, change, strict=True))
