"""The life of a process: which event leads from which state to which, and what it leaves behind.

`TRANSITIONS` is the truth; `step` is the only way through it; an illegal event raises and changes
nothing. A process that has not ended is a `Live` value, one that has is a `Closed` value. Both hold
their events, each bound to the one before by a hash (`colonist_protocol.evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import msgspec

from colonist_core.matching import Placement
from colonist_protocol.errors import ConflictError
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS

EXEC_EXPIRED: Final = "Maximum execution time limit exceeded"
WAIT_EXPIRED: Final = "Maximum waiting time limit exceeded"
MILLISECOND_NS: Final = 1_000_000
MAX_LIMIT_S: Final = 100 * 366 * 86_400
"""A century: what is beyond has no end that anybody sees, and times must fit into 64 bits."""


class What(IntEnum):
    """What may happen to a process. The lower-case name stands in the evidence."""

    SUBMITTED = 0
    ASSIGNED = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4
    REQUEUED = 5
    EXPIRED = 6
    WAITED_OUT = 7
    UNDELIVERED = 8
    REDELIVERED = 9
    ORPHANED = 10
    RELEASED = 11
    PARENT_FAILED = 12


TRANSITIONS: Final[Mapping[State, Mapping[What, State]]] = {
    State.WAITING: {
        What.ASSIGNED: State.RUNNING,
        What.CANCELLED: State.CANCELLED,
        What.WAITED_OUT: State.FAILED,
        What.PARENT_FAILED: State.FAILED,
    },
    State.RUNNING: {
        What.SUCCEEDED: State.SUCCESS,
        What.FAILED: State.FAILED,
        What.CANCELLED: State.CANCELLED,
        What.REQUEUED: State.WAITING,
        What.EXPIRED: State.FAILED,
        What.UNDELIVERED: State.WAITING,
        What.REDELIVERED: State.RUNNING,
        What.ORPHANED: State.WAITING,
        What.RELEASED: State.WAITING,
    },
    State.SUCCESS: {},
    State.FAILED: {},
    State.CANCELLED: {},
}

_ADJECTIVE: Final = {
    State.WAITING: "waiting",
    State.RUNNING: "running",
    State.SUCCESS: "successful",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def step(state: State, what: What) -> State:
    """The state after `what`. Raises `ConflictError`, in the words that SDK users know."""
    after = TRANSITIONS[state].get(what)
    if after is not None:
        return after
    before = _ADJECTIVE[state]
    if what is What.CANCELLED:
        already = "already " if state is State.CANCELLED else ""
        raise ConflictError(f"Tried to cancel {already}{before} process")
    if what in (What.SUCCEEDED, What.FAILED):
        target = _ADJECTIVE[TRANSITIONS[State.RUNNING][what]]
        raise ConflictError(f"Tried to set {before} process as {target}")
    raise ConflictError(f"a {before} process cannot be {what.name.lower()}")


class Cause(msgspec.Struct, frozen=True, gc=False):
    """Who makes an event happen: the id, digest and signature of the request; empty: the server.

    `seal` is the JSON of the request's seal, empty for a plain one.
    """

    who: str = ""
    digest: bytes = b""
    signature: bytes = b""
    seal: bytes = b""


SERVER: Final = Cause()


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event as it is stored; the evidence line is rendered from it."""

    what: int
    attempt: int
    time_ms: int
    who: bytes
    digest: bytes
    signature: bytes


class Live(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A process that has not ended. Times in nanoseconds since 1970, 0 = unset; limits in seconds.

    `executor` is the id of the assignee, `node` the server node that made the assignment, `count`
    the number of events including the birth, `events` those since the birth. `has_more`: attributes
    or an output were stored beside it; said only where nodes share a store.
    """

    state: int
    priority_ns: int
    submitted_ns: int
    placement: Placement
    max_wait_s: int
    max_exec_s: int
    max_retries: int
    label: str
    initiator: str
    funcname: str
    head: bytes
    changed_ns: int
    started_ns: int = 0
    deadline_ns: int = 0
    retries: int = 0
    attempt: int = 0
    executor: str = ""
    node: str = ""
    count: int = 1
    events: tuple[Event, ...] = ()
    has_more: bool = False


class Closed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A process that has ended. `payload` is the request that closed it, with the result in it.

    `seal` is the seal of that request, empty for a plain one.

    `parents` and `children` are numbers of members of its workflow, as they were at its end.
    """

    live: Live
    payload: bytes = b""
    errors: tuple[str, ...] = ()
    has_attributes: bool = False
    has_output: bool = False
    parents: tuple[int, ...] = ()
    children: tuple[int, ...] = ()
    seal: bytes = b""


class Limits(msgspec.Struct, frozen=True, gc=False):
    """The limits of a spec, in seconds; 0 or less: none. Negative retries: no limit."""

    max_wait_s: int
    max_exec_s: int
    max_retries: int


def deadline(now_ns: int, limit_s: int) -> int:
    """When a limit is up; 0 when there is none. None is longer than `MAX_LIMIT_S`."""
    return now_ns + min(limit_s, MAX_LIMIT_S) * SECOND_NS if limit_s > 0 else 0


def born(
    process_id: str,
    *,
    now_ns: int,
    priority_ns: int,
    placement: Placement,
    limits: Limits,
    label: str,
    initiator: str,
    funcname: str,
    cause: Cause,
    has_parents: bool = False,
) -> Live:
    """A process as submit makes it: waiting.

    The time of one that has parents runs from the end of the last of them (COLONIES-RPC W8).
    """
    line = _line(process_id, 0, What.SUBMITTED, attempt=0, now_ns=now_ns, cause=cause, previous=b"")
    return Live(
        state=State.WAITING,
        priority_ns=priority_ns,
        submitted_ns=now_ns,
        placement=placement,
        max_wait_s=limits.max_wait_s,
        max_exec_s=limits.max_exec_s,
        max_retries=limits.max_retries,
        label=label,
        initiator=initiator,
        funcname=funcname,
        head=event_hash(line),
        changed_ns=now_ns,
        deadline_ns=0 if has_parents else deadline(now_ns, limits.max_wait_s),
    )


def assigned(
    live: Live, process_id: str, *, executor: str, node: str, now_ns: int, cause: Cause
) -> Live:
    """Granted to an executor: a new attempt, its execution time running. Raises `ConflictError`."""
    return _happened(
        live,
        process_id,
        What.ASSIGNED,
        now_ns,
        cause,
        attempts=1,
        executor=executor,
        node=node,
        started_ns=now_ns,
        deadline_ns=deadline(now_ns, live.max_exec_s),
    )


def redelivered(live: Live, process_id: str, *, node: str, now_ns: int, cause: Cause) -> Live:
    """Given once more to the executor that has it: same attempt, same deadline."""
    return _happened(live, process_id, What.REDELIVERED, now_ns, cause, node=node)


def returned(
    live: Live, process_id: str, what: What, *, now_ns: int, cause: Cause = SERVER
) -> Live:
    """Back in the queue, at its old place. A time-out counts as a retry, the rest does not."""
    return _happened(
        live,
        process_id,
        what,
        now_ns,
        cause,
        executor="",
        node="",
        started_ns=0,
        retries=live.retries + (what is What.REQUEUED),
        deadline_ns=deadline(now_ns, live.max_wait_s),
    )


def ended(
    live: Live,
    process_id: str,
    what: What,
    *,
    now_ns: int,
    cause: Cause = SERVER,
    payload: bytes = b"",
    errors: tuple[str, ...] = (),
) -> Closed:
    """Ended by its executor, by a cancel, or by the clock. Raises `ConflictError`."""
    after = _happened(live, process_id, what, now_ns, cause)
    return Closed(live=after, payload=payload, errors=errors, seal=cause.seal if payload else b"")


def expired(live: Live, process_id: str, *, now_ns: int) -> Live | Closed:
    """What the end of its deadline makes of a process (COLONIES-RPC section 4.5)."""
    if live.state == State.WAITING:
        return ended(live, process_id, What.WAITED_OUT, now_ns=now_ns, errors=(WAIT_EXPIRED,))
    if 0 <= live.max_retries <= live.retries:
        return ended(live, process_id, What.EXPIRED, now_ns=now_ns, errors=(EXEC_EXPIRED,))
    return returned(live, process_id, What.REQUEUED, now_ns=now_ns)


def _happened(
    live: Live,
    process_id: str,
    what: What,
    now_ns: int,
    cause: Cause,
    *,
    attempts: int = 0,
    **changes: object,
) -> Live:
    state = step(State(live.state), what)
    attempt = live.attempt + attempts
    line = _line(
        process_id,
        live.count,
        what,
        attempt=attempt,
        now_ns=now_ns,
        cause=cause,
        previous=live.head,
    )
    event = Event(
        what, line.attempt, line.time, bytes.fromhex(cause.who), cause.digest, cause.signature
    )
    return msgspec.structs.replace(
        live,
        state=state,
        attempt=attempt,
        head=event_hash(line),
        changed_ns=now_ns,
        count=live.count + 1,
        events=(*live.events, event),
        **changes,
    )


def _line(
    process_id: str,
    number: int,
    what: What,
    *,
    attempt: int,
    now_ns: int,
    cause: Cause,
    previous: bytes,
) -> EventLine:
    return EventLine(
        chain=process_id,
        n=number,
        what=what.name.lower(),
        who=cause.who,
        attempt=attempt,
        time=now_ns // MILLISECOND_NS,
        req=cause.digest.hex(),
        sig=cause.signature.hex(),
        prev=previous.hex(),
    )
