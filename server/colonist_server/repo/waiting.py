"""Those who wait for work, and what they may be woken with."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

import msgspec

from colonist_core.matching import Profile
from colonist_core.process import Cause, Live
from colonist_core.waiters import Parking
from colonist_server.repo.clock import Timer
from colonist_server.repo.nouns import Colony, Executor, Row
from colonist_server.repo.once import Once
from colonist_server.repo.plain import refuses_plain

PROCESS_BYTES: Final = 1_600
ENVELOPE_BYTES: Final = 900
"""What is around a spec in a sealed reply: ids, times, the members that were not given; a seal."""


class Wake(Enum):
    """Why a waiter woke without work."""

    TIME_IS_UP = 1
    REFUSED = 2
    CLOSING = 3
    LOOK_AGAIN = 4


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Who asks for work, with what to offer, by which request."""

    colony: Colony
    executor: Executor
    profile: Profile
    cause: Cause
    once: Once | None = None
    """What binds a sealed assign to one grant."""
    max_reply: int = 0
    """Bytes that a reply may have; 0: any."""

    @property
    def is_allowed(self) -> bool:
        """Whether the executor may still work, under the key that signed, and by such a request."""
        executor = self.executor
        return (
            executor.is_approved
            and executor.record.id == self.cause.who
            and not self.colony.is_gone
            and not self.must_be_sealed
        )

    @property
    def must_be_sealed(self) -> bool:
        """Whether it is plain, where only sealed requests are taken now."""
        return not self.cause.seal and refuses_plain(self.colony, self.executor)

    def takes(self, live: Live) -> bool:
        """Whether the reply that hands over a process is not too large.

        By its spec: what the parents of a workflow's member put out is not counted.
        """
        return not self.max_reply or reply_bytes(live.size) <= self.max_reply


def reply_bytes(size: int) -> int:
    """About how large a reply with a process is, as it travels, by the size of its spec."""
    return (size + PROCESS_BYTES) * 4 // 3 + ENVELOPE_BYTES


class Waiter:
    """An assign that waits. The future holds a claimed row, a granted process, or a `Wake`."""

    __slots__ = ("ask", "future", "number", "parking", "profile", "timer", "until")

    def __init__(self, ask: Ask, future: asyncio.Future[Row | Grant | Wake], until: float) -> None:
        self.ask = ask
        self.profile = ask.profile
        self.until = until
        self.future = future
        self.parking = Parking.NEW
        self.number = 0
        self.timer: Timer | None = None

    @property
    def is_stale(self) -> bool:
        """Whether its request has aged too much to be granted anything."""
        return self.ask.once is not None and not self.ask.once.is_fresh

    def wake(self, why: Row | Grant | Wake) -> bool:
        """Tell the waiter; False when it is gone."""
        if self.future.done():
            return False
        self.future.set_result(why)
        return True


class Alike:
    """Those who wait by sealed requests, by the records of these: the same bytes may wait twice.

    A device that has lost its connection presents them again, while the first one seems to wait
    still.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[bytes, list[Waiter]] = {}

    def add(self, waiter: Waiter) -> None:
        """Somebody waits."""
        if waiter.ask.once is not None:
            self._waiters.setdefault(waiter.ask.once.mark.key, []).append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Somebody waits no more."""
        if waiter.ask.once is None:
            return
        alike = self._waiters[waiter.ask.once.mark.key]
        alike.remove(waiter)
        if not alike:
            del self._waiters[waiter.ask.once.mark.key]

    def parked(self, record: bytes) -> list[Waiter]:
        """Those that nobody is serving just now, by the key of their record."""
        alike = self._waiters.get(record, ())
        return [waiter for waiter in alike if waiter.parking is Parking.PARKED]


class Grant(msgspec.Struct, frozen=True, gc=False):
    """A committed assignment on its way to its executor."""

    pid: bytes
    live: Live
    is_again: bool = False
    """Redelivered: whoever does not receive it keeps it, and gets it at the next assign."""
