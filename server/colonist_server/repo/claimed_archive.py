"""An archive that is asked for nothing until it is known to be the one of this store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from colonist_server.archive.interface import (
    Archive,
    ArchiveError,
    ArchiveUnavailableError,
    Page,
    Row,
)
from colonist_server.store.interface import StoreError, UnavailableError

log = logging.getLogger(__name__)


class ClaimedArchive:
    """`Archive`, all of whose calls raise `ArchiveUnavailableError` until it was compared.

    `compare` makes contact, and raises `StoreError` unless it is the right one. `fault`: what is
    wrong with it for good; "" as long as nothing is known to be.
    """

    __slots__ = ("_archive", "_compare", "_known", "_why", "fault")

    def __init__(self, archive: Archive, compare: Callable[[], Awaitable[None]]) -> None:
        self._archive = archive
        self._compare = compare
        self._known = asyncio.Event()
        self._why = "it was not reached yet"
        self.fault = ""

    # -- until it is known

    @property
    def is_known(self) -> bool:
        """Whether it was compared, and is the right one."""
        return self._known.is_set()

    @property
    def note(self) -> str:
        """Why it is not used yet, where that is no fault; "" when it is."""
        if self.is_known or self.fault:
            return ""
        return f"archive: not reached since the start, trying again: {self._why}"

    async def known(self) -> None:
        """Return when it is known to be the right one."""
        await self._known.wait()

    async def compare(self) -> None:
        """Make contact. Raises `StoreError` unless it is the right one."""
        await self._compare()
        self._known.set()
        self.fault = ""

    def start_without(self, error: StoreError) -> None:
        """It could not be reached at the start."""
        self._why = str(error)
        log.warning(
            "starting without the archive, trying again: live work goes on, older history cannot"
            " be read, nothing is moved: %s",
            error,
        )

    async def look(self) -> None:
        """Try to make contact, and say in the log what is new."""
        try:
            await self.compare()
        except UnavailableError as error:
            self._why = self.fault or str(error)
        except StoreError as error:
            if str(error) != self.fault:
                log.error("the archive is not used: %s", error)  # noqa: TRY400 - says it all
            self._why = self.fault = str(error)
        else:
            log.warning("the archive is there: history is read and moved again")

    def _open(self) -> Archive:
        if not self.is_known:
            raise ArchiveUnavailableError(self._why)
        return self._archive

    # -- the archive

    @property
    def identity(self) -> str:
        """See `Archive`."""
        return self._archive.identity

    @property
    def is_local(self) -> bool:
        """See `Archive`."""
        return self._archive.is_local

    async def meet(self, *, may_make: bool) -> str:
        """See `Archive`."""
        return await self._open().meet(may_make=may_make)

    async def put(self, rows: Sequence[Row]) -> None:
        """See `Archive`."""
        await self._open().put(rows)

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        """See `Archive`."""
        return await self._open().get_many(keys)

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page:
        """See `Archive`."""
        return await self._open().range(
            prefix, after=after, limit=limit, reverse=reverse, keys_only=keys_only
        )

    async def delete(self, keys: Sequence[bytes]) -> None:
        """See `Archive`."""
        await self._open().delete(keys)

    async def delete_range(self, prefix: bytes) -> None:
        """See `Archive`."""
        await self._open().delete_range(prefix)

    def snapshot(self) -> AsyncGenerator[list[Row]]:
        """See `Archive`."""
        return self._open().snapshot()

    async def adopt(self, identity: str) -> None:
        """See `Archive`."""
        raise ArchiveError("an archive in use takes no other identity")

    async def close(self) -> None:
        """See `Archive`."""
        await self._archive.close()
