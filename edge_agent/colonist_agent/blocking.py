"""The calls of a function for sync functions: they run in the agent's loop, the thread waits.

A thread cannot be stopped from outside, so a call that it waits in must not last longer than its
attempt: it raises `StoppedError` as soon as the attempt is told to end, and so does every later
call. Whether a submit that was under way took effect is then not known.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from colonist_agent.children import Children
from colonist_protocol.errors import ColonistError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process
from colonist_protocol.workflow import ProcessGraph, WorkflowSpec

T = TypeVar("T")


class StoppedError(ColonistError):
    """The attempt was told to end: a call by a thread of its function waits no longer."""

    status = 409
    code = "stopped"


class Blocking:
    """`Children` for threads. All raise `StoppedError`, and in the loop's thread `RuntimeError`."""

    def __init__(self, children: Children) -> None:
        """Calls run in the loop that runs now."""
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._is_over = False

    def submit(self, spec: FunctionSpec) -> Process:
        """See `Children.submit`."""
        return self._call(self._children.submit(spec))

    def submit_workflow(self, spec: WorkflowSpec) -> ProcessGraph:
        """See `Children.submit_workflow`."""
        return self._call(self._children.submit_workflow(spec))

    def add_child(
        self, spec: FunctionSpec, *, insert: bool = False, child: Process | str = ""
    ) -> Process:
        """See `Children.add_child`."""
        return self._call(self._children.add_child(spec, insert=insert, child=child))

    def pack(self, generator_id: str, argument: str) -> None:
        """See `Children.pack`."""
        self._call(self._children.pack(generator_id, argument))

    def wait(self, process: Process | str) -> Process:
        """See `Children.wait`."""
        return self._call(self._children.wait(process))

    def parents(self) -> list[Process]:
        """See `Children.parents`."""
        return self._call(self._children.parents())

    def end(self) -> None:
        """The attempt is over: open calls end, later ones are refused. Idempotent."""
        with self._lock:
            self._is_over = True
            still_open = tuple(self._open)
        for future in still_open:
            future.cancel()

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        future = self._started(call)
        try:
            return future.result()
        except CancelledError:
            raise StoppedError("the attempt was told to end; the outcome is unknown") from None
        finally:
            with self._lock:
                self._open.discard(future)

    def _started(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            refusal = self._refusal()
            if refusal is not None:
                call.close()  # it never began
                raise refusal
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
            self._open.add(future)
            return future

    def _refusal(self) -> Exception | None:
        if threading.get_ident() == self._thread:
            return RuntimeError("this would block the agent: await the call of Context itself")
        if self._is_over:
            return StoppedError("the attempt was told to end")
        return None
