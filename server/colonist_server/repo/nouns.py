"""What the view holds: colonies, executors, users, functions, and a row for each live process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from colonist_core.function import Tally
from colonist_core.matching import Placement
from colonist_core.process import Live
from colonist_core.queue import Queue
from colonist_core.workflow import Graph, Parents
from colonist_protocol.executor import ExecutorState
from colonist_protocol.process import State
from colonist_server.repo.keys import WID_BYTES, graph_id
from colonist_server.repo.records import (
    ColonyRecord,
    ExecutorRecord,
    FunctionRecord,
    PastRecord,
    UserRecord,
    WorkflowRecord,
    WorkflowState,
    decode_live,
)
from colonist_server.store.interface import Revision


class Beside(msgspec.Struct, eq=False):
    """How many attributes are set beside a process, and their bytes; if known, those it has."""

    count: int = 0
    size: int = 0
    is_known: bool = False
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class Row(msgspec.Struct, eq=False, gc=False):
    """A process that has not ended. `raw` is its live record as stored; decoded when needed.

    A `claimed` row stands in no queue: somebody is about to commit its assignment. `doubtful`: its
    assignment was committed by a node that died before anybody could see a reply. `blocked`: a
    member of a workflow that may not run, now or ever. `left_at`: since when this node has left it
    to others that go first (`sharing`); 0: it has not. `held_until`: before that, on the monotonic
    clock, an attempt is not taken back, and no more is told of it, whatever the clocks are set to;
    `held_for`: the deadline that was counted so. `alarm`: which entry of those that are to ring is
    its own, 0: none; `alarm_for`: for which deadline.
    """

    pid: bytes
    colony: Colony
    revision: Revision
    state: int
    priority_ns: int
    placement: Placement
    deadline_ns: int
    raw: bytes
    ticket: int = 0
    claimed: bool = False
    doubtful: bool = False
    has_attributes: bool = False
    has_output: bool = False
    workflow: Workflow | None = None
    blocked: bool = False
    left_at: float = 0.0
    held_until: float = 0.0
    held_for: int = 0
    alarm: int = 0
    alarm_for: int = 0
    beside: Beside | None = None

    @property
    def id(self) -> str:
        """The process id as it is on the wire."""
        return self.pid.hex()

    @property
    def number(self) -> int:
        """Which member of its workflow it is; 0: of none."""
        return int.from_bytes(self.pid[WID_BYTES:], "big")

    def live(self) -> Live:
        """The record."""
        return decode_live(self.raw)


class Workflow:
    """A workflow that has not ended, as this node knows it.

    `staged` holds members that nobody may see, by id; `shape` their parents as far as they are
    known, until all are; `edits` counts those in the graph.
    """

    __slots__ = (
        "colony",
        "edits",
        "graph",
        "key",
        "record",
        "revision",
        "shape",
        "staged",
        "started_ns",
        "wid",
    )

    def __init__(
        self, key: bytes, colony: Colony, record: WorkflowRecord, revision: Revision
    ) -> None:
        self.key = key
        self.wid = key[2:]
        self.colony = colony
        self.record = record
        self.revision = revision
        self.graph = Graph([])
        self.shape: list[Parents] = []
        self.edits = 0
        self.staged: dict[bytes, Row] = {}
        self.started_ns = 0
        """When the first member was assigned; 0: none was."""

    @property
    def id(self) -> str:
        """The workflow's id on the wire."""
        return graph_id(self.wid).hex()

    @property
    def is_shown(self) -> bool:
        """Whether anybody may see it."""
        return self.record.state in (WorkflowState.OPEN, WorkflowState.CANCELLING)

    @property
    def state(self) -> State:
        """As it is shown."""
        return self.graph.state


class OpenWorkflows:
    """How many workflows that have not ended stand in which state, of one colony.

    Whoever asks pays for those that have changed since somebody asked, not for all.
    """

    __slots__ = ("_changed", "_counts", "_states")

    def __init__(self) -> None:
        self._counts = [0] * len(State)
        self._states: dict[Workflow, State] = {}
        self._changed: set[Workflow] = set()

    def changed(self, workflow: Workflow) -> None:
        """It, or a member of it, is new or in another state."""
        self._changed.add(workflow)

    def dropped(self, workflow: Workflow) -> None:
        """It has ended."""
        self._changed.discard(workflow)
        self._forget(workflow)

    def counts(self) -> Sequence[int]:
        """How many may be seen, by state."""
        while self._changed:
            workflow = self._changed.pop()
            self._forget(workflow)
            if workflow.is_shown:
                state = self._states[workflow] = workflow.state
                self._counts[state] += 1
        return self._counts

    def _forget(self, workflow: Workflow) -> None:
        state = self._states.pop(workflow, None)
        if state is not None:
            self._counts[state] -= 1


class Executor(msgspec.Struct, eq=False):
    """An executor as this node knows it.

    Presence is held in memory: when it was heard, and how many assigns of it are under way.
    """

    key: bytes
    name: str
    record: ExecutorRecord
    revision: Revision
    heard_ns: int = 0
    asking: int = 0

    @property
    def is_approved(self) -> bool:
        """Whether it may work."""
        return self.record.state == ExecutorState.APPROVED


class User(msgspec.Struct, eq=False):
    """A user as this node knows it."""

    key: bytes
    name: str
    record: UserRecord
    revision: Revision


class Function(msgspec.Struct, eq=False):
    """A function and its tally up to now; `size`: about what it takes of memory."""

    key: bytes
    record: FunctionRecord
    revision: Revision
    tally: Tally = Tally()
    size: int = 0


class Announced(msgspec.Struct):
    """How many functions an executor, or all, have announced, and their sizes together."""

    count: int = 0
    size: int = 0

    def add(self, count: int, size: int) -> None:
        """So many more, or fewer."""
        self.count += count
        self.size += size


class Colony:
    """All that this node knows of one colony."""

    __slots__ = (
        "announced",
        "announced_by",
        "blocked",
        "closed",
        "closed_workflows",
        "counted_at",
        "counted_workflows_at",
        "executors",
        "former",
        "functions",
        "is_gone",
        "key",
        "members",
        "missed",
        "open_workflows",
        "past",
        "past_revision",
        "queue",
        "recent",
        "record",
        "revision",
        "running",
        "tag",
        "users",
        "waiting",
        "workflows",
    )

    def __init__(self, key: bytes, record: ColonyRecord, revision: Revision) -> None:
        self.key = key
        self.tag = key[2:]
        self.record = record
        self.revision = revision
        self.is_gone = False
        self.executors: dict[str, Executor] = {}
        self.users: dict[str, User] = {}
        self.functions: dict[bytes, Function] = {}
        self.announced = Announced()
        self.announced_by: dict[str, Announced] = {}
        """By the names of executors."""
        self.members: dict[str, Executor | User] = {}
        self.former: dict[str, Executor | User] = {}
        """Members by ids that they have given up: these still own work, and may do nothing."""
        self.missed: set[str] = set()
        """Names of creators for whom crons or generators have waited: look again when they come."""
        self.queue: Queue[Row] = Queue()
        self.blocked: dict[bytes, Row] = {}
        self.workflows: dict[bytes, Workflow] = {}
        self.open_workflows = OpenWorkflows()
        self.waiting = 0
        self.running: dict[bytes, Row] = {}
        self.closed = [0] * len(State)
        self.counted_at: list[Revision] = [0] * len(State)
        """Up to where a load has counted; the watch may bring some of that again."""
        self.closed_workflows = [0] * len(State)
        self.counted_workflows_at: list[Revision] = [0] * len(State)
        self.past = PastRecord()
        """What the archive holds of it."""
        self.past_revision: Revision = 0
        self.recent: list[tuple[Revision, int, int, int]] | None = None
        """Revision, kind, state and change of what is counted while a load reads; None: none."""

    @property
    def ended(self) -> list[int]:
        """How many processes have ended, by state, wherever they are kept."""
        return [near + far for near, far in zip(self.closed, self.past.processes, strict=True)]

    @property
    def ended_workflows(self) -> list[int]:
        """How many workflows have ended, by state, wherever they are kept."""
        both = zip(self.closed_workflows, self.past.workflows, strict=True)
        return [near + far for near, far in both]

    def count_functions(self, executor: str, count: int, size: int) -> None:
        """An executor has announced so many functions more, or fewer."""
        own = self.announced_by.setdefault(executor, Announced())
        for each in (self.announced, own):
            each.add(count, size)
        if not own.count:
            del self.announced_by[executor]

    def enlist(self, member: Executor | User) -> None:
        """Know a member by its id; two hold one id only while the watch lags, then the newer."""
        holder = self.members.get(member.record.id)
        if holder is None or holder.revision <= member.revision:
            self.members[member.record.id] = member
        for id in member.record.former:
            self.former[id] = member

    def delist(self, member: Executor | User) -> None:
        """A member has left, or changes its id."""
        if self.members.get(member.record.id) is member:
            del self.members[member.record.id]
        for id in member.record.former:
            if self.former.get(id) is member:
                del self.former[id]

    def holder(self, id: str) -> Executor | User | None:
        """The member whose id this is, or was before it changed it."""
        return self.members.get(id) or self.former.get(id)
