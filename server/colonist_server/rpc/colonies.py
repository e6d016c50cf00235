"""Messages about colonies: COLONIES-RPC section 2.2."""

from __future__ import annotations

from colonist_protocol import colony as wire
from colonist_protocol.colony import PlainRequests
from colonist_protocol.errors import InvalidValueError, NotFoundError
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddColony) -> Reply:
    """Found a colony."""
    warrant = call.warrant
    rooms.check_new_id(message.colony.colonyid, "colony Id")
    keys.check_part(message.colony.name, "colony name")
    await rooms.colonies.add(message.colony.name, message.colony.colonyid, warrant)
    return Reply(message.colony, event=warrant.event)


async def added_again(rooms: Rooms, call: Call, message: wire.AddColony, value: bytes) -> Reply:
    """Show the colony that this request has founded before."""
    del call, value
    colony = rooms.view.colonies.get(message.colony.name)
    return Reply(_shown(colony) if colony is not None else message.colony)


async def remove(rooms: Rooms, call: Call, message: wire.RemoveColony) -> Reply:
    """Remove a colony with all that is in it."""
    del call
    colony = rooms.view.colonies.get(message.colonyname)
    if colony is None:
        raise NotFoundError(f"Colony with name <{message.colonyname}> not found")
    await rooms.colonies.remove(colony)
    return NOTHING


async def list_all(rooms: Rooms, call: Call, message: wire.GetColonies) -> Reply:
    """List all colonies."""
    del call, message
    return Reply([_shown(colony) for colony in rooms.view.colonies.values()])


async def get(rooms: Rooms, call: Call, message: wire.GetColony) -> Reply:
    """Read one colony."""
    del rooms, message
    return Reply(_shown(call.colony))


async def pause(rooms: Rooms, call: Call, message: wire.PauseAssignments) -> Reply:
    """Stop handing out work."""
    del message
    warrant = call.warrant
    await rooms.colonies.pause(call.colony, warrant, is_paused=True)
    return Reply({}, event=warrant.event)


async def resume(rooms: Rooms, call: Call, message: wire.ResumeAssignments) -> Reply:
    """Hand out work again."""
    del message
    warrant = call.warrant
    await rooms.colonies.pause(call.colony, warrant, is_paused=False)
    return Reply({}, event=warrant.event)


async def pause_status(rooms: Rooms, call: Call, message: wire.GetPauseStatus) -> Reply:
    """Say whether a colony is paused."""
    del rooms, message
    record = call.colony.record
    status = wire.PauseStatus(colonyname=record.name, ispaused=record.is_paused)
    return Reply(status, wire.PAUSE_STATUS_REPLY)


async def change_id(rooms: Rooms, call: Call, message: wire.ChangeColonyId) -> Reply:
    """Give the colony's owner another id."""
    warrant = call.warrant
    rooms.check_new_id(message.colonyid, "new colony Id")
    await rooms.identities.change_colony(call.colony, message.colonyid, warrant)
    return Reply(message, event=warrant.event)


async def member_history(rooms: Rooms, call: Call, message: wire.GetMemberHistory) -> Reply:
    """Say who changed what about members and owner, newest first."""
    if message.count > wire.MAX_CHANGES:
        raise InvalidValueError(f"Count is larger than MaxCount limit <{wire.MAX_CHANGES}>")
    if message.count <= 0:
        return Reply([])
    found = await rooms.trail.read(
        call.colony, count=message.count, since_ns=message.since, before_ns=message.before
    )
    return Reply(found)


async def set_policy(rooms: Rooms, call: Call, message: wire.SetPolicy) -> Reply:
    """Settle what a colony takes."""
    warrant = call.warrant
    if message.plainrequests not in set(PlainRequests):
        raise InvalidValueError(f"plainrequests is not one of {', '.join(PlainRequests)}")
    refuses = message.plainrequests == PlainRequests.REFUSE
    await rooms.colonies.refuse_plain(call.colony, warrant, refuses=refuses)
    return Reply(_policy(call.colony), event=warrant.event)


async def settled_again(rooms: Rooms, call: Call, message: wire.SetPolicy, value: bytes) -> Reply:
    """Show the policy, as it is now."""
    del rooms, message, value
    return Reply(_policy(call.colony))


async def get_policy(rooms: Rooms, call: Call, message: wire.GetPolicy) -> Reply:
    """Read what a colony takes."""
    del rooms, message
    return Reply(_policy(call.colony))


def _policy(colony: Colony) -> wire.Policy:
    refuses = colony.record.refuses_plain
    return wire.Policy(
        colonyname=colony.record.name,
        plainrequests=PlainRequests.REFUSE if refuses else PlainRequests.ALLOW,
    )


def _shown(colony: Colony) -> wire.Colony:
    return wire.Colony(colonyid=colony.record.owner, name=colony.record.name)
