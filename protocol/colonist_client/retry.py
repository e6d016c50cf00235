"""When to try again: full jitter, `uniform(0, min(cap, base * 2^n))`: a fleet spreads out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from colonist_client.failure import ServerError
from colonist_client.transport import UnreachableError

T = TypeVar("T")

Uniform = Callable[[float, float], float]
"""A random number between two: `random.Random().uniform`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait after the n-th failure in a row."""

    uniform: Uniform
    base_s: float = 0.5
    cap_s: float = 30.0
    floor_s: float = 0.0

    def delay_s(self, failures: int, *, at_least_s: float = 0.0) -> float:
        """The pause after `failures` (from 1) in a row, never under `at_least_s`.

        `at_least_s` is what a server asks for; the jitter comes on top of it.
        """
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 64))
        return max(self.floor_s, at_least_s) + self.uniform(0.0, ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently to repeat what may be repeated."""

    backoff: Backoff
    attempts: int = 4

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it works, is refused for good, or has failed `attempts` times."""
        failures = 0
        while True:
            try:
                return await call()
            except (UnreachableError, ServerError) as error:
                failures += 1
                is_over = isinstance(error, UnreachableError) and not error.is_repeatable
                if is_over or failures >= self.attempts or not is_transient(error):
                    raise
                await asyncio.sleep(self.backoff.delay_s(failures, at_least_s=advice_s(error)))


def is_transient(error: Exception) -> bool:
    """Whether the same request may fare better later."""
    if isinstance(error, ServerError):
        return not error.is_definite
    return isinstance(error, UnreachableError)


def advice_s(error: Exception, *, cap_s: float = 3600.0) -> float:
    """How long the server asks to wait; 0 where it does not, never over `cap_s`."""
    asked = error.retry_after_s if isinstance(error, ServerError) else 0.0
    return min(max(asked, 0.0), cap_s)
