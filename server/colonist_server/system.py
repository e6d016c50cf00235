"""The machine's time and chance, as the server's rooms are given them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Final

from colonist_protocol.times import SECOND_NS
from colonist_server.repo.clock import Timer

log = logging.getLogger(__name__)

POOL_BYTES: Final = 4096
TOLD_NS: Final = SECOND_NS
"""An operator is told of a machine whose clock was set back by more."""


class SystemClock:
    """The machine's time. Where that is set back it goes on as if nothing had happened.

    What stood still would tell leases that are longer than they are.
    """

    __slots__ = ("_ahead_ns", "_last_ns", "_loop", "_ticks_ns")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last_ns = 0
        self._ticks_ns = time.monotonic_ns()
        self._ahead_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970; never the same twice, never back, never still."""
        wall_ns, ticks_ns = time.time_ns(), time.monotonic_ns()
        least_ns = self._last_ns + max(1, ticks_ns - self._ticks_ns)
        self._note(least_ns - wall_ns if self._last_ns else 0)
        self._last_ns, self._ticks_ns = max(wall_ns, least_ns), ticks_ns
        return self._last_ns

    def _note(self, ahead_ns: int) -> None:
        if ahead_ns > self._ahead_ns + TOLD_NS:
            log.warning(
                "the machine's clock was set back, this server's is %.1f s ahead of it and stays so"
                " until it is started again",
                ahead_ns / SECOND_NS,
            )
            self._ahead_ns = ahead_ns
        elif ahead_ns <= 0:
            self._ahead_ns = 0

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back when `monotonic` reaches `when`."""
        return self._loop.call_at(when, callback)


class EntropyPool:
    """The system's random bytes, fetched for many ids at once: a call costs as much as 4 KiB."""

    __slots__ = ("_bytes", "_next")

    def __init__(self) -> None:
        self._bytes = b""
        self._next = 0

    def __call__(self, size: int) -> bytes:
        """Bytes that were never given out before."""
        start = self._next
        self._next = start + size
        if self._next > len(self._bytes):
            self._bytes = os.urandom(max(POOL_BYTES, size))
            start, self._next = 0, size
        return self._bytes[start : self._next]
