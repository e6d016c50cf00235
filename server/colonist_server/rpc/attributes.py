"""Messages about attributes: COLONIES-RPC section 2.9."""

from __future__ import annotations

from colonist_protocol import attribute as wire
from colonist_protocol.errors import InvalidValueError, NotFoundError
from colonist_protocol.identity import is_id
from colonist_protocol.names import MAX_TEXT_CHARS
from colonist_protocol.process import State
from colonist_server.repo import keys, render
from colonist_server.repo.nouns import Executor
from colonist_server.repo.records import AttributeRecord
from colonist_server.rpc.processes import find_row, said_of
from colonist_server.rpc.rooms import Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddAttribute) -> Reply:
    """Set an attribute of a running process; its assignee only."""
    wanted = message.attribute
    if not wanted.key or len(wanted.key) > MAX_TEXT_CHARS:
        raise InvalidValueError(f"attribute key is not 1 to {MAX_TEXT_CHARS} characters")
    record = AttributeRecord(wanted.attributetype, wanted.key, wanted.value)
    pid = bytes.fromhex(wanted.targetid)
    said = said_of(rooms, call, pid)
    if said is not None:
        id, record = await rooms.reports.attribute(pid, record, said)
    else:
        row = await find_row(rooms, wanted.targetid, "Failed to add attribute")
        id = await rooms.journal.set_attribute(row, record, call.cause)
    name = call.colony.record.name
    return Reply(render.attribute(id, pid.hex(), name, State.RUNNING, record))


async def get(rooms: Rooms, call: Call, message: wire.GetAttribute) -> Reply:
    """Read one attribute; what the caller may not see does not exist for it."""
    id = message.attributeid
    pid = await rooms.journal.attribute_owner(id) if is_id(id) else None
    colony = rooms.view.tags.get(pid[: keys.TAG_BYTES]) if pid is not None else None
    member = colony.members.get(call.cause.who) if colony is not None else None
    if pid is None or colony is None or member is None:
        raise NotFoundError("Attribute does not exists")
    if isinstance(member, Executor) and not member.is_approved:
        raise NotFoundError("Attribute does not exists")
    call.about(colony, member)
    record = await rooms.journal.attribute(pid, id)
    process = await rooms.listing.get(colony, pid)
    return Reply(render.attribute(id, pid.hex(), colony.record.name, process.state, record))
