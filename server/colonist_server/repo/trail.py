"""Who changed what about a colony's members, owner and pause: one record a change (S16).

A record is written in the commit that has the effect, with the signed request that asked for it, so
whoever reads it can check the signature against the id. Records go with their colony.

They are a chain, as a process's events are: each holds the hash of the one before, and its head is
a key that every change guards and writes. So the changes of one colony are made one after the
other; those of this node wait for each other here, lest they lose races.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from colonist_core.process import MILLISECOND_NS, SERVER, Cause
from colonist_protocol import codec
from colonist_protocol.audit import colony_chain
from colonist_protocol.colony import MAX_CHANGES, MemberChange
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.identity import digest
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import (
    ChangeRecord,
    TrailRecord,
    decode_change,
    decode_trail,
    encode,
)
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Guard, Put, Revision

KEPT_PAYLOAD_BYTES: Final = 65_536
"""A longer request is kept by its digest alone: a page of records must stay small."""


class Changed(StrEnum):
    """What may be changed. The words stand in the store and on the wire."""

    COLONY_ADDED = "colony_added"
    COLONY_ID = "colony_id_changed"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXECUTOR_ADDED = "executor_added"
    EXECUTOR_AGAIN = "executor_reregistered"
    EXECUTOR_APPROVED = "executor_approved"
    EXECUTOR_REJECTED = "executor_rejected"
    EXECUTOR_REMOVED = "executor_removed"
    EXECUTOR_ID = "executor_id_changed"
    EXECUTOR_ENROLLED = "executor_enrolled"
    CLAIM_ADDED = "claim_added"
    CLAIM_REMOVED = "claim_removed"
    POLICY = "policy_changed"
    USER_ADDED = "user_added"
    USER_REMOVED = "user_removed"
    USER_ID = "user_id_changed"
    FORGOTTEN = "history_forgotten"
    RESULT_RECORDED = "result_recorded"


class Receipt:
    """The hash of the event that a request caused, as soon as there is one."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = b""


class Warrant(NamedTuple):
    """The request behind a change: who signed it and its JSON; empty: the server's own doing.

    `receipt` is told of the event.
    """

    cause: Cause = SERVER
    payload: bytes = b""
    receipt: Receipt | None = None

    @property
    def event(self) -> bytes:
        """The hash of the event that it caused; empty: of none."""
        return self.receipt.event if self.receipt is not None else b""


class Trail:
    """The records of all colonies."""

    __slots__ = ("_clock", "_heads", "_turns", "_writes", "on_change")

    def __init__(self, writes: Writes, clock: Clock) -> None:
        self._writes = writes
        self._clock = clock
        self._heads: dict[bytes, tuple[TrailRecord, Revision]] = {}
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self.on_change: Callable[[bytes], None] | None = None
        """Told of the tag of a colony whose chain went on: no awaits."""
        writes.view.hold(keys.TRAIL, self._apply, self._held)

    # -- writing

    async def apply(self, tag: bytes, decide: Callable[[], Plan]) -> Revision:
        """As `Writes.apply`, for what `joined` made; one after the other."""
        turn = self._turns.setdefault(tag, asyncio.Lock())
        async with turn:
            return await self._writes.apply(decide)

    def joined(
        self, plan: Plan, tag: bytes, what: Changed, name: str, warrant: Warrant, *, about: int = 0
    ) -> Plan:
        """The plan of a change, with what is to be written beside its effect."""
        before, revision = self._heads.get(tag, (TrailRecord(), 0))
        cause, payload, receipt = warrant
        now_ns = max(self._clock.now_ns(), before.time_ns + 1)
        record = ChangeRecord(
            what=what,
            name=name,
            time_ns=now_ns,
            by=bytes.fromhex(cause.who),
            digest=cause.digest,
            signature=cause.signature,
            payload=payload if len(payload) <= KEPT_PAYLOAD_BYTES else b"",
            seal=cause.seal,
            n=before.count,
            prev=before.head,
            about=about,
        )
        head = event_hash(line_of(tag, record))
        if receipt is not None:
            receipt.event = head
        mark = cause.digest or digest(f"{what} {name}".encode())
        return Plan(
            [*plan.guards, Guard(keys.trail(tag), revision)],
            [
                *plan.ops,
                Put(keys.change(tag, now_ns, mark), encode(record)),
                Put(keys.trail(tag), encode(TrailRecord(before.count + 1, head, now_ns))),
            ],
        )

    # -- reading

    def head(self, tag: bytes) -> TrailRecord:
        """Where the chain of a colony ends."""
        return self._heads.get(tag, (TrailRecord(), 0))[0]

    def revision(self, tag: bytes) -> Revision:
        """Another one after each change of members, owner, pause or policy; equal at all nodes."""
        return self._heads.get(tag, (TrailRecord(), 0))[1]

    def changed_since(self, tag: bytes, revision: Revision) -> bool:
        """Whether the chain of a colony went on after a revision."""
        return self._heads.get(tag, (TrailRecord(), 0))[1] > revision

    async def read(
        self, colony: Colony, *, count: int, since_ns: int, before_ns: int
    ) -> list[MemberChange]:
        """Up to `MAX_CHANGES` of a colony's records between two times, newest first."""
        after = keys.changes_before(colony.tag, before_ns) if before_ns > 0 else b""
        page = await self._writes.range(
            keys.changes(colony.tag), after=after, limit=min(count, MAX_CHANGES)
        )
        records = [decode_change(item.value) for item in page.items]
        return [_shown(record) for record in records if record.time_ns > since_ns]

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        tag = key[len(keys.TRAIL) :]
        if revision <= self._heads.get(tag, (None, 0))[1]:
            return
        if value is None:
            self._heads.pop(tag, None)
        else:
            self._heads[tag] = (decode_trail(value), revision)
            if self.on_change is not None:
                self.on_change(tag)

    def _held(self) -> set[bytes]:
        return {keys.trail(tag) for tag in self._heads}


def line_of(tag: bytes, record: ChangeRecord) -> EventLine:
    """The event that a record is in its colony's chain."""
    return EventLine(
        chain=colony_chain(tag.hex()),
        n=record.n,
        what=record.what,
        who=record.by.hex(),
        attempt=record.about,
        time=record.time_ns // MILLISECOND_NS,
        req=record.digest.hex(),
        sig=record.signature.hex(),
        prev=record.prev.hex(),
    )


def _shown(record: ChangeRecord) -> MemberChange:
    return MemberChange(
        what=record.what,
        name=record.name,
        by=record.by.hex(),
        timestamp=record.time_ns,
        digest=record.digest.hex(),
        signature=record.signature.hex(),
        payload=codec.to_base64(record.payload),
        seal=codec.to_base64(record.seal),
    )
