"""Time and randomness, as the server's rooms are given them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that will be made."""

    def cancel(self) -> None:
        """Do not make it."""
        ...


class Clock(Protocol):
    """Wall time for records, monotonic time for waiting."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970; never the same twice, never back."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back when `monotonic` reaches `when`."""
        ...


Entropy = Callable[[int], bytes]
"""So many random bytes, fit for keys."""
