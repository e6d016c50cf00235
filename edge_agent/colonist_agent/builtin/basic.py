"""`echo` and `sleep`: to see that an agent works."""

from __future__ import annotations

import asyncio
from typing import Any

from colonist_agent.context import Context
from colonist_agent.function import PythonFunction

_STEP_S = 1.0


def functions() -> list[PythonFunction]:
    """Both."""
    return [PythonFunction("echo", echo), PythonFunction("sleep", sleep)]


async def echo(*values: Any) -> list[Any]:
    """Return the arguments."""
    return list(values)


async def sleep(context: Context, seconds: float) -> float:
    """Sleep, say now and then how far it is, and return the seconds slept."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    while (left_s := started_s + seconds - loop.time()) > 0:
        await asyncio.sleep(min(left_s, _STEP_S))
        context.progress((loop.time() - started_s) / seconds)
    return round(loop.time() - started_s, 3)
