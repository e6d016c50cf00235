"""Events that go on when a connection does not, and say when some may have been missed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Final, NamedTuple

from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.subscriptions import Subscription
from colonist_client.transport import UnreachableError
from colonist_protocol.process import Process

STEADY_S: Final = 30.0
"""A connection that stood for so long was a good one."""


class Joined(NamedTuple):
    """A subscription stands. `away_s`: how long none did; None the first time."""

    away_s: float | None


class Lost(NamedTuple):
    """No events come until the next `Joined`."""

    reason: str


Event = Process | Joined | Lost


def jitter() -> Backoff:
    """How long to wait before connecting again."""
    return Backoff(uniform=secrets.SystemRandom().uniform)


async def events(
    subscribe: Callable[[], Subscription], backoff: Backoff, *, is_one: bool = False
) -> AsyncGenerator[Event]:
    """Events of one order after another, for ever; `is_one`: of one process, until it has ended.

    Raises `UnreachableError` where the first connection does not come about, and `ServerError` for
    what the server refuses for good. To be closed (`contextlib.aclosing`).
    """
    line = _Line(backoff, asyncio.get_running_loop().time)
    while True:
        try:
            async with subscribe() as subscription:
                yield line.joined()
                async for process in subscription:
                    yield process
                    if is_one and process.is_final:
                        return
            reason, advised_s = "the server ended the events", 0.0
        except (ServerError, UnreachableError) as error:
            if line.is_new or not is_transient(error):
                raise
            reason, advised_s = str(error), advice_s(error)
        if line.lost():
            yield Lost(reason)
        await asyncio.sleep(line.pause_s(advised_s))


class _Line:
    """Whether a subscription stands, since when, and how often none came about."""

    def __init__(self, backoff: Backoff, now: Callable[[], float]) -> None:
        self._backoff = backoff
        self._now = now
        self._failures = 0
        self._joined: float | None = None
        self._left: float | None = None

    @property
    def is_new(self) -> bool:
        return self._joined is None

    def joined(self) -> Joined:
        self._joined = self._now()
        left, self._left = self._left, None
        return Joined(None if left is None else self._joined - left)

    def lost(self) -> bool:
        """Whether it is news."""
        is_news = self._left is None
        if is_news:
            self._left = self._now()
            if self._left - (self._joined or 0.0) > STEADY_S:
                self._failures = 0
        return is_news

    def pause_s(self, advised_s: float) -> float:
        self._failures += 1
        return self._backoff.delay_s(self._failures, at_least_s=advised_s)
