"""Executors and users: who may do something in a colony."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from colonist_core.process import Live
from colonist_protocol import executor as wire
from colonist_protocol.errors import ColonistError, ConflictError, ExistsError, NotFoundError
from colonist_protocol.executor import ExecutorState
from colonist_protocol.user import User as WireUser
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.colonies import check_there
from colonist_server.repo.freshness import Freshness
from colonist_server.repo.gone import Gone, mark
from colonist_server.repo.nouns import Colony, Executor
from colonist_server.repo.processes import Processes
from colonist_server.repo.records import ExecutorRecord, UserRecord, all_ids, encode
from colonist_server.repo.trail import Changed, Trail, Warrant
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Delete, DeleteRange, Guard, Op, Put

log = logging.getLogger(__name__)

NO_WARRANT: Final = Warrant()
"""The server itself: nobody asked."""


class Members:
    """What happens to executors and users."""

    __slots__ = (
        "_clock",
        "_freshness",
        "_may_reregister",
        "_processes",
        "_trail",
        "_writes",
        "gone",
    )

    def __init__(
        self,
        writes: Writes,
        processes: Processes,
        clock: Clock,
        trail: Trail,
        freshness: Freshness,
        *,
        may_reregister: bool,
    ) -> None:
        self._writes = writes
        self._freshness = freshness
        self._processes = processes
        self._clock = clock
        self._trail = trail
        self._may_reregister = may_reregister
        self.gone = Gone(writes.view)
        """Ids that were a member's once."""

    async def add_executor(
        self, colony: Colony, wanted: wire.Executor, warrant: Warrant
    ) -> Executor:
        """Add an executor, PENDING. Raises `ExistsError`.

        Where the server is set so, a name may be taken again: it starts anew, PENDING, under the
        new key; the old one is refused at once, and what it held is free.
        """
        name = wanted.executorname
        record = _record(wanted, self._clock.now_ns())

        def decide() -> Plan:
            check_there(colony)
            before = colony.executors.get(name)
            if before is not None and not self._may_reregister:
                raise ExistsError(
                    f"Executor with name <{name}> in Colony <{colony.record.name}> already exists"
                )
            check_id_free(colony, record.id, before)
            return self._registered(colony, name, record, before, warrant)

        old = colony.executors.get(name)
        old_ids = all_ids(old.record) if old is not None else ()
        await self._trail.apply(colony.tag, decide)
        if old_ids:
            await self._free_work(colony, old_ids)
            colony.executors[name].heard_ns = 0
        return colony.executors[name]

    def _registered(
        self,
        colony: Colony,
        name: str,
        record: ExecutorRecord,
        before: Executor | None,
        warrant: Warrant,
    ) -> Plan:
        """A new record; what an earlier one under that name had taken is free again."""
        key = keys.executor(colony.tag, name)
        identity = keys.identity(record.id, colony.tag)
        guards = [Guard(colony.key, colony.revision), Guard(key, 0)]
        ops: list[Op] = [Put(key, encode(record)), Put(identity, name.encode())]
        what = Changed.EXECUTOR_ADDED
        taken: tuple[str, ...] = ()
        if before is not None:
            what = Changed.EXECUTOR_AGAIN
            taken = all_ids(before.record)
            guards[1] = Guard(key, before.revision)
            ops.append(DeleteRange(keys.functions_of(colony.tag, name)))
            given_up = [id for id in taken if id != record.id]
            ops.extend(Delete(keys.identity(id, colony.tag)) for id in given_up)
            ops.extend(mark(colony.tag, given_up))
        if record.id not in taken:
            guards.append(Guard(identity, 0))
        return self._trail.joined(Plan(guards, ops), colony.tag, what, name, warrant)

    async def set_state(
        self, colony: Colony, name: str, state: ExecutorState, warrant: Warrant
    ) -> None:
        """Approve or reject. Raises `NotFoundError`; `ConflictError` for an unregistered one."""

        def decide() -> Plan:
            executor = find_executor(colony, name)
            if executor.record.state == ExecutorState.UNREGISTERED:
                raise ConflictError(
                    f"Executor with name <{name}> is unregistered; register it anew"
                )
            plan = _put(executor, msgspec.structs.replace(executor.record, state=state))
            return self._trail.joined(plan, colony.tag, what, name, warrant)

        what = Changed.EXECUTOR_REJECTED
        if state == ExecutorState.APPROVED:
            what = Changed.EXECUTOR_APPROVED

        await self._trail.apply(colony.tag, decide)

    async def remove_executor(
        self, colony: Colony, name: str, warrant: Warrant = NO_WARRANT
    ) -> None:
        """Unregister: the record stays, its functions go, its running work is free again.

        Without a warrant it is done because nothing was heard of the executor.
        """
        is_told = bool(warrant.cause.who)

        def decide() -> Plan:
            executor = find_executor(colony, name)
            record = msgspec.structs.replace(
                executor.record,
                state=ExecutorState.UNREGISTERED,
                is_removed=executor.record.is_removed or is_told,
            )
            plan = _put(executor, record)
            functions = DeleteRange(keys.functions_of(colony.tag, name))
            plan = Plan(plan.guards, [*plan.ops, functions])
            return self._trail.joined(plan, colony.tag, Changed.EXECUTOR_REMOVED, name, warrant)

        executor = find_executor(colony, name)
        is_done = executor.record.state == ExecutorState.UNREGISTERED
        if not is_done or (is_told and not executor.record.is_removed):
            await self._trail.apply(colony.tag, decide)
        await self._free_work(colony, all_ids(executor.record))

    async def free_left(self, colony: Colony) -> None:
        """Free what is assigned to executors that are removed: a stop may have come in between."""
        held = {row.live().executor for row in list(colony.running.values())}
        left = tuple(id for id in held if id and not _may_hold(colony, id))
        if left:
            await self._free_work(colony, left)

    async def _free_work(self, colony: Colony, executor_ids: tuple[str, ...]) -> None:
        # Assignments guard the executor's record, so there are no more; other nodes made some.
        await self._freshness.fresh()
        for row in list(colony.running.values()):
            live: Live = row.live()
            if live.executor not in executor_ids:
                continue
            try:
                await self._processes.orphan(row, live.executor)
            except ConflictError:
                continue  # it ended, or went back, meanwhile
            except ColonistError as error:
                log.warning("orphaned process=%s stays assigned: %s", row.id, error)

    async def add_user(self, wanted: WireUser, colony: Colony, warrant: Warrant) -> None:
        """Add a user. Raises `ExistsError`."""

        def decide() -> Plan:
            check_there(colony)
            if wanted.name in colony.users:
                raise ExistsError(
                    f"A user with name <{wanted.name}> already exists in Colony with name "
                    f"<{colony.record.name}>"
                )
            check_id_free(colony, wanted.userid)
            key = keys.user(colony.tag, wanted.name)
            identity = keys.identity(wanted.userid, colony.tag)
            record = UserRecord(wanted.userid, wanted.email, wanted.phone)
            plan = Plan(
                [Guard(colony.key, colony.revision), Guard(key, 0), Guard(identity, 0)],
                [Put(key, encode(record)), Put(identity, b"")],
            )
            what = Changed.USER_ADDED
            return self._trail.joined(plan, colony.tag, what, wanted.name, warrant)

        await self._trail.apply(colony.tag, decide)

    async def remove_user(self, colony: Colony, name: str, warrant: Warrant) -> None:
        """Remove a user. Raises `NotFoundError`."""

        def decide() -> Plan:
            user = colony.users.get(name)
            if user is None:
                raise NotFoundError(f"User with name <{name}> not found")
            plan = Plan(
                [Guard(user.key, user.revision)],
                [
                    Delete(user.key),
                    *(Delete(keys.identity(id, colony.tag)) for id in all_ids(user.record)),
                    *mark(colony.tag, all_ids(user.record)),
                ],
            )
            return self._trail.joined(plan, colony.tag, Changed.USER_REMOVED, name, warrant)

        await self._trail.apply(colony.tag, decide)


def find_executor(colony: Colony, name: str) -> Executor:
    """An executor by name. Raises `NotFoundError`, `AccessError` for a colony that is gone."""
    check_there(colony)
    executor = colony.executors.get(name)
    if executor is None:
        raise NotFoundError(f"Executor with name <{name}> not found, executor is nil")
    return executor


def check_id_free(colony: Colony, id: str, but: Executor | None = None) -> None:
    """Raise `ExistsError` when the id is, or was, that of another member than `but`."""
    member = colony.holder(id)
    if member is not None and member is not but:
        raise ExistsError(f"That id is <{member.name}> already in Colony <{colony.record.name}>")


def _may_hold(colony: Colony, id: str) -> bool:
    """Whether work may be assigned to whoever has, or had, this id."""
    holder = colony.holder(id)
    return isinstance(holder, Executor) and holder.record.state != ExecutorState.UNREGISTERED


def _put(executor: Executor, record: ExecutorRecord) -> Plan:
    return Plan([Guard(executor.key, executor.revision)], [Put(executor.key, encode(record))])


def _record(wanted: wire.Executor, now_ns: int) -> ExecutorRecord:
    return ExecutorRecord(
        id=wanted.executorid,
        type=wanted.executortype,
        state=ExecutorState.PENDING,
        commissioned_ns=now_ns,
        location=wanted.locationname or "",
        requires_functions=wanted.requirefuncreg,
        capabilities=wanted.capabilities,
        allocations=wanted.allocations,
        blueprint=wanted.blueprintid or "",
        blueprint_generation=wanted.blueprintgen or 0,
        is_sealed=wanted.sealed is True,
    )
