"""Where what is restored comes from: a backup file, or another store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final, Protocol, TypeVar

import msgspec

from colonist_server.archive.interface import Row
from colonist_server.backup.form import BackupError
from colonist_server.backup.reader import BackupReader
from colonist_server.repo import keys
from colonist_server.repo.records import SCHEMA, decode_epoch, encode
from colonist_server.store.interface import Item, Range

T = TypeVar("T")

OF_NODES: Final = (keys.NODE, keys.LEADER, keys.HEARD, keys.RUNNING)
"""What nodes say of themselves: which run, and whom they heard. It is of no use elsewhere.

Executors that a backup says were heard long ago would be unregistered soon after the restore.
"""


class Readable(Protocol):
    """What a snapshot can be taken of: any store."""

    def snapshot(self) -> AsyncGenerator[Range]:
        """As `Store.snapshot`."""
        ...


class ReadableArchive(Protocol):
    """What the rows of an archive are read from."""

    @property
    def identity(self) -> str:
        """What tells it from every other archive."""
        ...

    def snapshot(self) -> AsyncGenerator[list[Row]]:
        """Every row in key order, in pages."""
        ...


class Origin(Protocol):
    """The same items and rows, in key order, whenever they are asked for."""

    @property
    def archive(self) -> str:
        """The identity of its archive; "" when it has none."""
        ...

    def items(self) -> AsyncGenerator[list[Item]]:
        """The items of the store, but for what is of its nodes. Raises `StoreError`."""
        ...

    def rows(self) -> AsyncGenerator[list[Row]]:
        """The rows of its archive."""
        ...


class FileOrigin:
    """A backup file."""

    def __init__(self, reader: BackupReader) -> None:
        self._reader = reader
        self.archive = reader.about.archive

    async def items(self) -> AsyncGenerator[list[Item]]:
        """The store's items, as they were saved."""
        async with aclosing(_off_loop(self._reader.items())) as pages:
            async for page in pages:
                yield what_lasts(page)

    async def rows(self) -> AsyncGenerator[list[Row]]:
        """The archive's rows."""
        async with aclosing(_off_loop(self._reader.rows())) as pages:
            async for page in pages:
                yield page


class StoreOrigin:
    """A store on which no server is at work, with its archive."""

    def __init__(self, store: Readable, archive: ReadableArchive | None = None) -> None:
        self._store = store
        self._archive = archive
        self.archive = archive.identity if archive is not None else ""

    async def items(self) -> AsyncGenerator[list[Item]]:
        """The store's items."""
        async with aclosing(self._store.snapshot()) as pages:
            async for page in pages:
                yield what_lasts(page.items)

    async def rows(self) -> AsyncGenerator[list[Row]]:
        """The archive's rows."""
        if self._archive is not None:
            async with aclosing(self._archive.snapshot()) as pages:
                async for page in pages:
                    yield page


def what_lasts(items: list[Item]) -> list[Item]:
    """Items without those that only the nodes of now are about."""
    return [_outlasting(item) for item in items if not item.key.startswith(OF_NODES)]


def _outlasting(item: Item) -> Item:
    """The count of minutes goes on, its era does not: the server that starts begins another one.

    So what was sealed for the store as it was has no effect on the one that is restored. Were the
    count to go back, a request would pass for one whose record is not yet forgotten.
    """
    if item.key != keys.EPOCH:
        return item
    return item._replace(value=encode(msgspec.structs.replace(decode_epoch(item.value), era=b"")))


class Marks:
    """What a store says of itself, met on the way through its items."""

    def __init__(self) -> None:
        self.is_ours = False
        self.archive = b""

    def check(self, items: list[Item]) -> None:
        """Refuse what is not whole, or not of this version. Raises `BackupError`."""
        for item in items:
            if item.key == keys.RESTORING:
                raise BackupError(
                    "a restore into that store was begun and not finished: repeat it, or take"
                    " another store"
                )
            if item.key == keys.ARCHIVE:
                self.archive = item.value
            if item.key == keys.SCHEMA:
                self._check_schema(item.value)

    def _check_schema(self, schema: bytes) -> None:
        if schema != str(SCHEMA).encode():
            raise BackupError(
                f"the store was written with schema {schema[:32].decode(errors='replace')!r}, this"
                f" version knows {SCHEMA}: use the version that wrote it"
            )
        self.is_ours = True


async def _off_loop(pages: Iterator[T]) -> AsyncGenerator[T]:
    """What a blocking iterator yields, each step on a thread."""
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        yield page
