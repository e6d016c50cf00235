"""Changes of identity: the same member, or colony owner, under another key (COLONIES-RPC 4.12).

Signed with the old key, effective with the commit: only the new id works after it. A member's
former ids stay in its record and stay taken in its colony, so what it runs, or has set up, under
them is its own and nobody else's (W15).
"""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_core.process import Live
from colonist_protocol.errors import AccessError, ConflictError
from colonist_server.repo import keys
from colonist_server.repo.colonies import check_owner_free, check_there
from colonist_server.repo.members import check_id_free
from colonist_server.repo.nouns import Colony, Executor, User
from colonist_server.repo.records import encode
from colonist_server.repo.trail import Changed, Trail, Warrant
from colonist_server.repo.view import View
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Delete, Guard, Op, Put

MAX_FORMER: Final = 8


class Identities:
    """What changes ids."""

    __slots__ = ("_trail", "_view", "_writes")

    def __init__(self, writes: Writes, trail: Trail) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._trail = trail

    async def change_executor(
        self, colony: Colony, executor: Executor, new: str, warrant: Warrant
    ) -> None:
        """Know an executor by another id. Raises `ExistsError`, `AccessError`, `ConflictError`."""

        def decide() -> Plan:
            _check_still(colony, executor, warrant)
            record = executor.record
            former = tuple(id for id in (*record.former, record.id) if id != new)
            kept, fallen = former[-MAX_FORMER:], former[:-MAX_FORMER]
            _check_idle(colony, fallen)
            key = executor.key
            after = msgspec.structs.replace(record, id=new, former=kept)
            guards = [Guard(key, executor.revision)]
            ops: list[Op] = [
                Put(key, encode(after)),
                *(Delete(keys.identity(id, colony.tag)) for id in fallen),
            ]
            if new not in record.former:  # one of its own is taken by it already
                check_id_free(colony, new)
                identity = keys.identity(new, colony.tag)
                guards.append(Guard(identity, 0))
                ops.append(Put(identity, executor.name.encode()))
            what = Changed.EXECUTOR_ID
            return self._trail.joined(Plan(guards, ops), colony.tag, what, executor.name, warrant)

        if new != warrant.cause.who:  # else it has that id
            await self._trail.apply(colony.tag, decide)

    async def change_user(self, colony: Colony, user: User, new: str, warrant: Warrant) -> None:
        """Know a user by another id. Raises `ExistsError`, `AccessError`."""

        def decide() -> Plan:
            _check_still(colony, user, warrant)
            record = user.record
            former = tuple(id for id in (*record.former, record.id) if id != new)
            kept, fallen = former[-MAX_FORMER:], former[:-MAX_FORMER]
            after = msgspec.structs.replace(record, id=new, former=kept)
            guards = [Guard(user.key, user.revision)]
            ops: list[Op] = [
                Put(user.key, encode(after)),
                *(Delete(keys.identity(id, colony.tag)) for id in fallen),
            ]
            if new not in record.former:  # one of its own is taken by it already
                check_id_free(colony, new)
                identity = keys.identity(new, colony.tag)
                guards.append(Guard(identity, 0))
                ops.append(Put(identity, b""))
            plan = Plan(guards, ops)
            return self._trail.joined(plan, colony.tag, Changed.USER_ID, user.name, warrant)

        if new != warrant.cause.who:  # else it has that id
            await self._trail.apply(colony.tag, decide)

    async def change_colony(self, colony: Colony, new: str, warrant: Warrant) -> None:
        """Give a colony's owner another id. Raises `ExistsError`, `AccessError`."""

        def decide() -> Plan:
            check_there(colony)
            if colony.record.owner != warrant.cause.who:
                raise AccessError("Access denied, not colony owner")
            check_owner_free(self._view, new)
            identity = keys.identity(new, b"")
            after = msgspec.structs.replace(colony.record, owner=new)
            plan = Plan(
                [Guard(colony.key, colony.revision), Guard(identity, 0)],
                [
                    Put(colony.key, encode(after)),
                    Put(identity, colony.tag),
                    Delete(keys.identity(colony.record.owner, b"")),
                ],
            )
            return self._trail.joined(plan, colony.tag, Changed.COLONY_ID, "", warrant)

        if new != warrant.cause.who:  # else it has that id
            await self._trail.apply(colony.tag, decide)


def _check_still(colony: Colony, member: Executor | User, warrant: Warrant) -> None:
    """Of two changes at once by the old key the second finds it refused."""
    check_there(colony)
    if colony.members.get(warrant.cause.who) is not member:
        raise AccessError(f"Access denied, not a member of Colony with name <{colony.record.name}>")


def _check_idle(colony: Colony, ids: tuple[str, ...]) -> None:
    """An id is let go of only when nothing runs under it."""
    if not ids:
        return
    for row in colony.running.values():
        live: Live = row.live()
        if live.executor in ids:
            raise ConflictError(
                f"Failed to change executor Id, process {row.id} runs under the oldest of "
                f"{MAX_FORMER} former ids: close or release it first"
            )
