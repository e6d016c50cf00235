"""Messages about logs: COLONIES-RPC section 2.10."""

from __future__ import annotations

from typing import Final

from colonist_protocol import log as wire
from colonist_protocol.errors import (
    AccessError,
    InvalidValueError,
    NotFoundError,
    TooLargeError,
)
from colonist_server.repo import keys
from colonist_server.rpc.processes import find_row, said_of
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms

MAX_LINE_BYTES: Final = 262_144
"""A line is stored twice in one commit: at its process and at its executor."""


async def add(rooms: Rooms, call: Call, message: wire.AddLog) -> Reply:
    """Write a line to a running process; its assignee only."""
    _check_line(message.message)
    pid = bytes.fromhex(message.processid)
    said = said_of(rooms, call, pid)
    if said is not None:
        await rooms.reports.line(pid, message.message, said)
        return NOTHING
    row = await find_row(rooms, message.processid, "Failed to add log")
    await rooms.journal.log(row, message.message, call.cause, call.member.name)
    return NOTHING


async def add_executor(rooms: Rooms, call: Call, message: wire.AddExecutorLog) -> Reply:
    """Write a line to the caller's own log."""
    if call.executor.name != message.executorname:
        raise AccessError("Failed to add executor log, executor name mismatch")
    _check_line(message.message)
    await rooms.journal.log_of_executor(call.colony, call.executor.name, message.message)
    return NOTHING


async def get(rooms: Rooms, call: Call, message: wire.GetLogs) -> Reply:
    """Lines of an executor, else of a process, of the caller's colony."""
    if message.count > wire.MAX_LOGS:
        raise InvalidValueError(f"Count exceeds max log count ({wire.MAX_LOGS})")
    if message.count < 0:
        raise InvalidValueError("Count is negative")
    if not message.count:
        return Reply([])
    if not message.executorname and not _is_here(call, message.processid):
        raise NotFoundError("Failed to get logs, process does not exist")
    return Reply(await rooms.journal.lines(call.colony, message))


async def search(rooms: Rooms, call: Call, message: wire.SearchLogs) -> Reply:
    """Lines that contain a text."""
    if message.count > wire.MAX_SEARCH_LOGS:
        raise InvalidValueError(f"Count exceeds max log count ({wire.MAX_SEARCH_LOGS})")
    if not 0 <= message.days <= wire.MAX_SEARCH_DAYS:
        raise InvalidValueError(f"Count exceeds max day count ({wire.MAX_SEARCH_DAYS})")
    found = await rooms.journal.search(
        call.colony, text=message.text, days=message.days, count=message.count
    )
    return Reply(found)


def _check_line(text: str) -> None:
    if len(text.encode()) > MAX_LINE_BYTES:
        raise TooLargeError(f"Failed to add log, message is over {MAX_LINE_BYTES} bytes")


def _is_here(call: Call, process: str) -> bool:
    pid = keys.parse_pid(process)
    return pid is not None and pid.startswith(call.colony.tag)
