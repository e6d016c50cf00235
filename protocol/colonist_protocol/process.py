"""Processes: model and messages of COLONIES-RPC sections 2.6 and 3.5."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

from colonist_protocol import codec
from colonist_protocol.attribute import Attribute
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.message import EMPTY_LIST, Int, Message, carried
from colonist_protocol.times import UNSET

MAX_LIST: Final = 100
MAX_STANDING: Final = 1000
MAX_AHEAD: Final = 8


class State(IntEnum):
    """The numbers of the wire (section 4.0)."""

    WAITING = 0
    RUNNING = 1
    SUCCESS = 2
    FAILED = 3
    CANCELLED = 4


FINAL: Final = frozenset({State.SUCCESS, State.FAILED, State.CANCELLED})


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A grant, as it is shown to its executor alone: by the token it speaks of it.

    `lease` is how many seconds are left of it, when the reply was made; without it there is no
    limit.
    """

    number: Int
    token: str
    lease: float | msgspec.UnsetType = msgspec.UNSET


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process as a client reads it. `attempt` stands in sealed replies to its executor only."""

    processid: str
    initiatorid: str
    initiatorname: str
    assignedexecutorid: str
    isassigned: bool
    state: Int
    prioritytime: Int
    submissiontime: str
    starttime: str = UNSET
    endtime: str = UNSET
    waitdeadline: str = UNSET
    execdeadline: str = UNSET
    retries: Int = 0
    attributes: list[Attribute] = []
    spec: FunctionSpec
    waitforparents: bool = False
    parents: list[str] = []
    children: list[str] = []
    processgraphid: str = ""
    inputs: msgspec.Raw = msgspec.field(default=EMPTY_LIST, name="in")
    out: msgspec.Raw = EMPTY_LIST
    errors: list[str] = []
    attempt: Attempt | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_final(self) -> bool:
        """Whether the process has ended."""
        return self.state in FINAL

    def output(self) -> list[Any]:
        """The result."""
        return codec.scan(bytes(self.out)) or []

    def input(self) -> list[Any]:
        """What the parents put out."""
        return codec.scan(bytes(self.inputs)) or []


class SubmitFunctionSpec(Message, tag="submitfuncspecmsg"):
    """Submit one process; the reply is the process."""

    spec: FunctionSpec


class StandingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Up to `count` grants by one signature, `ahead` of them open before the executor has spoken.

    Raises `InvalidValueError`.
    """

    count: Int
    ahead: Int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_STANDING:
            raise InvalidValueError(f"standing.count is not 1 to {MAX_STANDING}")
        if not 1 <= self.ahead <= MAX_AHEAD:
            raise InvalidValueError(f"standing.ahead is not 1 to {MAX_AHEAD}")


class AssignProcess(Message, tag="assignprocessmsg"):
    """Ask for work and wait up to `timeout` seconds for it; negative: do not wait.

    Ours: `standing` lets a sealed one be granted more than once; a process whose reply would be
    over `maxreply` bytes is not granted.
    """

    colonyname: str = ""
    timeout: Int = 0
    availablecpu: str = ""
    availablemem: str = ""
    standing: StandingOrder | msgspec.UnsetType = msgspec.UNSET
    maxreply: Int | msgspec.UnsetType = msgspec.UNSET


class GetProcesses(Message, tag="getprocessesmsg"):
    """List processes in a state; a graph's members in any state with -1.

    Ours: with `executorid` only those that are assigned to it, under that id or an earlier one.
    """

    colonyname: str = ""
    count: Int = 0
    state: Int = 0
    executortype: str = ""
    label: str = ""
    initiator: str = ""
    processgraphid: str = ""
    executorid: str | msgspec.UnsetType = msgspec.UNSET


class GetProcess(Message, tag="getprocessmsg"):
    """Read one process; ours: held for `timeout` s while it stays in the state `waitwhile`."""

    processid: str = ""
    waitwhile: Int = -1
    timeout: Int = 0


class GetProcessHistory(Message, tag="getprocesshistmsg"):
    """Processes in a state, submitted within the last `seconds`."""

    colonyname: str = ""
    executorid: str = ""
    seconds: Int = 0
    state: Int = 0


class RemoveProcess(Message, tag="removeprocessmsg"):
    """Remove a process that is not running."""

    processid: str = ""


class RemoveAllProcesses(Message, tag="removeallprocessesmsg"):
    """Remove all processes in a state; -1: in every state but RUNNING."""

    colonyname: str = ""
    state: Int = 0


class CloseSuccessful(Message, tag="closesuccessfulmsg"):
    """The assignee's result. Raises `WrongTypeError` for an `out` that is no array."""

    processid: str = ""
    out: msgspec.Raw = EMPTY_LIST

    def __post_init__(self) -> None:
        self.out = carried(self.out, b"[", "out")


class CloseFailed(Message, tag="closefailedmsg"):
    """The assignee gives up, with its reasons."""

    processid: str = ""
    errors: list[str] = msgspec.field(default_factory=list[str])


class SetOutput(Message, tag="setoutputmsg"):
    """Replace the output of a running process. Raises as `CloseSuccessful` does."""

    processid: str = ""
    out: msgspec.Raw = EMPTY_LIST

    def __post_init__(self) -> None:
        self.out = carried(self.out, b"[", "out")


class CancelProcess(Message, tag="cancelprocessmsg"):
    """End a process that is not final."""

    processid: str = ""


class ReleaseProcess(Message, tag="releaseprocessmsg"):
    """Give a process back unfinished: it waits again. The assignee only; ours, not of Colonies."""

    processid: str = ""


class Renew(Message, tag="renewmsg"):
    """Prolong a running attempt; ours. The lease ends `count` periods later than it began with.

    0 asks how much is left of it.
    """

    processid: str = ""
    count: Int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a result: `counted`, it is the process's; `recorded`, it is evidence."""

    outcome: str | msgspec.UnsetType = msgspec.UNSET


COUNTED: Final = "counted"
RECORDED: Final = "recorded"

MESSAGES: Final = (
    SubmitFunctionSpec,
    AssignProcess,
    GetProcesses,
    GetProcess,
    GetProcessHistory,
    RemoveProcess,
    RemoveAllProcesses,
    CloseSuccessful,
    CloseFailed,
    SetOutput,
    CancelProcess,
    ReleaseProcess,
    Renew,
)
