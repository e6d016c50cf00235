"""Requests without a seal, and where they are not taken."""

from __future__ import annotations

from typing import Final

from colonist_protocol.errors import PlainRefusedError
from colonist_server.repo.nouns import Colony, Executor, User

MUST_BE_SEALED: Final = (
    "this request must be sealed: use a client that seals (COLONIST_SERVER_ID), or let the owner "
    "allow plain requests"
)


def refuses_plain(colony: Colony | None, member: Executor | User | None) -> bool:
    """Whether a colony, or one of its members, has only sealed requests taken."""
    return (colony is not None and colony.record.refuses_plain) or (
        isinstance(member, Executor) and member.record.is_sealed
    )


def check_plain(colony: Colony | None, member: Executor | User | None) -> None:
    """Raise `PlainRefusedError` where only sealed requests are taken."""
    if refuses_plain(colony, member):
        raise PlainRefusedError(MUST_BE_SEALED)
