"""Removing from the archive what was moved there.

The account says first what is being removed, and counts it no more: from then on nobody sees it.
Then it is deleted, then struck off. The next leader finishes what a stop interrupts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from colonist_core.process import SERVER, Cause, Closed
from colonist_protocol.errors import ContendedError
from colonist_server.archive.interface import Archive
from colonist_server.repo import chain, keys, ledger, removed, tombstones
from colonist_server.repo.births import Births, env_ids
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past import ARCHIVED, reading
from colonist_server.repo.records import decode_birth, decode_closed, decode_workflow
from colonist_server.repo.writes import ATTEMPTS, Writes
from colonist_server.store.interface import Item, Op

_PAGE: Final = 100
_AT_ONCE: Final = 50
"""Each may leave two things, in the one commit that decides."""

Counts = Counter[int]


class _Change(NamedTuple):
    """What goes out of sight, how many by state that is, and what is left of it."""

    ids: Sequence[bytes]
    processes: Counts
    workflows: Counts
    traces: Sequence[Op]


class PastRemoval:
    """Takes archived processes and workflows away. Without an archive there are none."""

    __slots__ = ("_archive", "_births", "_clock", "_writes")

    def __init__(self, writes: Writes, births: Births, clock: Clock) -> None:
        self._clock = clock
        self._writes = writes
        self._archive: Archive | None = writes.past.archive
        self._births = births

    async def remove(self, colony: Colony, pids: Sequence[bytes], cause: Cause) -> None:
        """Remove those of these processes that are in the archive; their log lines stay."""
        for start in range(0, len(pids) if self._archive is not None else 0, _AT_ONCE):
            await self._remove(colony, pids[start : start + _AT_ONCE], cause)

    async def _remove(self, colony: Colony, pids: Sequence[bytes], cause: Cause) -> None:
        for _ in range(ATTEMPTS):
            await ledger.wait_until_still(colony, pids)
            before = colony.past_revision
            found = await self._find(colony, pids)
            counts = Counter(closed.live.state for closed in found.values())
            now_ns = self._clock.now_ns()
            traces: list[Op] = await self._left(list(found))
            traces += [removed.trace(pid, closed, cause, now_ns) for pid, closed in found.items()]
            change = _Change(list(found), counts, Counter(), traces)
            if not found or await self._decide(colony, before, change):
                await self._erase(colony, change.ids, cause)
                return
        raise ContendedError("the account of the archive changed too often")

    async def remove_workflow(self, colony: Colony, wid: bytes, cause: Cause) -> None:
        """Remove a workflow that is in the archive, with its members."""
        for _ in range(ATTEMPTS):
            await ledger.wait_until_still(colony, [wid])
            before = colony.past_revision
            head = await self._writes.past.read(keys.workflow(wid))
            if head is None:
                return
            counts = await self._count_members(wid)
            record = decode_workflow(head.value)
            left = tombstones.of_removed_workflow(wid, record, self._writes.n)
            change = _Change([wid], counts, Counter([record.state]), left)
            if await self._decide(colony, before, change):
                await self._erase(colony, [wid], cause)
                return
        raise ContendedError("the account of the archive changed too often")

    async def remove_lines(self, pid: bytes) -> None:
        """Remove the archived log lines of a process."""
        if self._archive is not None:
            async with reading():
                await self._archive.delete_range(keys.logs(pid))

    async def finish(self, colony: Colony) -> None:
        """Finish what a stop interrupted."""
        if colony.past.removing:
            await self._erase(colony, colony.past.removing, SERVER)

    async def sweep(self, tag: bytes) -> None:
        """Delete all that a removed colony left."""
        if self._archive is None:
            return
        async with reading():
            for prefix in (keys.BIRTH, keys.ATTRIBUTE):
                after = b""
                more = True
                while more:
                    page = await self._archive.range(prefix + tag, after=after, limit=_PAGE)
                    ids: list[str] = []
                    for row in page.rows:
                        ids += _ids(Item(row.key, row.value, ARCHIVED, ARCHIVED))
                    await self._archive.delete([keys.attribute_index(id) for id in ids])
                    after = page.rows[-1].key if page.rows else b""
                    more = page.more
            for prefix in keys.BY_TAG:
                await self._archive.delete_range(prefix + tag)

    # -- deciding

    async def _find(self, colony: Colony, pids: Sequence[bytes]) -> dict[bytes, Closed]:
        assert self._archive is not None  # noqa: S101 - the caller knows
        async with reading():
            rows = await self._archive.get_many([keys.closed(pid) for pid in pids])
        return {
            pid: decode_closed(row.value)
            for pid, row in zip(pids, rows, strict=True)
            if row is not None and pid not in colony.past.removing
        }

    async def _left(self, pids: Sequence[bytes]) -> list[Op]:
        """What keeps repeated requests from making these anew."""
        assert self._archive is not None  # noqa: S101 - the caller knows
        async with reading():
            births = await self._archive.get_many([keys.birth(pid) for pid in pids])
        return [
            op
            for pid, birth in zip(pids, births, strict=True)
            if birth is not None
            for op in tombstones.of_removed_process(pid, decode_birth(birth.value), self._writes.n)
        ]

    async def _count_members(self, wid: bytes) -> Counts:
        counts: Counts = Counter()
        after = b""
        more = True
        while more:
            page = await self._writes.past.range(keys.CLOSED + wid, after=after, limit=_PAGE)
            counts.update(decode_closed(item.value).live.state for item in page.items)
            after = page.items[-1].key if page.items else b""
            more = page.more
        return counts

    async def _decide(self, colony: Colony, before: int, change: _Change) -> bool:
        """Put it out of sight and out of the counts; False when the account changed meanwhile."""
        if colony.past_revision != before:
            return False
        record = colony.past
        after = msgspec.structs.replace(
            record,
            processes=ledger.counted(record.processes, change.processes, -1),
            workflows=ledger.counted(record.workflows, change.workflows, -1),
            removing=(*record.removing, *change.ids),
        )
        ops = [ledger.put(colony, after), *change.traces]
        if await self._writes.commit([ledger.guard(colony)], ops):
            return True
        await ledger.refresh(self._writes, colony)
        return False

    # -- deleting; what the rest is found by goes last

    async def _erase(self, colony: Colony, ids: Sequence[bytes], cause: Cause) -> None:
        async with reading():
            lone = [id for id in ids if len(id) == keys.PID_BYTES]
            await self._erase_processes(lone)
            for id in ids:
                if len(id) == keys.WID_BYTES:
                    await self._erase_workflow(id, cause)
        await ledger.strike(self._writes, colony, ids)
        for pid in lone:
            self._births.forget(pid)

    async def _erase_workflow(self, wid: bytes, cause: Cause) -> None:
        assert self._archive is not None  # noqa: S101 - the caller knows
        while True:
            page = await self._archive.range(keys.CLOSED + wid, limit=_PAGE)
            if not page.rows:
                break
            ends = {row.key[len(keys.CLOSED) :]: decode_closed(row.value) for row in page.rows}
            await removed.leave(self._writes, ends, cause, self._clock.now_ns())
            await self._erase_processes([row.key[len(keys.CLOSED) :] for row in page.rows])
        for prefix in (keys.shape_of(wid), keys.edits_of(wid), keys.request_of(wid)):
            await self._archive.delete_range(prefix)
        [head] = await self._archive.get_many([keys.workflow(wid)])
        if head is not None:
            record = decode_workflow(head.value)
            tag = wid[: keys.TAG_BYTES]
            index = keys.ended_workflow(tag, record.state, record.submitted_ns, wid)
            await self._archive.delete([index, head.key])

    async def _erase_processes(self, pids: Sequence[bytes]) -> None:
        assert self._archive is not None  # noqa: S101 - the caller knows
        rows = await self._archive.get_many([keys.closed(pid) for pid in pids])
        births = await self._archive.get_many([keys.birth(pid) for pid in pids])
        doomed: list[bytes] = []
        for pid, row, birth in zip(pids, rows, births, strict=True):
            if row is None:
                continue
            closed = decode_closed(row.value)
            ids = _ids(Item(*birth, ARCHIVED, ARCHIVED)) if birth is not None else []
            if closed.has_attributes:
                set_ = await self._archive.range(keys.attributes(pid), keys_only=True)
                ids += [each.key[-keys.ATTRIBUTE_BYTES :].hex() for each in set_.rows]
            await self._archive.delete([keys.attribute_index(id) for id in ids])
            if closed.has_attributes:
                await self._archive.delete_range(keys.attributes(pid))
            live = closed.live
            for prefix in chain.ranges(pid, live):
                await self._archive.delete_range(prefix)
            doomed.append(keys.ended(pid[: keys.TAG_BYTES], live.state, live.changed_ns, pid))
            doomed += [keys.birth(pid), keys.output(pid), keys.closed(pid)]
            self._births.forget(pid)
        await self._archive.delete(doomed)


def _ids(item: Item) -> list[str]:
    """The attributes that a birth or an attribute accounts for in the index."""
    if item.key.startswith(keys.ATTRIBUTE):
        return [item.key[-keys.ATTRIBUTE_BYTES :].hex()]
    return env_ids(item)
