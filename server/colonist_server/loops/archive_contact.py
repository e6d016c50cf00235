"""Making contact with an archive that could not be reached at the start; then it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from colonist_server.repo.claimed_archive import ClaimedArchive

log = logging.getLogger(__name__)

FIRST_S: Final = 1.0
LONGEST_S: Final = 30.0


async def run(archive: ClaimedArchive) -> None:
    """Try, with growing pauses, until it is known to be the right one.

    Also one that was another: its address may lead elsewhere tomorrow.
    """
    pause_s = FIRST_S
    while not archive.is_known:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_S)
        try:
            await archive.look()
        except Exception:  # what a database says must not end the server (P1)
            log.exception("the archive is not used")
