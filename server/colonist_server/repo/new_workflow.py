"""A workflow about to be made: its records, in one commit or in many.

One that is too large for a commit is *staged*: a head that nobody sees, its members in batches,
then one commit that opens the head. Making the same workflow twice writes the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from colonist_core import queue
from colonist_core.lease import MAX_RENEWALS, Flag
from colonist_core.matching import placement
from colonist_core.process import SERVER, Cause, Limits, Live, born
from colonist_core.workflow import Parents, Part, resolve
from colonist_protocol import codec, units
from colonist_protocol.errors import InvalidValueError, TooLargeError
from colonist_protocol.function_spec import NEVER, REJECT, FunctionSpec, normal_form
from colonist_protocol.message import EMPTY_OBJECT
from colonist_protocol.workflow import MAX_MEMBERS, WorkflowSpec
from colonist_server.repo import keys
from colonist_server.repo.births import Births, Submitted, submitted
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import (
    Birth,
    ShapePart,
    WorkflowRecord,
    WorkflowState,
    encode,
)
from colonist_server.store.interface import MAX_COMMIT_BYTES, MAX_OPS, Guard, Op, Put

MAX_SINGLE: Final = (MAX_OPS - 8) // 2
"""Members of which a single commit may have room; attributes of `env` may make it fewer."""

MAX_SPEC_BYTES: Final = 917_504
REMEMBERED: Final = 2_000
"""The births of workflows of so many members are kept in memory, of larger ones none."""

_PART_BYTES: Final = 786_432
_STEP: Final = 250
"""Specs that are checked in one go: about 3 ms."""
_ROOM_BYTES: Final = MAX_COMMIT_BYTES - 65_536
_FORGOTTEN: Final = 64
"""Bytes of a commit that an op costs besides its key and value, at most."""


class Origin(msgspec.Struct, frozen=True):
    """Who makes a workflow, when and why; see `WorkflowRecord` for the fields of that name."""

    initiator_id: str
    initiator: str
    now_ns: int
    cause: Cause = SERVER
    payload: bytes = b""
    source: bytes = b""
    previous: bytes = b""


class Checked(NamedTuple):
    """The nodes of a workflow: specs in their normal form, and with their amounts as they came."""

    specs: Sequence[FunctionSpec]
    amounts: Sequence[FunctionSpec]
    parents: Sequence[Parents]


class NewWorkflow:
    """The records of one workflow."""

    def __init__(self, wid: bytes, colony: Colony, nodes: Checked, origin: Origin) -> None:
        self.wid = wid
        self.colony = colony
        self.specs, self._amounts, self.parents = nodes
        self._origin = origin
        self._births: dict[bytes, Submitted] = {}
        self._request = _cut(origin.payload)
        self.key = keys.workflow(wid)
        self.record = WorkflowRecord(
            state=WorkflowState.OPEN,
            size=len(self.specs),
            initiator_id=origin.initiator_id,
            initiator=origin.initiator,
            submitted_ns=origin.now_ns,
            digest=origin.cause.digest,
            signature=origin.cause.signature,
            source=origin.source,
            previous=origin.previous,
            request_parts=len(self._request),
            seal=origin.cause.seal,
        )

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What a single commit of it depends on."""
        return (Guard(self.key, 0), Guard(self.colony.key, self.colony.revision))

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """What a single commit of it writes: it appears at once."""
        return (
            Put(self.key, encode(self.record)),
            *self._prelude(),
            *(op for number in range(1, len(self.specs) + 1) for op in self.member(number)),
        )

    def fits(self, ops: int = 0, size: int = 0) -> bool:
        """Whether it fits into one commit, with so many more ops of so many bytes."""
        if len(self.specs) > MAX_SINGLE or len(self._origin.payload) > _ROOM_BYTES:
            return False
        room = _ROOM_BYTES - size - (len(self.ops) + ops) * _FORGOTTEN
        return len(self.ops) + ops <= MAX_OPS and size_of(self.ops) <= room

    def batches(self) -> Iterator[list[Op]]:
        """What it consists of but its head, in parts that fit commits; a guard each is added."""
        batch: list[Op] = []
        size = 0
        for ops in self._pieces():
            more = size_of(ops) + len(ops) * _FORGOTTEN
            if batch and (len(batch) + len(ops) > MAX_OPS or size + more > _ROOM_BYTES):
                yield batch
                batch, size = [], 0
            batch += ops
            size += more
        yield batch

    def _pieces(self) -> Iterator[Sequence[Op]]:
        for op in self._prelude():
            yield (op,)
        for number in range(1, len(self.specs) + 1):
            yield self.member(number)

    def _prelude(self) -> Iterator[Op]:
        for index, text in enumerate(self._request):
            yield Put(keys.request(self.wid, index), text)
        first = 1
        for part in _cut_shape([spec.nodename for spec in self.specs], self.parents):
            yield Put(keys.shape(self.wid, first), encode(part))
            first += len(part.names)

    def member(self, number: int) -> list[Op]:
        """The records of one member."""
        origin = self._origin
        pid = keys.member(self.wid, number)
        shown, birth, live = member(
            pid,
            self.specs[number - 1],
            self._amounts[number - 1],
            origin,
            has_parents=bool(self.parents[number - 1]),
        )
        if len(self.specs) <= REMEMBERED:
            self._births[pid] = shown
        return [
            Put(keys.birth(pid), encode(birth)),
            *(Put(keys.attribute_index(id), pid) for id, _ in shown.env),
            Put(keys.live(pid), encode(live)),
        ]

    def remember(self, births: Births) -> None:
        """Keep what its members were submitted with in memory: they will be asked for soon."""
        for pid, shown in self._births.items():
            births.remember(pid, shown)


def member(
    pid: bytes, spec: FunctionSpec, amounts: FunctionSpec, origin: Origin, *, has_parents: bool
) -> tuple[Submitted, Birth, Live]:
    """A member's birth as replies have it, and its records."""
    shown = submitted(pid, spec, origin.initiator_id, origin.initiator)
    live = newborn(
        pid,
        amounts,
        origin.initiator,
        origin.now_ns,
        origin.cause,
        has_parents=has_parents,
        size=len(shown.spec),
    )
    birth = Birth(
        shown.spec, b"", origin.initiator_id, origin.initiator, live.priority_ns, origin.now_ns
    )
    return shown, birth, live


def newborn(
    pid: bytes,
    spec: FunctionSpec,
    initiator: str,
    now_ns: int,
    cause: Cause,
    *,
    has_parents: bool = False,
    size: int,
) -> Live:
    """The live record of a process that was just submitted.

    The spec is as it was sent: its normal form rounds memory down, and amounts are matched to the
    byte.
    """
    conditions = spec.conditions
    return born(
        pid.hex(),
        now_ns=now_ns,
        priority_ns=queue.priority_time(now_ns, spec.priority),
        placement=placement(
            type=conditions.executortype,
            names=conditions.executornames,
            location=conditions.locationname or "",
            cpu=units.parse_cpu(conditions.cpu),
            mem=units.parse_memory(conditions.mem),
        ),
        limits=_limits(spec),
        label=spec.label,
        initiator=initiator,
        funcname=spec.funcname,
        cause=cause,
        has_parents=has_parents,
        size=size,
    )


def _limits(spec: FunctionSpec) -> Limits:
    flags = 0
    if spec.lateresult == REJECT:
        flags |= Flag.REJECTS_LATE
    if spec.overlap == NEVER:
        flags |= Flag.NEVER_OVERLAPS
    most = MAX_RENEWALS if isinstance(spec.maxrenewals, msgspec.UnsetType) else spec.maxrenewals
    return Limits(spec.maxwaittime, spec.maxexectime, spec.maxretries, int(flags), most)


def new_workflow(
    wid: bytes,
    colony: Colony,
    spec: WorkflowSpec,
    origin: Origin,
    args: msgspec.Raw | None = None,
) -> NewWorkflow:
    """Check a spec whole; `args` replace those of all roots, and their `kwargs`.

    Raises `InvalidValueError`, `TooLargeError` and what `normal_form` raises.
    """
    amounts = _members(spec, colony)
    parents = _resolve(amounts)
    if args is not None:
        amounts = [
            each if numbers else msgspec.structs.replace(each, args=args, kwargs=EMPTY_OBJECT)
            for each, numbers in zip(amounts, parents, strict=True)
        ]
    specs = [each for part in _normal_parts(amounts) for each in part]
    return NewWorkflow(wid, colony, Checked(specs, amounts, parents), origin)


async def new_workflow_gently(
    wid: bytes, colony: Colony, spec: WorkflowSpec, origin: Origin
) -> NewWorkflow:
    """As `new_workflow`, letting others have their turn in between: one may have 10 000 nodes."""
    amounts = _members(spec, colony)
    await asyncio.sleep(0)
    parents = _resolve(amounts)
    specs: list[FunctionSpec] = []
    for part in _normal_parts(amounts):
        await asyncio.sleep(0)
        specs += part
    return NewWorkflow(wid, colony, Checked(specs, amounts, parents), origin)


def _members(spec: WorkflowSpec, colony: Colony) -> list[FunctionSpec]:
    if len(spec.functionspecs) > MAX_MEMBERS:
        raise InvalidValueError(f"a workflow holds at most {MAX_MEMBERS} functionspecs")
    return [in_workflow(each, colony.record.name) for each in spec.functionspecs]


def _resolve(amounts: Sequence[FunctionSpec]) -> list[Parents]:
    return resolve([Part(each.nodename, each.conditions.dependencies) for each in amounts])


def _normal_parts(amounts: Sequence[FunctionSpec]) -> Iterator[list[FunctionSpec]]:
    """The normal forms, a few at a time."""
    for start in range(0, len(amounts), _STEP):
        part = [normal_form(each) for each in amounts[start : start + _STEP]]
        if any(len(codec.encode(each)) > MAX_SPEC_BYTES for each in part):
            raise TooLargeError(f"a functionspec of a workflow is over {MAX_SPEC_BYTES} bytes")
        yield part


def in_workflow(spec: FunctionSpec, colony: str) -> FunctionSpec:
    """A spec as a member has it: of the workflow's colony, 0 seconds being no limit (2.7)."""
    return msgspec.structs.replace(
        spec,
        maxexectime=spec.maxexectime or -1,
        conditions=msgspec.structs.replace(spec.conditions, colonyname=colony),
    )


def size_of(ops: Sequence[Op]) -> int:
    """The bytes of keys and values."""
    return sum(len(op.key) + len(op.value) for op in ops if type(op) is Put)


def _cut(payload: bytes) -> list[bytes]:
    return [payload[i : i + _PART_BYTES] for i in range(0, len(payload), _PART_BYTES)]


def _cut_shape(names: Sequence[str], parents: Sequence[Parents]) -> Iterator[ShapePart]:
    """Names and parents in parts that fit a value each."""
    start = size = 0
    for end, (name, numbers) in enumerate(zip(names, parents, strict=True)):
        more = 4 * len(name) + 5 * len(numbers) + 10
        if size + more > _PART_BYTES:
            yield ShapePart(tuple(names[start:end]), tuple(parents[start:end]))
            start, size = end, 0
        size += more
    yield ShapePart(tuple(names[start:]), tuple(parents[start:]))
