"""What a running function may say and ask: it is given one when it asks for a `Context`.

What it says (`log`, `progress`, `set_output`, `attribute`) may be said in any thread, returns at
once and never fails because of the network: it goes into a bounded queue, and what does not fit is
dropped and counted.

What it asks of the server waits for the answer, through outages too, for as long as the attempt
lasts. Async functions await it: `await context.submit(spec)`. Sync functions, which run in threads,
have the same by the same names in `blocking`: `context.blocking.submit(spec)`. See `children` for
what may go wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from colonist_agent.blocking import Blocking
from colonist_agent.children import Children
from colonist_agent.mailbox import Mailbox
from colonist_protocol import codec
from colonist_protocol.attribute import AttributeType
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process
from colonist_protocol.workflow import ProcessGraph, WorkflowSpec


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

    def __init__(self, process: Process, mailbox: Mailbox, children: Children) -> None:
        self.process = process
        self.cancelled = Cancelled()
        self.blocking = Blocking(children)
        self._mailbox = mailbox
        self._children = children

    @property
    def inputs(self) -> list[Any]:
        """What the parents in the workflow gave as their outputs, one after the other."""
        return codec.scan(bytes(self.process.inputs)) or []

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

    async def submit(self, spec: FunctionSpec) -> Process:
        """Submit a process; without a colony, in this one. See `Children.submit`."""
        return await self._children.submit(spec)

    async def submit_workflow(self, spec: WorkflowSpec) -> ProcessGraph:
        """Submit a workflow; without a colony, in this one. See `Children.submit`."""
        return await self._children.submit_workflow(spec)

    async def add_child(
        self, spec: FunctionSpec, *, insert: bool = False, child: Process | str = ""
    ) -> Process:
        """Add a process below this one to the workflow. See `Children.add_child`."""
        return await self._children.add_child(spec, insert=insert, child=child)

    async def pack(self, generator_id: str, argument: str) -> None:
        """Give a generator an argument. See `Children.submit` for a lost answer."""
        await self._children.pack(generator_id, argument)

    async def wait(self, process: Process | str) -> Process:
        """The process, once it has ended, however it did: look at its `state`."""
        return await self._children.wait(process)

    async def parents(self) -> list[Process]:
        """The parents in the workflow, in the order of `inputs`; none outside of one."""
        return await self._children.parents()

    def end(self) -> None:
        """The attempt is over: what a thread waits for in `blocking` ends. Idempotent."""
        self.blocking.end()
