"""Who waits for work: the mirror of the queue.

A waiter is PARKED, then CLAIMED by one process, then ANSWERED; or PARKED again, at its old place,
when the claim came to nothing. The longest parked goes first.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Generic, Protocol, TypeVar

from colonist_core.matching import Placement, Profile, fits, has_room


class Parking(Enum):
    """Where a waiter is."""

    NEW = 0
    PARKED = 1
    CLAIMED = 2
    ANSWERED = 3


class Waits(Protocol):
    """What can stand in a waiting room. `parking` and `number` belong to the room."""

    profile: Profile
    parking: Parking
    number: int


W = TypeVar("W", bound=Waits)
_Offer = tuple[str, int, int]


class WaitingRoom(Generic[W]):
    """The waiters of one colony."""

    __slots__ = ("_by_name", "_by_type", "_number")

    def __init__(self) -> None:
        self._by_type: dict[str, dict[_Offer, dict[int, W]]] = {}
        self._by_name: dict[tuple[str, str], dict[int, W]] = {}
        self._number = 0

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._by_name.values())

    def park(self, waiter: W) -> None:
        """Put a waiter at the end of the line."""
        self._number += 1
        waiter.number = self._number
        self._file(waiter)

    def unpark(self, waiter: W) -> None:
        """Take a waiter out: answered, gone, or its time is up."""
        if waiter.parking is Parking.PARKED:
            self._unfile(waiter)
        waiter.parking = Parking.ANSWERED

    def claim(self, wanted: Placement) -> W | None:
        """Take the longest parked waiter that fits; it stands nowhere until `release`."""
        waiter = self._named(wanted) if wanted.names else self._unnamed(wanted)
        if waiter is not None:
            self._unfile(waiter)
            waiter.parking = Parking.CLAIMED
        return waiter

    def release(self, waiter: W) -> None:
        """Put a claimed waiter back at its old place, unless it was answered meanwhile."""
        if waiter.parking is Parking.CLAIMED:
            self._file(waiter)

    @property
    def types(self) -> Collection[str]:
        """The types of executors of which somebody waits."""
        return self._by_type.keys()

    def of(self, type: str, name: str) -> list[W]:
        """The parked waiters of one executor."""
        return list(self._by_name.get((type, name), {}).values())

    def everyone(self) -> list[W]:
        """All parked waiters, longest parked first."""
        waiters = [waiter for group in self._by_name.values() for waiter in group.values()]
        return sorted(waiters, key=lambda waiter: waiter.number)

    def _named(self, wanted: Placement) -> W | None:
        found = [
            waiter
            for name in wanted.names
            for waiter in self._by_name.get((wanted.type, name), {}).values()
            if fits(wanted, waiter.profile)
        ]
        return min(found, key=lambda waiter: waiter.number, default=None)

    def _unnamed(self, wanted: Placement) -> W | None:
        best: W | None = None
        for group in self._by_type.get(wanted.type, {}).values():
            head = next(iter(group.values()))
            offered = head.profile
            if wanted.location and wanted.location != offered.location:
                continue
            if has_room(wanted.cpu, wanted.mem, offered) and (
                best is None or head.number < best.number
            ):
                best = head
        return best

    def _file(self, waiter: W) -> None:
        waiter.parking = Parking.PARKED
        profile = waiter.profile
        offers = self._by_type.setdefault(profile.type, {})
        _insert(offers.setdefault(_offer(profile), {}), waiter)
        _insert(self._by_name.setdefault((profile.type, profile.name), {}), waiter)

    def _unfile(self, waiter: W) -> None:
        profile = waiter.profile
        offers = self._by_type[profile.type]
        group = offers[_offer(profile)]
        del group[waiter.number]
        if not group:
            del offers[_offer(profile)]
        if not offers:
            del self._by_type[profile.type]
        mine = self._by_name[profile.type, profile.name]
        del mine[waiter.number]
        if not mine:
            del self._by_name[profile.type, profile.name]


def _offer(profile: Profile) -> _Offer:
    return (profile.location, profile.cpu, profile.mem)


def _insert(line: dict[int, W], waiter: W) -> None:
    """Keep the line in order of numbers; only a released waiter is not the newest."""
    newest = next(reversed(line), 0)
    line[waiter.number] = waiter
    if newest > waiter.number:
        ordered = sorted(line.items())
        line.clear()
        line.update(ordered)
