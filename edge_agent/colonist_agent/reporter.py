"""What the function of one running process says, on its way to the server.

The function never waits for it. While the server is unreachable things wait in the bounded mailbox;
a plain line may be there twice when a reply is lost, and that is better than not at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from colonist_agent.mailbox import Mailbox, Parcel
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.sealer import Seqs
from colonist_client.transport import UnreachableError
from colonist_protocol.process import Process

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """`batch_s` gathers what is said close together, `flush_s` bounds the end of it."""

    backoff: Backoff
    batch_s: float = 0.2
    flush_s: float = 5.0
    queue_limit: int = 1000


class Reporter:
    """Sends a mailbox's content in batches. `run` never ends by itself."""

    def __init__(
        self,
        process: Process,
        mailbox: Mailbox,
        wake: asyncio.Event,
        *,
        client: Client,
        seqs: Seqs | None,
        limits: Reporting,
        on_refused: Callable[[], Awaitable[None]],
    ) -> None:
        """`seqs` is None for a plain attempt.

        `on_refused` is awaited when the server refuses something: the process may be lost.
        """
        self._process = process
        self._mailbox = mailbox
        self._wake = wake
        self._client = client
        self._seqs = seqs
        self._limits = limits
        self._on_refused = on_refused
        self._sending = asyncio.Lock()
        self._unsent: Parcel | None = None

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._limits.batch_s)
            self._wake.clear()
            await self._send_all()

    async def finish(self, *, is_wanted: bool) -> None:
        """Send what is left, for at most `flush_s`; the rest is dropped and counted."""
        if is_wanted:
            try:
                async with asyncio.timeout(self._limits.flush_s):
                    await self._send_all()
            except TimeoutError:
                log.info("reports_unsent process=%s", self._process.processid)
        self._mailbox.drop_all()
        self._mailbox.dropped += self._unsent.count if self._unsent else 0

    async def _send_all(self) -> None:
        async with self._sending:
            while True:
                self._unsent = self._unsent or self._mailbox.take()
                if self._unsent is None:
                    return
                await self._send(self._unsent)
                self._unsent = None

    async def _send(self, parcel: Parcel) -> None:
        request = self._client.pack(parcel.message, self._seqs)
        failures = 0
        while True:
            try:
                await self._client.deliver(request)
            except (UnreachableError, ServerError) as error:
                if not is_transient(error):
                    self._mailbox.dropped += parcel.count
                    await self._on_refused()
                    return
                failures += 1
                wait_s = self._limits.backoff.delay_s(failures, at_least_s=advice_s(error))
                await asyncio.sleep(wait_s)
            else:
                return
