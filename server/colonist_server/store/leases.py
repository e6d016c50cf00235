"""Leases of this process: which live, and when the next one ends. Lives on the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that can be taken back."""

    def cancel(self) -> None:
        """Do not call."""
        ...


class Clock(Protocol):
    """The part of an event loop that deals with time; an event loop is one."""

    def time(self) -> float:
        """Monotonic seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        """Call back once `time()` has reached `when`."""
        ...


class _Lease:
    __slots__ = ("ends", "timer", "ttl_s")

    def __init__(self, ttl_s: float, ends: float) -> None:
        self.ttl_s = ttl_s
        self.ends = ends
        self.timer: Timer | None = None


class Leases:
    """Calls `on_end` with each lease that was not kept alive."""

    def __init__(self, clock: Clock, on_end: Callable[[int], None]) -> None:
        self._clock = clock
        self._on_end = on_end
        self._live: dict[int, _Lease] = {}
        self._last = 0

    def __contains__(self, lease: object) -> bool:
        return lease in self._live

    def grant(self, ttl_s: float) -> int:
        """A new lease."""
        self._last += 1
        self._live[self._last] = lease = _Lease(ttl_s, self._clock.time() + ttl_s)
        self._arm(self._last, lease)
        return self._last

    def keep_alive(self, lease: int) -> bool:
        """Start the time of a lease anew; False when it has ended."""
        live = self._live.get(lease)
        if live is None:
            return False
        # The timer stays as it is and looks again when it rings.
        live.ends = self._clock.time() + live.ttl_s
        return True

    def end(self, lease: int) -> bool:
        """Forget a lease; False when it has already ended."""
        live = self._live.pop(lease, None)
        if live is not None and live.timer is not None:
            live.timer.cancel()
        return live is not None

    def close(self) -> None:
        """Forget all leases, without ending them."""
        for lease in list(self._live):
            self.end(lease)

    def _arm(self, id: int, lease: _Lease) -> None:
        lease.timer = self._clock.call_at(lease.ends, lambda: self._ring(id, lease))

    def _ring(self, id: int, lease: _Lease) -> None:
        if self._clock.time() < lease.ends:
            self._arm(id, lease)
            return
        self.end(id)
        self._on_end(id)
