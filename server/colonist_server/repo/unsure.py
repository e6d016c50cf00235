"""Assignments of which this node does not know whether they were made.

A store that was away may carry out a commit after whoever sent it was told that nobody knows. The
executor has had an error then, and will not work on what is its own. So what was to be written is
remembered, and when the view shows it, it is somebody's who never heard of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from colonist_core.process import Live
from colonist_protocol.process import State
from colonist_server.repo.nouns import Row

MOST: Final = 20_000
TRIES: Final = 8
"""Of what never comes nobody tells: so many processes, and tries of each, are remembered."""


class Unsure:
    """What may come yet, by process."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, deque[bytes]] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def note(self, pid: bytes, live: Live, row: Row | None) -> bool:
        """Remember an assignment; True when it is there already: it will not be told of again."""
        if row is not None and _is(row, [live.head]):
            return True
        while len(self._heads) >= MOST and pid not in self._heads:
            del self._heads[next(iter(self._heads))]
        self._heads.setdefault(pid, deque(maxlen=TRIES)).append(live.head)
        return False

    def came(self, row: Row) -> bool:
        """A process has changed: whether that is what was not known.

        Whatever it is, what is still on its way comes too late: its guards fail.
        """
        heads = self._heads.pop(row.pid, None)
        return heads is not None and _is(row, heads)


def _is(row: Row, heads: Iterable[bytes]) -> bool:
    return row.state == State.RUNNING and row.live().head in heads
