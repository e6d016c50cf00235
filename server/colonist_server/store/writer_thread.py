"""The writer on a thread of this process: nothing else to start, but it shares the interpreter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from colonist_server.store.copier import Copier
from colonist_server.store.file import Opened
from colonist_server.store.writer import Outcome, Work, Writer


class WriterThread:
    """A writer and its queue. `deliver` and `on_fatal` are called on its thread."""

    def __init__(
        self, opened: Opened, *, deliver: Callable[[Outcome], None], on_fatal: Callable[[], None]
    ) -> None:
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        copier = Copier(opened.copies, on_fatal=on_fatal)
        writer = Writer(
            opened.writes, opened.revision, copier, self, deliver=deliver, on_fatal=on_fatal
        )
        self._thread = threading.Thread(target=writer.run, name="colonist-store-write", daemon=True)
        self.put: Callable[[Work], None] = self._queue.put
        self._thread.start()

    def take(self, *, wait: bool) -> list[Work | None]:
        """All that waits: the writer's inbox."""
        queue = self._queue
        works = [queue.get()] if wait else []
        works.extend(queue.get() for _ in range(queue.qsize()))
        return works

    def stop(self) -> None:
        """Finish what was put so far, then end; the last outcome says that it has."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()
