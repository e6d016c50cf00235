"""Messages about evidence: what a colony and its processes went through, for anyone to check."""

from __future__ import annotations

from colonist_protocol import audit as wire
from colonist_server.rpc.rooms import Call, Reply, Rooms


async def export(rooms: Rooms, call: Call, message: wire.GetAudit) -> Reply:
    """Read a page of the evidence of a colony."""
    return Reply(await rooms.audit.page(call.colony, message.cursor, message.size))


async def of_process(rooms: Rooms, call: Call, message: wire.GetEvidence) -> Reply:
    """Read a page of the evidence of a process."""
    pid = bytes.fromhex(message.processid)
    return Reply(await rooms.audit.of_process(call.colony, pid, message.cursor, message.size))
