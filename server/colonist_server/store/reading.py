"""Opening a store by its URL only to read it, beside the servers that are at work on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from colonist_server.store import opening
from colonist_server.store.etcd import address
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import Range
from colonist_server.store.sqlite_reading import SqliteReading


class Readable(Protocol):
    """A store of which a snapshot can be taken."""

    def snapshot(self) -> AsyncGenerator[Range]:
        """As `Store.snapshot`."""
        ...


class HasStatus(Readable, Protocol):
    """A store that can tell more of itself than its keys do."""

    async def status(self) -> Sequence[object]:
        """What it knows of its place; a named tuple, or pairs of a name and a value."""
        ...


@asynccontextmanager
async def open_reading(url: str) -> AsyncGenerator[HasStatus]:
    """Open a store that is there, only to read it. Raises `StoreError`."""
    opening.check_url(url)
    if opening.is_shared(url):
        async with await EtcdStore.open(address.parse(url)) as store:
            yield store
    else:
        path = Path(url.removeprefix(opening.SQLITE))
        yield await asyncio.to_thread(SqliteReading, path)
