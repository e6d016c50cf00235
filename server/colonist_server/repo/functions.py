"""Functions that executors announce, and their tallies."""

from __future__ import annotations

import hashlib

import msgspec

from colonist_protocol.errors import AccessError, NotFoundError
from colonist_protocol.function import Function as WireFunction
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony, Executor, Function, User
from colonist_server.repo.records import FunctionRecord, encode
from colonist_server.repo.view import View
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Delete, Guard, Put, Revision


class Functions:
    """What happens to functions."""

    __slots__ = ("_view", "_writes")

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._view: View = writes.view

    async def add(self, colony: Colony, executor: Executor, wanted: WireFunction) -> Function:
        """Announce a function; announcing it again changes its text and keeps its tally."""
        key = keys.function(colony.tag, executor.name, wanted.funcname)

        def decide() -> Plan:
            before = colony.functions.get(key)
            record = FunctionRecord(
                id=function_id(key),
                executor=executor.name,
                name=wanted.funcname,
                description=wanted.description or "",
                args=tuple(wanted.args or ()),
                through=self._writes.store.revision,  # what ran before does not count
            )
            if before is not None:
                record = msgspec.structs.replace(
                    record, tally=before.record.tally, through=before.record.through
                )
            return Plan(
                [
                    Guard(key, before.revision if before else 0),
                    Guard(executor.key, executor.revision),
                ],
                [Put(key, encode(record))],
            )

        await self._writes.apply(decide)
        return colony.functions[key]

    async def remove(self, colony: Colony, function: Function, caller: str) -> None:
        """Withdraw a function. Raises `NotFoundError`, `AccessError`."""

        def decide() -> Plan:
            current = colony.functions.get(function.key)
            if current is None:
                raise NotFoundError("Failed to remove function, function does not exist")
            executor = colony.executors[current.record.executor]
            if executor.record.id != caller or not executor.is_approved:
                raise AccessError("Not allowed to remove a function from another executor")
            return Plan(
                [
                    Guard(current.key, current.revision),
                    Guard(executor.key, executor.revision),
                ],
                [Delete(current.key)],
            )

        await self._writes.apply(decide)

    def find(self, caller: str, id: str) -> tuple[Colony, Executor | User, Function]:
        """A function, and the caller as a member of its colony. Raises `NotFoundError`.

        Only in the caller's colonies, so that ids of others stay unknown.
        """
        for colony in self._view.colonies.values():
            member = colony.members.get(caller)
            if member is None or (isinstance(member, Executor) and not member.is_approved):
                continue
            for function in colony.functions.values():
                if function.record.id == id:
                    return colony, member, function
        raise NotFoundError("Failed to remove function, function does not exist")

    async def fold(self) -> None:
        """Store the tallies that changed, with the revision up to which they are counted."""
        plans = [
            Plan([Guard(function.key, function.revision)], [Put(function.key, encode(record))])
            for colony in self._view.colonies.values()
            for function in colony.functions.values()
            if function.tally != function.record.tally
            for record in [_folded(function, self._counted_in(colony))]
        ]
        for plan in plans:
            await self._writes.commit(plan.guards, plan.ops)

    def _counted_in(self, colony: Colony) -> Revision:
        """Up to where runs are counted: by the watch, or further, by a load just before."""
        return max(self._view.counted_revision, colony.counted_at[State.SUCCESS])


def _folded(function: Function, through: int) -> FunctionRecord:
    return msgspec.structs.replace(function.record, tally=function.tally, through=through)


def function_id(key: bytes) -> str:
    """The id of a function: the same for the same name at the same executor."""
    return hashlib.sha3_256(key).hexdigest()
