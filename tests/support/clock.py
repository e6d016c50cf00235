"""Virtual time: an event loop in which waiting costs nothing and a forgotten wake-up fails at once.

When nothing is ready, the loop's clock jumps to the next timer. When there is no timer either,
nothing can ever happen again: that is a deadlock and is raised as one, not waited for. Code under
test must take its time from the loop (`asyncio.sleep`, `timeout`, `loop.time`) and wait for nothing
outside of it: no sockets, no threads.

    @virtual
    async def test_lease_end_returns_process_to_queue() -> None:
        await asyncio.sleep(3600)                      # takes no time

    run_virtual(scenario(), start_s=1_000)             # the same for one coroutine
"""

import asyncio
import functools
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


class DeadlockError(Exception):
    """Everybody waits for somebody else."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that never waits: it adds the wait to its clock."""

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self.now = start_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise DeadlockError("nothing is ready and nothing is scheduled")
        # The next float at least: rounding must not stop the clock just before a timer.
        self.now = max(self.now + timeout, math.nextafter(self.now, math.inf))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock that jumps."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._clock = _JumpingSelector(start_s)
        super().__init__(self._clock)
        # asyncio's own 1 ns is lost in a float the size of a Unix time: no timer would ever fire.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._clock.now


def run_virtual(main: Coroutine[Any, Any, Result], *, start_s: float = 0.0) -> Result:
    """Run a coroutine to its end in virtual time; raises DeadlockError when it can never end."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start_s)) as runner:
        return runner.run(main)


def virtual(test: Callable[P, Coroutine[Any, Any, Result]]) -> Callable[P, Result]:
    """Make an async test a plain one that runs in virtual time; its fixtures work as before."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        return run_virtual(test(*args, **kwargs))

    return run
