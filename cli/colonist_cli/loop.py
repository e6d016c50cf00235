"""Runs a program until SIGTERM or Ctrl-C; a second signal does not wait for a gentle end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def run_until_signal(main: Main, *, is_fast: bool = False) -> None:
    """Run `main`, which ends soon after its event is set. `is_fast`: on uvloop, if possible."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if is_fast:
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:  # not on every platform
            pass
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_watched(main))


async def _watched(main: Main) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    task = asyncio.current_task()

    def receive() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, receive)
    try:
        await main(stop)
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
