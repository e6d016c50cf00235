"""So many in a while, and a few at once."""

from __future__ import annotations

from collections.abc import Callable


class Rate:
    """A bucket that fills at `per_s` up to `burst`."""

    __slots__ = ("_at", "_burst", "_clock", "_left", "_per_s")

    def __init__(self, *, per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()

    def takes_one(self) -> bool:
        """Whether there is room for one more; if so it is taken."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
