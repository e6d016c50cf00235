"""An archive in memory that passes the laws (`tests/laws/archive`); it can be away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Self

from colonist_server.archive.interface import (
    ArchiveError,
    ArchiveUnavailableError,
    Page,
    Row,
)


class MemoryArchive:
    """The archive interface on a dict."""

    def __init__(self, identity: str = "memory", *, is_local: bool = True) -> None:
        self.identity = identity
        self.is_local = is_local
        self.is_away = False
        self.asked = 0
        self.puts = 0
        self.rows: dict[bytes, bytes] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise ArchiveUnavailableError("the archive is away")

    async def meet(self, *, may_make: bool) -> str:
        await self._answer()
        return self.identity

    async def put(self, rows: Sequence[Row]) -> None:
        await self._answer()
        if not all(isinstance(part, bytes) for row in rows for part in row):
            raise ArchiveError("keys and values are bytes")
        self.puts += 1
        self.rows.update(rows)

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        await self._answer()
        return [Row(key, self.rows[key]) if key in self.rows else None for key in keys]

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page:
        await self._answer()
        keys = [key for key in sorted(self.rows, reverse=reverse) if key.startswith(prefix)]
        if after:
            keys = [key for key in keys if (key < after if reverse else key > after)]
        more = 0 < limit < len(keys)
        shown = keys[:limit] if limit else keys
        return Page([Row(key, b"" if keys_only else self.rows[key]) for key in shown], more)

    async def delete(self, keys: Sequence[bytes]) -> None:
        await self._answer()
        for key in keys:
            self.rows.pop(key, None)

    async def delete_range(self, prefix: bytes) -> None:
        await self._answer()
        self.rows = {key: self.rows[key] for key in self.rows if not key.startswith(prefix)}

    async def snapshot(self) -> AsyncGenerator[list[Row]]:
        await self._answer()
        for key in sorted(self.rows):
            yield [Row(key, self.rows[key])]

    async def adopt(self, identity: str) -> None:
        if self.rows:
            raise ArchiveError("the archive is not empty: restore into a new one")
        self.identity = identity

    async def close(self) -> None:
        self.is_away = True
