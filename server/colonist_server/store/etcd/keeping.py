"""Keeping etcd small and knowing how it is: compaction, holds against it, sizes and alarms."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.client import Client
from colonist_server.store.etcd.wire import Span
from colonist_server.store.interface import (
    CompactedError,
    Delete,
    Guard,
    Item,
    Revision,
    StoreError,
)
from colonist_server.store.laws import prefix_end

HOLD_S: Final = 60.0


class Status(NamedTuple):
    """How a cluster is: sizes in bytes as its endpoint that is used now has them."""

    version: str
    endpoint: str
    members: int
    size_bytes: int
    in_use_bytes: int
    quota_bytes: int
    alarms: list[str]


async def status(client: Client) -> Status:
    """Ask the cluster how it is. Raises `StoreError`."""
    told = await client.ask(wire.STATUS, wire.status_request())
    members = await client.ask(wire.MEMBERS, wire.members_request())
    try:
        alarms = wire.alarms(await client.ask(wire.ALARM, wire.alarms_request()))
    except StoreError:  # only etcd's root may ask
        alarms = ["unknown"]
    return Status(
        version=told.version,
        endpoint=client.endpoint,
        members=len(members.members),
        size_bytes=told.dbSize,
        in_use_bytes=told.dbSizeInUse,
        quota_bytes=client.address.quota_bytes,
        alarms=alarms,
    )


@asynccontextmanager
async def hold(client: Client, prefix: bytes) -> AsyncGenerator[Revision]:
    """The newest revision, kept from compaction until the block is left."""
    response = await client.ask(wire.GRANT, wire.grant_request(math.ceil(HOLD_S)))
    lease: int = response.ID
    try:
        put = wire.put_request(prefix + os.urandom(8), b"", lease)
        held = await client.ask(wire.TXN, put)
        renewal = asyncio.create_task(_renew(client, lease))
        try:
            yield held.header.revision
        finally:
            renewal.cancel()
    finally:
        with suppress(StoreError):
            await client.ask(wire.REVOKE, wire.revoke_request(lease))


async def _renew(client: Client, lease: int) -> None:
    while True:
        await asyncio.sleep(HOLD_S / 4)
        with suppress(StoreError, TimeoutError):
            await client.renew(lease)


async def compact(client: Client, through: Revision, *, holds: bytes, fences: bytes) -> None:
    """Forget what was before a revision, but for what is held, and fences that nobody uses.

    A fence that is still in use may go too: its lane then finds it absent, and goes on.
    """
    held = await _under(client, holds)
    # Not the last writing: a try that came late may have written a hold again.
    through = min([through, *(hold.created for hold in held)])
    for fence in await _under(client, fences):
        if fence.modified < through:
            request = wire.fragment(b"", [Guard(fence.key, fence.modified)], [Delete(fence.key)])
            await client.ask(wire.TXN, request)
    with suppress(CompactedError):
        await client.ask(wire.COMPACT, wire.compact_request(through))


async def _under(client: Client, prefix: bytes) -> list[Item]:
    span = Span(prefix, prefix_end(prefix), keys_only=True)
    return wire.page(await client.ask(wire.RANGE, wire.range_request(span)), 0).items
