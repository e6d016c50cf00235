"""Messages about processes: COLONIES-RPC section 2.6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from colonist_core.matching import UNLIMITED, Profile
from colonist_core.process import What
from colonist_protocol import process as wire
from colonist_protocol import units
from colonist_protocol.errors import (
    ConflictError,
    InvalidValueError,
    NoProcessError,
    NotFoundError,
    PlainRefusedError,
)
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys, once, render
from colonist_server.repo.attempts import Said
from colonist_server.repo.handover import NOTHING as NO_PROCESS
from colonist_server.repo.nouns import Colony, Row
from colonist_server.repo.once import Derived, Mark
from colonist_server.repo.waiting import Ask, Grant
from colonist_server.rpc import subscriptions, workflows
from colonist_server.rpc.rooms import NOTHING, Call, Reply, Rooms

MAX_WAIT_S: Final = 3600
MAX_ERRORS: Final = 100

PART_OF_WORKFLOW: Final = (
    "Failed to cancel, cannot cancel a process part of a workflow, "
    "cancel the entire workflow instead"
)

_ANY_STATE: Final = -1


async def submit(rooms: Rooms, call: Call, message: wire.SubmitFunctionSpec) -> Reply:
    """Store a process; it is shown as it was submitted."""
    colony = call.colony
    id, birth, live = await rooms.processes.submit(
        colony,
        call.member,
        message.spec,
        payload=call.payload,
        cause=call.cause,
    )
    return Reply(render.process(id, colony.record.name, birth, live), event=live.head)


def derived(tag: bytes, mark: Mark) -> Derived:
    """The process that a sealed submit makes: its birth is the record of that."""
    pid = keys.process_id(tag, mark.token.n * keys.MINUTE_NS, mark.digest[: keys.RANDOM_BYTES])
    return Derived(pid, keys.birth(pid), bool)


async def submitted_again(
    rooms: Rooms, call: Call, message: wire.SubmitFunctionSpec, pid: bytes
) -> Reply:
    """Show the process that this request has made before."""
    del message
    return Reply(await rooms.listing.get(call.colony, pid))


async def assigned_again(
    rooms: Rooms, call: Call, message: wire.AssignProcess, value: bytes
) -> Reply:
    """Show the process that this request was given before, as it is now.

    Raises `NoProcessError` where it was given none.
    """
    del message
    if not value:
        raise NoProcessError(NO_PROCESS)
    pid, number = value[: keys.PID_BYTES], int.from_bytes(value[keys.PID_BYTES :], "big")
    await rooms.reports.granted_again(pid, number, call.executor, call.cause)
    shown = await rooms.listing.get(call.colony, pid)
    return Reply(rooms.attempts.shown(shown, call.colony, call.caller, number=number))


async def assign(rooms: Rooms, call: Call, message: wire.AssignProcess) -> Reply:
    """Hand out work, waiting for it up to `timeout` seconds."""
    if message.timeout == 0:
        raise InvalidValueError("Invalid timeout value, timeout cannot be zero")
    colony, executor = call.colony, call.executor
    await _check_standing(rooms, message)
    profile = Profile(
        executor.record.type,
        executor.name,
        executor.record.location.casefold(),
        _offered(units.parse_cpu, message.availablecpu),
        _offered(units.parse_memory, message.availablemem),
    )
    timeout_s = min(message.timeout, MAX_WAIT_S)
    executor.asking += 1
    try:
        grant = await rooms.hand_over.assign(
            Ask(colony, executor, profile, call.cause, once.current(), _max_reply(message)),
            timeout_s,
        )
    finally:
        executor.asking -= 1
        if executor.record.id == call.cause.who:  # it was there all the time
            executor.heard_ns = rooms.clock.now_ns()
    rooms.standing.note(once.latest())
    try:
        return await _granted(rooms, colony, grant)
    except BaseException:
        rooms.hand_over.hand_back(grant)
        raise


def _max_reply(message: wire.AssignProcess) -> int:
    if not isinstance(message.maxreply, int):
        return 0
    if message.maxreply <= 0:
        raise InvalidValueError("maxreply is not a positive number of bytes")
    return message.maxreply


async def _check_standing(rooms: Rooms, message: wire.AssignProcess) -> None:
    bound = once.current()
    if not isinstance(message.standing, wire.StandingOrder):
        return
    if bound is None:
        raise InvalidValueError("a standing assign must be sealed")
    if bound.mark.turn >= message.standing.count:
        raise InvalidValueError(f"this assign has {message.standing.count} grants, from 0 on")
    await rooms.standing.check(bound, message.standing.ahead)


async def _granted(rooms: Rooms, colony: Colony, grant: Grant) -> Reply:
    row = rooms.view.rows.get(grant.pid)
    if row is None or row.has_attributes or row.has_output or row.workflow is not None:
        shown = await rooms.listing.granted(colony, grant.pid, grant.live, row)
    else:
        birth = await rooms.listing.birth(grant.pid)
        shown = render.process(grant.pid.hex(), colony.record.name, birth, grant.live)
    shown = rooms.attempts.granted(shown, grant.live)
    return Reply(shown, lost=lambda: rooms.hand_over.hand_back(grant), event=grant.live.head)


async def get(rooms: Rooms, call: Call, message: wire.GetProcess) -> Reply:
    """Read one process, once it has left the state `waitwhile` or the time is up."""
    pid = bytes.fromhex(message.processid)
    await subscriptions.while_in(rooms, call, pid, message.waitwhile, message.timeout)
    shown = await rooms.listing.get(call.colony, pid)
    if call.seal is not None:
        shown = rooms.attempts.shown(shown, call.colony, call.caller)
    return Reply(shown)


async def list_some(rooms: Rooms, call: Call, message: wire.GetProcesses) -> Reply:
    """List processes in a state."""
    _check_count(message.count)
    if message.processgraphid:
        return await _members(rooms, call, message)
    _check_state(message.state)
    if message.initiator and message.initiator not in call.colony.users | call.colony.executors:
        raise NotFoundError(f"User <{message.initiator}> does not exist")
    found = await rooms.listing.by_state(call.colony, message)
    if call.seal is not None and message.executorid:
        found = [rooms.attempts.shown(each, call.colony, call.caller) for each in found]
    return Reply(found)


async def _members(rooms: Rooms, call: Call, message: wire.GetProcesses) -> Reply:
    """The members of a workflow, in order; those in a state, or with -1 in any."""
    if message.state != _ANY_STATE:
        _check_state(message.state)
    wid = workflows.parse(message.processgraphid)
    if wid[: keys.TAG_BYTES] != call.colony.tag:
        raise NotFoundError("no such workflow")
    states = await rooms.workflow_listing.states(wid)
    numbers = [
        number for number, state in enumerate(states, 1) if message.state in (_ANY_STATE, state)
    ]
    return Reply(await rooms.listing.members(call.colony, wid, numbers[: message.count]))


async def history(rooms: Rooms, call: Call, message: wire.GetProcessHistory) -> Reply:
    """Processes in a state, submitted within the last `seconds`."""
    _check_state(message.state)
    found = await rooms.listing.history(
        call.colony,
        state=State(message.state),
        since_ns=rooms.clock.now_ns() - message.seconds * SECOND_NS,
        executor=message.executorid,
    )
    return Reply(found)


async def remove(rooms: Rooms, call: Call, message: wire.RemoveProcess) -> Reply:
    """Remove a process that is not running."""
    await rooms.removal.remove(bytes.fromhex(message.processid), call.cause)
    return NOTHING


async def remove_all(rooms: Rooms, call: Call, message: wire.RemoveAllProcesses) -> Reply:
    """Remove all processes in a state; -1: in every state but RUNNING."""
    if message.state == State.RUNNING:
        raise InvalidValueError("Not possible to remove running processes")
    states: list[State]
    if message.state == _ANY_STATE:
        states = [state for state in State if state is not State.RUNNING]
    elif message.state in tuple(State):
        states = [State(message.state)]
    else:
        raise InvalidValueError("Invalid state when deleting all processes")
    await rooms.removal.remove_all(call.colony, states, call.cause)
    return NOTHING


async def close_successful(rooms: Rooms, call: Call, message: wire.CloseSuccessful) -> Reply:
    """Take the assignee's result."""
    out = render.output_text(message.out)
    return await _close(rooms, call, message.processid, What.SUCCEEDED, out)


async def close_failed(rooms: Rooms, call: Call, message: wire.CloseFailed) -> Reply:
    """Take the assignee's reasons for giving up."""
    if len(message.errors) > MAX_ERRORS:
        raise InvalidValueError(f"more than {MAX_ERRORS} errors")
    return await _close(rooms, call, message.processid, What.FAILED)


async def _close(rooms: Rooms, call: Call, id: str, what: What, out: bytes = b"") -> Reply:
    pid = bytes.fromhex(id)
    said = said_of(rooms, call, pid)
    if said is not None:
        taken = await rooms.results.take(pid, what, said, out)
        return Reply(wire.Outcome(outcome=taken.outcome), event=taken.event)
    row = rooms.view.rows.get(pid)
    if row is None:
        await rooms.processes.refuse_close(pid, what, call.cause)
        return NOTHING
    await rooms.processes.close(row, what, cause=call.cause, payload=call.payload, out=out)
    return NOTHING


async def set_output(rooms: Rooms, call: Call, message: wire.SetOutput) -> Reply:
    """Replace the output of a running process; an empty one changes nothing."""
    out = bytes(message.out).strip()
    pid = bytes.fromhex(message.processid)
    said = said_of(rooms, call, pid)
    if said is not None:
        if not render.is_empty(out):
            await rooms.reports.output(pid, out, said)
        return NOTHING
    row = await find_row(rooms, message.processid, "Failed to set output")
    if not render.is_empty(out):
        await rooms.processes.set_output(row, out, call.cause)
    return NOTHING


async def renew(rooms: Rooms, call: Call, message: wire.Renew) -> Reply:
    """Prolong a running attempt, or tell how much is left of it."""
    if message.count < 0:
        raise InvalidValueError("count is negative")
    pid = bytes.fromhex(message.processid)
    said = said_of(rooms, call, pid)
    if said is None:
        raise PlainRefusedError("a renewal names its attempt: it must be sealed")
    attempt, event = await rooms.reports.renew(pid, message.count, said)
    return Reply(attempt, event=event)


async def cancel(rooms: Rooms, call: Call, message: wire.CancelProcess) -> Reply:
    """End a process that is not final."""
    if keys.number_of(bytes.fromhex(message.processid)):
        raise ConflictError(PART_OF_WORKFLOW)
    row = await find_row(rooms, message.processid, "", What.CANCELLED)
    return Reply({}, event=await rooms.processes.cancel(row, call.cause))


async def release(rooms: Rooms, call: Call, message: wire.ReleaseProcess) -> Reply:
    """Take a process back unfinished from its assignee."""
    pid = bytes.fromhex(message.processid)
    said = said_of(rooms, call, pid)
    if said is not None:
        await rooms.reports.release(pid, said)
        return NOTHING
    row = await find_row(rooms, message.processid, "Failed to release process")
    return Reply({}, event=await rooms.processes.release(row, call.cause))


def said_of(rooms: Rooms, call: Call, pid: bytes) -> Said | None:
    """What the caller says of an attempt; None: the request is plain and names none.

    Raises `AttemptInvalidError`.
    """
    if call.attempt is None:
        return None
    by = rooms.attempts.named(pid.hex(), call.attempt, call.executor)
    seq = call.attempt.seq
    return Said(by, seq, call.cause, call.payload, call.colony, call.executor)


async def find_row(rooms: Rooms, id: str, refusal: str, what: What | None = None) -> Row:
    """A process that has not ended. Raises `NotFoundError`, `ConflictError`."""
    pid = bytes.fromhex(id)
    row = rooms.view.rows.get(pid)
    if row is None:
        await rooms.processes.refuse_ended(pid, refusal, what)
        raise NotFoundError(f"{refusal}, process is nil")
    return row


def _offered(parse: Callable[[str], int], text: str) -> int:
    return UNLIMITED if not text else parse(text)


def _check_count(count: int) -> None:
    if count > wire.MAX_LIST:
        raise InvalidValueError(f"Count is larger than MaxCount limit <{wire.MAX_LIST}>")
    if count < 0:
        raise InvalidValueError("Count is negative")


def _check_state(state: int) -> None:
    if state not in tuple(State):
        raise InvalidValueError("Failed to get processes, invalid msg.State")
