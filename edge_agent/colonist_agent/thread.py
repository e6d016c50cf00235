"""Sync functions in threads of their own.

The number of threads is bounded by the agent's slots: a slot is free again only when its thread has
returned. Python cannot stop a thread, so a cancelled function must look at `Context.cancelled`. The
threads are daemons: one that never looks cannot keep the program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from colonist_agent.outcome import FailError


async def in_thread(call: Callable[[], object], name: str) -> object:
    """Call in a new thread and wait. When cancelled, wait for it still; twice, give it up."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()
    thread = threading.Thread(
        target=_run, args=(call, loop, future), name=f"function-{name}", daemon=True
    )
    thread.start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        if not future.cancelled():
            future.exception()
        raise


def _run(
    call: Callable[[], object], loop: asyncio.AbstractEventLoop, future: asyncio.Future[object]
) -> None:
    result: object = None
    error: Exception | None = None
    try:
        result = call()
    except StopIteration:  # cannot travel through a future
        error = FailError("the function raised StopIteration")
    except Exception as raised:  # noqa: BLE001 - handed to whoever waits for the thread
        error = raised
    except BaseException as raised:  # noqa: BLE001 - an exit of the function, not of the agent
        error = FailError(f"the function raised {type(raised).__name__}")
    with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits any more
        loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[object], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
