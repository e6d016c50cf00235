"""Storing the tallies of functions now and then."""

from __future__ import annotations

import asyncio
import logging

from colonist_protocol.errors import ColonistError
from colonist_server.loops.leadership import Leadership
from colonist_server.repo.functions import Functions

log = logging.getLogger(__name__)


async def run(functions: Functions, every_s: float, leadership: Leadership) -> None:
    """Fold until cancelled; every node counts, the leader stores."""
    while True:
        await asyncio.sleep(every_s)
        await leadership.wait()
        try:
            await functions.fold()
        except ColonistError as error:
            log.warning("tallies not stored, trying again: %s", error)
