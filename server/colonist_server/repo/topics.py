"""Who follows what in one colony, by what they follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol, TypeVar

from colonist_core.process import Live
from colonist_protocol.subscription import ANY_STATE
from colonist_server.repo.clock import Timer
from colonist_server.repo.nouns import Colony
from colonist_server.store.interface import Revision

K = TypeVar("K")

ANY_TYPE: Final = ""


class Ending(Enum):
    """Why a subscription is over."""

    DONE = auto()
    TIME_IS_UP = auto()
    REMOVED = auto()
    REFUSED = auto()
    PLAIN_REFUSED = auto()
    BEHIND = auto()
    TOO_MANY = auto()
    UNREADABLE = auto()
    CLOSING = auto()


class Follower(NamedTuple):
    """Who follows something or waits for a change, and whether by a sealed request."""

    who: str
    is_sealed: bool


class Order(NamedTuple):
    """What a member wants to follow: one process, or (`pid` None) those of a type."""

    colony: Colony
    who: str
    pid: bytes | None
    state: int
    type: str
    timeout_s: float
    is_sealed: bool = False

    @property
    def follower(self) -> Follower:
        """By whom, and how."""
        return Follower(self.who, self.is_sealed)


class Sink(Protocol):
    """Where a subscription ends up. Calls must not wait and must not raise."""

    def deliver(self, frame: bytes) -> None:
        """Send a reply; the same object goes to everybody."""
        ...

    def over(self, subscription: Subscription, ending: Ending) -> None:
        """Nothing more will come."""
        ...


class Subscription:
    """One order and its sink. What happened up to the revision `seen` is not told any more."""

    __slots__ = ("is_over", "is_there", "order", "seen", "sink", "timer")

    def __init__(self, order: Order, sink: Sink, seen: Revision) -> None:
        self.order = order
        self.sink = sink
        self.seen = seen
        self.is_there = False
        self.is_over = False
        self.timer: Timer | None = None

    def wants(self, state: int) -> bool:
        """Whether it asks for this state."""
        return self.order.state in (ANY_STATE, state)


class _Crowd:
    """Those who follow the same kind of event; one tuple of them serves many events."""

    __slots__ = ("_all", "members")

    def __init__(self) -> None:
        self.members: dict[Subscription, None] = {}
        self._all: tuple[Subscription, ...] | None = None

    def add(self, subscription: Subscription) -> None:
        self.members[subscription] = None
        self._all = None

    def discard(self, subscription: Subscription) -> None:
        self.members.pop(subscription, None)
        self._all = None

    def everyone(self) -> tuple[Subscription, ...]:
        if self._all is None:
            self._all = tuple(self.members)
        return self._all


class Topic:
    """All subscriptions and held requests of one colony."""

    __slots__ = ("_callers", "_followed", "_parked", "_streams", "colony")

    def __init__(self, colony: Colony) -> None:
        self.colony = colony
        self._streams: dict[tuple[str, int], _Crowd] = {}
        self._followed: dict[bytes, _Crowd] = {}
        self._callers: dict[Follower, dict[Subscription, None]] = {}
        self._parked: dict[bytes, dict[asyncio.Future[None], Follower]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody follows anything here."""
        return not self._callers and not self._parked

    def add(self, subscription: Subscription) -> None:
        """File a subscription."""
        order = subscription.order
        if order.pid is None:
            self._streams.setdefault((order.type, order.state), _Crowd()).add(subscription)
        else:
            self._followed.setdefault(order.pid, _Crowd()).add(subscription)
        self._callers.setdefault(order.follower, {})[subscription] = None

    def discard(self, subscription: Subscription) -> None:
        """Take it out."""
        order = subscription.order
        if order.pid is None:
            _take(self._streams, (order.type, order.state), subscription)
        else:
            _take(self._followed, order.pid, subscription)
        mine = self._callers.get(order.follower)
        if mine is not None:
            mine.pop(subscription, None)
            if not mine:
                del self._callers[order.follower]

    def cares(self, pid: bytes) -> bool:
        """Whether anybody may want to see this process."""
        return bool(self._streams) or pid in self._followed

    def audience(self, live: Live) -> list[tuple[Subscription, ...]]:
        """Those who follow the colony's processes of this type into this state."""
        if not self._streams:
            return []
        type, state = live.placement.type, live.state
        wanted = dict.fromkeys(
            ((type, state), (type, ANY_STATE), (ANY_TYPE, state), (ANY_TYPE, ANY_STATE))
        )
        crowds = [crowd for key in wanted if (crowd := self._streams.get(key)) is not None]
        return [crowd.everyone() for crowd in crowds]

    def followers(self, pid: bytes) -> tuple[Subscription, ...]:
        """Those who follow this process."""
        crowd = self._followed.get(pid)
        return crowd.everyone() if crowd is not None else ()

    def followed(self) -> Iterable[bytes]:
        """The processes that somebody follows."""
        return tuple(self._followed)

    def streams(self) -> list[Subscription]:
        """Those who follow the colony."""
        return [each for crowd in self._streams.values() for each in crowd.everyone()]

    def everyone(self) -> list[Subscription]:
        """All subscriptions."""
        return [each for mine in self._callers.values() for each in mine]

    def callers(self) -> Iterator[tuple[Follower, list[Subscription]]]:
        """All subscriptions by who made them."""
        for follower, mine in list(self._callers.items()):
            yield follower, list(mine)

    def park(self, pid: bytes, waiter: asyncio.Future[None], follower: Follower) -> None:
        """File who waits for something to happen to a process."""
        self._parked.setdefault(pid, {})[waiter] = follower

    def unpark(self, pid: bytes, waiter: asyncio.Future[None]) -> None:
        """Take it out, if it is there."""
        waiters = self._parked.get(pid)
        if waiters is not None:
            waiters.pop(waiter, None)
            if not waiters:
                del self._parked[pid]

    def wake(self, pid: bytes) -> None:
        """Something has happened to a process."""
        for waiter in self._parked.get(pid, ()):
            _wake(waiter)

    def wake_all(self, but: Callable[[Follower], bool] | None = None) -> None:
        """Something has happened that all have to look at, but those of some callers."""
        for waiters in self._parked.values():
            for waiter, follower in waiters.items():
                if but is None or not but(follower):
                    _wake(waiter)

    @property
    def parked(self) -> int:
        """How many wait."""
        return sum(map(len, self._parked.values()))


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _take(crowds: dict[K, _Crowd], key: K, subscription: Subscription) -> None:
    crowd = crowds.get(key)
    if crowd is not None:
        crowd.discard(subscription)
        if not crowd.members:
            del crowds[key]
