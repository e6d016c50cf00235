"""The store on an etcd cluster, which other nodes may share."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Final, Self

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.address import Address
from colonist_server.store.etcd.batches import Batches
from colonist_server.store.etcd.client import Client, LeaseEndedError
from colonist_server.store.etcd.keeping import Status, compact, hold, status
from colonist_server.store.etcd.reads import Reads
from colonist_server.store.etcd.watch import BEHIND_S, Watch
from colonist_server.store.interface import (
    Event,
    Guard,
    Item,
    Op,
    Range,
    ReadOnlyError,
    Revision,
    StoreError,
    UnavailableError,
)
from colonist_server.store.laws import check

log = logging.getLogger(__name__)

OPEN_S: Final = 8.0
CLOSE_S: Final = 3.0
LAG_S: Final = 0.05
FULL_LAG_S: Final = 1.0

ROOT: Final = b"//"
"""After the prefix. No prefix has an empty part: `a/b` is no part of `a`, which sweeps its own."""
KEYS: Final = b"k"
FENCES: Final = b"f"
HOLDS: Final = b"h"
"""Below that: the keys of the interface, fences of lanes, holds against compaction."""


class EtcdStore:
    """The store interface on etcd. Use as `async with await EtcdStore.open(address)`."""

    @classmethod
    async def open(cls, address: Address) -> Self:
        """Connect. Raises `StoreError` when nobody answers, or does not let us in."""
        client = Client(address)
        if address.user and not address.is_tls:
            log.warning("etcd: user and password go over the network as they are: use TLS")
        root = address.prefix.encode() + ROOT
        reads = Reads(client, root + KEYS)
        try:
            response = await client.ask(wire.RANGE, wire.count_request(root), OPEN_S)
        except UnavailableError as error:
            await client.close()
            raise StoreError(f"no etcd can be used at {address}: {error}") from error
        except BaseException:
            await client.close()
            raise
        store = cls(client, reads, root, response.header.revision)
        try:
            await store._batches.start()
        except BaseException:
            await store.close()
            raise
        return store

    def __init__(self, client: Client, reads: Reads, root: bytes, revision: Revision) -> None:
        self._client = client
        self._root = root
        self._reads = reads
        self._revision = revision
        self._fence = root + FENCES + os.urandom(8)
        self._watch = Watch(client, reads, watched=root, prefix=root + KEYS, revision=revision)
        self._batches = Batches(client, root + KEYS, self._fence, self._seen)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def is_shared(self) -> bool:
        """Other nodes may use the same prefix."""
        return True

    @property
    def revision(self) -> Revision:
        """The newest revision that this node has heard of."""
        return max(self._revision, self._watch.reached)

    @property
    def fault(self) -> str:
        """Whether etcd answers, takes writes and tells of them."""
        if self._closed:
            return "the store is closed"
        if self._batches.fault:
            return self._batches.fault
        if self._watch.behind_s > BEHIND_S:
            return f"the watch of etcd is {self._watch.behind_s:.0f} s behind"
        return self._client.trouble

    async def get(self, key: bytes) -> Item | None:
        """One key, or None."""
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Several keys as of one revision, in the order asked."""
        self._check_open()
        return await self._reads.get_many(keys) if keys else []

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
        """Keys with `prefix` in key order, at one revision; see the interface."""
        self._check_open()
        return await self._reads.range(
            prefix, after=after, limit=limit, since=since, reverse=reverse, keys_only=keys_only
        )

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        """All ops at once if every guard holds: the revision, durable. None when a guard failed."""
        shape = check(guards, ops)
        self._check_open()
        return await self._batches.put(guards, ops, shape)

    def watch(self, after: Revision) -> AsyncGenerator[Event]:
        """Events with revisions larger than `after`, in order, for ever."""
        return self._watch.ring.watch(after)

    async def newest(self) -> Revision:
        """A revision that the watch has reached, or shows as soon as etcd tells of it."""
        self._check_open()
        revision = await self._reads.revision()
        # Who else uses this etcd moves the revision too, and our watch does not hear of that.
        if await self._watch.reach(revision, LAG_S):
            return revision
        try:
            return await self._batches.mark()
        except ReadOnlyError:
            # Nobody writes any more: what is still to come comes soon.
            await self._watch.reach(revision, FULL_LAG_S)
            return min(revision, self._watch.reached)

    async def lease(self, ttl_s: float) -> int:
        """A lease; etcd counts in whole seconds, and has a shortest one (2 s as it comes)."""
        self._check_open()
        request = wire.grant_request(math.ceil(ttl_s))
        response = await self._client.ask(wire.GRANT, request)
        return response.ID

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False when it has already ended."""
        self._check_open()
        return await self._client.renew(lease)

    async def revoke(self, lease: int) -> None:
        """End a lease now and delete its keys."""
        self._check_open()
        with suppress(LeaseEndedError):
            await self._client.ask(wire.REVOKE, wire.revoke_request(lease))

    async def snapshot(self) -> AsyncGenerator[Range]:
        """All keys at one revision, which is held against `compact` meanwhile."""
        self._check_open()
        async with (
            hold(self._client, self._root + HOLDS) as revision,
            aclosing(self._reads.snapshot(revision)) as pages,
        ):
            async for page in pages:
                yield page

    async def compact(self, through: Revision) -> None:
        """Let go of what was before a revision, unless somebody reads it; and of old fences.

        Raises `StoreError`.
        """
        self._check_open()
        await compact(self._client, through, holds=self._root + HOLDS, fences=self._root + FENCES)

    async def status(self) -> Status:
        """How the cluster is. Raises `StoreError`."""
        self._check_open()
        return await status(self._client)

    async def close(self) -> None:
        """Finish what was accepted, then let go."""
        if self._closed:
            return
        self._closed = True
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(CLOSE_S):
                await self._batches.drain()
                await self._client.call(wire.DELETE, wire.delete_request(self._fence))
        self._batches.stop()
        self._reads.stop()
        await self._watch.close()
        await self._client.close()

    def _seen(self, revision: Revision) -> None:
        self._revision = max(self._revision, revision)
        self._watch.expect(revision)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")
