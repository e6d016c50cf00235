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

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from colonist_server.repo.clock import Clock

WINDOW: Final = 64
STEP_S: Final = 0.010
LONGEST_STEP_S: Final = 0.040
LAST_TURN_S: Final = 0.045
"""What waits and somebody it fits must not both wait for longer than 50 ms."""
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


class Pace:
    """How long the others are given: some times what a claim takes here, as it does there.

    On a busy machine a claim takes longer; who did not wait for it would try in vain.
    """

    __slots__ = ("_claim_s",)

    def __init__(self) -> None:
        self._claim_s = 0.0

    def note(self, claim_s: float) -> None:
        """A claim was committed, or lost, after so many seconds."""
        self._claim_s += (claim_s - self._claim_s) * _NEWEST_WEIGHS

    @property
    def step_s(self) -> float:
        """From one node's turn to the next one's."""
        return min(max(STEP_S, _CLAIMS_A_STEP * self._claim_s), LONGEST_STEP_S)


_NEWEST_WEIGHS: Final = 0.1
_CLAIMS_A_STEP: Final = 4


def turn_s(pid: bytes, node: str, others: tuple[str, ...], step_s: float = STEP_S) -> float:
    """For how long a node leaves a process to others: 0 for its own, more the later its turn."""
    return min(_turns_before(pid, node, others) * step_s, LAST_TURN_S)


@lru_cache(maxsize=4096)
def _turns_before(pid: bytes, node: str, others: tuple[str, ...]) -> int:
    mine = _weight(pid, node)
    return sum(_weight(pid, other) > mine for other in others)


def choose(
    window: Iterable[L], node: str, others: tuple[str, ...], now: float, step_s: float = STEP_S
) -> Choice[L]:
    """What a node takes of the first that fit.

    The first that is its own, or overdue; else the last whose turn has come: those before it are
    the ones that another node is about to take.
    """
    turned: L | None = None
    left: list[L] = []
    for one in window:
        wait_s = turn_s(one.pid, node, others, step_s)
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

    __slots__ = ("_asked", "_clock", "on_new")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[Work, float] = {}
        self.on_new: Callable[[], None] | None = None
        """Told of a kind of work that nobody has asked for of late."""

    def note(self, tag: bytes, type: str) -> None:
        """Somebody asks, or has stopped waiting, just now."""
        work = (tag, type)
        is_new = work not in self._asked
        self._asked[work] = self._clock.monotonic()
        if is_new and self.on_new is not None:
            self.on_new()

    def classes(self, waiting: Iterable[Work]) -> tuple[Work, ...]:
        """What somebody waits for, or asked for within the last `INTEREST_S`, in order."""
        oldest = self._clock.monotonic() - INTEREST_S
        self._asked = {work: at for work, at in self._asked.items() if at >= oldest}
        return tuple(sorted({*self._asked, *waiting}))
