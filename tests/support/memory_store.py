"""A store in memory that passes the laws (`tests/laws`): for tests of what is built on a store.

Everything takes effect at once, so it runs in virtual time and its leases follow the loop's clock.
`is_full` makes it refuse writes as a full disk does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Self

from colonist_server.store.interface import (
    Change,
    Delete,
    Event,
    Guard,
    Item,
    LawError,
    Op,
    Put,
    Range,
    ReadOnlyError,
    Revision,
    UnavailableError,
)
from colonist_server.store.laws import check
from colonist_server.store.leases import Clock, Leases
from colonist_server.store.ring import EventRing

SNAPSHOT_ITEMS = 1_000
SNAPSHOT_BYTES = 4_194_304


class MemoryStore:
    """The store interface on a dict. Use as `async with MemoryStore()`, on a running loop."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.is_full = False
        self.is_shared = False
        self._items: dict[bytes, Item] = {}
        self._lease_of: dict[bytes, int] = {}
        self._revision = 0
        self._ring = EventRing(0)
        self._leases = Leases(clock or asyncio.get_running_loop(), self._end_lease)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def revision(self) -> Revision:
        return self._revision

    @property
    def fault(self) -> str:
        return "the disk is full" if self.is_full else "the store is closed" * self._closed

    async def newest(self) -> Revision:
        return self._revision

    async def get(self, key: bytes) -> Item | None:
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        self._check_open()
        await asyncio.sleep(0)
        return [self._items.get(key) for key in keys]

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        since: Revision = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Range:
        self._check_open()
        await asyncio.sleep(0)
        keys = [key for key in sorted(self._items, reverse=reverse) if key.startswith(prefix)]
        if after:
            keys = [key for key in keys if (key < after if reverse else key > after)]
        items = [item for item in map(self._items.__getitem__, keys) if item.modified > since]
        if keys_only:
            items = [item._replace(value=b"") for item in items]
        more = 0 < limit < len(items)
        return Range(self._revision, items[:limit] if limit else items, more)

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        shape = check(guards, ops)
        self._check_open()
        if self.is_full:
            raise ReadOnlyError("the disk is full")
        for lease in shape.leases:
            if lease not in self._leases:
                raise LawError(f"lease {lease} has ended")
        revision = self._apply(ops) if self._hold(guards) else None
        await asyncio.sleep(0)
        return revision

    def under(self, prefix: bytes) -> list[Item]:
        """What stands under a prefix now, in key order, without asking as a server does."""
        return [self._items[key] for key in sorted(self._items) if key.startswith(prefix)]

    def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        return self._ring.watch(after)

    async def lease(self, ttl_s: float) -> int:
        return self._leases.grant(ttl_s)

    async def keep_alive(self, lease: int) -> bool:
        return self._leases.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        if self._leases.end(lease):
            self._end_lease(lease)

    async def snapshot(self) -> AsyncGenerator[Range]:
        self._check_open()
        revision = self._revision
        page: list[Item] = []
        for item in [self._items[key] for key in sorted(self._items.keys() - self._lease_of)]:
            page.append(item)
            if len(page) == SNAPSHOT_ITEMS or sum(len(one.value) for one in page) > SNAPSHOT_BYTES:
                yield Range(revision, page, more=True)
                self._check_open()
                page = []
        yield Range(revision, page, more=False)

    async def close(self) -> None:
        self._closed = True
        self._leases.close()
        self._ring.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")

    def _hold(self, guards: Sequence[Guard]) -> bool:
        return all(
            revision == (self._items[key].modified if key in self._items else 0)
            for key, revision in guards
        )

    def _apply(self, ops: Sequence[Op]) -> Revision:
        revision = self._revision + 1
        changes: list[Change] = []
        for op in ops:
            if isinstance(op, Put):
                before = self._items.get(op.key)
                created = before.created if before else revision
                self._items[op.key] = Item(op.key, op.value, created, revision)
                self._lease_of.pop(op.key, None)
                if op.lease:
                    self._lease_of[op.key] = op.lease
                changes.append(Change(op.key, op.value))
            elif isinstance(op, Delete):
                self._delete([op.key] if op.key in self._items else [], changes)
            else:
                under = sorted(key for key in self._items if key.startswith(op.prefix))
                self._delete(under, changes)
        if changes:
            self._revision = revision
            self._ring.extend([Event(revision, tuple(changes))])
        return self._revision

    def _delete(self, keys: Sequence[bytes], changes: list[Change]) -> None:
        for key in keys:
            del self._items[key]
            self._lease_of.pop(key, None)
            changes.append(Change(key, None))

    def _end_lease(self, lease: int) -> None:
        self._apply([Delete(key) for key, owner in self._lease_of.items() if owner == lease])
