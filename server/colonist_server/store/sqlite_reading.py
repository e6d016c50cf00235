"""The file of a `SqliteStore`, read beside the server that has it open, or without one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from colonist_server.store import file, snapshot
from colonist_server.store.interface import Range, StoreError


class SqliteReading:
    """Reads a store's file without its lock, and changes nothing in it."""

    def __init__(self, path: Path) -> None:
        """Raises `StoreError` when there is no such store."""
        self._path = path
        if not path.is_file():
            raise StoreError(f"{path}: there is no such store")
        try:
            with closing(connect_reading(path)) as connection:
                file.check_is_ours(connection, path)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: cannot read the store: {error}") from error

    def snapshot(self) -> AsyncGenerator[Range]:
        """Every key that no lease holds, in key order, in pages, all as of one revision."""
        return snapshot.pages(self._path, check=_always, connect=connect_reading)

    async def status(self) -> Sequence[tuple[str, str]]:
        """The sizes of the file and of its log."""
        return await asyncio.to_thread(self._sizes)

    def _sizes(self) -> Sequence[tuple[str, str]]:
        log = self._path.with_name(self._path.name + "-wal")
        return [
            ("file", str(self._path.resolve())),
            ("file bytes", str(self._path.stat().st_size)),
            ("log bytes", str(log.stat().st_size if log.exists() else 0)),
        ]


def connect_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    where = f"file:{quote(str(path.resolve()))}?mode=ro"
    return sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)


def _always() -> None:
    """It is never closed: each snapshot has a connection of its own."""
