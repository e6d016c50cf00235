"""Messages about functions: COLONIES-RPC section 2.5."""

from __future__ import annotations

import msgspec

from colonist_protocol import function as wire
from colonist_protocol.errors import AccessError, NotFoundError
from colonist_protocol.names import check_text
from colonist_server.repo import keys
from colonist_server.repo.budget import Budget
from colonist_server.repo.members import find_executor
from colonist_server.repo.nouns import Colony, Function
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms


async def add(rooms: Rooms, call: Call, message: wire.AddFunction) -> Reply:
    """Announce a function; the executor itself only."""
    wanted = message.function
    check_text(wanted.funcname, "function name")
    if find_executor(call.colony, wanted.executorname) is not call.member:
        raise AccessError("Not allowed to add a function to another executor")
    function = await rooms.functions.add(call.colony, call.executor, wanted)
    return Reply(_shown(call.colony, function))


async def added_again(rooms: Rooms, call: Call, message: wire.AddFunction, value: bytes) -> Reply:
    """Show the function that this request has announced before. Raises `NotFoundError`."""
    del rooms, value
    wanted = message.function
    key = keys.function(call.colony.tag, wanted.executorname, wanted.funcname)
    function = call.colony.functions.get(key)
    if function is None:
        raise NotFoundError("the function was removed since")
    return Reply(_shown(call.colony, function))


async def list_all(rooms: Rooms, call: Call, message: wire.GetFunctions) -> Reply:
    """List functions of a colony or of one executor; not all that would be over `REPLY_BYTES`."""
    del rooms
    fitting = (
        _shown(call.colony, function)
        for function in call.colony.functions.values()
        if not message.executorname or function.record.executor == message.executorname
    )
    return Reply(Budget().first(fitting))


async def remove(rooms: Rooms, call: Call, message: wire.RemoveFunction) -> Reply:
    """Withdraw a function; the executor itself only."""
    colony, member, function = rooms.functions.find(call.cause.who, message.functionid)
    call = call.about(colony, member)
    await rooms.functions.remove(colony, function, call.cause.who)
    return NOTHING


def _shown(colony: Colony, function: Function) -> wire.Function:
    record, tally = function.record, function.tally
    executor = colony.executors.get(record.executor)
    return wire.Function(
        functionid=record.id,
        executorname=record.executor,
        executortype=executor.record.type if executor is not None else "",
        colonyname=colony.record.name,
        funcname=record.name,
        description=record.description or msgspec.UNSET,
        args=list(record.args) or msgspec.UNSET,
        counter=tally.counter,
        minwaittime=tally.min_wait_s,
        maxwaittime=tally.max_wait_s,
        minexectime=tally.min_exec_s,
        maxexectime=tally.max_exec_s,
        avgwaittime=tally.mean_wait_s,
        avgexectime=tally.mean_exec_s,
        locationname=(executor.record.location if executor is not None else "") or msgspec.UNSET,
    )
