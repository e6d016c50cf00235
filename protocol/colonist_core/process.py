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

from colonist_core import lease
from colonist_core.lease import MAX_RENEWALS, Flag
from colonist_core.matching import Placement
from colonist_protocol.errors import ConflictError
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.process import State

EXEC_EXPIRED: Final = "Maximum execution time limit exceeded"
WAIT_EXPIRED: Final = "Maximum waiting time limit exceeded"
MILLISECOND_NS: Final = 1_000_000
NEVER_STARTED: Final = "never started"
MAX_UNSTARTED: Final = 16
"""So many attempts in a row of which nothing was heard fail a process."""
NONCE_BYTES: Final = 8


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
    UNSTARTED = 13
    NEVER_STARTED = 14
    CONFIRMED = 15
    RENEWED = 16
    RECORDED = 17


TRANSITIONS: Final[Mapping[State, Mapping[What, State]]] = {
    State.WAITING: {
        What.ASSIGNED: State.RUNNING,
        What.SUCCEEDED: State.SUCCESS,
        What.FAILED: State.FAILED,
        What.CANCELLED: State.CANCELLED,
        What.WAITED_OUT: State.FAILED,
        What.PARENT_FAILED: State.FAILED,
        What.RECORDED: State.WAITING,
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
        What.UNSTARTED: State.WAITING,
        What.NEVER_STARTED: State.FAILED,
        What.CONFIRMED: State.RUNNING,
        What.RENEWED: State.RUNNING,
        What.RECORDED: State.RUNNING,
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

    `nonce` tells the newest attempt from any other of its number, in any past of this store; empty:
    it was granted to a plain request. `renewed` is how often it was, `unstarted` how many attempts
    in a row ended before anything was heard of them. `size` is that of the spec, in bytes.
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
    nonce: bytes = b""
    flags: int = 0
    max_renewals: int = MAX_RENEWALS
    renewed: int = 0
    unstarted: int = 0
    size: int = 0

    @property
    def is_sealed(self) -> bool:
        """Whether its newest attempt was granted to a sealed request."""
        return bool(self.nonce)

    @property
    def is_confirmed(self) -> bool:
        """Whether anything was heard of its newest attempt."""
        return bool(self.flags & Flag.CONFIRMED)

    @property
    def lease_end_ns(self) -> int:
        """Until when its attempt may run, as replies tell it; 0: for ever."""
        return lease.end_ns(self.started_ns, self.max_exec_s, self.renewed)


class Grantee(msgspec.Struct, frozen=True, gc=False):
    """One attempt: its number and nonce, and the id that it was granted to."""

    number: int
    nonce: bytes
    executor: str


class Closed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A process that has ended. `payload` is the request that closed it, with the result in it.

    `seal` is the seal of that request, empty for a plain one. `live.nonce` is that of the attempt
    whose result it is.

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
    """The limits of a spec, in seconds; 0 or less: none. Negative retries: no limit.

    `flags` are those of `lease.OF_SPEC`.
    """

    max_wait_s: int
    max_exec_s: int
    max_retries: int
    flags: int = 0
    max_renewals: int = MAX_RENEWALS


def deadline(now_ns: int, limit_s: int) -> int:
    """When a limit is up; 0 when there is none. None is longer than `lease.MAX_LIMIT_S`."""
    return now_ns + lease.period_ns(limit_s) if limit_s > 0 else 0


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
    size: int = 0,
) -> Live:
    """A process as submit makes it: waiting. `size` is that of its spec, in bytes.

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
        flags=limits.flags,
        max_renewals=limits.max_renewals,
        size=size,
    )


def assigned(
    live: Live, process_id: str, *, executor: str, node: str, now_ns: int, cause: Cause
) -> Live:
    """Granted to an executor: a new attempt, its execution time running. Raises `ConflictError`."""
    end = lease.end_ns(now_ns, live.max_exec_s, 0)
    after = happened(
        live,
        process_id,
        What.ASSIGNED,
        now_ns,
        cause,
        of=live.attempt + 1,
        attempt=live.attempt + 1,
        executor=executor,
        node=node,
        started_ns=now_ns,
        deadline_ns=lease.requeue_ns(end, now_ns, live.flags),
        nonce=b"",
        flags=live.flags & ~Flag.CONFIRMED,
        renewed=0,
    )
    return _with_nonce(after, cause)


def redelivered(live: Live, process_id: str, *, node: str, now_ns: int, cause: Cause) -> Live:
    """Given once more to the executor that has it: same attempt, same deadline."""
    after = happened(live, process_id, What.REDELIVERED, now_ns, cause, node=node)
    return after if live.nonce else _with_nonce(after, cause)


def _with_nonce(live: Live, cause: Cause) -> Live:
    """Only what was granted to a sealed request has a token that names it."""
    return msgspec.structs.replace(live, nonce=live.head[:NONCE_BYTES]) if cause.seal else live


def returned(
    live: Live, process_id: str, what: What, *, now_ns: int, cause: Cause = SERVER
) -> Live:
    """Back in the queue, at its old place. A time-out counts as a retry, the rest does not."""
    unstarted = live.unstarted
    if what is What.REQUEUED:
        unstarted = 0
    elif what is What.UNSTARTED:
        unstarted += 1
    return happened(
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
        unstarted=unstarted,
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
    by: Grantee | None = None,
) -> Closed:
    """Ended by its executor, by a cancel, or by the clock. Raises `ConflictError`.

    `by` is the attempt whose result it is, where the request named one. That of an older one makes
    its executor the one that has done the work.
    """
    changes: dict[str, object] = {}
    if by is not None and not (is_newest(live, by) and live.state == State.RUNNING):
        began_ns = _began_ns(live, by.number, now_ns)
        changes = {"nonce": by.nonce, "executor": by.executor, "node": "", "started_ns": began_ns}
    number = by.number if by is not None else live.attempt
    after = happened(live, process_id, what, now_ns, cause, of=number, **changes)
    return Closed(live=after, payload=payload, errors=errors, seal=cause.seal if payload else b"")


def _began_ns(live: Live, number: int, now_ns: int) -> int:
    """When an attempt was granted, as far as the record still says so."""
    for event in reversed(live.events):
        if event.what == What.ASSIGNED and event.attempt == number:
            return event.time_ms * MILLISECOND_NS
    return now_ns


def is_newest(live: Live, by: Grantee) -> bool:
    """Whether no attempt was made since; the number alone may be that of a forgotten one."""
    return live.attempt == by.number and live.nonce == by.nonce


def expired(live: Live, process_id: str, *, now_ns: int) -> Live | Closed:
    """What the end of its deadline makes of a process (COLONIES-RPC section 4.5)."""
    if live.state == State.WAITING:
        return ended(live, process_id, What.WAITED_OUT, now_ns=now_ns, errors=(WAIT_EXPIRED,))
    if live.is_sealed and not live.is_confirmed:
        return _unstarted(live, process_id, now_ns)
    if 0 <= live.max_retries <= live.retries:
        return ended(live, process_id, What.EXPIRED, now_ns=now_ns, errors=(EXEC_EXPIRED,))
    return returned(live, process_id, What.REQUEUED, now_ns=now_ns)


def _unstarted(live: Live, process_id: str, now_ns: int) -> Live | Closed:
    """Nothing was heard of the attempt: nobody knows that it was, so it is no retry."""
    if live.unstarted + 1 >= MAX_UNSTARTED:
        reason = (NEVER_STARTED,)
        return ended(live, process_id, What.NEVER_STARTED, now_ns=now_ns, errors=reason)
    return returned(live, process_id, What.UNSTARTED, now_ns=now_ns)


def happened(
    live: Live,
    process_id: str,
    what: What,
    now_ns: int,
    cause: Cause,
    *,
    of: int | None = None,
    **changes: object,
) -> Live:
    """The record after an event, of attempt number `of` if not of the newest so far.

    Raises `ConflictError`.
    """
    state = step(State(live.state), what)
    number = live.attempt if of is None else of
    line = _line(
        process_id,
        live.count,
        what,
        attempt=number,
        now_ns=now_ns,
        cause=cause,
        previous=live.head,
    )
    event = Event(
        what, line.attempt, line.time, bytes.fromhex(cause.who), cause.digest, cause.signature
    )
    changes.setdefault("changed_ns", now_ns)
    return msgspec.structs.replace(
        live,
        state=state,
        head=event_hash(line),
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
