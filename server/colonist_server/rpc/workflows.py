"""Messages about workflows: COLONIES-RPC section 2.7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from colonist_protocol import workflow as wire
from colonist_protocol.errors import ConflictError, InvalidValueError, NotFoundError
from colonist_protocol.process import FINAL, MAX_LIST, State
from colonist_server.repo import keys, once, workflow_listing
from colonist_server.repo.nouns import Colony, Workflow
from colonist_server.repo.once import Derived, Mark
from colonist_server.repo.workflow_removal import RUNS
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms

REMOVABLE: Final[list[State]] = [state for state in State if state is not State.RUNNING]


async def submit(rooms: Rooms, call: Call, message: wire.SubmitWorkflowSpec) -> Reply:
    """Store a workflow; it is shown as it was submitted, without its drawing."""
    new = await rooms.workflows.submit(
        call.colony, call.member, message.spec, payload=call.payload, cause=call.cause
    )
    return Reply(workflow_listing.submitted(call.colony, new))


def derived(tag: bytes, mark: Mark) -> Derived:
    """The workflow that a sealed submit makes: its head is the record of that, once it is open."""
    minute_ns = mark.token.n * keys.MINUTE_NS
    wid = keys.workflow_id(tag, minute_ns, mark.digest)
    return Derived(wid, keys.workflow(wid), workflow_listing.is_made)


async def submitted_again(
    rooms: Rooms, call: Call, message: wire.SubmitWorkflowSpec, wid: bytes
) -> Reply:
    """Show the workflow that this request has made before, without its drawing."""
    del message
    return Reply(await rooms.workflow_listing.get(call.colony, wid, is_drawn=False))


async def get(rooms: Rooms, call: Call, message: wire.GetProcessGraph) -> Reply:
    """Read one workflow, with nodes and edges."""
    return Reply(await rooms.workflow_listing.get(call.colony, parse(message.processgraphid)))


async def list_some(rooms: Rooms, call: Call, message: wire.GetProcessGraphs) -> Reply:
    """List workflows, newest submission first."""
    if message.count > MAX_LIST:
        raise InvalidValueError(f"Count is larger than MaxCount limit <{MAX_LIST}>")
    if message.count < 0:
        raise InvalidValueError("Count is negative")
    if message.state == wire.ANY_STATE:
        states = list(State)
    elif message.state in tuple(State):
        states = [State(message.state)]
    else:
        raise InvalidValueError("Failed to get processgraphs, invalid msg.State")
    return Reply(await rooms.workflow_listing.by_state(call.colony, states, message.count))


async def remove(rooms: Rooms, call: Call, message: wire.RemoveProcessGraph) -> Reply:
    """Remove a workflow that is not running."""
    wid = parse(message.processgraphid)
    await _settle(rooms, call.colony, [wid])
    await rooms.workflow_removal.remove(wid, call.cause)
    return NOTHING


async def removed_again(
    rooms: Rooms, call: Call, message: wire.RemoveProcessGraph, value: bytes
) -> Reply:
    """Say whether it is gone: a member may have been found running. Raises `ConflictError`."""
    del call, value
    workflow = rooms.view.workflows.get(parse(message.processgraphid))
    if workflow is not None and workflow.is_shown:
        raise ConflictError(RUNS)
    return NOTHING


async def remove_all(rooms: Rooms, call: Call, message: wire.RemoveAllProcessGraphs) -> Reply:
    """Remove all workflows in a state; -1: in every state but RUNNING."""
    if message.state == State.RUNNING:
        raise InvalidValueError("not possible to remove running processgraphs")
    if message.state == wire.ANY_STATE:
        states = REMOVABLE
    elif message.state in REMOVABLE:
        states = [State(message.state)]
    else:
        raise InvalidValueError("invalid state when deleting all processgraphs")
    await _settle(rooms, call.colony, list(call.colony.workflows))
    await rooms.workflow_removal.remove_all(call.colony, states, call.cause)
    return NOTHING


async def _settle(rooms: Rooms, colony: Colony, wids: Sequence[bytes]) -> None:
    """Record as ended what has ended: the loop that does so may be a moment behind."""
    for wid in wids:
        workflow = colony.workflows.get(wid)
        if workflow is not None and workflow.is_shown and workflow.state in FINAL:
            with once.aside():
                await rooms.settling.settle(workflow)


async def cancel(rooms: Rooms, call: Call, message: wire.CancelProcessGraph) -> Reply:
    """Cancel what has not ended of a workflow."""
    await rooms.workflows.cancel(await _find(rooms, message.processgraphid), call.cause)
    return NOTHING


async def add_child(rooms: Rooms, call: Call, message: wire.AddChild) -> Reply:
    """Add a process below one that the caller runs; the new process is shown."""
    workflow = await _find(rooms, message.processgraphid)
    pid = await rooms.workflows.add_child(workflow, message, payload=call.payload, cause=call.cause)
    return Reply(await rooms.listing.get(call.colony, pid))


async def child_again(rooms: Rooms, call: Call, message: wire.AddChild, pid: bytes) -> Reply:
    """Show the process that this request has added before."""
    del message
    return Reply(await rooms.listing.get(call.colony, pid))


async def _find(rooms: Rooms, id: str) -> Workflow:
    wid = parse(id)
    workflow = rooms.view.workflows.get(wid)
    if workflow is None or not workflow.is_shown:
        await rooms.workflow_removal.refuse_ended(wid)
        raise NotFoundError("no such workflow")
    return workflow


def parse(id: str) -> bytes:
    """What the ids of a workflow's members begin with. Raises `NotFoundError`."""
    pid = keys.parse_pid(id)
    if pid is None or keys.number_of(pid):
        raise NotFoundError("no such workflow")
    return pid[: keys.WID_BYTES]
