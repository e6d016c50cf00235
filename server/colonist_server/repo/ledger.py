"""The account of what the archive holds of a colony (`t/tag`), which every change of it guards.

Counts change in the commits that take something out of the store or out of sight, so statistics are
right at every moment. What is being moved is removed by nobody; who removes something from the
store guards the account, so that no copy of it is left in the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from colonist_protocol.errors import ContendedError, UnavailableError
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import PastRecord, encode
from colonist_server.repo.view import View
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Guard, Op, Put

MOVED_WITHIN_S: Final = 10.0
HEARD_WITHIN_S: Final = 0.5
_LOOK_S: Final = 0.01
_SHORT_LOOK_S: Final = 0.001


def guards(writes: Writes, colony: Colony) -> list[Guard]:
    """To be guarded by who removes something that has ended; none without an archive."""
    return [guard(colony)] if writes.past.archive is not None else []


def guard(colony: Colony) -> Guard:
    """The account as it is known here."""
    return Guard(keys.past(colony.tag), colony.past_revision)


def put(colony: Colony, record: PastRecord) -> Op:
    """Write the account."""
    return Put(keys.past(colony.tag), encode(record))


def is_moving(colony: Colony, id: bytes) -> bool:
    """Whether a process or workflow is being copied into the archive."""
    return any(id.startswith(each) for each in colony.past.moving)


async def wait_until_still(colony: Colony, ids: Sequence[bytes]) -> None:
    """Wait until none of these is being moved. Raises `ContendedError`."""
    for _ in range(int(MOVED_WITHIN_S / _LOOK_S)):
        if colony.is_gone or not any(is_moving(colony, id) for id in ids):
            return
        await asyncio.sleep(_LOOK_S)
    raise ContendedError("it is being moved to the archive: try again later")


async def refresh(writes: Writes, colony: Colony) -> None:
    """See the account as it is stored."""
    await writes.refresh([keys.past(colony.tag)])


async def heard(view: View, colonies: Collection[Colony], *, is_mover: bool) -> None:
    """Return when what left the store with the accounts is no longer counted as standing there.

    An account that was read anew may be ahead of the watch, which tells of the rest. It is not
    where this node, which moves, has written it: both are applied at once.
    """
    if not view.is_shared:
        return
    for _ in range(int(HEARD_WITHIN_S / _SHORT_LOOK_S)):
        ahead = [each for each in colonies if each.past_revision > view.reached]
        if not ahead or (is_mover and all(_is_own(view, each) for each in ahead)):
            return
        await asyncio.sleep(_SHORT_LOOK_S)
    raise UnavailableError("this node is behind the store; ask again, or another node")


def _is_own(view: View, colony: Colony) -> bool:
    return view.is_own(keys.past(colony.tag), colony.past_revision)


async def strike(writes: Writes, colony: Colony, ids: Sequence[bytes]) -> None:
    """What was being removed is gone."""

    def decide() -> Plan:
        left = tuple(each for each in colony.past.removing if each not in ids)
        record = msgspec.structs.replace(colony.past, removing=left)
        return Plan([guard(colony)], [put(colony, record)])

    if not colony.is_gone and any(id in colony.past.removing for id in ids):
        await writes.apply(decide)


def counted(counts: Sequence[int], change: Mapping[int, int], sign: int) -> tuple[int, ...]:
    """Counts by state, changed."""
    return tuple(count + sign * change.get(state, 0) for state, count in enumerate(counts))
