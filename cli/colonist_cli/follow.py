"""Waiting for a process, and its log while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from colonist_cli.exits import CliError, Exit
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import is_transient
from colonist_client.transport import UnreachableError
from colonist_protocol.log import Log
from colonist_protocol.process import Process

FIRST_S: Final = 0.02
LAST_S: Final = 0.5
GROWTH: Final = 1.3
EVER_S: Final = 100 * 365 * 86_400.0


class Follower:
    """Reads the lines of a process or an executor that are new since the last look."""

    def __init__(
        self, client: Client, colony: str, *, process_id: str = "", executor: str = ""
    ) -> None:
        self._client = client
        self._colony = colony
        self._process_id = process_id
        self._executor = executor
        self._since_ns = 0
        self._seen: set[tuple[int, str]] = set()

    async def look(self) -> list[Log]:
        """What is new."""
        found = await self._client.logs(
            self._colony,
            process_id=self._process_id,
            executor=self._executor,
            since_ns=self._since_ns,
        )
        # `since` may name the last line once more.
        new = [line for line in found if (line.timestamp, line.message) not in self._seen]
        for line in new:
            self._seen.add((line.timestamp, line.message))
            self._since_ns = max(self._since_ns, line.timestamp)
        self._seen = {key for key in self._seen if key[0] >= self._since_ns}
        return new


async def wait(
    client: Client,
    process_id: str,
    *,
    timeout_s: float,
    follower: Follower | None = None,
    show: Callable[[Log], None] = lambda _line: None,
) -> Process:
    """Until the process has ended; 0: however long it takes. Raises `CliError`."""
    pause_s = FIRST_S
    try:
        if follower is None:  # the server holds each look until there is something new
            return await client.wait(process_id, timeout_s=timeout_s or EVER_S)
        async with asyncio.timeout(timeout_s or None):
            while True:
                found = await _glance(client, process_id)
                lines = await follower.look()
                for line in lines:
                    show(line)
                if found is not None and found.is_final:
                    return found
                pause_s = FIRST_S if lines else min(LAST_S, pause_s * GROWTH)
                await asyncio.sleep(pause_s)
    except TimeoutError:
        raise CliError(
            Exit.TIMEOUT, f"process {process_id} has not ended within {timeout_s:g} s; it goes on"
        ) from None


async def _glance(client: Client, process_id: str) -> Process | None:
    try:
        return await client.get(process_id)
    except (ServerError, UnreachableError) as error:
        if is_transient(error):  # it restarts, perhaps; the process is safe there
            return None
        raise
