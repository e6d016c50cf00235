"""Taking closed processes out of the store with all that stands by them, log lines too (4.11).

What hangs on a process goes first; its entry in the list of the closed goes last, in one commit
with its record and its birth. So whatever a stop leaves half removed is found again by that entry.
Members of workflows are passed over: they go with their workflow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from colonist_core.process import SERVER, Closed
from colonist_protocol.process import FINAL, State
from colonist_server.repo import chain, keys, ledger, removed, tombstones
from colonist_server.repo.births import env_ids
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past import ARCHIVED, Reads
from colonist_server.repo.records import decode_birth, decode_closed
from colonist_server.repo.removal import Removal
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import MAX_OPS, Delete, Guard, Item, Op, Revision

PAGE: Final = 200
LARGEST_PAGE: Final = 25_600
"""Pages grow: on etcd, reading from the end costs as much as reading the whole list."""
KEYS_PER_COMMIT: Final = 100


class Old(NamedTuple):
    """An entry in the list of closed processes."""

    ended_ns: int
    key: bytes
    revision: Revision

    @property
    def pid(self) -> bytes:
        """The process."""
        return self.key[-keys.PID_BYTES :]

    @property
    def is_lone(self) -> bool:
        """Whether it belongs to no workflow."""
        return not keys.number_of(self.pid)


class Oldest:
    """The closed processes of a colony, those that ended first before the others, read in pages."""

    __slots__ = ("_after", "_found", "_limit", "_prefixes", "_source")

    def __init__(self, source: Reads, colony: Colony) -> None:
        self._source = source
        self._prefixes = {state: keys.ended_in(colony.tag, state) for state in FINAL}
        self._limit = dict.fromkeys(FINAL, PAGE)
        self._after: dict[State, bytes | None] = dict.fromkeys(FINAL, b"")
        self._found: dict[State, deque[Old]] = {state: deque() for state in FINAL}

    async def take(self, limit: int, until_ns: int) -> list[Old]:
        """The next ones, as far as they ended then or before."""
        taken: list[Old] = []
        while len(taken) < limit:
            first = await self._first()
            if first is None or first[0].ended_ns > until_ns:
                break
            taken.append(first[1].popleft())
        return taken

    async def next_ns(self) -> int:
        """When the next one ended; 0: there is none."""
        first = await self._first()
        return first[0].ended_ns if first is not None else 0

    async def _first(self) -> tuple[Old, deque[Old]] | None:
        for state, found in self._found.items():
            if not found:
                await self._read(state)
        heads = [(found[0], found) for found in self._found.values() if found]
        return min(heads, key=lambda head: head[0].ended_ns) if heads else None

    async def _read(self, state: State) -> None:
        after = self._after[state]
        if after is None:
            return
        limit = self._limit[state]
        page = await self._source.range(
            self._prefixes[state], after=after, limit=limit, reverse=True, keys_only=True
        )
        self._limit[state] = min(4 * limit, LARGEST_PAGE)
        self._found[state].extend(
            Old(keys.time_of_ended(item.key), item.key, item.modified) for item in page.items
        )
        self._after[state] = page.items[-1].key if page.more else None


class Retirement:
    """Removes many processes at once, in commits that hold up nobody."""

    __slots__ = ("_past", "_removal", "_writes")

    def __init__(self, writes: Writes, removal: Removal) -> None:
        self._writes = writes
        self._removal = removal
        self._past = removal.past

    def oldest(self, colony: Colony) -> Oldest:
        """Its closed processes, oldest first."""
        return Oldest(self._writes.past, colony)

    async def retire(self, colony: Colony, batch: Sequence[Old]) -> None:
        """Remove those that belong to no workflow. What somebody else removes meanwhile is gone."""
        lone = [old for old in batch if old.is_lone]
        await ledger.wait_until_still(colony, [old.pid for old in lone])
        far = [old.pid for old in lone if old.revision == ARCHIVED]
        lone = [old for old in lone if old.revision != ARCHIVED]
        for pid in far:
            await self._past.remove_lines(pid)
        if far:
            await self._past.remove(colony, far, SERVER)
        for pid in await with_lines(self._writes, colony, [old.pid for old in lone]):
            await self._remove_all(keys.logs(pid))
        pids = [old.pid for old in lone]
        items = await self._writes.read_many([*map(keys.closed, pids), *map(keys.birth, pids)])
        parts: list[Plan] = []
        for number, old in enumerate(lone):
            closed, birth = items[number], items[number + len(lone)]
            parts.append(await self._part(old, closed, birth))
        await self._commit(colony, parts)
        for pid in pids:
            self._removal.forget(pid)

    async def _part(self, old: Old, item: Item | None, birth: Item | None) -> Plan:
        """What one process takes; its entry and its record were written by one commit."""
        pid = old.pid
        ops: list[Op] = [Delete(old.key), Delete(keys.closed(pid)), Delete(keys.birth(pid))]
        closed: Closed | None = decode_closed(item.value) if item is not None else None
        if closed is not None:
            if closed.has_attributes:
                await self._removal.remove_attributes(pid)
            if closed.has_output:
                ops.append(Delete(keys.output(pid)))
            ops += chain.forget(pid, closed.live)
            ops.append(removed.trace(pid, closed, SERVER, self._removal.clock.now_ns()))
        if birth is not None:
            ops.extend(Delete(keys.attribute_index(id)) for id in env_ids(birth))
            ops += tombstones.of_removed_process(pid, decode_birth(birth.value), self._writes.n)
        return Plan([Guard(old.key, old.revision)], ops)

    async def _commit(self, colony: Colony, parts: Sequence[Plan]) -> None:
        """As many to a commit as fit; where one was raced, each alone."""
        together: list[Plan] = []
        for part in parts:
            if together and sum(len(each.ops) for each in (*together, part)) > MAX_OPS:
                await self._commit_together(colony, together)
                together = []
            together.append(part)
        if together:
            await self._commit_together(colony, together)

    async def _commit_together(self, colony: Colony, parts: Sequence[Plan]) -> None:
        if not await self._commit_once(colony, parts):
            for part in parts:
                await self._commit_once(colony, [part])

    async def _commit_once(self, colony: Colony, parts: Sequence[Plan]) -> bool:
        """False when it was raced; whatever the archiver changes in its account is no race."""
        ops = [op for part in parts for op in part.ops]
        guards = [guard for part in parts for guard in part.guards]
        for _ in range(ATTEMPTS):
            await ledger.wait_until_still(
                colony, [guard.key[-keys.PID_BYTES :] for guard in guards]
            )
            account = ledger.guards(self._writes, colony)
            if await self._writes.commit([*guards, *account], ops) is not None:
                return True
            if not account:
                return False
            await ledger.refresh(self._writes, colony)
            if account == ledger.guards(self._writes, colony):
                return False
        return False

    async def _remove_all(self, prefix: bytes) -> None:
        while True:
            page = await self._writes.range(prefix, limit=KEYS_PER_COMMIT, keys_only=True)
            await remove_items(self._writes, page.items)
            if not page.more:
                return


async def with_lines(writes: Writes, colony: Colony, pids: Sequence[bytes]) -> list[bytes]:
    """Those that have log lines in the store: where few have, a few reads for all of them."""
    wanted = sorted(pids)
    found: list[bytes] = []
    at = 0
    while at < len(wanted):
        page = await writes.range(
            keys.LOG + colony.tag, after=keys.logs(wanted[at]), limit=1, keys_only=True
        )
        if not page.items:
            break
        pid = keys.pid_of_log(page.items[0].key)
        at = bisect_left(wanted, pid)
        if at < len(wanted) and wanted[at] == pid:
            found.append(pid)
            at += 1
    return found


async def remove_items(writes: Writes, items: Sequence[Item]) -> None:
    """Delete some keys, as they were read; where one was raced, nothing."""
    if items:
        await writes.commit(
            [Guard(item.key, item.modified) for item in items],
            [Delete(item.key) for item in items],
        )
