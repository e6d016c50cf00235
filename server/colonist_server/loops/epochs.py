"""Moving the server's minute on, and forgetting sealed requests in time; the leader does it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from colonist_protocol.errors import ColonistError
from colonist_server.loops.leadership import Leadership
from colonist_server.repo import keys
from colonist_server.repo.epochs import Epochs
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import DeleteRange, Guard

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
RETRY_S: Final = 1.0
FORGOTTEN_AT_ONCE: Final = 1000
"""Minutes of which the records are forgotten in one go."""


async def run(epochs: Epochs, writes: Writes, leadership: Leadership) -> None:
    """Count until cancelled. A server that was away for long goes on from where it is."""
    while True:
        await asyncio.sleep(EVERY_S)
        await leadership.wait()
        try:
            await epochs.move_on()
            await forget(epochs, writes)
        except ColonistError as error:
            log.warning("the minute was not moved on, trying again: %s", error)
            await asyncio.sleep(RETRY_S)


async def forget(epochs: Epochs, writes: Writes) -> None:
    """Delete the records of sealed requests that are refused by their age alone."""
    for _ in range(FORGOTTEN_AT_ONCE):
        page = await writes.range(keys.SEALED, limit=1)
        if not page.items or keys.minute_of_sealed(page.items[0].key) >= epochs.n:
            return
        first = page.items[0]
        minute = keys.sealed_until(keys.minute_of_sealed(first.key))
        await writes.commit([Guard(first.key, first.modified)], [DeleteRange(minute)])
