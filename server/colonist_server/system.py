"""The machine's time and chance, as the server's rooms are given them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from colonist_server.repo.clock import Timer

POOL_BYTES: Final = 4096


class SystemClock:
    """The machine's time."""

    __slots__ = ("_last_ns", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since 1970; never the same twice, never back."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

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
