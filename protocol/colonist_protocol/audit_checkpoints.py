"""The checkpoints of an audit file: numbered without a gap, bound to each other, signed.

What they say of chains is given away as records of fixed length, whose order as bytes is that of
chain and n: `HEAD_BYTES` of chain (32), n (8), k (8), hash (32). A verifier sorts them, on disk if
need be, and holds them against the chains.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from colonist_protocol.audit import (
    FIRST_K,
    MAX_HEADS,
    VERSION,
    Checkpoint,
    CheckpointSignature,
    Head,
    checkpoint_digest,
)
from colonist_protocol.audit_reading import (
    MAX_N,
    AuditError,
    Servers,
    check_chain_id,
    read,
    signer,
)
from colonist_protocol.identity import is_id

HEAD_BYTES: Final = 80
KEY_BYTES: Final = 40


class HeadRecord(NamedTuple):
    """What a checkpoint says of a chain: that event `n` has this hash."""

    key: bytes
    k: int
    hash: str

    @property
    def chain(self) -> str:
        """The chain's id."""
        return self.key[:32].hex()

    @property
    def n(self) -> int:
        """The number of the event."""
        return int.from_bytes(self.key[32:], "big")


def head_key(chain: str, n: int) -> bytes:
    """What records of this event begin with."""
    return bytes.fromhex(chain) + n.to_bytes(8, "big")


def pack_head(head: Head, k: int) -> bytes:
    """The record of what checkpoint `k` says."""
    chain, n, hash = head
    return head_key(chain, n) + k.to_bytes(8, "big") + bytes.fromhex(hash)


def unpack_head(record: bytes) -> HeadRecord:
    """What `pack_head` packed."""
    k = int.from_bytes(record[KEY_BYTES : KEY_BYTES + 8], "big")
    return HeadRecord(record[:KEY_BYTES], k, record[KEY_BYTES + 8 :].hex())


class CheckpointWalk:
    """Goes through the checkpoints of a file, or a stretch of them, line by line.

    `before` is the line of the checkpoint before the stretch. Positions are those of lines taken.
    """

    def __init__(self, colony: str, tag: str, servers: Servers, before: bytes | None) -> None:
        """Raises `AuditError` when the line before is no checkpoint."""
        self._colony = colony
        self._tag = tag
        self._servers = servers
        self._open: tuple[Checkpoint, bytes] | None = None
        self._before: Checkpoint | None = None
        self._digest = b""
        self.continued: list[int] = []
        """The k that belong to the checkpoint before: it was too long for one line."""
        self.first_k = 0
        self.first_time = 0
        self.signer = -1
        """Which of the server keys signed the last one."""
        self.count = 0
        if before is not None:
            self._before = read(before, Checkpoint, "checkpoint")
            self._digest = _digest(before)

    @property
    def last(self) -> Checkpoint | None:
        """The newest that was taken."""
        return self._before

    def finish(self) -> None:
        """There are no more. Raises `AuditError` when the last one's signature is missing."""
        if self._open is not None:
            raise AuditError(f"the signature of checkpoint {self._open[0].k} is missing")

    def take(self, line: bytes) -> Sequence[bytes]:
        """The next line; the records of the checkpoint that it completes. Raises `AuditError`."""
        if self._open is None:
            self._open = self._read(line), _digest(line)
            return ()
        checkpoint, digest = self._open
        self._sign(line, checkpoint, digest)
        if self._before is not None and self._before.time == checkpoint.time:
            self.continued.append(checkpoint.k)
        if not self.count:
            self.first_k, self.first_time = checkpoint.k, checkpoint.time
        self._open, self._before, self._digest = None, checkpoint, digest
        self.count += 1
        return [pack_head(head, checkpoint.k) for head in checkpoint.heads]

    def _read(self, line: bytes) -> Checkpoint:
        found = read(line, Checkpoint, "checkpoint")
        if found.v != VERSION or found.colony != self._colony:
            raise AuditError(f"this is no checkpoint of the colony {self._colony}")
        self._check_order(found)
        if len(found.heads) > MAX_HEADS:
            raise AuditError(f"checkpoint {found.k} names more than {MAX_HEADS} chains")
        for chain, n, hash in found.heads:
            check_chain_id(chain, self._tag)
            if not 0 <= n <= MAX_N or not is_id(hash):
                raise AuditError(f"checkpoint {found.k} names no event of its chain", chain=chain)
        if any(one[0] >= two[0] for one, two in pairwise(found.heads)):
            raise AuditError(f"the heads of checkpoint {found.k} are not in order")
        return found

    def _check_order(self, found: Checkpoint) -> None:
        before = self._before
        if before is None:
            is_first = found.k == FIRST_K and not found.prev
            if not is_first and (not FIRST_K < found.k <= MAX_N or not is_id(found.prev)):
                raise AuditError(
                    f"the checkpoints begin with {found.k}: there is something missing"
                )
            return
        if found.k != before.k + 1:
            raise AuditError(f"checkpoint {found.k} follows {before.k}: there is something missing")
        if found.prev != self._digest.hex():
            raise AuditError(f"checkpoint {found.k} was not made after this checkpoint {before.k}")
        if found.time < before.time:
            raise AuditError(f"checkpoint {found.k} is older than the one before")

    def _sign(self, line: bytes, checkpoint: Checkpoint, digest: bytes) -> None:
        signature = read(line, CheckpointSignature, "signature of a checkpoint")
        if signature.of != "checkpoint" or signature.k != checkpoint.k:
            raise AuditError(f"this is no signature of checkpoint {checkpoint.k}")
        self.signer = self._servers.place(signer(digest, signature.sig))


def _digest(line: bytes) -> bytes:
    """Of a line that was read: it is text."""
    return checkpoint_digest(line.decode())


class Cover(NamedTuple):
    """The checkpoint that an event is under: `group`, or one from `since` on that is forgotten."""

    since: int
    group: int


class Groups:
    """Which k are one checkpoint: those of `continued` belong to the one before."""

    __slots__ = ("_continued", "is_cut", "tail")

    def __init__(self, continued: Sequence[int], last_k: int, *, is_cut: bool = False) -> None:
        """`continued` is sorted; `is_cut`: there were checkpoints before the first."""
        self._continued = continued
        self.is_cut = is_cut
        self.tail = self.of(last_k) + 1
        """Of what is newer than any checkpoint."""

    def of(self, k: int) -> int:
        """The number of the checkpoint that `k` belongs to; it grows with time."""
        return k - bisect_right(self._continued, k)


class Heads:
    """What all checkpoints say of chains, in order, as one goes through these."""

    __slots__ = ("_begun", "_groups", "_next", "_records")

    def __init__(self, records: Iterator[bytes], groups: Groups) -> None:
        """`records` are sorted."""
        self._records = records
        self._groups = groups
        self._next: HeadRecord | None = None
        self._begun = b""
        self._pull(None)

    @property
    def next(self) -> HeadRecord | None:
        """The next one; None: there are no more."""
        return self._next

    def drop(self) -> None:
        """Go on. Raises `AuditError` when a later checkpoint goes back in a chain."""
        self._pull(self._next)

    def _pull(self, before: HeadRecord | None) -> None:
        record = next(self._records, None)
        found = self._next = unpack_head(record) if record is not None else None
        if before is not None:
            self._begun = before.key[:32]
        if before is None or found is None or found.key[:32] != before.key[:32]:
            return
        if found.k < before.k:
            raise AuditError(
                f"checkpoint {before.k} names event {before.n}, though checkpoint {found.k} had "
                f"named event {found.n}: the chain went back",
                chain=found.chain,
            )

    def cover(self, chain: str, n: int, hash: str) -> Cover:
        """Which checkpoint the event is under; `Groups.tail` where none is.

        Raises `AuditError` where a checkpoint names another event, or one that is not there.
        """
        key = head_key(chain, n)
        if self._next is not None and self._next.key < key:
            raise missing(self._next)
        found = self._cover(key)
        while self._next is not None and self._next.key == key:
            if self._next.hash != hash:
                raise AuditError(f"checkpoint {self._next.k} names another event {n}")
            self.drop()
        return found

    def seek(self, chain: str, n: int) -> Cover:
        """Which checkpoint an event of a chain is under; what is before is passed over."""
        key = head_key(chain, n)
        while self._next is not None and self._next.key < key:
            self.drop()
        return self._cover(key)

    def _cover(self, key: bytes) -> Cover:
        """By the next head. A chain's first one may have been stated in earlier checkpoints too."""
        group = self._groups.tail
        if self._next is not None and self._next.key[:32] == key[:32]:
            group = self._groups.of(self._next.k)
        is_first = self._groups.is_cut and self._begun != key[:32]
        return Cover(0 if is_first else group, group)


def missing(head: HeadRecord) -> AuditError:
    """The error for an event that a checkpoint names and the file has not."""
    return AuditError(
        f"event {head.n}, which checkpoint {head.k} names, is not in the file",
        chain=head.chain,
        n=head.n,
    )
