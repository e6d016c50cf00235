"""Statistics of a function: COLONIES-RPC section 4.10, with a real mean."""

from __future__ import annotations

import msgspec


class Tally(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counts and times (seconds) of successful runs."""

    counter: int = 0
    min_wait_s: float = 0.0
    max_wait_s: float = 0.0
    sum_wait_s: float = 0.0
    min_exec_s: float = 0.0
    max_exec_s: float = 0.0
    sum_exec_s: float = 0.0

    @property
    def mean_wait_s(self) -> float:
        """The mean waiting time."""
        return self.sum_wait_s / self.counter if self.counter else 0.0

    @property
    def mean_exec_s(self) -> float:
        """The mean execution time."""
        return self.sum_exec_s / self.counter if self.counter else 0.0


def counted(tally: Tally, wait_s: float, exec_s: float) -> Tally:
    """The tally with one more run."""
    first = not tally.counter
    return Tally(
        counter=tally.counter + 1,
        min_wait_s=wait_s if first else min(tally.min_wait_s, wait_s),
        max_wait_s=max(tally.max_wait_s, wait_s),
        sum_wait_s=tally.sum_wait_s + wait_s,
        min_exec_s=exec_s if first else min(tally.min_exec_s, exec_s),
        max_exec_s=max(tally.max_exec_s, exec_s),
        sum_exec_s=tally.sum_exec_s + exec_s,
    )
