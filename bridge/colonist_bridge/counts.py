"""What happened how often: everything that is dropped, refused or joined is counted by name."""

from __future__ import annotations

from collections import Counter


class Counts:
    """Numbers that only grow. Names are words of this program, never of a sender."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """One more."""
        self._numbers[name] += 1

    def of(self, name: str) -> int:
        """How many so far."""
        return self._numbers[name]

    def all(self) -> dict[str, int]:
        """A copy of all that are not zero."""
        return dict(self._numbers)
