"""What crons and generators have in common: a workflow spec in a text, and a creator."""

from __future__ import annotations

from typing import Final

from colonist_protocol import codec
from colonist_protocol.errors import InvalidValueError, MalformedError, TooLargeError
from colonist_protocol.executor import ExecutorState
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.repo.nouns import Colony, Executor, User

REFUSED: Final = (MalformedError, TooLargeError)
"""What a workflow is refused with that will never be accepted."""
MAX_REASON_CHARS: Final = 1000

_AT_WORK: Final = (ExecutorState.APPROVED, ExecutorState.UNREGISTERED)


def spec_of(text: str, colony: Colony) -> WorkflowSpec:
    """The workflow spec that a text holds, of this colony; one of another is refused (S7).

    Raises `MalformedError`.
    """
    spec = codec.decode(text.encode(), WorkflowSpec, "workflowspec")
    if spec.colonyname not in ("", colony.record.name):
        raise InvalidValueError("the workflowspec names another colony than the one it is for")
    return WorkflowSpec(colonyname=colony.record.name, functionspecs=spec.functionspecs)


def creator_of(colony: Colony, id: str, name: str) -> Executor | User | None:
    """Whoever made a definition, under whatever key now; None: it may start nothing any more.

    An executor that was not heard of for a while is unregistered, and what it has set up goes on;
    what one has set up that the colony's owner removed does not.
    """
    found = colony.holder(id) or colony.users.get(name)
    if isinstance(found, Executor):
        is_at_work = found.record.state in _AT_WORK and not found.record.is_removed
        return found if is_at_work else None
    return found
