"""What the request behind an event says: whether it may cause that event, and how many of them.

The request has been read strictly by the server that obeyed it. Here it is held against the event:
same digest, a message that causes such events, the same process, the same colony, this server.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from colonist_protocol import codec, digests
from colonist_protocol.audit import FORGOTTEN, REMOVED, EventRequest, colony_chain
from colonist_protocol.audit_reading import TAG_CHARS, AuditError, Servers
from colonist_protocol.errors import InvalidValueError, MalformedError
from colonist_protocol.evidence import EventLine
from colonist_protocol.identity import digest
from colonist_protocol.seal import AttemptSeal, read_request_seal
from colonist_protocol.tokens import read_attempt

UNREAD: Final = 0
"""The request is not in the file."""
PLAIN: Final = 1
"""Equal ones may come any number of times."""
ONE: Final = 2
EACH: Final = 3
"""One event in each chain."""
COUNTED: Final = 4
"""A standing assign: as many as it asked for."""
EMPTIED: Final = 5
"""A claim goes, once, and who came by it."""

_WORKFLOW_CHARS: Final = 56
REDELIVERED: Final = "redelivered"
MAX_COUNT: Final = 1_000

OF_MANY: Final = frozenset(
    {
        "submitworkflowspecmsg",
        "runcronmsg",
        "cancelprocessgraphmsg",
        "removeallprocessesmsg",
        "removeprocessgraphmsg",
        "removeallprocessgraphsmsg",
    }
)
"""The messages that may act on many processes at once."""

REMOVE_CLAIM: Final = "removeclaimmsg"
_EXECUTOR_REMOVED: Final = "executor_removed"
_RECORDED: Final = ("recorded", "result_recorded")

CAUSES: Final[dict[str, frozenset[str]]] = {
    "submitfuncspecmsg": frozenset({"submitted"}),
    "submitworkflowspecmsg": frozenset({"submitted"}),
    "addchildmsg": frozenset({"submitted"}),
    "runcronmsg": frozenset({"submitted"}),
    "assignprocessmsg": frozenset({"assigned", REDELIVERED}),
    "closesuccessfulmsg": frozenset({"succeeded", *_RECORDED}),
    "closefailedmsg": frozenset({"failed", *_RECORDED}),
    "cancelprocessmsg": frozenset({"cancelled"}),
    "cancelprocessgraphmsg": frozenset({"cancelled"}),
    "releaseprocessmsg": frozenset({"released"}),
    "renewmsg": frozenset({"confirmed", "renewed"}),
    "setoutputmsg": frozenset({"confirmed"}),
    "addattributemsg": frozenset({"confirmed"}),
    "addlogmsg": frozenset({"confirmed"}),
    "removeprocessmsg": frozenset({REMOVED}),
    "removeallprocessesmsg": frozenset({REMOVED}),
    "removeprocessgraphmsg": frozenset({REMOVED}),
    "removeallprocessgraphsmsg": frozenset({REMOVED}),
    "addcolonymsg": frozenset({"colony_added"}),
    "changecolonyidmsg": frozenset({"colony_id_changed"}),
    "pauseassignmentsmsg": frozenset({"paused"}),
    "resumeassignmentsmsg": frozenset({"resumed"}),
    "addexecutormsg": frozenset({"executor_added", "executor_reregistered"}),
    "approveexecutormsg": frozenset({"executor_approved"}),
    "rejectexecutormsg": frozenset({"executor_rejected"}),
    "removeexecutormsg": frozenset({_EXECUTOR_REMOVED}),
    "changeexecutoridmsg": frozenset({"executor_id_changed"}),
    "addusermsg": frozenset({"user_added"}),
    "removeusermsg": frozenset({"user_removed"}),
    "changeuseridmsg": frozenset({"user_id_changed"}),
    "setpolicymsg": frozenset({"policy_changed"}),
    "addclaimmsg": frozenset({"claim_added"}),
    REMOVE_CLAIM: frozenset({"claim_removed", _EXECUTOR_REMOVED}),
    "enrolmsg": frozenset({"executor_enrolled"}),
}
"""Which events each message may cause; any other message causes none."""
CAUSED: Final = frozenset(what for whats in CAUSES.values() for what in whats)
BY_SERVER: Final = frozenset(
    {
        "requeued",
        "expired",
        "waited_out",
        "undelivered",
        "orphaned",
        "parent_failed",
        "unstarted",
        "never_started",
        FORGOTTEN,
    }
)
"""What no request causes, because only the server says it."""
UNSIGNED: Final = BY_SERVER | {"submitted", REMOVED, _EXECUTOR_REMOVED}
"""What the server may do by itself: start the work of a cron, forget, give up who is silent."""


class Conditions(msgspec.Struct, frozen=True, gc=False):
    """Of a function spec."""

    colonyname: str = ""


class Spec(msgspec.Struct, frozen=True, gc=False):
    """Of a submit, or of a workflow."""

    conditions: Conditions = Conditions()
    colonyname: str = ""


class Named(msgspec.Struct, frozen=True, gc=False):
    """A colony, executor or user in a message that adds it."""

    colonyname: str = ""
    colonyid: str = ""
    name: str = ""
    executorid: str = ""
    executorname: str = ""
    userid: str = ""


class Attributed(msgspec.Struct, frozen=True, gc=False):
    """An attribute of a process."""

    targetid: str = ""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Of an assign that is good for several grants."""

    count: int = 1


class Content(msgspec.Struct, frozen=True, gc=False):
    """What of a request is held against its event, and what changes members."""

    msgtype: str = ""
    processid: str = ""
    processgraphid: str = ""
    colonyname: str = ""
    colonyid: str = ""
    executorid: str = ""
    executorname: str = ""
    userid: str = ""
    name: str = ""
    claim: str = ""
    executortype: str = ""
    proof: str = ""
    count: int = 0
    executors: bool = False
    standing: Standing | None = None
    attribute: Attributed | None = None
    spec: Spec | None = None
    colony: Named | None = None
    executor: Named | None = None
    user: Named | None = None

    @property
    def process_named(self) -> str:
        """The process that the message is about, "" where it is about none."""
        return self.attribute.targetid if self.attribute is not None else self.processid

    @property
    def colony_named(self) -> str:
        """The colony that the message names, "" where it names none."""
        if self.spec is not None:
            return self.spec.colonyname or self.spec.conditions.colonyname
        if self.colony is not None:
            return self.colony.name
        found = self.executor or self.user
        return found.colonyname if found is not None else self.colonyname


class Use(NamedTuple):
    """How many events a request may have: one of the kinds above, and of `COUNTED` the number."""

    kind: int
    number: int = 1


NOTHING: Final = Use(UNREAD)


def read_content(payload: str) -> Content:
    """What a request says. Raises `AuditError`."""
    try:
        return codec.glance(codec.from_base64(payload), Content, "request")
    except MalformedError as error:
        raise AuditError(f"the request cannot be read: {error}") from None


def use(event: EventLine, request: EventRequest, colony: str, servers: Servers) -> Use:
    """Hold a request against its event. Raises `AuditError`."""
    if not event.req:
        raise AuditError("a request stands beside what the server did by itself")
    if _digest(request).hex() != event.req:
        raise AuditError("this is not the request that was signed")
    content = read_content(request.payload)
    if event.what not in CAUSES.get(content.msgtype, ()):
        raise AuditError(f"a {content.msgtype[:64]!r} does not cause {event.what!r}")
    is_emptied = content.msgtype == REMOVE_CLAIM and content.executors
    if event.what == _EXECUTOR_REMOVED and content.msgtype == REMOVE_CLAIM and not is_emptied:
        raise AuditError("the request is about a claim, not about who came by it")
    _check_place(event.chain, content, colony)
    if not request.seal:
        return Use(PLAIN)
    _check_seal(event, request, content.msgtype, servers)
    if content.msgtype in OF_MANY or is_emptied:
        return Use(EMPTIED if is_emptied else EACH)
    if content.standing is not None:
        return Use(COUNTED, min(max(content.standing.count, 0), MAX_COUNT))
    return Use(ONE)


def _digest(request: EventRequest) -> bytes:
    if not request.seal:
        return digest(request.payload.encode())
    try:
        return digests.tagged_digest(digests.REQUEST, request.payload, request.seal)
    except InvalidValueError:
        raise AuditError("this is not the request that was signed") from None


def _check_place(chain: str, content: Content, colony: str) -> None:
    named = content.colony_named
    if named and named != colony:
        raise AuditError(f"the request is about the colony {named[:64]!r}")
    process, graph = content.process_named, content.processgraphid
    if chain == colony_chain(chain[:TAG_CHARS]):  # also of processes that nobody knows any more
        return
    if process and process != chain:
        raise AuditError(f"the request is about the process {process[:64]!r}")
    if graph and graph[:_WORKFLOW_CHARS] != chain[:_WORKFLOW_CHARS]:
        raise AuditError(f"the request is about the workflow {graph[:64]!r}")


def _check_seal(event: EventLine, request: EventRequest, msgtype: str, servers: Servers) -> None:
    try:
        seal, _ = read_request_seal(request.seal, msgtype)
    except MalformedError as error:
        raise AuditError(f"the seal of the request is none: {error}") from None
    if seal.to not in servers:
        raise AuditError(f"the request was sealed for another server, {seal.to[:12]}...")
    if not isinstance(seal, AttemptSeal):
        return
    token = read_attempt(seal.attempt)
    if token is not None and token.number != event.attempt:
        raise AuditError(f"the request is of attempt {token.number}, not {event.attempt}")
