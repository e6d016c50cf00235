"""How nodes on one store share a queue without asking each other: own share first.

All nodes see the same queue. If each took what stands first, most of their commits would be lost to
another's. So each process belongs to one of the nodes where executors ask for its kind of work (the
highest hash of process and node), and there is an order in which the others follow. A node takes
its own among the first `WINDOW` that fit, and leaves another's for a moment (`turn_s`): long enough
for a node that has a use for it, short enough for an executor that waits. Nothing is ever kept from
everybody: what a node has left for `OVERDUE_S` is as good as its own.

This decides who tries first only. Who gets it is decided by the guarded commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from colonist_server.repo.clock import Clock

WINDOW: Final = 64
STEP_S: Final = 0.010
LAST_TURN_S: Final = 0.030
OVERDUE_S: Final = 0.25
INTEREST_S: Final = 10.0
"""For so long those who asked are expected to ask again."""

_KEY_BYTES: Final = 64
"""What blake2b takes as its key."""

Work = tuple[bytes, str]
"""A kind of work: the tag of the colony, and the type of executor."""


class Peers(Protocol):
    """The other nodes on the same store."""

    def interested(self, tag: bytes, type: str) -> tuple[str, ...]:
        """The names of those where executors of a type ask for a colony's work, in any order."""
        ...


class Alone:
    """No other nodes."""

    def interested(self, tag: bytes, type: str) -> tuple[str, ...]:
        """Nobody."""
        del tag, type
        return ()


class Left(Protocol):
    """What may be left to another node; `left_at` 0: it was not."""

    pid: bytes
    left_at: float


L = TypeVar("L", bound=Left)


class Choice(NamedTuple, Generic[L]):
    """What to take, if anything, and what was left to others for the first time."""

    taken: L | None
    left: list[L]


@lru_cache(maxsize=4096)
def turn_s(pid: bytes, node: str, others: tuple[str, ...]) -> float:
    """For how long a node leaves a process to others: 0 for its own, more the later its turn."""
    mine = _weight(pid, node)
    before = sum(_weight(pid, other) > mine for other in others)
    return min(before * STEP_S, LAST_TURN_S)


def choose(window: Iterable[L], node: str, others: tuple[str, ...], now: float) -> Choice[L]:
    """What a node takes of the first that fit.

    The first that is its own, or overdue; else the last whose turn has come: those before it are
    the ones that another node is about to take.
    """
    turned: L | None = None
    left: list[L] = []
    for one in window:
        wait_s = turn_s(one.pid, node, others)
        since = now - one.left_at
        if not wait_s or (one.left_at and since >= OVERDUE_S):
            return Choice(one, left)
        if not one.left_at:
            left.append(one)
        elif since >= wait_s:
            turned = one
    return Choice(turned, left)


def _weight(pid: bytes, node: str) -> tuple[bytes, str]:
    key = node.encode()[:_KEY_BYTES]
    return blake2b(pid, digest_size=8, key=key).digest(), node


class Interest:
    """What executors have asked this node for of late; other nodes are told of it."""

    __slots__ = ("_asked", "_clock")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[Work, float] = {}

    def note(self, tag: bytes, type: str) -> None:
        """Somebody asks, or has stopped waiting, just now."""
        self._asked[tag, type] = self._clock.monotonic()

    def classes(self, waiting: Iterable[Work]) -> tuple[Work, ...]:
        """What somebody waits for, or asked for within the last `INTEREST_S`, in order."""
        oldest = self._clock.monotonic() - INTEREST_S
        self._asked = {work: at for work, at in self._asked.items() if at >= oldest}
        return tuple(sorted({*self._asked, *waiting}))
