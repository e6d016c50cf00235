"""The attributes that are set while a process runs: how many may be, and reading them.

They are shown with their process, so what they are together is bounded. It is counted where it is
known, at the row: each node counts what was there when it first set one, and what it sets.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from colonist_core.limits import Limits
from colonist_protocol.errors import TooLargeError
from colonist_server.repo import keys
from colonist_server.repo.budget import Budget
from colonist_server.repo.nouns import Beside, Row
from colonist_server.repo.past import Reads
from colonist_server.repo.records import AttributeRecord, decode_attribute
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Item

_FEW: Final = 16
_MANY: Final = 100
"""Attributes that are read together, before and after it is known that they are small."""
_LIGHT_BYTES: Final = 262_144
_REMEDY: Final = (
    "set those again that it has, return the rest as its output, or raise the limit {limit}"
    " (docs/howto/limits.md)"
)


class Setting:
    """One attribute on its way to the store. Nobody else sets one of the process at this node."""

    __slots__ = ("_beside", "_count", "_limits", "_size")

    def __init__(self, beside: Beside, limits: Limits) -> None:
        self._beside = beside
        self._limits = limits
        self._count = self._size = 0

    def begin(self, before: Item | None, value: bytes) -> None:
        """It is about to be written, perhaps not for the first time. Raises `TooLargeError`."""
        beside, limits = self._beside, self._limits
        self._count = beside.count + (before is None)
        self._size = beside.size + len(value) - (len(before.value) if before is not None else 0)
        if self._count > max(limits.process_attributes, beside.count):
            what = f"{self._count} attributes of at most {limits.process_attributes}"
            raise _too_large(what, "process_attributes")
        if self._size > max(limits.process_attribute_bytes, beside.size):
            what = f"attributes of {self._size} bytes of at most {limits.process_attribute_bytes}"
            raise _too_large(what, "process_attribute_bytes")
        beside.is_known = False  # until it is clear what became of it

    def done(self) -> None:
        """It was written."""
        beside = self._beside
        beside.count, beside.size, beside.is_known = self._count, self._size, True


class Attributes:
    """Holds processes to the limits of their attributes."""

    __slots__ = ("_limits", "_writes")

    def __init__(self, writes: Writes, limits: Limits) -> None:
        self._writes = writes
        self._limits = limits

    @asynccontextmanager
    async def setting(self, row: Row) -> AsyncGenerator[Setting]:
        """Let one attribute of a process be set."""
        if row.beside is None:
            row.beside = Beside(is_known=not row.has_attributes)
        beside = row.beside
        async with beside.lock:
            if not beside.is_known:
                await self._count(row.pid, beside)
            yield Setting(beside, self._limits)

    async def _count(self, pid: bytes, beside: Beside) -> None:
        """Count what stands in the store, or enough of it to let no more in."""
        limits = self._limits
        count = size = 0
        async with aclosing(_pages(self._writes, pid)) as pages:
            async for items in pages:
                count += len(items)
                size += sum(len(item.value) for item in items)
                if count > limits.process_attributes or size > limits.process_attribute_bytes:
                    break
        beside.count, beside.size, beside.is_known = count, size, True


async def attributes_of(
    writes: Writes, pid: bytes, *, has_ended: bool
) -> list[tuple[str, AttributeRecord]]:
    """The attributes set while a process ran, with their ids; no more than a reply may hold."""
    room = Budget()
    found: list[tuple[str, AttributeRecord]] = []
    async with aclosing(_pages(writes, pid, has_ended=has_ended)) as pages:
        async for items in pages:
            for item in items:
                if not room.takes(len(item.value)):
                    return found
                record = decode_attribute(item.value)
                found.append((item.key[-keys.ATTRIBUTE_BYTES :].hex(), record))
    return found


async def _pages(
    writes: Writes, pid: bytes, *, has_ended: bool = False
) -> AsyncGenerator[Sequence[Item]]:
    """What stands in the store, or in the archive: those of one process move all at once."""
    prefix, after, limit = keys.attributes(pid), b"", _FEW
    source: Reads = writes
    while True:
        page = await source.range(prefix, after=after, limit=limit)
        if not page.items and has_ended and source is writes:
            source = writes.past
            continue
        yield page.items
        if not page.more:
            return
        after = page.items[-1].key
        is_light = sum(len(item.value) for item in page.items) < _LIGHT_BYTES
        limit = _MANY if is_light else _FEW


def _too_large(what: str, limit: str) -> TooLargeError:
    return TooLargeError(f"the process would have {what}: {_REMEDY.format(limit=limit)}")
