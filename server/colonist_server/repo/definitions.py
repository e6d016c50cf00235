"""What crons and generators have in common: a spec in a text, a creator, a name of their own."""

from __future__ import annotations

from typing import Final, NamedTuple

from colonist_protocol import codec
from colonist_protocol.errors import (
    ConflictError,
    InvalidValueError,
    MalformedError,
    TooLargeError,
)
from colonist_protocol.executor import ExecutorState
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.records import CronRecord, GeneratorRecord, Kind
from colonist_server.repo.writes import Plan
from colonist_server.store.interface import Delete, Guard, Put, Revision

REFUSED: Final = (MalformedError, TooLargeError)
"""What a workflow is refused with that will never be accepted."""
MAX_REASON_CHARS: Final = 1000


class Slot(NamedTuple):
    """Where a definition stands: its key, and the key that keeps its name its own."""

    key: bytes
    name: bytes


def adding(slot: Slot, id: bytes, record: bytes, colony: Colony, member: Executor | User) -> Plan:
    """Write a definition under a name that nobody has."""
    return Plan(
        [
            Guard(slot.key, 0),
            Guard(slot.name, 0),
            Guard(colony.key, colony.revision),
            Guard(member.key, member.revision),
        ],
        [Put(slot.key, record), Put(slot.name, id)],
    )


def removing(slot: Slot, revision: Revision) -> Plan:
    """Delete a definition; its name is free again."""
    return Plan([Guard(slot.key, revision)], [Delete(slot.key), Delete(slot.name)])


_AT_WORK: Final = (ExecutorState.APPROVED, ExecutorState.UNREGISTERED)


class HeldError(ConflictError):
    """The creator may not work: nothing is started until it may, and nothing is written."""


def spec_of(text: str, colony: Colony) -> WorkflowSpec:
    """The workflow spec that a text holds, of this colony; one of another is refused (S7).

    Raises `MalformedError`.
    """
    spec = codec.decode(text.encode(), WorkflowSpec, "workflowspec")
    if spec.colonyname not in ("", colony.record.name):
        raise InvalidValueError("the workflowspec names another colony than the one it is for")
    return WorkflowSpec(colonyname=colony.record.name, functionspecs=spec.functionspecs)


def kind_of(member: Executor | User) -> Kind:
    """What a creator is."""
    return Kind.EXECUTOR if isinstance(member, Executor) else Kind.USER


def creator_of(colony: Colony, record: CronRecord | GeneratorRecord) -> Executor | User | None:
    """Whoever made a definition, under whatever key now; None: it may start nothing, now or ever.

    Nobody inherits a definition: neither who has the name alone, nor who has it as another kind.
    An executor that was not heard of for a while is unregistered, and what it has set up goes on;
    what one has set up that the colony's owner removed does not.
    """
    found = _holder(colony, record)
    if isinstance(found, Executor):
        is_at_work = found.record.state in _AT_WORK and not found.record.is_removed
        return found if is_at_work else None
    return found


def why_held(colony: Colony, record: CronRecord | GeneratorRecord) -> str:
    """Why a definition starts nothing as long as its creator is what it is; "": it may."""
    if creator_of(colony, record) is not None:
        return ""
    found = _holder(colony, record)
    if isinstance(found, Executor) and not found.record.is_removed:
        return f"its creator {record.initiator} is not approved"
    return f"its creator {record.initiator} is no member any more"


def _holder(colony: Colony, record: CronRecord | GeneratorRecord) -> Executor | User | None:
    found = colony.holder(record.initiator_id)
    if found is None or found.name != record.initiator:
        return None
    return found if record.creator_kind in (Kind.UNKNOWN, kind_of(found)) else None
