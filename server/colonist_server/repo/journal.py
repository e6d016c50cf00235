"""What executors write while they work: attributes and log lines."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from colonist_core.process import Cause
from colonist_protocol.attribute import attribute_id
from colonist_protocol.errors import ContendedError, NotFoundError
from colonist_protocol.log import GetLogs, Log
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import chain, keys
from colonist_server.repo.attributes import Attributes, Setting
from colonist_server.repo.births import Births
from colonist_server.repo.budget import Budget
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony, Row
from colonist_server.repo.past import Reads
from colonist_server.repo.processes import check_running
from colonist_server.repo.records import (
    AttributeRecord,
    LogRecord,
    decode_attribute,
    decode_closed,
    decode_log,
    encode,
)
from colonist_server.repo.view import View
from colonist_server.repo.writes import ATTEMPTS, Writes
from colonist_server.store.interface import Guard, Item, Op, Put

DAY_S: Final = 86_400

_PAGE: Final = 500
_LONG_PAGE: Final = 50
"""Lines that are read together while they may be long."""
_LIGHT_BYTES: Final = 1_048_576


class Journal:
    """Attributes and logs."""

    __slots__ = ("_attributes", "_births", "_clock", "_view", "_writes")

    def __init__(
        self, writes: Writes, births: Births, attributes: Attributes, clock: Clock
    ) -> None:
        self._writes = writes
        self._attributes = attributes
        self._view: View = writes.view
        self._births = births
        self._clock = clock

    # -- attributes

    async def set_attribute(self, row: Row, record: AttributeRecord, cause: Cause) -> str:
        """Set an attribute of a running process, anew or over an older value; its id.

        Raises `TooLargeError` where it has as many as it may.
        """
        check_running(row, self._view, cause, "Failed to add attribute")
        async with self._attributes.setting(row) as setting:
            return await self._set_attribute(row, record, cause, setting)

    async def _set_attribute(
        self, row: Row, record: AttributeRecord, cause: Cause, setting: Setting
    ) -> str:
        id = attribute_id(row.id, record.key, record.kind)
        key, value = keys.attribute(row.pid, id), encode(record)
        for _ in range(ATTEMPTS):
            before = await self._writes.read(key)
            live = check_running(row, self._view, cause, "Failed to add attribute")
            setting.begin(before, value)
            row.has_attributes = True
            guards = [
                Guard(keys.live(row.pid), row.revision),
                Guard(key, before.modified if before else 0),
            ]
            ops: list[Op] = [Put(key, value), Put(keys.attribute_index(id), row.pid)]
            if self._writes.store.is_shared:
                ops += chain.noted(row, live)
            if await self._writes.commit(guards, ops):
                setting.done()
                return id
            await self._writes.refresh([guards[0].key])
        raise ContendedError("the attribute changed too often")

    async def attribute_owner(self, id: str) -> bytes | None:
        """The process that an attribute belongs to."""
        item = await self._writes.past.read(keys.attribute_index(id))
        return item.value if item is not None else None

    async def attribute(self, pid: bytes, id: str) -> AttributeRecord:
        """One attribute, also one made from the spec's `env`. Raises `NotFoundError`."""
        item = await self._writes.past.read(keys.attribute(pid, id))
        if item is not None:
            return decode_attribute(item.value)
        birth = await self._births.of(pid, is_past=True)
        record = dict(birth.env).get(id) if birth is not None else None
        if record is None:
            raise NotFoundError("Attribute does not exists")
        return record

    # -- logs

    async def log(self, row: Row, message: str, cause: Cause, executor: str) -> None:
        """Write a line to a running process, and to its executor's log."""
        mine = executor_pid(row.colony.tag, executor)
        for _ in range(ATTEMPTS):
            live = check_running(row, self._view, cause, "Failed to add log")
            now_ns = self._clock.now_ns()
            record = encode(LogRecord(message, executor, row.pid, now_ns))
            key = keys.log(row.pid, live.attempt, now_ns)
            ops: list[Op] = [Put(key, record), Put(keys.log(mine, 0, now_ns), record)]
            if await self._writes.commit(
                [Guard(keys.live(row.pid), row.revision), Guard(key, 0)], ops
            ):
                return
            await self._writes.refresh([keys.live(row.pid)])
        raise ContendedError("the process changed too often")

    async def log_of_executor(self, colony: Colony, executor: str, message: str) -> None:
        """Write a line to an executor's own log."""
        now_ns = self._clock.now_ns()
        key = keys.log(executor_pid(colony.tag, executor), 0, now_ns)
        record = encode(LogRecord(message, executor, b"", now_ns))
        if await self._writes.commit([Guard(key, 0)], [Put(key, record)]) is None:
            raise ContendedError("another line was written at the same instant")

    async def lines(self, colony: Colony, wanted: GetLogs) -> list[Log]:
        """Lines of an executor, else of a process: COLONIES-RPC section 2.10.

        Fewer where those would be over `REPLY_BYTES`. Raises `NotFoundError`.
        """
        if wanted.executorname:
            if wanted.executorname not in colony.executors:
                raise NotFoundError("Failed to get logs, executor does not exist")
            pid, attempts = executor_pid(colony.tag, wanted.executorname), range(1)
        else:
            pid = bytes.fromhex(wanted.processid)
            attempts = range(1, await self._attempts(pid) + 1)
        backwards = wanted.latest and wanted.since <= 0
        # What lives is never asked for in the archive.
        source = self._writes if pid in self._view.rows else self._writes.past
        found: list[Log] = []
        room = Budget()
        for attempt in reversed(attempts) if backwards else attempts:
            prefix = keys.logs(pid, attempt)
            after = b"" if wanted.since <= 0 else keys.log(pid, attempt, wanted.since)
            count = wanted.count - len(found)
            async for items in self._pages(source, prefix, after, count, backwards=backwards):
                found += room.first([_shown(colony, decode_log(item.value)) for item in items])
                if room.is_spent:
                    break
            if room.is_spent or len(found) >= wanted.count:
                break
        return found[::-1] if backwards else found

    async def _pages(
        self,
        source: Reads,
        prefix: bytes,
        after: bytes,
        count: int,
        *,
        backwards: bool = False,
    ) -> AsyncIterator[Sequence[Item]]:
        """Up to `count` records under a prefix, few at a time while they are long."""
        limit = _LONG_PAGE
        while count > 0:
            page = await source.range(
                prefix, after=after, limit=min(limit, count), reverse=backwards
            )
            yield page.items
            if not page.more:
                break
            count -= len(page.items)
            after = page.items[-1].key
            is_light = sum(len(item.value) for item in page.items) < _LIGHT_BYTES
            limit = _PAGE if is_light else _LONG_PAGE

    async def _attempts(self, pid: bytes) -> int:
        row = self._view.rows.get(pid)
        if row is not None:
            return row.live().attempt
        item = await self._writes.past.read(keys.closed(pid))
        if item is None:
            raise NotFoundError("Failed to get logs, process does not exist")
        return decode_closed(item.value).live.attempt

    async def search(self, colony: Colony, *, text: str, days: int, count: int) -> list[Log]:
        """Lines of the last days that contain a text; fewer than `count` over `REPLY_BYTES`."""
        since_ns = self._clock.now_ns() - days * DAY_S * SECOND_NS
        prefix = keys.LOG + colony.tag
        found: list[Log] = []
        room = Budget()
        if count <= 0:
            return found
        async for items in self._pages(self._writes.past, prefix, b"", sys.maxsize):
            records = [(item.key, decode_log(item.value)) for item in items]
            fitting = [
                _shown(colony, record)
                for key, record in records
                if record.time_ns >= since_ns and text in record.message and _is_own(key, record)
            ]
            found += room.first(fitting[: count - len(found)])
            if room.is_spent or len(found) >= count:
                break
        return found


def executor_pid(tag: bytes, executor: str) -> bytes:
    """Where an executor's own log is kept."""
    return keys.executor_pid(tag, hashlib.sha3_256(executor.encode()).digest())


def _is_own(key: bytes, record: LogRecord) -> bool:
    """Whether a line stands where it was written, and is not its executor's copy of it."""
    at_executor = keys.is_executor_pid(key[len(keys.LOG) : len(keys.LOG) + keys.PID_BYTES])
    return at_executor != bool(record.process)


def _shown(colony: Colony, record: LogRecord) -> Log:
    return Log(
        processid=record.process.hex(),
        colonyname=colony.record.name,
        executorname=record.executor,
        message=record.message,
        timestamp=record.time_ns,
    )
