"""What leaves the store for the archive: what is old, and the oldest of what is too much."""

from __future__ import annotations

import msgspec

from colonist_protocol.times import SECOND_NS

PROCESS_BYTES = 2_048
"""What a closed process takes, until it is known better."""


class Policy(msgspec.Struct, frozen=True, gc=False):
    """How much history the store keeps: seconds since its end, number, bytes."""

    age_s: float = 300.0
    count: int = 100_000
    bytes: int = 536_870_912

    def horizon_ns(self, now_ns: int) -> int:
        """What ended then or before leaves."""
        return max(now_ns - int(self.age_s * SECOND_NS), 0)

    def surplus(self, kept: int, mean_bytes: float = 0.0) -> int:
        """How many of so many are too many, where one takes so many bytes; 0: not known."""
        return max(kept - self.most(mean_bytes), 0)

    def most(self, mean_bytes: float = 0.0) -> int:
        """How many may be kept, where one takes so many bytes; 0: not known."""
        return min(self.count, int(self.bytes / max(mean_bytes or PROCESS_BYTES, 1.0)))

    def wait_s(self, now_ns: int, oldest_ns: int) -> float:
        """When to look again, where the oldest that stays ended then; 0: nothing stays.

        What ends from now on leaves an age from now.
        """
        return self.age_s - (now_ns - oldest_ns) / SECOND_NS if oldest_ns else self.age_s
