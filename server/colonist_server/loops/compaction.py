"""Letting the store forget what it was a while ago, where it remembers that until it is told.

The leader does it. What backups and other readers still need the store itself holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol, runtime_checkable

from colonist_server.loops.leadership import Leadership
from colonist_server.repo.clock import Clock
from colonist_server.store.interface import Revision, Store, StoreError

log = logging.getLogger(__name__)

EVERY_S: Final = 30.0
KEPT_S: Final = 60.0


@runtime_checkable
class Compacting(Protocol):
    """A store that keeps its history until it is told otherwise."""

    async def compact(self, through: Revision) -> None:
        """Let go of what was before a revision, unless somebody reads it. Raises `StoreError`."""
        ...


async def run(store: Store, leadership: Leadership, clock: Clock) -> None:
    """Compact until cancelled; returns at once where there is nothing to compact."""
    if not isinstance(store, Compacting):
        return
    seen: deque[tuple[float, Revision]] = deque()
    while True:
        await asyncio.sleep(EVERY_S)
        now = clock.monotonic()
        seen.append((now, store.revision))
        through = 0
        while seen and seen[0][0] <= now - KEPT_S:
            through = seen.popleft()[1]
        if through and leadership.is_leader:
            await _compact(store, through)


async def _compact(store: Compacting, through: Revision) -> None:
    try:
        await store.compact(through)
    except StoreError as error:
        log.warning("the store was not compacted, trying again: %s", error)
