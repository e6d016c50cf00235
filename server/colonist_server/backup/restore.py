"""Restoring into an empty store: written, read back, compared, and only then fit for a server.

From the first commit to the last a mark stands in the store, which no server starts on. Each commit
guards it: of two restores at once the later goes on, the other fails. One that was cut off is
begun anew by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from colonist_server.archive.interface import Archive
from colonist_server.backup.form import BackupError
from colonist_server.backup.origin import OF_NODES, Marks, Origin
from colonist_server.backup.tallies import Tallies
from colonist_server.repo import keys
from colonist_server.repo.records import SCHEMA, FunctionRecord, encode
from colonist_server.store.interface import (
    MAX_COMMIT_BYTES,
    MAX_OPS,
    Delete,
    Guard,
    Item,
    Op,
    Put,
    Revision,
    Store,
)

T = TypeVar("T")

_PAGE: Final = 10_000
_ROOM_BYTES: Final = MAX_COMMIT_BYTES - 1_024
_AT_ONCE: Final = MAX_OPS - 1
"""One guard is for the mark."""
_LEFT_OVER: Final = (keys.SCHEMA, keys.EPOCH, *OF_NODES)
"""What a server that was only ever started leaves in an empty store."""
_GID: Final = slice(0, len(keys.ARGUMENT) + keys.PID_BYTES)


class Restored(NamedTuple):
    """What was restored and compared."""

    items: int
    rows: int


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """`m/restoring`: the archive that is restored too."""

    archive: str = ""


async def restore(origin: Origin, store: Store, archive: Archive | None = None) -> Restored:
    """Restore all of an origin. Raises `BackupError`, `StoreError`.

    The origin is read to its end first: of a damaged file nothing is written.
    """
    tallies, rows = await _study(origin)
    if archive is None and (origin.archive or rows):
        raise BackupError("it holds an archive as well: say where that is to go, with --archive")
    loading = _Loading(store, await _claim(store, archive, origin.archive))
    if archive is not None:
        await _restore_archive(origin, archive)
    items, functions = await loading.load(origin, tallies.folded())
    await _compare(origin, store, functions)
    if archive is not None:
        await _compare_archive(origin, archive)
    await loading.finish()
    return Restored(items, rows)


async def _study(origin: Origin) -> tuple[Tallies, int]:
    tallies, marks = Tallies(), Marks()
    async with aclosing(origin.items()) as pages:
        async for page in pages:
            marks.check(page)
            tallies.note(page)
    if not marks.is_ours:
        raise BackupError("there is no Colonist state in it")
    rows = 0
    async with aclosing(origin.rows()) as pages:
        async for some in pages:
            rows += len(some)
    return tallies, rows


# -- an empty store, with the mark in it


async def _claim(store: Store, archive: Archive | None, identity: str) -> Revision:
    """Put the mark into an empty store, and empty it of what an earlier restore left."""
    before = await store.get(keys.RESTORING)
    left_over = await _check_empty(store, is_ours=before is not None)
    if archive is not None:
        await _claim_archive(archive, identity, before)
    mark = Put(keys.RESTORING, encode(Mark(identity)))
    guard = Guard(keys.RESTORING, before.modified if before is not None else 0)
    ops: list[Op] = [mark, *(Delete(item.key) for item in left_over)]
    guards = [guard, *(Guard(item.key, item.modified) for item in left_over)]
    revision = await store.commit(guards, ops)
    if revision is None:
        raise BackupError("somebody else has begun to write to the store: nothing was restored")
    if before is not None:
        await _empty(store, Guard(keys.RESTORING, revision))
    return revision


async def _check_empty(store: Store, *, is_ours: bool) -> list[Item]:
    """What to delete of an empty store. Raises `BackupError` for one that is in use."""
    alive = (await store.range(keys.NODE, limit=_AT_ONCE)).items
    if alive and store.is_shared:
        names = ", ".join(keys.name_of_node(item.key) for item in alive[:3])
        raise BackupError(f"a server is at work on the store ({names}): stop it first")
    if is_ours:
        return []
    found = (await store.range(b"", limit=_AT_ONCE + 1, keys_only=True)).items
    if len(found) > _AT_ONCE or not all(item.key.startswith(_LEFT_OVER) for item in found):
        raise BackupError(
            "the store is not empty: restore into a new one (another file, another prefix),"
            " then start the servers on that"
        )
    return found


async def _empty(store: Store, mark: Guard) -> None:
    """Delete everything but the mark: what a restore that was cut off has written."""
    while True:
        page = await store.range(b"", limit=_PAGE, keys_only=True)
        found = [item for item in page.items if item.key != keys.RESTORING]
        if not found:
            return
        for start in range(0, len(found), _AT_ONCE):
            part = found[start : start + _AT_ONCE]
            guards = [mark, *(Guard(item.key, item.modified) for item in part)]
            if await store.commit(guards, [Delete(item.key) for item in part]) is None:
                raise _overtaken()


def _overtaken() -> BackupError:
    return BackupError("somebody else writes to the store: it is not whole, restore it again")


# -- items


class _Loading:
    """Writes items, each key guarded as absent."""

    def __init__(self, store: Store, mark: Revision) -> None:
        self._store = store
        self._mark = Guard(keys.RESTORING, mark)
        self._newest: Revision = mark

    async def load(
        self, origin: Origin, folded: dict[bytes, FunctionRecord]
    ) -> tuple[int, dict[bytes, bytes]]:
        """Write everything; how many items, and functions as they were written."""
        count = 0
        functions: list[Item] = []
        arguments: list[Item] = []  # of one generator
        async with aclosing(origin.items()) as pages:
            async for page in pages:
                count += len(page)
                plain: list[Item] = []
                for item in page:
                    if item.key.startswith(keys.FUNCTION):
                        functions.append(item)
                    elif item.key.startswith(keys.ARGUMENT):
                        if arguments and arguments[0].key[_GID] != item.key[_GID]:
                            await self._write_in_order(arguments)
                        arguments.append(item)
                    elif item.key != keys.SCHEMA:
                        plain.append(item)
                await self._write(plain)
        await self._write_in_order(arguments)
        return count, await self._write_functions(functions, folded)

    async def finish(self) -> None:
        """Let servers start on it."""
        if (await self._store.range(keys.NODE, limit=1)).items:
            raise BackupError("a server was started on the store: stop it, restore again")
        guards = [self._mark, Guard(keys.SCHEMA, 0)]
        ops: list[Op] = [Delete(keys.RESTORING), Put(keys.SCHEMA, str(SCHEMA).encode())]
        if await self._store.commit(guards, ops) is None:
            raise _overtaken()

    async def _write(self, items: Sequence[Item]) -> None:
        await _together([self._commit(part) for part in _parts(items)])

    async def _write_in_order(self, arguments: list[Item]) -> None:
        """They are taken in the order of their revisions: keep it. Empties the list."""
        arguments.sort(key=lambda item: (item.modified, item.key))
        for part in _rising(arguments):
            for piece in _parts(part):
                await self._commit(piece)
        arguments.clear()

    async def _write_functions(
        self, items: Sequence[Item], folded: dict[bytes, FunctionRecord]
    ) -> dict[bytes, bytes]:
        """Last of all: a tally counts what was written before it."""
        through = self._newest
        written: dict[bytes, bytes] = {}
        for item in items:
            record = folded.get(item.key)
            written[item.key] = item.value
            if record is not None:
                written[item.key] = encode(msgspec.structs.replace(record, through=through))
        await self._write([item._replace(value=written[item.key]) for item in items])
        return written

    async def _commit(self, items: Sequence[Item]) -> None:
        guards = [self._mark, *(Guard(item.key, 0) for item in items)]
        revision = await self._store.commit(guards, [Put(item.key, item.value) for item in items])
        if revision is None:
            raise _overtaken()
        self._newest = max(self._newest, revision)


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """What fits a commit each, in order."""
    start = size = 0
    for at, item in enumerate(items):
        own = 2 * len(item.key) + len(item.value)
        if at - start == _AT_ONCE or (at > start and size + own > _ROOM_BYTES):
            yield items[start:at]
            start, size = at, 0
        size += own
    if start < len(items):
        yield items[start:]


def _rising(arguments: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Those of one revision are taken in the order of their keys: cut where that falls."""
    start = 0
    for at in range(1, len(arguments)):
        if arguments[at].key < arguments[at - 1].key:
            yield arguments[start:at]
            start = at
    if arguments:
        yield arguments[start:]


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do some things at once; of several errors the first is told."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


# -- the archive


async def _claim_archive(archive: Archive, identity: str, before: Item | None) -> None:
    if (await archive.range(b"", limit=1, keys_only=True)).rows:
        mark = msgspec.msgpack.decode(before.value, type=Mark) if before is not None else Mark()
        if not mark.archive or archive.identity != mark.archive:
            raise BackupError("the archive is not empty: restore into a new one")
        await archive.delete_range(b"")
    if identity and archive.identity != identity:
        await archive.adopt(identity)


async def _restore_archive(origin: Origin, archive: Archive) -> None:
    async with aclosing(origin.rows()) as pages:
        async for rows in pages:
            await archive.put(rows)


# -- reading back


async def _compare(origin: Origin, store: Store, functions: dict[bytes, bytes]) -> None:
    """Raise `BackupError` unless the store holds exactly what was saved."""
    hidden = (keys.SCHEMA, keys.RESTORING)
    async with aclosing(_flat(origin.items())) as wanted, aclosing(store.snapshot()) as pages:
        async for page in pages:
            for found in page.items:
                if found.key in hidden:
                    continue
                item = await _next_but(wanted, hidden)
                value = functions.get(item.key, item.value) if item is not None else b""
                if item is None or (found.key, found.value) != (item.key, value):
                    raise _differs(found.key)
        missing = await _next_but(wanted, hidden)
        if missing is not None:
            raise _differs(missing.key)


async def _compare_archive(origin: Origin, archive: Archive) -> None:
    async with aclosing(_flat(origin.rows())) as wanted, aclosing(archive.snapshot()) as pages:
        async for rows in pages:
            for found in rows:
                if await anext(wanted, None) != found:
                    raise _differs(found.key)
        missing = await anext(wanted, None)
        if missing is not None:
            raise _differs(missing.key)


async def _next_but(items: AsyncGenerator[Item], hidden: Sequence[bytes]) -> Item | None:
    async for item in items:
        if item.key not in hidden:
            return item
    return None


async def _flat(pages: AsyncGenerator[list[T]]) -> AsyncGenerator[T]:
    async with aclosing(pages):
        async for page in pages:
            for each in page:
                yield each


def _differs(key: bytes) -> BackupError:
    return BackupError(f"read back, {key.hex()} is not what was saved: restore again")
