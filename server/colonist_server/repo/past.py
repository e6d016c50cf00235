"""Reading what has ended: the store first, the archive second, merged by key.

What is moved is in the archive before it leaves the store, so whoever looks in this order misses
nothing. What is being removed from the archive is hidden from the moment at which it was decided.
Without an archive this is the store alone. Who deals with what lives never comes here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from colonist_protocol.errors import UnavailableError
from colonist_server.archive.interface import Archive, Page, Row
from colonist_server.repo import keys
from colonist_server.repo.records import decode_past
from colonist_server.repo.view import View
from colonist_server.store.interface import Item, Range, Revision, StoreError

ARCHIVED: Final[Revision] = 0
"""The revision of what is read from the archive: no key of the store has it."""


_STAYING: Final = (keys.LOG, keys.REMOVED)


class Reads(Protocol):
    """What the store has, as `Writes` reads it."""

    async def read(self, key: bytes) -> Item | None:
        """One key. Raises `UnavailableError`."""
        ...

    async def read_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Several keys. Raises `UnavailableError`."""
        ...

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Range:
        """Keys with a prefix. Raises `UnavailableError`."""
        ...


class Past:
    """What has ended, wherever it is kept."""

    __slots__ = ("_near", "_view", "archive")

    def __init__(self, near: Reads, view: View, archive: Archive | None) -> None:
        self._near = near
        self._view = view
        self.archive = archive
        view.hold(keys.PAST, self._apply, self._held)

    async def read(self, key: bytes) -> Item | None:
        """One key. Raises `UnavailableError`."""
        return (await self.read_many([key]))[0]

    async def read_many(self, keys: Sequence[bytes], *, hidden: bool = False) -> list[Item | None]:
        """Several keys, in the order asked; `hidden`: what is being removed too.

        Raises `UnavailableError`.
        """
        items = await self._near.read_many(keys)
        missing = [key for key, item in zip(keys, items, strict=True) if item is None]
        if self.archive is None or not missing:
            return items
        async with reading():
            rows = await self.archive.get_many(missing)
        found = {
            row.key: row for row in rows if row is not None and (hidden or not self._is_hidden(row))
        }
        return [
            item or (_item(found[key]) if key in found else None)
            for key, item in zip(keys, items, strict=True)
        ]

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
        hidden: bool = False,
    ) -> Range:
        """Keys with a prefix, as the store's range has them; only an empty page is the last.

        `hidden`: what is being removed too. Raises `UnavailableError`.
        """
        while True:
            near = await self._near.range(
                prefix, after=after, limit=limit, reverse=reverse, keys_only=keys_only
            )
            if self.archive is None:
                return near
            async with reading():
                far = await self.archive.range(
                    prefix, after=after, limit=limit, reverse=reverse, keys_only=keys_only
                )
            items, more = _merged(near, far, limit, reverse=reverse)
            shown = [item for item in items if item.modified or hidden or not self._is_hidden(item)]
            if shown or not more:
                return Range(near.revision, shown, more)
            after = items[-1].key

    def _is_hidden(self, row: Row | Item) -> bool:
        """Whether it is of something that is being removed.

        Log lines stay (COLONIES-RPC 2.6), and the ends of chains.
        """
        key = row.key
        if key.startswith(keys.ATTRIBUTE_INDEX):
            return False
        start = 2 if key[1:2] == b"/" else 3
        colony = self._view.tags.get(key[start : start + keys.TAG_BYTES])
        if colony is None or not colony.past.removing or key.startswith(_STAYING):
            return False
        return _subject(key, start).startswith(colony.past.removing)

    # -- what the archive holds, by the store's own records

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        colony = self._view.tags.get(key[len(keys.PAST) :])
        if colony is None or value is None or colony.past_revision >= revision:
            return
        colony.past, colony.past_revision = decode_past(value), revision

    def _held(self) -> set[bytes]:
        return {keys.past(tag) for tag, each in self._view.tags.items() if each.past_revision}


@asynccontextmanager
async def reading() -> AsyncGenerator[None]:
    """Say `UnavailableError` for what an archive says."""
    try:
        yield
    except StoreError as error:
        raise UnavailableError(f"history cannot be read now: {error}") from error


def _subject(key: bytes, start: int) -> bytes:
    """The process or workflow that a key is about."""
    if not key.startswith(keys.ENDED):
        return key[start:]
    is_process = keys.kind_of_ended(key) == keys.KIND_PROCESS
    return key[-keys.PID_BYTES :] if is_process else key[-keys.WID_BYTES :]


def _item(row: Row) -> Item:
    return Item(row.key, row.value, ARCHIVED, ARCHIVED)


def _merged(near: Range, far: Page, limit: int, *, reverse: bool) -> tuple[list[Item], bool]:
    """Both in key order, the store's where both have one.

    Who has more has given as many as the limit, so the page ends where both have looked.
    """
    if not far.rows:
        return near.items, near.more
    found = {row.key: _item(row) for row in far.rows}
    found.update((item.key, item) for item in near.items)
    order = sorted(found, reverse=reverse)
    more = near.more or far.more
    if limit and len(order) > limit:
        order, more = order[:limit], True
    return [found[key] for key in order], more
