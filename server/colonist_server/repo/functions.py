"""Functions that executors announce, and their tallies."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import msgspec

from colonist_core.function import Tally
from colonist_protocol.errors import AccessError, BusyError, NotFoundError, TooLargeError
from colonist_protocol.function import Function as WireFunction
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.budget import (
    MAX_ALL_FUNCTION_BYTES,
    MAX_FUNCTION_BYTES,
    MAX_FUNCTIONS,
)
from colonist_server.repo.nouns import Announced, Colony, Executor, Function, User
from colonist_server.repo.records import FunctionRecord, encode, function_size
from colonist_server.repo.view import View
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Delete, Guard, Put, Revision

_REMEDY: Final = "remove some (removefunctionmsg), or say less of each"


class Functions:
    """What happens to functions."""

    __slots__ = ("_coming", "_view", "_writes")

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._coming: dict[tuple[bytes, str], Announced] = {}
        """What is about to be announced, by tag and executor, and by tag alone."""
        self._view: View = writes.view

    async def add(self, colony: Colony, executor: Executor, wanted: WireFunction) -> Function:
        """Announce a function; announcing it again changes its text and keeps its tally.

        Raises `TooLargeError`, `BusyError` where the colony holds no more.
        """
        key = keys.function(colony.tag, executor.name, wanted.funcname)
        announced = FunctionRecord(
            id=function_id(key),
            executor=executor.name,
            name=wanted.funcname,
            description=wanted.description or "",
            args=tuple(wanted.args or ()),
        )

        def decide() -> Plan:
            before = colony.functions.get(key)
            known = before.record if before is not None else None
            record = msgspec.structs.replace(
                announced,
                tally=known.tally if known is not None else Tally(),
                # What ran before does not count.
                through=known.through if known is not None else self._writes.store.revision,
            )
            return Plan(
                [
                    Guard(key, before.revision if before else 0),
                    Guard(executor.key, executor.revision),
                ],
                [Put(key, encode(record))],
            )

        with self._room(colony, key, announced):
            await self._writes.apply(decide)
        return colony.functions[key]

    @contextmanager
    def _room(self, colony: Colony, key: bytes, record: FunctionRecord) -> Generator[None]:
        """Keep the room that a function needs until it is in the view, or refuse it."""
        before = colony.functions.get(key)
        count = 0 if before is not None else 1
        size = max(0, function_size(record) - (before.size if before is not None else 0))
        if not count and not size:
            yield
            return
        self._check_room(colony, record.executor, count, size)
        places = ((colony.tag, record.executor), (colony.tag, ""))
        for place in places:
            self._coming.setdefault(place, Announced()).add(count, size)
        try:
            yield
        finally:
            for place in places:
                coming = self._coming[place]
                coming.add(-count, -size)
                if coming == Announced():
                    del self._coming[place]

    def _check_room(self, colony: Colony, executor: str, count: int, size: int) -> None:
        own = colony.announced_by.get(executor, Announced())
        coming = self._coming.get((colony.tag, executor), Announced())
        if own.count + coming.count + count > MAX_FUNCTIONS:
            raise TooLargeError(f"the executor has {MAX_FUNCTIONS} functions already: {_REMEDY}")
        if own.size + coming.size + size > MAX_FUNCTION_BYTES:
            raise TooLargeError(
                f"the executor's functions would take over {MAX_FUNCTION_BYTES} bytes: {_REMEDY}"
            )
        coming = self._coming.get((colony.tag, ""), Announced())
        if colony.announced.size + coming.size + size > MAX_ALL_FUNCTION_BYTES:
            raise BusyError(
                "the functions of the colony's executors would take over"
                f" {MAX_ALL_FUNCTION_BYTES} bytes: {_REMEDY}"
            )

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
