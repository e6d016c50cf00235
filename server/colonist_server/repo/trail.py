"""Who changed what about a colony's members, owner and pause: one record a change (S16).

A record is written in the commit that has the effect, with the signed request that asked for it, so
whoever reads it can check the signature against the id. Keys hold time and digest, so writers share
no counter. Records go with their colony, or by age where the server is set so.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from colonist_core.process import SERVER, Cause
from colonist_protocol import codec
from colonist_protocol.colony import MAX_CHANGES, MemberChange
from colonist_protocol.identity import digest
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import ChangeRecord, decode_change, encode
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Put

KEPT_PAYLOAD_BYTES: Final = 16_384
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
    USER_ADDED = "user_added"
    USER_REMOVED = "user_removed"
    USER_ID = "user_id_changed"


class Warrant(NamedTuple):
    """The request behind a change: who signed it and its JSON; empty: the server's own doing."""

    cause: Cause = SERVER
    payload: bytes = b""


class Trail:
    """The records of all colonies."""

    __slots__ = ("_clock", "_writes")

    def __init__(self, writes: Writes, clock: Clock) -> None:
        self._writes = writes
        self._clock = clock

    def entry(self, tag: bytes, what: Changed, name: str, warrant: Warrant) -> Put:
        """What to write beside the effect."""
        cause, payload = warrant
        now_ns = self._clock.now_ns()
        record = ChangeRecord(
            what=what,
            name=name,
            time_ns=now_ns,
            by=bytes.fromhex(cause.who),
            digest=cause.digest,
            signature=cause.signature,
            payload=payload if len(payload) <= KEPT_PAYLOAD_BYTES else b"",
        )
        mark = cause.digest or digest(f"{what} {name}".encode())
        return Put(keys.change(tag, now_ns, mark), encode(record))

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


def _shown(record: ChangeRecord) -> MemberChange:
    return MemberChange(
        what=record.what,
        name=record.name,
        by=record.by.hex(),
        timestamp=record.time_ns,
        digest=record.digest.hex(),
        signature=record.signature.hex(),
        payload=codec.to_base64(record.payload),
    )
