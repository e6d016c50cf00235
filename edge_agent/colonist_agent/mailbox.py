"""What a function has said and the server has not heard yet: bounded, thread-safe, not blocking."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from colonist_agent.outcome import Failed, done
from colonist_protocol.attribute import AddAttribute, Attribute
from colonist_protocol.log import AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import SetOutput

MAX_LINE_CHARS: Final = 4_000
MAX_BATCH_CHARS: Final = 16_000


@dataclass(frozen=True, slots=True)
class _Line:
    text: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message and how many queued things are in it; progress and output do not count."""

    message: Message
    count: int


class Mailbox:
    """The queue of one attempt. `dropped` counts what did not fit."""

    def __init__(self, process_id: str, *, limit: int, wake: asyncio.Event) -> None:
        """`wake` is set in the loop that runs now whenever there is something to take."""
        self._process_id = process_id
        self._limit = limit
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._queue: deque[_Line | Message] = deque()
        self._progress: str | None = None
        self._output: msgspec.Raw | None = None
        self.dropped = 0

    def log(self, message: str) -> None:
        """Queue a line; a long one is cut."""
        self._put(_Line(_clean(message)))

    def attribute(self, key: str, value: str, kind: int) -> None:
        """Queue an attribute."""
        attribute = Attribute(
            targetid=self._process_id, attributetype=kind, key=_clean(key), value=_clean(value)
        )
        self._put(AddAttribute(attribute=attribute))

    def progress(self, fraction: float, text: str) -> None:
        """Note the progress in place of the last one."""
        with self._lock:
            self._progress = _clean(f"progress {fraction:.0%} {text}".rstrip())
        self._notify()

    def set_output(self, values: Sequence[Any]) -> None:
        """Note the output in place of the last one; one that cannot travel becomes a log line."""
        outcome = done(list(values))
        if isinstance(outcome, Failed):
            self.log(f"set_output: {outcome.errors[0]}")
            return
        with self._lock:
            self._output = outcome.out
        self._notify()

    def take(self) -> Parcel | None:
        """The next thing to send; lines that follow one another go as one message."""
        with self._lock:
            if self._queue:
                return self._next()
            if self._progress is not None:
                line, self._progress = self._progress, None
                return Parcel(AddLog(processid=self._process_id, message=line), 0)
            if self._output is not None:
                output, self._output = self._output, None
                return Parcel(SetOutput(processid=self._process_id, out=output), 0)
        return None

    def drop_all(self) -> None:
        """Give up what is left, and count it."""
        with self._lock:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._progress = self._output = None

    def _put(self, item: _Line | Message) -> None:
        with self._lock:
            if len(self._queue) >= self._limit:
                self.dropped += 1
                return
            self._queue.append(item)
        self._notify()

    def _next(self) -> Parcel:
        item = self._queue.popleft()
        if not isinstance(item, _Line):
            return Parcel(item, 1)
        lines, size = [item.text], len(item.text)
        while self._queue and isinstance(self._queue[0], _Line) and size < MAX_BATCH_CHARS:
            following = self._queue.popleft()
            if isinstance(following, _Line):
                lines.append(following.text)
                size += len(following.text)
        message = AddLog(processid=self._process_id, message="\n".join(lines))
        return Parcel(message, len(lines))

    def _notify(self) -> None:
        # A thread that outlived its attempt may speak after the loop has gone.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)


def _clean(text: object) -> str:
    # A function may say anything; what is no Unicode must not break the sending.
    return str(text)[:MAX_LINE_CHARS].encode(errors="replace").decode()
