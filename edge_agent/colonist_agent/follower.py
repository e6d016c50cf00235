"""Learns from the server when a running process is cancelled or no longer ours.

One held read per running process is open for as long as it runs. A server that answers at once is
asked every `check_s` instead, and so is any server when too many reads are held already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from colonist_agent.outcome import Stop
from colonist_agent.watch import Watch
from colonist_client.failure import ServerError
from colonist_client.transport import UnreachableError
from colonist_protocol.process import Process, State

SETTLE_S: Final = 0.25
"""Most functions are short: those that end sooner cost no question. A cancel is seen this late."""

log = logging.getLogger(__name__)


class Follower:
    """Follows one attempt. `on_stop` is called with the reason when it is over."""

    def __init__(self, given: Process, *, watch: Watch, on_stop: Callable[[Stop], None]) -> None:
        """`given` is the process as it was assigned."""
        self._given = given
        self._watch = watch
        self._on_stop = on_stop

    async def run(self) -> None:
        """Follow until there is a reason to stop, or cancelled."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(SETTLE_S)
        early = 0
        while True:
            asked_s = loop.time()
            stop = await self._next()
            if stop is not None:
                self._on_stop(stop)
                return
            if self._watch.was_held(asked_s):
                early = 0
            else:
                early += 1
                await asyncio.sleep(self._watch.pause_s(asked_s, early))

    async def look(self) -> None:
        """Look once, now; a failure says nothing."""
        try:
            stop = judge(self._given, await self._watch.client.get(self._given.processid))
        except (ServerError, UnreachableError) as error:
            stop = _refused(error)
        if stop is not None:
            self._on_stop(stop)

    async def _next(self) -> Stop | None:
        process_id = self._given.processid
        try:
            found = await self._watch.read(process_id, while_state=State.RUNNING, is_own=True)
            stop = judge(self._given, found)
            if stop is Stop.LOST:
                # Over MQTT a late answer to the same question about an earlier attempt looks like
                # this, and an attempt that is ended by mistake holds its process up.
                stop = judge(self._given, await self._watch.read(process_id))
        except ServerError as error:
            log.info("process_cannot_be_followed process=%s: %s", process_id, error)
            return _refused(error)
        return stop


def judge(given: Process, found: Process) -> Stop | None:
    """Why the attempt that was given is over, as the server shows the process; None: it is not."""
    if found.state == State.CANCELLED:
        return Stop.CANCELLED
    if (
        found.is_final
        or found.assignedexecutorid != given.assignedexecutorid
        or found.starttime != given.starttime
    ):
        return Stop.LOST
    return None


def _refused(error: Exception) -> Stop | None:
    # Any other refusal may be about us and not about the process: its close will show.
    is_gone = isinstance(error, ServerError) and error.status == HTTPStatus.NOT_FOUND
    return Stop.LOST if is_gone else None
