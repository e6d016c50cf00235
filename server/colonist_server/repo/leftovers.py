"""Old lines and records that belong to no closed process: by age only, a page at a time.

Those are the logs of executors, the lines of processes that were removed by hand (removing one
leaves its lines: COLONIES-RPC 2.6), and changes of members from before there was a chain of them.
What is in the chain stays as long as its colony: it tells who was a member when.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from itertools import takewhile
from typing import Final

from colonist_server.repo import keys
from colonist_server.repo.journal import executor_pid
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past import ARCHIVED, reading
from colonist_server.repo.records import decode_change
from colonist_server.repo.retirement import remove_items
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Item

PAGE: Final = 100


class Leftovers:
    """Forgets what is older than a horizon."""

    __slots__ = ("_past", "_writes")

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._past = writes.past

    async def forget(self, colony: Colony, horizon_ns: int) -> AsyncGenerator[int]:
        """Forget all of one colony; yields after each commit how many went with it."""
        async for count in self._changes(colony, horizon_ns):
            yield count
        for name in list(colony.executors):
            async for count in self._lines(executor_pid(colony.tag, name), horizon_ns):
                yield count
        async for pid in self._removed(colony, horizon_ns):
            async for count in self._lines(pid, horizon_ns):
                yield count

    async def _changes(self, colony: Colony, horizon_ns: int) -> AsyncGenerator[int]:
        more = True
        while more:
            page = await self._writes.range(keys.changes(colony.tag), limit=PAGE, reverse=True)
            old = [*takewhile(lambda item: _is_loose(item, horizon_ns), page.items)]
            await remove_items(self._writes, old)
            more = len(old) == PAGE
            yield len(old)

    async def _lines(self, pid: bytes, horizon_ns: int) -> AsyncGenerator[int]:
        """Lines stand by attempt, then by time; those of an executor's log in one row."""
        after = b""
        more = True
        while more:
            page = await self._past.range(keys.logs(pid), after=after, limit=PAGE, keys_only=True)
            old = [item for item in page.items if keys.time_of_log(item.key) <= horizon_ns]
            await self._forget(old)
            # In one row, behind what is kept nothing is older.
            is_done = keys.is_executor_pid(pid) and len(old) < len(page.items)
            more = page.more and not is_done
            after = page.items[-1].key if page.items else after
            yield len(old)

    async def _forget(self, old: Sequence[Item]) -> None:
        await remove_items(self._writes, [item for item in old if item.modified != ARCHIVED])
        if self._past.archive is not None:
            async with reading():
                await self._past.archive.delete([item.key for item in old])

    async def _removed(self, colony: Colony, horizon_ns: int) -> AsyncGenerator[bytes]:
        """Processes that were born before the horizon, are gone, and have left lines."""
        prefix = keys.LOG + colony.tag
        after = b""
        while True:
            page = await self._past.range(prefix, after=after, limit=1, keys_only=True)
            if not page.items:
                return
            pid = keys.pid_of_log(page.items[0].key)
            if keys.is_executor_pid(pid) or keys.born_ns(pid) > horizon_ns:
                return
            if await self._past.read(keys.birth(pid)) is None:
                yield pid
            after = keys.after_logs(pid)


def _is_loose(item: Item, horizon_ns: int) -> bool:
    """Whether a change is old, and in no chain."""
    return keys.time_of_change(item.key) <= horizon_ns and decode_change(item.value).n < 0
