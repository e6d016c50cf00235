"""What a running function may say and ask: it is given one when it asks for a `Context`.

Every method may be called from any thread, returns at once and never fails because of the network:
what is said goes into a bounded queue, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from colonist_agent.mailbox import Mailbox
from colonist_protocol.attribute import AttributeType
from colonist_protocol.process import Process


class Cancelled:
    """Set once the function should end: its lease is over, it was cancelled, or the agent stops."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], Any]] = []
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether it is time to end."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """In a sync function: sleep for `timeout_s` or until it is time to end; whether it is."""
        return self._event.wait(timeout_s)

    async def wait_async(self) -> None:
        """In an async function: wait until it is time to end."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        with self._lock:
            if self._event.is_set():
                return
            self._callbacks.append(lambda: loop.call_soon_threadsafe(woken.set))
        await woken.wait()

    def set(self) -> None:
        """Say that it is time to end."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            with contextlib.suppress(RuntimeError):  # whoever waited is gone, and its loop too
                callback()


class Context:
    """One attempt at one process, as its function sees it."""

    def __init__(self, process: Process, mailbox: Mailbox) -> None:
        self.process = process
        self.cancelled = Cancelled()
        self._mailbox = mailbox

    def log(self, message: str) -> None:
        """Write a line to the process's log."""
        self._mailbox.log(message)

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far it is, from 0 to 1; of several in a row only the last one is sent."""
        self._mailbox.progress(min(1.0, max(0.0, fraction)), text)

    def set_output(self, *values: str | float) -> None:
        """Show a preliminary output; only the last one is sent. The result replaces it."""
        self._mailbox.set_output(values)

    def attribute(self, key: str, value: str, *, kind: int = AttributeType.OUT) -> None:
        """Attach a key and a value to the process; a key can be set once."""
        self._mailbox.attribute(key, value, kind)
