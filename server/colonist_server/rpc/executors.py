"""Messages about executors: COLONIES-RPC section 2.4."""

from __future__ import annotations

import msgspec

from colonist_protocol import executor as wire
from colonist_protocol.errors import NotFoundError
from colonist_protocol.executor import ExecutorState
from colonist_protocol.names import check_text
from colonist_protocol.times import to_text
from colonist_server.repo import keys
from colonist_server.repo.members import find_executor
from colonist_server.repo.nouns import Colony, Executor
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddExecutor) -> Reply:
    """Register an executor; it waits for approval."""
    warrant = call.warrant
    executor = message.executor
    rooms.check_new_id(executor.executorid, "executor Id")
    keys.check_part(executor.executorname, "executor name")
    check_text(executor.executortype, "executor type")
    check_text(executor.locationname or "", "location name")
    added = await rooms.members.add_executor(call.colony, executor, warrant)
    return Reply(shown(call.colony, added), event=warrant.event)


async def added_again(rooms: Rooms, call: Call, message: wire.AddExecutor, value: bytes) -> Reply:
    """Show the executor that this request has added before."""
    del value
    await rooms.members.free_left(call.colony)
    return Reply(shown(call.colony, find_executor(call.colony, message.executor.executorname)))


async def removed_again(
    rooms: Rooms, call: Call, message: wire.RemoveExecutor, value: bytes
) -> Reply:
    """Free what an executor that this request has removed before may still hold."""
    del message, value
    await rooms.members.free_left(call.colony)
    return NOTHING


async def list_all(rooms: Rooms, call: Call, message: wire.GetExecutors) -> Reply:
    """List a colony's executors, unregistered ones too."""
    del rooms, message
    colony = call.colony
    return Reply([shown(colony, executor) for executor in colony.executors.values()])


async def get(rooms: Rooms, call: Call, message: wire.GetExecutor) -> Reply:
    """Read an executor by name."""
    del rooms
    return Reply(shown(call.colony, find_executor(call.colony, message.executorname)))


async def get_by_id(rooms: Rooms, call: Call, message: wire.GetExecutorById) -> Reply:
    """Read an executor by id."""
    del rooms
    executor = call.colony.members.get(message.executorid)
    if not isinstance(executor, Executor):
        raise NotFoundError("Failed to get executor by ID, executor is nil")
    return Reply(shown(call.colony, executor))


async def approve(rooms: Rooms, call: Call, message: wire.ApproveExecutor) -> Reply:
    """Let an executor work."""
    warrant = call.warrant
    await rooms.members.set_state(
        call.colony, message.executorname, ExecutorState.APPROVED, warrant
    )
    return Reply({}, event=warrant.event)


async def reject(rooms: Rooms, call: Call, message: wire.RejectExecutor) -> Reply:
    """Keep an executor from work."""
    warrant = call.warrant
    await rooms.members.set_state(
        call.colony, message.executorname, ExecutorState.REJECTED, warrant
    )
    return Reply({}, event=warrant.event)


async def remove(rooms: Rooms, call: Call, message: wire.RemoveExecutor) -> Reply:
    """Unregister an executor."""
    warrant = call.warrant
    await rooms.members.remove_executor(call.colony, message.executorname, warrant)
    return Reply({}, event=warrant.event)


async def change_id(rooms: Rooms, call: Call, message: wire.ChangeExecutorId) -> Reply:
    """Know the calling executor by another id; what it runs stays its own."""
    warrant = call.warrant
    rooms.check_new_id(message.executorid, "new executor Id")
    await rooms.identities.change_executor(call.colony, call.executor, message.executorid, warrant)
    return Reply(message, event=warrant.event)


def shown(colony: Colony, executor: Executor) -> wire.Executor:
    """An executor as it is on the wire."""
    record = executor.record
    return wire.Executor(
        executorid=record.id,
        executortype=record.type,
        executorname=executor.name,
        colonyname=colony.record.name,
        state=record.state,
        requirefuncreg=record.requires_functions,
        commissiontime=to_text(record.commissioned_ns),
        lastheardfromtime=to_text(executor.heard_ns),
        locationname=record.location or msgspec.UNSET,
        capabilities=record.capabilities,
        allocations=record.allocations,
        blueprintid=record.blueprint or msgspec.UNSET,
        blueprintgen=record.blueprint_generation or msgspec.UNSET,
        sealed=record.is_sealed or msgspec.UNSET,
    )
