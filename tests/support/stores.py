"""Stores in memory that count, wait or answer late; for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.store.interface import Guard, Item, Op, Range, Revision
from tests.support.memory_store import MemoryStore
from tests.support.rooms import settle

OF_NODES = (
    keys.NODE,
    keys.LEADER,
    keys.HEARD,
    keys.RUNNING,
    keys.EPOCH,
    keys.CHECKPOINT,
    keys.NEWEST_CHECKPOINT,
)
"""What nodes write without anybody's request."""

_ACCOUNTS = (keys.EPOCH, keys.NEWEST_CHECKPOINT)


class CountingStore(MemoryStore):
    """Notes what is asked of it: "get", "range" or "commit", and what commits hold.

    Not what a leader keeps account of in any case: each minute the count of them, with a look for
    records that may go, and a checkpoint after something has changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.commits: list[tuple[Sequence[Guard], Sequence[Op]]] = []

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        self.asked.append("get")
        return await super().get_many(keys)

    async def range(self, prefix: bytes, **wanted: Any) -> Range:
        if prefix != keys.SEALED:
            self.asked.append("range")
        return await super().range(prefix, **wanted)

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if not ops[0][0].startswith(_ACCOUNTS):
            self.asked.append("commit")
            self.commits.append((guards, ops))
        return await super().commit(guards, ops)


class GatedStore(MemoryStore):
    """Commits wait at a gate before they are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        await self.gate.wait()
        return await super().commit(guards, ops)


class LateStore(MemoryStore):
    """Answers of commits arrive some turns of the loop after the commit."""

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        revision = await super().commit(guards, ops)
        await settle(5)
        return revision


class DeafStore(MemoryStore):
    """Its watches can be made to fall too far behind."""

    def forget(self) -> None:
        """Let every watch be too far behind."""
        self._ring._start = self.revision + 1
        self._ring._wake()

    def remember(self) -> None:
        """Let watches follow again."""
        self._ring._start = 0


class HeldLoadStore(DeafStore):
    """Ranges over what has succeeded wait at a gate, before they look or after."""

    def __init__(self, *, is_late: bool) -> None:
        super().__init__()
        self._is_late = is_late
        self.gate = asyncio.Event()
        self.gate.set()

    async def range(self, prefix: bytes, **wanted: Any) -> Range:
        is_held = prefix.startswith(keys.ENDED) and prefix[-1] == State.SUCCESS
        if is_held and not self._is_late:
            await self.gate.wait()
        page = await super().range(prefix, **wanted)
        if is_held and self._is_late:
            await self.gate.wait()
        return page
