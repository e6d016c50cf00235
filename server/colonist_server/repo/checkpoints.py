"""Signed checkpoints of a colony: which heads its chains had, one numbered after the other.

The newest is named by a key that each next one guards and writes, so two nodes can never both write
number k. What is stored is packed; the line that was signed is rendered from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from colonist_core.process import MILLISECOND_NS
from colonist_protocol import audit, codec
from colonist_protocol.tokens import ServerKeys
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import (
    CheckpointRecord,
    NewestRecord,
    decode_checkpoint,
    decode_newest,
    encode,
)
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import Guard, Item, Put, Range, Revision

T = TypeVar("T")

MAX_HEADS: Final = 1_000
"""In one checkpoint: about 3 ms of work, and 64 KB."""

_TOGETHER: Final = 8
_ID_BYTES: Final = keys.PID_BYTES - keys.TAG_BYTES
_N_BYTES: Final = 4
_HASH_BYTES: Final = 32
_HEAD_BYTES: Final = _ID_BYTES + _N_BYTES + _HASH_BYTES

Heads = Mapping[bytes, tuple[int, bytes]]
"""By chain: the number of the newest event, and its hash."""


class Signed(NamedTuple):
    """A checkpoint as it is exported."""

    k: int
    line: str
    signature: str

    @property
    def lines(self) -> tuple[str, str]:
        """The two lines of it."""
        mark = audit.CheckpointSignature(k=self.k, sig=self.signature)
        return self.line, codec.encode(mark).decode()


class Checkpoints:
    """Writes and reads checkpoints."""

    __slots__ = ("_clock", "_newest", "_server_keys", "_writes", "is_writing")

    def __init__(self, writes: Writes, server_keys: ServerKeys, clock: Clock) -> None:
        self._writes = writes
        self._server_keys = server_keys
        self._clock = clock
        self._newest: dict[bytes, tuple[NewestRecord, Revision]] = {}
        self.is_writing = False
        """Whether something was taken to be signed that is not stored yet."""
        writes.view.hold(keys.NEWEST_CHECKPOINT, self._apply, self._held)

    def newest(self, tag: bytes) -> NewestRecord:
        """The newest one, as far as is known here; number 0: there is none."""
        return self._at(tag)[0]

    # -- writing

    async def write(
        self, colony: Colony, heads: Heads, *, through: Revision | None, era: str
    ) -> bool:
        """Sign what changed, in as many parts as it takes; False where another node was faster.

        All that changed up to `through` must be in `heads` or in an earlier checkpoint; None: there
        is more. Raises `UnavailableError`.
        """
        self.is_writing = True
        try:
            return await self._write(colony, heads, through, era)
        finally:
            self.is_writing = False

    async def _write(
        self, colony: Colony, heads: Heads, through: Revision | None, era: str
    ) -> bool:
        order = sorted(heads)
        before = self.newest(colony.tag)
        time_ms = max(self._clock.now_ns() // MILLISECOND_NS, before.time_ms + 1)
        for start in range(0, len(order), MAX_HEADS):
            part = order[start : start + MAX_HEADS]
            is_last = start + MAX_HEADS >= len(order)
            packed = pack(part, heads)
            reached = through if is_last else None
            if not await self._write_part(colony, packed, time_ms, reached, era):
                return False
        return True

    async def _write_part(
        self, colony: Colony, heads: bytes, time_ms: int, reached: Revision | None, era: str
    ) -> bool:
        before, revision = self._at(colony.tag)
        k = before.k + 1
        whole, whole_ms = (k, time_ms) if reached is not None else (before.whole, before.whole_ms)
        through = before.through if before.era == era else 0
        if reached is not None:
            through = reached
        line = _render(colony, k, CheckpointRecord(before.digest, time_ms, heads, b"", 0))
        signature = self._server_keys.current.identity.sign(audit.checkpoint_text(line))
        record = CheckpointRecord(before.digest, time_ms, heads, bytes.fromhex(signature), through)
        digest = audit.checkpoint_digest(line)
        newest = NewestRecord(k, digest, time_ms, through, era, before.forgotten, whole, whole_ms)
        guards = [
            Guard(keys.newest_checkpoint(colony.tag), revision),
            Guard(colony.key, colony.revision),
        ]
        ops = [
            Put(keys.newest_checkpoint(colony.tag), encode(newest)),
            Put(keys.checkpoint(colony.tag, k), encode(record)),
        ]
        if await self._writes.commit(guards, ops) is not None:
            return True
        await self._writes.refresh([guard.key for guard in guards])
        return False

    # -- reading

    async def page(self, colony: Colony, *, after: int, limit: int) -> tuple[list[Signed], bool]:
        """Those behind a number, in order; and whether there are more."""
        after = max(after, self.newest(colony.tag).forgotten)
        page = await self.stored(colony, after=after, limit=limit)
        return [signed(colony, item) for item in page.items], page.more

    async def stored(self, colony: Colony, *, after: int = 0, limit: int) -> Range:
        """As they are stored, those too that are about to be deleted."""
        return await self._writes.past.range(
            keys.checkpoints(colony.tag), after=keys.checkpoint(colony.tag, after), limit=limit
        )

    async def first_since(self, colony: Colony, time_ms: int) -> int:
        """The first that is not older, else the newest; times grow with numbers."""
        page = await self._writes.past.range(keys.checkpoints(colony.tag), limit=1, keys_only=True)
        first = keys.number_of_checkpoint(page.items[0].key) if page.items else audit.FIRST_K
        last = self.newest(colony.tag).k
        while first < last:
            middle = (first + last) // 2
            item = await self._writes.past.read(keys.checkpoint(colony.tag, middle))
            if item is not None and decode_checkpoint(item.value).time_ms >= time_ms:
                last = middle
            else:
                first = middle + 1
        return first

    async def drop_named(self, colony: Colony, marks: dict[bytes, T], *, after: int) -> None:
        """Take out the heads, packed, that stored checkpoints behind a number name."""
        more = bool(marks) and after < self.newest(colony.tag).k
        while more:
            page = await self.stored(colony, after=after, limit=_TOGETHER)
            for item in page.items:
                after = keys.number_of_checkpoint(item.key)
                packed = decode_checkpoint(item.value).heads
                for at in range(0, len(packed), _HEAD_BYTES):
                    marks.pop(packed[at : at + _HEAD_BYTES], None)
                await asyncio.sleep(0)
            more = page.more and bool(page.items) and bool(marks)

    # -- forgetting

    def forgetting(self, colony: Colony, plan: Plan, last: int) -> Plan:
        """The plan of the commit from which on those up to a number are told no more."""
        newest, revision = self._at(colony.tag)
        key = keys.newest_checkpoint(colony.tag)
        record = msgspec.structs.replace(newest, forgotten=last)
        return Plan([*plan.guards, Guard(key, revision)], [*plan.ops, Put(key, encode(record))])

    async def forgotten_ns(self, colony: Colony) -> int:
        """What ended before may be forgotten with all its evidence; 0: nothing is forgotten yet.

        That is when the first checkpoint was made that is told still. It never goes back.
        """
        newest = await self._writes.read(keys.newest_checkpoint(colony.tag))
        last = decode_newest(newest.value).forgotten if newest is not None else 0
        page = await self.stored(colony, after=last, limit=1) if last else None
        if page is None or not page.items:
            return 0
        return decode_checkpoint(page.items[0].value).time_ms * MILLISECOND_NS

    async def forgotten_heads(self, colony: Colony) -> set[tuple[bytes, int]]:
        """Chains and numbers in those that are told no more and not yet deleted."""
        last = self.newest(colony.tag).forgotten
        found: set[tuple[bytes, int]] = set()
        after = 0
        more = last > 0
        while more:
            page = await self.stored(colony, after=after, limit=_TOGETHER)
            for item in page.items:
                after = keys.number_of_checkpoint(item.key)
                if after > last:
                    return found
                packed = decode_checkpoint(item.value).heads
                found.update((chain, n) for chain, n, _ in unpack(colony.tag, packed))
            more = page.more and bool(page.items)
        return found

    def _at(self, tag: bytes) -> tuple[NewestRecord, Revision]:
        return self._newest.get(tag, (NewestRecord(), 0))

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        tag = key[len(keys.NEWEST_CHECKPOINT) :]
        if revision <= self._at(tag)[1]:
            return
        if value is None:
            self._newest.pop(tag, None)
        else:
            self._newest[tag] = (decode_newest(value), revision)

    def _held(self) -> set[bytes]:
        return {keys.newest_checkpoint(tag) for tag in self._newest}


def signed(colony: Colony, item: Item) -> Signed:
    """A stored checkpoint as it was signed."""
    record = decode_checkpoint(item.value)
    k = keys.number_of_checkpoint(item.key)
    return Signed(k, _render(colony, k, record), record.signature.hex())


def pack(order: Sequence[bytes], heads: Heads) -> bytes:
    """Heads of one colony in the order given."""
    return b"".join(
        chain[keys.TAG_BYTES :] + n.to_bytes(_N_BYTES, "big") + hash
        for chain, (n, hash) in ((chain, heads[chain]) for chain in order)
    )


def unpack(tag: bytes, packed: bytes) -> list[tuple[bytes, int, bytes]]:
    """What `pack` packed."""
    found: list[tuple[bytes, int, bytes]] = []
    for at in range(0, len(packed), _HEAD_BYTES):
        one = packed[at : at + _HEAD_BYTES]
        n = int.from_bytes(one[_ID_BYTES : _ID_BYTES + _N_BYTES], "big")
        found.append((tag + one[:_ID_BYTES], n, one[_ID_BYTES + _N_BYTES :]))
    return found


def _render(colony: Colony, k: int, record: CheckpointRecord) -> str:
    line = audit.Checkpoint(
        colony=colony.record.name,
        k=k,
        prev=record.prev.hex(),
        time=record.time_ms,
        heads=tuple(
            (chain.hex(), n, hash.hex()) for chain, n, hash in unpack(colony.tag, record.heads)
        ),
    )
    return codec.encode(line).decode()
