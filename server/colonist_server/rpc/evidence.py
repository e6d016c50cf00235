"""Messages about evidence: what a colony and its processes went through, for anyone to check."""

from __future__ import annotations

from typing import Final

from colonist_protocol import audit as wire
from colonist_protocol import codec
from colonist_protocol.errors import InvalidValueError
from colonist_server.rpc.rooms import Call, Reply, Rooms

MILLISECOND_NS: Final = 1_000_000


async def export(rooms: Rooms, call: Call, message: wire.GetAudit) -> Reply:
    """Read a page of the evidence of a colony."""
    if message.cursor:
        raise InvalidValueError("cursor: not one that a page gave; begin anew with an empty one")
    return Reply(wire.AuditPage(lines=(_header(rooms, call),), cursor=""))


async def of_process(rooms: Rooms, call: Call, message: wire.GetEvidence) -> Reply:
    """Read the evidence of a process."""
    await rooms.listing.get(call.colony, bytes.fromhex(message.processid))
    return Reply(wire.ProcessEvidence(header=_header(rooms, call), checkpoints=(), lines=()))


def _header(rooms: Rooms, call: Call) -> str:
    made = rooms.clock.now_ns() // MILLISECOND_NS
    header = wire.Header(colony=call.colony.record.name, server="", made=made)
    return codec.encode(header).decode()
