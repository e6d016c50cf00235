"""Those who wait for work, and what they may be woken with."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import NamedTuple

from colonist_core.matching import Profile
from colonist_core.process import Cause, Live
from colonist_core.waiters import Parking
from colonist_server.repo.clock import Timer
from colonist_server.repo.nouns import Colony, Executor, Row
from colonist_server.repo.once import Once


class Wake(Enum):
    """Why a waiter woke without work."""

    TIME_IS_UP = 1
    REFUSED = 2
    CLOSING = 3
    LOOK_AGAIN = 4


class Ask(NamedTuple):
    """Who asks for work, with what to offer, by which request."""

    colony: Colony
    executor: Executor
    profile: Profile
    cause: Cause
    once: Once | None = None
    """What binds a sealed assign to one grant."""

    @property
    def is_allowed(self) -> bool:
        """Whether the executor may still work, under the key that signed the request."""
        executor = self.executor
        return (
            executor.is_approved
            and executor.record.id == self.cause.who
            and not self.colony.is_gone
        )


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


class Grant(NamedTuple):
    """A committed assignment on its way to its executor."""

    pid: bytes
    live: Live
    is_again: bool = False
    """Redelivered: whoever does not receive it keeps it, and gets it at the next assign."""
