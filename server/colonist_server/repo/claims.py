"""Claims: who may become an executor without having been added by name.

The store knows a claim by the id of its key, never by its code. Each enrolment writes the claim's
record, guarded, so that no more come by it than may, however many nodes they come to at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import msgspec

from colonist_protocol.claims import NAME_CHARS, Approval
from colonist_protocol.errors import (
    AccessError,
    BusyError,
    ConflictError,
    ExistsError,
    NotFoundError,
)
from colonist_protocol.executor import ExecutorState
from colonist_server.repo import keys, once
from colonist_server.repo.clock import Clock
from colonist_server.repo.colonies import check_there
from colonist_server.repo.freshness import Freshness
from colonist_server.repo.gone import Gone
from colonist_server.repo.members import Members
from colonist_server.repo.nouns import Colony, Executor
from colonist_server.repo.records import ClaimRecord, ExecutorRecord, decode_claim, encode
from colonist_server.repo.trail import Changed, Trail, Warrant
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Delete, Guard, Put, Revision

MAX_CLAIMS: Final = 1000
"""Of one colony."""
_EVENT_BYTES: Final = 8

log = logging.getLogger(__name__)


class _There(Exception):  # noqa: N818 - no error: the way out of a decision
    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self.executor = executor


def removed_at(colony: Colony, value: bytes) -> int:
    """Which event removed a claim, by the record of the request; 0: none of this colony's."""
    tag, n = value[:-_EVENT_BYTES], value[-_EVENT_BYTES:]
    return int.from_bytes(n, "big") if tag == colony.tag else 0


class Claims:
    """The claims of all colonies, and what becomes of them."""

    __slots__ = ("_claims", "_clock", "_freshness", "_members", "_trail", "gone")

    def __init__(
        self,
        writes: Writes,
        clock: Clock,
        trail: Trail,
        *,
        members: Members,
        freshness: Freshness,
    ) -> None:
        self._clock = clock
        self._trail = trail
        self._members = members
        self._freshness = freshness
        self._claims: dict[bytes, tuple[ClaimRecord, Revision]] = {}
        self.gone: Gone = members.gone
        writes.view.hold(keys.CLAIM, self._apply, self._held)

    def find(self, tag: bytes, claim: str) -> ClaimRecord | None:
        """A colony's claim, if there is one."""
        return self._claims.get(keys.claim(tag, claim), (None, 0))[0]

    def of(self, tag: bytes) -> Iterator[tuple[str, ClaimRecord]]:
        """The claims of a colony, with their ids."""
        start = keys.CLAIM + tag
        for key, (record, _) in sorted(self._claims.items()):
            if key.startswith(start):
                yield key[len(start) :].hex(), record

    async def add(self, colony: Colony, claim: str, record: ClaimRecord, warrant: Warrant) -> None:
        """Let executors enrol by a claim. Raises `ExistsError`, `BusyError`."""
        key = keys.claim(colony.tag, claim)

        def decide() -> Plan:
            check_there(colony)
            if key in self._claims:
                raise ExistsError("that claim is there already")
            if sum(1 for _ in self.of(colony.tag)) >= MAX_CLAIMS:
                raise BusyError(f"more than {MAX_CLAIMS} claims: remove those that have ended")
            plan = Plan(
                [Guard(colony.key, colony.revision), Guard(key, 0)], [Put(key, encode(record))]
            )
            return self._trail.joined(plan, colony.tag, Changed.CLAIM_ADDED, claim, warrant)

        await self._trail.apply(colony.tag, decide)

    async def remove(self, colony: Colony, claim: str, warrant: Warrant) -> int:
        """Let nobody enrol by it any more: which event of the colony's chain that was.

        The record of a sealed request says it too: the same code may be opened again later, and who
        comes by it then is none of this request's. Raises `ConflictError` for a claim that is not
        there.
        """
        key = keys.claim(colony.tag, claim)
        n = 0

        def decide() -> Plan:
            nonlocal n
            revision = self._claims.get(key, (None, 0))[1]
            if not revision:
                raise ConflictError("there is no such claim; it may have been removed before")
            n = self._trail.head(colony.tag).count
            once.say(colony.tag + n.to_bytes(_EVENT_BYTES, "big"))
            plan = Plan([Guard(key, revision)], [Delete(key)])
            return self._trail.joined(plan, colony.tag, Changed.CLAIM_REMOVED, claim, warrant)

        await self._trail.apply(colony.tag, decide)
        return n

    async def remove_who_came(
        self, colony: Colony, claim: str, before: int, warrant: Warrant
    ) -> None:
        """Remove all who enrolled by a claim before that event of the chain. May be repeated.

        The request that removed the claim stands beside each removal.
        """
        warrant = warrant._replace(receipt=None)  # which is for the claim's own
        await self._freshness.fresh()
        for executor in list(colony.executors.values()):
            record = executor.record
            is_meant = record.claim == claim and record.enrolled_n < before
            if is_meant and not record.is_removed:
                await self._members.remove_executor(colony, executor.name, warrant)

    async def enrol(
        self, colony: Colony, claim: str, id: str, hw: str, warrant: Warrant
    ) -> Executor:
        """The executor of that id, made by the claim if it is not there yet.

        Raises `ConflictError` where the claim has ended or is used up, or the id may not enrol.
        """

        def decide() -> Plan:
            check_there(colony)
            self._check_known(colony, id, hw)
            if id == claim or self.gone.has(colony.tag, id):
                raise ConflictError("this key may not enrol: it was in use before. Make another")
            return self._enrolled(colony, claim, id, hw, warrant)

        try:
            await self._trail.apply(colony.tag, decide)
        except _There as found:
            return found.executor
        executor = colony.members.get(id)
        if not isinstance(executor, Executor):
            raise ConflictError("this key was removed as soon as it had enrolled")
        log.info("enrolled executor=%s colony=%s", executor.name, colony.record.name)
        return executor

    def enrolled(self, colony: Colony, id: str, hw: str) -> Executor:
        """The executor of that id, which has enrolled before. Nothing is made.

        Raises `ConflictError` where the id may not enrol, `NotFoundError`.
        """
        try:
            self._check_known(colony, id, hw)
        except _There as found:
            return found.executor
        raise NotFoundError("this key is no executor of the colony any more")

    def _check_known(self, colony: Colony, id: str, hw: str) -> None:
        """Raise `_There` for an executor that may say it again, `ConflictError` for others."""
        member = colony.holder(id)
        if member is None:
            return
        if not isinstance(member, Executor) or member.record.id != id:
            raise ConflictError("this key may not enrol: it is, or was, another member's")
        if member.record.state in (ExecutorState.REJECTED, ExecutorState.UNREGISTERED):
            raise ConflictError("this executor was rejected or removed: make another key")
        if member.record.claim and member.record.hw != hw:
            raise ConflictError("this key has enrolled from other hardware: make another key")
        raise _There(member)

    def _enrolled(self, colony: Colony, claim: str, id: str, hw: str, warrant: Warrant) -> Plan:
        now_ns = self._clock.now_ns()
        claim_key = keys.claim(colony.tag, claim)
        record, revision = self._claims.get(claim_key, (None, 0))
        if record is None:
            raise AccessError("Access denied, no such claim")
        if now_ns >= record.ends_ns:
            raise ConflictError("the claim has ended: ask the colony's owner for another")
        if record.used >= record.count:
            raise ConflictError(f"the claim was for {record.count}, and that many have enrolled")
        name = _free_name(colony, record.type, id)
        key = keys.executor(colony.tag, name)
        identity = keys.identity(id, colony.tag)
        is_approved = record.approval == Approval.AT_ONCE
        executor = ExecutorRecord(
            id=id,
            type=record.type,
            state=ExecutorState.APPROVED if is_approved else ExecutorState.PENDING,
            commissioned_ns=now_ns,
            is_sealed=True,
            hw=hw,
            claim=claim,
            enrolled_n=self._trail.head(colony.tag).count,
        )
        plan = Plan(
            [
                Guard(claim_key, revision),
                Guard(colony.key, colony.revision),
                Guard(key, 0),
                Guard(identity, 0),
                Guard(keys.gone(colony.tag, id), 0),
            ],
            [
                Put(claim_key, encode(msgspec.structs.replace(record, used=record.used + 1))),
                Put(key, encode(executor)),
                Put(identity, name.encode()),
            ],
        )
        return self._trail.joined(plan, colony.tag, Changed.EXECUTOR_ENROLLED, name, warrant)

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        if revision <= self._claims.get(key, (None, 0))[1]:
            return
        if value is None:
            self._claims.pop(key, None)
        else:
            self._claims[key] = (decode_claim(value), revision)

    def _held(self) -> set[bytes]:
        return set(self._claims)


def _free_name(colony: Colony, type: str, id: str) -> str:
    """The shortest that is free; an id's whole is nobody else's."""
    names = [f"{type}-{id[:chars]}" for chars in NAME_CHARS]
    return next((name for name in names if name not in colony.executors), names[-1])
