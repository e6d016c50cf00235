"""Who may do what: COLONIES-RPC section 2.0, in the words of its refusals."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from colonist_protocol.errors import AccessError
from colonist_protocol.executor import ExecutorState


class Access(Enum):
    """What a message asks of its caller."""

    ANYONE = "anyone"
    SERVER_OWNER = "server owner"
    COLONY_OWNER = "colony owner"
    MEMBER = "approved executor or user"
    NEWCOMER = "approved or pending executor, or user"
    EXECUTOR = "approved executor"
    USER = "user"
    CLAIM = "whoever proves a claim"
    OBJECT = "whoever may see the object; what it may not see does not exist for it"


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What a caller is in the colony that a message is about."""

    colony: str
    is_colony_owner: bool = False
    is_user: bool = False
    executor_state: int | None = None


_APPROVED: Final = ExecutorState.APPROVED
_ADMITTED: Final = (ExecutorState.APPROVED, ExecutorState.PENDING)


def check_server_owner(caller: str, owner: str) -> None:
    """Raise `AccessError` unless the caller is the server's owner."""
    if caller != owner:
        raise AccessError("Access denied, not server owner")


def check_standing(needed: Access, standing: Standing) -> None:
    """Raise `AccessError` unless the caller's standing in the colony is enough."""
    if not _ALLOWS[needed](standing):
        raise AccessError(_refusal(needed, standing.colony))


def _is_approved(standing: Standing) -> bool:
    return standing.executor_state == _APPROVED


_ALLOWS: Final[dict[Access, Callable[[Standing], bool]]] = {
    Access.ANYONE: lambda _: True,
    Access.OBJECT: lambda _: True,
    Access.SERVER_OWNER: lambda _: False,  # judged before any colony is looked at
    Access.CLAIM: lambda _: False,  # judged by its proof
    Access.COLONY_OWNER: lambda standing: standing.is_colony_owner,
    Access.MEMBER: lambda standing: standing.is_user or _is_approved(standing),
    Access.NEWCOMER: lambda standing: standing.is_user or standing.executor_state in _ADMITTED,
    Access.EXECUTOR: _is_approved,
    Access.USER: lambda standing: standing.is_user,
}


def stranger(needed: Access, colony: str) -> AccessError:
    """The refusal for a colony that does not exist: the same as for one the caller is not in."""
    return AccessError(_refusal(needed, colony))


def _refusal(needed: Access, colony: str) -> str:
    if needed is Access.COLONY_OWNER:
        return "Access denied, not colony owner"
    if needed is Access.SERVER_OWNER:
        return "Access denied, not server owner"
    if not colony:
        return "Access denied, not a member of any colony with such an object"
    return f"Access denied, not a member of Colony with name <{colony}>"
