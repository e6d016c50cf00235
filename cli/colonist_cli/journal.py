"""Notes of an agent's runs in a file: one JSON line when a run starts, one when it ends.

{"event": "started", "process": "...", "time_ns": 1700000000000000000}
{"event": "ended", "process": "...", "time_ns": ..., "how": "returned"}
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colonist_agent.context import Context
from colonist_agent.function import Registry, Runnable
from colonist_cli.exits import CliError, Exit
from colonist_protocol.function import FunctionArgument


class Journal:
    """A file that only grows."""

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Raises `CliError` when it cannot be written."""
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
        self._now_ns = now_ns

    def note(self, event: str, process: str, **more: str) -> None:
        """Add a line; it is in the file when this returns."""
        line = {"event": event, "process": process, "time_ns": self._now_ns(), **more}
        self._file.write(json.dumps(line) + "\n")


class Journaled:
    """A function whose runs are noted."""

    def __init__(self, inner: Runnable, journal: Journal) -> None:
        self.name = inner.name
        self.description = inner.description
        self.is_renewed = inner.is_renewed
        self._inner = inner
        self._journal = journal

    def arguments(self) -> list[FunctionArgument]:
        """What it takes, for people."""
        return self._inner.arguments()

    async def run(self, context: Context, args: list[Any], kwargs: dict[str, Any]) -> object:
        """Run once, between two notes."""
        process, how = context.process.processid, "returned"
        self._journal.note("started", process)
        try:
            return await self._inner.run(context, args, kwargs)
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self._journal.note("ended", process, how=how)


def journaled(functions: Registry, journal: Journal) -> Registry:
    """The same functions, each noted."""
    found = Registry()
    for each in functions.runnables():
        found.add(Journaled(each, journal))
    return found
