"""Grants that this agent does not know of: their replies were lost, or another run had them.

They are given back, so that the server grants them again, to whoever comes first. Only sealed
grants are looked for. One key is for one agent at a time: a second one would give back what the
first one runs.

What two may never run at once (`overlap: never`) is not given back, whatever is found of it: what
an earlier run of the agent began may go on, a program that outlived it or a thread. Its lease ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.transport import UnreachableError
from colonist_protocol.function_spec import NEVER
from colonist_protocol.process import MAX_LIST, Process, ReleaseProcess, State

log = logging.getLogger(__name__)


class LostGrants:
    """Finds and gives back what nobody here runs."""

    def __init__(
        self, client: Client, colony: str, *, backoff: Backoff, is_ours: Callable[[str], bool]
    ) -> None:
        """`is_ours` says whether a process is running here, or its result is on its way."""
        self._client = client
        self._colony = colony
        self._backoff = backoff
        self._is_ours = is_ours
        self._left: set[str] = set()

    async def give_back(self) -> int:
        """Look once, however long it takes to be answered; how many were given back."""
        count = 0
        if self._client.sealer is None:
            return count
        failures = 0
        while True:
            try:
                found = await self._lost()
                for process in found:
                    await self._release(process)
                    count += 1
                if len(found) < MAX_LIST:
                    return count
            except (UnreachableError, ServerError) as error:
                if not is_transient(error):
                    log.warning("lost_grants_not_found: %s", error)
                    return count
                failures += 1
                wait_s = self._backoff.delay_s(failures, at_least_s=advice_s(error))
                identity = self._client.identity
                log.warning(
                    "not_begun executor=%s failures=%d next_try_s=%.1f: %s",
                    identity.id if identity is not None else "none",
                    failures,
                    wait_s,
                    error,
                )
                await asyncio.sleep(wait_s)

    async def _lost(self) -> list[Process]:
        identity = self._client.identity
        own = identity.id if identity is not None else ""
        found = await self._client.processes(
            self._colony, state=State.RUNNING, count=MAX_LIST, executor_id=own
        )
        lost = [each for each in found if not self._is_ours(each.processid)]
        exclusive = {each.processid for each in lost if each.spec.overlap == NEVER}
        for process_id in sorted(exclusive - self._left):
            log.warning(
                "lost_grant_left process=%s: overlap is never, and it may still run somewhere; "
                "when its lease is over it is granted again, or fails where no retry is left",
                process_id,
            )
        self._left = exclusive
        return [each for each in lost if each.processid not in exclusive]

    async def _release(self, process: Process) -> None:
        seqs = self._client.attempts.find(process)
        if seqs is None:
            return
        log.warning("lost_grant_given_back process=%s", process.processid)
        request = self._client.pack(ReleaseProcess(processid=process.processid), seqs)
        try:
            await self._client.deliver(request)
        except ServerError as error:
            if is_transient(error):
                raise
            log.info("lost_grant_is_over process=%s: %s", process.processid, error)
        self._client.attempts.forget(process.processid)
