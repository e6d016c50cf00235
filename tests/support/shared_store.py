"""A store that several nodes share, in memory, as late as a real one over a network.

Each node has a `Connection` to one `SharedStore`: its commits are answered after `answer_s`, and
its watch tells of each commit `lag_s` after it was made, or not at all while `is_held`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from colonist_server.store.interface import (
    Event,
    Guard,
    Item,
    Op,
    Range,
    Revision,
    UnavailableError,
)
from tests.support.memory_store import MemoryStore


class SharedStore(MemoryStore):
    """What is shared; it knows when each revision was made."""

    def __init__(self) -> None:
        super().__init__()
        self.is_shared = True
        self.made_at: dict[Revision, float] = {}

    def commit_late(self, after_s: float, guards: Sequence[Guard], ops: Sequence[Op]) -> None:
        """What was on its way for long arrives, when nobody waits for its answer any more."""

        def arrive() -> None:
            if self._hold(guards):
                self._apply(ops)

        asyncio.get_running_loop().call_later(after_s, arrive)

    def _apply(self, ops: Sequence[Op]) -> Revision:
        self.made_at[self._revision + 1] = asyncio.get_running_loop().time()
        return super()._apply(ops)


class Connection:
    """One node's way to the store."""

    is_shared = True

    def __init__(self, shared: SharedStore, *, answer_s: float = 0.0, lag_s: float = 0.0) -> None:
        self.shared = shared
        self.answer_s = answer_s
        self.lag_s = lag_s
        self.commits = 0
        self.asked_newest = 0
        self.is_cut = False
        self._revision = shared.revision
        self._flowing = asyncio.Event()
        self._flowing.set()

    def hold(self) -> None:
        """Let the watch tell of nothing more."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let the watch tell of what it held back."""
        self._flowing.set()

    @property
    def revision(self) -> Revision:
        return self._revision

    @property
    def fault(self) -> str:
        return self.shared.fault

    async def newest(self) -> Revision:
        self.asked_newest += 1
        await self._travel()
        revision = await self.shared.newest()
        await self._travel()
        return revision

    async def get(self, key: bytes) -> Item | None:
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        await self._travel()
        items = await self.shared.get_many(keys)
        await self._travel()
        return items

    async def range(self, prefix: bytes, **wanted: Any) -> Range:
        await self._travel()
        page = await self.shared.range(prefix, **wanted)
        await self._travel()
        return page

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        return await asyncio.shield(asyncio.ensure_future(self._commit(guards, ops)))

    async def _commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        self.commits += 1
        await self._travel()
        revision = await self.shared.commit(guards, ops)
        await self._travel()
        self._revision = max(self._revision, revision or 0)
        return revision

    async def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        async with aclosing(self.shared.watch(after)) as events:
            async for event in events:
                late_s = self.shared.made_at[event.revision] + self.lag_s - loop.time()
                if late_s > 0:
                    await asyncio.sleep(late_s)
                await self._flowing.wait()
                self._revision = max(self._revision, event.revision)
                yield event

    async def lease(self, ttl_s: float) -> int:
        await self._travel()
        return await self.shared.lease(ttl_s)

    async def keep_alive(self, lease: int) -> bool:
        await self._travel()
        return await self.shared.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._travel()
        await self.shared.revoke(lease)

    def snapshot(self) -> AsyncGenerator[Range]:
        return self.shared.snapshot()

    async def close(self) -> None:
        """The others go on."""

    async def _travel(self) -> None:
        if self.is_cut:
            raise UnavailableError("the network is cut")
        if self.answer_s:
            await asyncio.sleep(self.answer_s / 2)
