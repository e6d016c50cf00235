"""What may be forgotten: what ended too long ago, and the oldest of what is too much."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.times import SECOND_NS

LOOK_S: Final = 3600.0
"""However little there is to do, it is looked for this often."""

_SLACK: Final = 100
"""What is too much is removed when it is a hundredth too much; what is due, a hundredth late."""


class Policy(msgspec.Struct, frozen=True, gc=False):
    """How much of a colony's history is kept: seconds since its end, number; 0: no bound."""

    age_s: float = 0.0
    count: int = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is ever forgotten."""
        return self.age_s > 0 or self.count > 0

    def horizon_ns(self, now_ns: int) -> int:
        """What ended then or before is forgotten; 0: nothing is."""
        return max(now_ns - int(self.age_s * SECOND_NS), 0) if self.age_s > 0 else 0

    def surplus(self, kept: int) -> int:
        """How many of so many are too many."""
        return max(kept - self.count, 0) if self.count > 0 else 0

    def is_crowded(self, kept: int, floor: int = 0) -> bool:
        """Whether the surplus is worth removing; `floor` are known to be kept whatever happens."""
        bound = max(self.count, floor)
        return self.count > 0 and kept > bound + bound // _SLACK

    def wait_s(self, now_ns: int, oldest_ns: int) -> float:
        """When to look again, where the oldest that was kept ended then; 0: nothing was kept.

        What ends from now on is due an age from now.
        """
        if self.age_s <= 0:
            return LOOK_S
        due_s = self.age_s - (now_ns - oldest_ns) / SECOND_NS if oldest_ns else self.age_s
        return min(LOOK_S, max(due_s, self.age_s / _SLACK))
