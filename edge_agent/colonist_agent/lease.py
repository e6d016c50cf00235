"""How long one attempt may run, and its renewals.

A plain attempt ends `maxexectime` after it arrived. A sealed one is told how much is left of its
lease, and counts that from when the request was *first sent* whose reply said so: whatever held the
reply up can only make it stop earlier. It renews in the middle of each period. Before, it lets the
server know that the work has begun, if nothing else was said: an attempt that ends without a word
counts as one that never started. That also tells how much is left of a lease that was granted to a
question which had been open for long.

Where no two may run at once (`overlap: never`) it stops at nine tenths; a function that has not
begun by the middle of its time waits for the reply to a renewal first. Else, while renewals find no
way, it goes on: the first success of any attempt counts, unless the spec says `lateresult: reject`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from colonist_agent.outcome import Stop
from colonist_client.caller import decoded
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.sealer import Request, Seqs
from colonist_client.transport import UnreachableError
from colonist_core.lease import stop_after_s
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function_spec import NEVER, REJECT
from colonist_protocol.process import Attempt, Process, Renew

STALE: Final = 0.1
"""If the question is older than this part of the lease, nobody knows when that began."""
HALF: Final = 0.5
FIRST_WORD_S: Final = 1.0
FIRST_WORD: Final = 0.25
"""When the server is told that work has begun: after a second, or a quarter of a shorter lease."""

log = logging.getLogger(__name__)


class Lease:
    """The time of one attempt. `on_over` is called with the reason when it is over."""

    def __init__(
        self,
        process: Process,
        *,
        client: Client,
        backoff: Backoff,
        seqs: Seqs | None,
        since_s: float,
        on_over: Callable[[Stop], None],
    ) -> None:
        """`since_s`: when the assign was first sent; `seqs` is None for a plain attempt."""
        spec = process.spec
        self._process_id = process.processid
        self._client = client
        self._backoff = backoff
        self._seqs = seqs
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._period_s = float(max(0, spec.maxexectime))
        self._is_exclusive = spec.overlap == NEVER
        self._may_be_late = seqs is not None and spec.lateresult != REJECT
        self._is_renewed = False
        self._is_guessed = False
        self._count = 0
        self._since_s = since_s
        self._left_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if seqs is None:
            self._since_s = self._loop.time()
            self._left_s = self._period_s or None
        elif process.attempt is not msgspec.UNSET and process.attempt.lease is not msgspec.UNSET:
            self._left_s = process.attempt.lease

    @property
    def until_s(self) -> float | None:
        """Until when it may run, by the loop's clock; None: as long as it takes."""
        if self._left_s is None:
            return None
        return self._since_s + stop_after_s(self._left_s, never_overlaps=self._is_exclusive)

    def start(self, *, is_renewed: bool) -> None:
        """Count from now on; `is_renewed`: whether the function may take longer than its lease."""
        self._is_renewed = is_renewed and self._seqs is not None and self._period_s > 0
        if self._is_stale and not self._is_exclusive:
            self._since_s = self._loop.time()  # at the latest; the first word will tell
            self._is_guessed = True
        until_s = self.until_s
        if until_s is not None and until_s > self._loop.time():
            self._arm()

    def end(self) -> None:
        """Count no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    async def begun(self) -> None:
        """Return when the function may begin."""
        until_s = self.until_s
        if not self._is_exclusive or self._seqs is None or until_s is None:
            return
        if self._loop.time() - self._since_s > (until_s - self._since_s) * HALF:
            await self._say(0)

    async def run(self) -> None:
        """Renew in time, for as long as the server lets."""
        await self._say_first()
        half_s = self._period_s * HALF
        while self._is_renewed and self._left_s is not None:
            left_s = self._since_s + self._left_s - self._loop.time()
            if left_s > half_s:
                await asyncio.sleep(left_s - half_s)
                continue
            if self._count:  # the one before has gained too little: no hot loop
                await asyncio.sleep(min(self._backoff.delay_s(1), half_s * HALF))
            self._count += 1
            await self._say(self._count)

    @property
    def _is_stale(self) -> bool:
        """Whether the question was open for so long that much of the lease may be over, or none."""
        if self._seqs is None or self._left_s is None:
            return False
        return self._loop.time() - self._since_s > self._left_s * STALE

    async def _say_first(self) -> None:
        if self._seqs is None or self._left_s is None:
            return
        await asyncio.sleep(min(FIRST_WORD_S, self._left_s * FIRST_WORD))
        if self._is_guessed or not self._seqs.is_used:
            await self._say(0)

    async def _say(self, count: int) -> None:
        """Renew, and take what the server says of the rest, however long it takes to be heard."""
        request = self._client.pack(Renew(processid=self._process_id, count=count), self._seqs)
        failures = 0
        while True:
            try:
                reply = await self._client.deliver(request)
                self._take(request, decoded(reply, Attempt, request.message))
            except (UnreachableError, ServerError) as error:
                if isinstance(error, ServerError) and not is_transient(error):
                    self._refused(error)
                    return
                failures += 1
                await asyncio.sleep(self._backoff.delay_s(failures, at_least_s=advice_s(error)))
            else:
                return

    def _take(self, request: Request, reply: Attempt) -> None:
        sent_s = request.first_sent_s
        self._since_s = self._loop.time() if sent_s is None else sent_s
        self._is_guessed = False
        self._left_s = None if reply.lease is msgspec.UNSET else reply.lease
        self._arm()

    def _refused(self, error: ServerError) -> None:
        self._is_renewed = False
        if error.code == InvalidValueError.code:  # as often as the spec allows
            log.info("lease_not_renewed process=%s: %s", self._process_id, error)
            self._arm()
            return
        log.warning("attempt_over process=%s: %s", self._process_id, error)
        self._on_over(Stop.LOST)

    def _arm(self) -> None:
        self.end()
        until_s = self.until_s
        may_go_on = self._is_renewed and self._may_be_late and not self._is_exclusive
        if until_s is not None and not may_go_on:
            self._timer = self._loop.call_at(until_s, self._on_over, Stop.LEASE_OVER)
