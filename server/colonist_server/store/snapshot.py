"""A whole `SqliteStore` at one revision, page by page, beside a server that writes to it.

Each snapshot has a connection and a thread of its own, so that the reads of the server do not wait
for it. While it lasts, the write-ahead log keeps what was written since.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from colonist_server.store import file
from colonist_server.store.interface import Item, Range, Revision, UnavailableError

PAGE_ITEMS: Final = 1_000
PAGE_BYTES: Final = 4_194_304

# Read in the order of the index on k; the marker is the row with the empty key.
_SELECT: Final = "SELECT k, v, created, seq >> 8 FROM kv WHERE k > x'' AND lease = 0 ORDER BY k"


class _Reading:
    """One transaction on one thread: `next` and `close` run there, in the order asked."""

    def __init__(self, path: Path, connect: file.Connect) -> None:
        self._path = path
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._revision: Revision = 0

    def next(self) -> Range:
        """The next page. Raises `UnavailableError` when the file cannot be read."""
        try:
            if self._connection is None:
                self._begin(self._connect(self._path))
            return self._page()
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path}: cannot read the store: {error}") from error

    def close(self) -> None:
        """End the transaction."""
        if self._connection is not None:
            self._connection.close()

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("BEGIN")
        self._revision = file.newest_revision(connection)
        self._rows = connection.execute(_SELECT)

    def _page(self) -> Range:
        items: list[Item] = []
        size = 0
        for row in self._rows:
            item = Item(*row)
            items.append(item)
            size += len(item.key) + len(item.value)
            if len(items) >= PAGE_ITEMS or size >= PAGE_BYTES:
                return Range(self._revision, items, more=True)
        return Range(self._revision, items, more=False)


async def pages(
    path: Path, *, check: Callable[[], None], connect: file.Connect = file.connect
) -> AsyncGenerator[Range]:
    """Every key that no lease holds, in key order, all as of one revision.

    `check` is called before each page, to raise when the store is closed meanwhile.
    """
    loop = asyncio.get_running_loop()
    reading = _Reading(path, connect)
    thread = ThreadPoolExecutor(1, thread_name_prefix="colonist-store-snapshot")
    try:
        more = True
        while more:
            check()
            page = await loop.run_in_executor(thread, reading.next)
            more = page.more
            yield page
    finally:
        # Behind a read that a cancelled caller has left; nobody need wait for either.
        thread.submit(reading.close)
        thread.shutdown(wait=False)
