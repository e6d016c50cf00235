"""Opening a store by its URL: the one place that knows which stores there are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from colonist_server.store.etcd import address
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import StoreError
from colonist_server.store.sqlite import SqliteStore

SQLITE: Final = "sqlite:"
ETCD: Final = address.SCHEME

AnyStore = SqliteStore | EtcdStore


def check_url(url: str) -> None:
    """Raise `StoreError` unless it is `sqlite:PATH` or `etcd://HOST,HOST/PREFIX?OPTIONS`."""
    if url.startswith(ETCD):
        address.parse(url)
    elif not url.startswith(SQLITE) or not url.removeprefix(SQLITE):
        kind = url.partition(":")[0][:16]  # the rest may hold a password
        raise StoreError(f"store {kind!r}: it is neither sqlite:PATH nor like {address.EXAMPLE}")


def is_shared(url: str) -> bool:
    """Whether several servers may be on the store."""
    return url.startswith(ETCD)


async def open_store(url: str, *, separate_writer: bool = False) -> AnyStore:
    """Open a store; use it as `async with`. Raises `StoreError`.

    `separate_writer` lets an SQLite file be written in a process of its own.
    """
    check_url(url)
    if is_shared(url):
        return await EtcdStore.open(address.parse(url))
    path = Path(url.removeprefix(SQLITE))
    return await SqliteStore.open(path, in_process=not separate_writer)
