"""Asking a store for its size, whichever kind it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.interface import Store
from colonist_server.store.sizes import Sizes

UNKNOWN_ALARM: Final = "unknown"
"""Only etcd's root may ask for alarms where users are set up."""


async def measure(store: Store, url: str) -> Sizes:
    """How large an open store is. Raises `StoreError`, `OSError`."""
    if isinstance(store, EtcdStore):
        status = await store.status()
        alarms = tuple(name for name in status.alarms if name != UNKNOWN_ALARM)
        return Sizes(status.size_bytes, status.in_use_bytes, status.quota_bytes, alarms)
    return await asyncio.to_thread(_of_file, Path(url.removeprefix("sqlite:")))


def _of_file(path: Path) -> Sizes:
    size = path.stat().st_size
    journal = path.with_name(f"{path.name}-wal")
    if journal.exists():
        size += journal.stat().st_size
    return Sizes(size, size)
