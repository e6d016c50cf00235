"""Messages about the server: COLONIES-RPC section 2.1."""

from __future__ import annotations

from colonist_protocol import colony as colony_wire
from colonist_protocol import server as wire
from colonist_protocol.executor import ExecutorState
from colonist_protocol.process import State
from colonist_server.repo import ledger
from colonist_server.repo.nouns import Colony
from colonist_server.rpc.rooms import Call, Reply, Rooms


async def version(rooms: Rooms, call: Call, message: wire.Version) -> Reply:
    """Say which version this is."""
    del call, message
    return Reply(rooms.about.version)


async def info(rooms: Rooms, call: Call, message: wire.GetServerInfo) -> Reply:
    """Say which ways lead in."""
    del call, message
    return Reply(rooms.about.info)


async def cluster(rooms: Rooms, call: Call, message: wire.GetCluster) -> Reply:
    """List the server's nodes."""
    del call, message
    about = rooms.about
    node = wire.Node(name=about.node, host=about.host, port=about.port, apiport=about.port)
    return Reply(wire.Cluster(nodes=[node], leader=node))


async def change_id(rooms: Rooms, call: Call, message: wire.ChangeServerId) -> Reply:
    """Give the server owner another id."""
    rooms.check_new_id(message.serverid, "new server Id")
    await rooms.owner.change(message.serverid, call.warrant)
    return Reply(message)


async def statistics(rooms: Rooms, call: Call, message: wire.GetStatistics) -> Reply:
    """Count what is in all colonies."""
    del call, message
    await _heard(rooms, list(rooms.view.colonies.values()))
    return Reply(_sum([_counted(colony) for colony in rooms.view.colonies.values()]))


async def colony_statistics(
    rooms: Rooms, call: Call, message: colony_wire.GetColonyStatistics
) -> Reply:
    """Count what is in one colony."""
    del message
    await _heard(rooms, [call.colony])
    return Reply(_counted(call.colony))


async def _heard(rooms: Rooms, colonies: list[Colony]) -> None:
    is_mover = rooms.leader() == rooms.about.node
    await ledger.heard(rooms.view, colonies, is_mover=is_mover)


def _counted(colony: Colony) -> wire.Statistics:
    states = [executor.record.state for executor in colony.executors.values()]
    open_workflows = colony.open_workflows.counts()
    closed, closed_workflows = colony.ended, colony.ended_workflows
    workflows = [open_workflows[state] + closed_workflows[state] for state in State]
    return wire.Statistics(
        colonies=1,
        executors=len(states),
        activeexecutors=states.count(ExecutorState.APPROVED),
        unregisteredexecutors=states.count(ExecutorState.UNREGISTERED),
        waitingprocesses=colony.waiting,
        runningprocesses=len(colony.running),
        successfulprocesses=closed[State.SUCCESS],
        failedprocesses=closed[State.FAILED],
        cancelledprocesses=closed[State.CANCELLED],
        waitingworkflows=workflows[State.WAITING],
        runningworkflows=workflows[State.RUNNING],
        successfulworkflows=workflows[State.SUCCESS],
        failedworkflows=workflows[State.FAILED],
        cancelledworkflows=workflows[State.CANCELLED],
    )


def _sum(all: list[wire.Statistics]) -> wire.Statistics:
    names = wire.Statistics.__struct_fields__
    return wire.Statistics(**{name: sum(getattr(one, name) for one in all) for name in names})
