"""Following etcd: one watch over the whole prefix, gap-free over every break of the connection."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import Final

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.client import Client, pauses
from colonist_server.store.etcd.reads import Reads
from colonist_server.store.interface import CompactedError, Revision, StoreError
from colonist_server.store.ring import EventRing

log = logging.getLogger(__name__)

TOO_FAR: Final = 100_000
"""So many revisions behind, it is cheaper to range anew (a watch from far back costs etcd dear)."""
SILENT_S: Final = 1.0
"""So long after a commit was answered, its event must have come; else the watch is dead."""
BEHIND_S: Final = 2.0


class Watch:
    """Feeds a ring with what happens under a prefix, from a revision on."""

    def __init__(
        self, client: Client, reads: Reads, *, watched: bytes, prefix: bytes, revision: Revision
    ) -> None:
        self._client = client
        self._reads = reads
        self._watched = watched
        self._prefix = prefix
        self._loop = asyncio.get_running_loop()
        self._reached = revision
        self._expected = revision
        self._expected_since = 0.0
        self._endpoint = ""
        self._stream: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()
        self.ring = EventRing(revision)
        self._task = self._loop.create_task(self._run())

    @property
    def reached(self) -> Revision:
        """The newest revision that came."""
        return self._reached

    @property
    def behind_s(self) -> float:
        """For how long an event is missing that is known to exist."""
        return self._loop.time() - self._expected_since if self._expected > self._reached else 0.0

    def expect(self, revision: Revision) -> None:
        """A commit of ours was answered: its event must come soon."""
        if revision <= self._expected:
            return
        if self._expected <= self._reached:
            self._expected_since = self._loop.time()
        self._expected = revision
        if self._timer is None and revision > self._reached:
            self._timer = self._loop.call_later(SILENT_S, self._look)

    async def reach(self, revision: Revision, within_s: float) -> bool:
        """Wait until the watch has come so far."""
        until = self._loop.time() + within_s
        while self._reached < revision:
            self._moved.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return True

    async def close(self) -> None:
        """Stop following, and end all watches."""
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.ring.close()

    def _look(self) -> None:
        """Break off a stream that keeps silent; the next one goes on where it was."""
        self._timer = None
        if self._expected <= self._reached:
            return
        silent_s = self.behind_s
        if silent_s >= SILENT_S and self._stream is not None:
            log.warning("etcd: the watch at %s is silent: opening another", self._endpoint)
            self._client.move_on(self._endpoint)
            self._stream.cancel()
            silent_s = 0.0
        self._timer = self._loop.call_later(max(SILENT_S - silent_s, 0.01), self._look)

    async def _run(self) -> None:
        rests = pauses()
        while True:
            before = self._reached
            self._stream = self._loop.create_task(self._follow())
            try:
                await asyncio.wait([self._stream])
            finally:
                self._stream.cancel()
            error = None if self._stream.cancelled() else self._stream.exception()
            if isinstance(error, CompactedError):
                with suppress(StoreError):  # the next stream finds the same, and tries again
                    await self._start_anew()
            elif error is not None and not isinstance(error, StoreError):
                log.error("etcd: the watch failed", exc_info=error)
            if self._reached > before:
                rests = pauses()
            else:
                self._client.move_on(self._endpoint)
            await asyncio.sleep(next(rests))

    async def _follow(self) -> None:
        if self._expected - self._reached > TOO_FAR:
            raise CompactedError("too far behind")
        request = wire.watch_request(self._watched, self._reached + 1)
        stream = self._client.stream(wire.WATCH, request, self._opened)
        async with aclosing(stream) as responses:
            async for response in responses:
                if response.canceled:
                    if response.compact_revision:
                        raise CompactedError(response.cancel_reason)
                    log.warning("etcd: the watch was refused: %s", response.cancel_reason)
                    await self._reads.revision()  # renews a token that has run out
                    return
                self._take(response)

    def _opened(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def _take(self, response: object) -> None:
        events = wire.events(response, self._prefix)
        if not events:
            return
        self._reached = events[-1].revision
        if self._expected > self._reached:
            self._expected_since = self._loop.time()
        self.ring.extend(events)
        self._moved.set()

    async def _start_anew(self) -> None:
        """What was missed is forgotten: whoever watches is told to range."""
        revision = await self._reads.revision()
        log.warning("etcd: the watch lost revisions %d to %d", self._reached, revision)
        self._reached = revision
        self.ring.restart(revision)
        self._moved.set()
