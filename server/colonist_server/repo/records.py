"""What stands under the keys: msgpack arrays, to which members may be added at the end only.

The live and closed parts of a process are the core's own values (`colonist_core.process`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from sys import getsizeof
from typing import Final, TypeVar

import msgspec

from colonist_core.cron import Turn
from colonist_core.function import Tally
from colonist_core.process import Closed, Live
from colonist_protocol.errors import CorruptRecordError
from colonist_protocol.executor import Allocations, Capabilities
from colonist_protocol.function import FunctionArgument
from colonist_protocol.process import State

T = TypeVar("T")

SCHEMA: Final = 1

_ARGUMENT_BYTES: Final = 150
"""What an argument of a function takes of memory besides its texts."""


class ColonyRecord(msgspec.Struct, frozen=True, array_like=True):
    """`c/tag`."""

    name: str
    owner: str
    is_paused: bool = False
    refuses_plain: bool = False
    """Whether all requests in it must be sealed."""
    since_n: int = 0
    """What was sealed before that minute was not for it: there may have been one of its name."""


class ExecutorRecord(msgspec.Struct, frozen=True, array_like=True):
    """`x/tag/name`: the part that changes seldom; presence stands elsewhere."""

    id: str
    type: str
    state: int
    commissioned_ns: int
    location: str = ""
    requires_functions: bool = False
    capabilities: Capabilities = Capabilities()
    allocations: Allocations = Allocations()
    blueprint: str = ""
    blueprint_generation: int = 0
    former: tuple[str, ...] = ()
    """Earlier ids, oldest first. They stay taken: work may run under them."""
    is_removed: bool = False
    """By the colony's owner, not because nothing was heard of it."""
    is_sealed: bool = False
    """Whether its requests must be sealed."""
    hw: str = ""
    """The hardware that it enrolled from."""
    claim: str = ""
    """The claim by which it enrolled; "": its colony's owner added it."""
    enrolled_n: int = 0
    """Which event of its colony's chain that was."""


class UserRecord(msgspec.Struct, frozen=True, array_like=True):
    """`u/tag/name`."""

    id: str
    email: str = ""
    phone: str = ""
    former: tuple[str, ...] = ()
    """Earlier ids, oldest first. They stay taken: crons and generators may be known by them."""


class ClaimRecord(msgspec.Struct, frozen=True, array_like=True):
    """`cl/tag/claim`: by whose key executors may enrol, of which type, how many, until when."""

    type: str
    count: int
    ends_ns: int
    approval: str
    used: int = 0


class Kind(IntEnum):
    """What somebody is who made a definition; unknown in records that do not say so."""

    UNKNOWN = 0
    EXECUTOR = 1
    USER = 2


def all_ids(record: ExecutorRecord | UserRecord) -> tuple[str, ...]:
    """The id of now and the former ones: all that are taken by it."""
    return (record.id, *record.former)


class FunctionRecord(msgspec.Struct, frozen=True, array_like=True):
    """`f/tag/name/func`: the tally holds every run that was closed up to revision `through`."""

    id: str
    executor: str
    name: str
    description: str = ""
    args: tuple[FunctionArgument, ...] = ()
    tally: Tally = Tally()
    through: int = 0


def function_size(record: FunctionRecord) -> int:
    """How many bytes of memory about it takes what was announced of a function."""
    texts = [record.name, record.description]
    for each in record.args:
        texts += (each.name, each.type, each.description, *each.enum)
    return sum(map(getsizeof, texts)) + len(record.args) * _ARGUMENT_BYTES


class Birth(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`p/pid`: the request that submitted a process, and who sent it.

    Of a workflow's member `payload` is its spec alone, in its normal form; the request stands with
    the workflow.
    """

    payload: bytes
    signature: bytes
    initiator_id: str
    initiator: str
    priority_ns: int
    submitted_ns: int
    seal: bytes = b""


class Ended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`y/..`: what lists, history and tallies need of a closed process without reading it."""

    type: str
    label: str
    initiator: str
    executor: str
    funcname: str
    submitted_ns: int
    started_ns: int
    ended_ns: int


class WorkflowState(IntEnum):
    """What a head says. The first three are final and as on the wire; members need the others."""

    SUCCESS = State.SUCCESS
    FAILED = State.FAILED
    CANCELLED = State.CANCELLED
    STAGING = 5
    OPEN = 6
    CANCELLING = 7
    REMOVING = 8


ENDED_WORKFLOW: Final = frozenset(
    {WorkflowState.SUCCESS, WorkflowState.FAILED, WorkflowState.CANCELLED}
)


class WorkflowRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`w/wid`. `state` is a `WorkflowState`; `size` counts edits in.

    `source` is the id of the cron or generator that started it, `previous` the workflow whose
    leaves' outputs are its roots' input. Once it has ended, `states` has a byte a member and
    `leaves` names those for whom nobody waited.
    """

    state: int
    size: int
    initiator_id: str
    initiator: str
    submitted_ns: int
    digest: bytes = b""
    signature: bytes = b""
    source: bytes = b""
    previous: bytes = b""
    edits: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    states: bytes = b""
    leaves: tuple[int, ...] = ()
    request_parts: int = 0
    cancelled_by: bytes = b""
    cancel_digest: bytes = b""
    cancel_signature: bytes = b""
    stager: bytes = b""
    """While it is STAGING: the start of the node that makes it."""
    seal: bytes = b""
    """Of the request that submitted it."""
    removed_by: bytes = b""
    """While it is REMOVING: who asked for that, empty for retention; and the request."""
    remove_digest: bytes = b""
    remove_signature: bytes = b""


class ShapePart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`wg/wid/first`: names and parents' numbers of some members, in order."""

    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]


class EditRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`we/wid/n`: a member that was added, and the request that did. `child` 0: none."""

    name: str
    parent: int
    child: int
    insert: bool
    who: bytes
    time_ns: int
    payload: bytes
    signature: bytes
    seal: bytes = b""


class AttributeRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`a/pid/attr`. `attempt` and `seq` tell by which sealed request; 0 and 0: by a plain one."""

    kind: int
    key: str
    value: str
    attempt: int = 0
    seq: int = 0


class ResultRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`r/pid/attempt,nonce`: a result that changed nothing, with the request that brought it."""

    what: int
    time_ns: int
    who: bytes
    digest: bytes
    signature: bytes
    payload: bytes
    seal: bytes


class LogRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`l/pid/attempt,time`."""

    message: str
    executor: str
    process: bytes
    time_ns: int


class OwnerRecord(msgspec.Struct, frozen=True, array_like=True):
    """`m/owner`: the server owner's id since its last change, and the request that changed it."""

    id: str
    former: str
    time_ns: int
    payload: bytes
    signature: bytes


class ChangeRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`h/tag/..`: a change of members or owner. `by` is empty for the server's own doing.

    `n` is its place in the colony's chain, `prev` the head before; -1: it is older than the chain.
    `about` is the number that the change is about, if it is about one.
    """

    what: str
    name: str
    time_ns: int
    by: bytes
    digest: bytes
    signature: bytes
    payload: bytes
    seal: bytes = b""
    n: int = -1
    prev: bytes = b""
    about: int = 0


class TrailRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`hh/tag`: how many events a colony's own chain has, its head, and the time of the newest."""

    count: int = 0
    head: bytes = b""
    time_ns: int = 0


class RemovedRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`er/pid`: the last event of a removed process, and the head before it.

    `who` is empty where retention removed it.
    """

    n: int
    attempt: int
    time_ms: int
    prev: bytes
    who: bytes = b""
    digest: bytes = b""
    signature: bytes = b""
    winner: tuple[int, bytes] | None = None
    """Number and nonce of the attempt whose result it had, if a sealed request brought it."""
    result: bytes = b""
    """The SHA3-256 of what that said."""


class CheckpointRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`q/tag/k`: the line is rendered from it. `heads` are packed, in the order of the chains.

    `through` is the revision up to which all heads that changed are in this or an earlier one.
    """

    prev: bytes
    time_ms: int
    heads: bytes
    signature: bytes
    through: int


class NewestRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`qh/tag`: of the newest checkpoint the number, the digest of its line, and the rest as there.

    `through` counts in the `era` of the store since its last restore; 0: not all that there was
    is stated in this era yet. Up to number `forgotten` they are told no more.
    """

    k: int = 0
    digest: bytes = b""
    time_ms: int = 0
    through: int = 0
    era: str = ""
    forgotten: int = 0
    whole: int = 0
    """The newest with which all that had changed was stated; later ones are parts of the next."""
    whole_ms: int = 0
    """When that was made."""


class GeneratorRecord(msgspec.Struct, frozen=True, array_like=True):
    """`g/gid`: seldom written, since every pack guards it.

    `largest`: bytes that an argument may have. `disabled`: why it fires no more.
    """

    name: str
    spec: str
    trigger: int
    timeout_s: int
    largest: int
    initiator_id: str
    initiator: str
    disabled: str = ""
    creator_kind: int = Kind.UNKNOWN


class FiringsRecord(msgspec.Struct, frozen=True, array_like=True):
    """`gn/gid`: how often it fired, the last time, and when its first argument ever came."""

    count: int = 0
    last_ns: int = 0
    first_pack_ns: int = 0


class FiringRecord(msgspec.Struct, frozen=True, array_like=True):
    """`gf/gid/n`: suffixes of the argument keys that it takes, and what its workflow is made of.

    `is_made`: the workflow was opened in the commit that says so, and is not made again.
    """

    fired_ns: int
    suffixes: tuple[bytes, ...]
    initiator_id: str
    initiator: str
    is_made: bool = False


class PendingRun(msgspec.Struct, frozen=True, array_like=True):
    """A run whose workflow takes several commits: all that it is made of, to make it again."""

    wid: bytes
    fired_ns: int
    initiator_id: str
    initiator: str
    previous: bytes
    who: str = ""
    digest: bytes = b""
    signature: bytes = b""
    payload: bytes = b""
    seal: bytes = b""


class CronRecord(msgspec.Struct, frozen=True, array_like=True):
    """`k/cid`. `turn` is the next run; `planned_ns` the time for which the last was planned.

    `last_ns` is when that started, `previous` its workflow. `disabled`: why it runs no more.
    """

    name: str
    spec: str
    interval_s: int
    expression: str
    is_random: bool
    waits: bool
    initiator_id: str
    initiator: str
    turn: Turn
    planned_ns: int = 0
    last_ns: int = 0
    previous: bytes = b""
    pending: PendingRun | None = None
    disabled: str = ""
    creator_kind: int = Kind.UNKNOWN


class NodeRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`n/node` of a store that several nodes share; goes with its lease.

    `instance` is another at each start, `clock_ns` when it was written, by that node's clock.
    `classes`: tag and executor type of those who wait there for work. `owner`: the
    server owner that the node is told to obey.
    """

    instance: bytes
    url: str
    clock_ns: int
    classes: tuple[tuple[bytes, str], ...] = ()
    owner: str = ""
    is_leaving: bool = False
    """It stops in order: what it has assigned was answered."""
    servers: tuple[str, ...] = ()
    """The server ids that the node takes, the one that it signs with first."""


class PastRecord(msgspec.Struct, frozen=True, array_like=True):
    """`t/tag`: what the archive holds of a colony, by state.

    `moving` names processes and workflows that are being copied into it by `mover`: nobody removes
    those. `removing` names what is being removed from it: nobody sees that any more.
    """

    processes: tuple[int, ...] = (0,) * len(State)
    workflows: tuple[int, ...] = (0,) * len(State)
    moving: tuple[bytes, ...] = ()
    removing: tuple[bytes, ...] = ()
    mover: bytes = b""


class EpochRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`me`: the server's minute, and the era since the last restore.

    `since_n` is the first minute after the last removal of a colony.
    """

    n: int
    era: bytes
    since_n: int = 0


class LeaderRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`nl`: the node that leads, and which start of it."""

    node: str
    instance: bytes


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    """Reads a record. Raises `CorruptRecordError`."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def read(value: bytes) -> T:
        try:
            return decode(value)
        except msgspec.DecodeError as error:
            raise CorruptRecordError(f"what is stored cannot be read: {error}") from error

    return read


encode: Final = msgspec.msgpack.Encoder().encode

decode_colony: Final = _reader(ColonyRecord)
decode_executor: Final = _reader(ExecutorRecord)
decode_user: Final = _reader(UserRecord)
decode_claim: Final = _reader(ClaimRecord)
decode_function: Final = _reader(FunctionRecord)
decode_birth: Final = _reader(Birth)
decode_live: Final = _reader(Live)
decode_closed: Final = _reader(Closed)
decode_ended: Final = _reader(Ended)
decode_workflow: Final = _reader(WorkflowRecord)
decode_shape: Final = _reader(ShapePart)
decode_edit: Final = _reader(EditRecord)
decode_attribute: Final = _reader(AttributeRecord)
decode_result: Final = _reader(ResultRecord)
decode_log: Final = _reader(LogRecord)
decode_owner: Final = _reader(OwnerRecord)
decode_change: Final = _reader(ChangeRecord)
decode_trail: Final = _reader(TrailRecord)
decode_removed: Final = _reader(RemovedRecord)
decode_checkpoint: Final = _reader(CheckpointRecord)
decode_newest: Final = _reader(NewestRecord)
decode_heard: Final = _reader(dict[bytes, int])
decode_generator: Final = _reader(GeneratorRecord)
decode_firings: Final = _reader(FiringsRecord)
decode_firing: Final = _reader(FiringRecord)
decode_cron: Final = _reader(CronRecord)
decode_node: Final = _reader(NodeRecord)
decode_past: Final = _reader(PastRecord)
decode_leader: Final = _reader(LeaderRecord)
decode_epoch: Final = _reader(EpochRecord)
