"""The store under the server, in the shape of etcd v3's KV: get, range, commit, watch, lease.

Laws, which every implementation passes (`tests/laws`):

1. A guard says "this key was last written at revision r" (0 = absent). All ops of a commit carry
   one revision, larger than those of all commits answered before it was asked for; commits under
   way at once may be done in any order, and share a revision where they have no key in common.
   At most `MAX_OPS` guards, `MAX_OPS` ops and `MAX_COMMIT_BYTES`; a value is at most
   `MAX_VALUE_BYTES`, a key at most `MAX_KEY_BYTES`.
2. No key twice in one commit, no put under a delete-range of the same commit.
3. Every commit writes or deletes at least one key that it guards: it can succeed once only, so
   repeating it is safe. A delete, or a delete-range over it, counts only for a key that is guarded
   as present: deleting what is absent changes nothing.
4. `watch` yields whole revisions in order and gap-free; older than the store's memory it raises
   `CompactedError`. Where nodes share a store an event may tell of a revision only, without
   changes. A `range` is one revision.
5. Success means durable. Reads never see what is not durable.
6. A cancelled caller cancels neither its commit nor the event of it.

The bounds are those of etcd as it comes (128 operations, requests of 1.5 MiB), less what a store
adds to a commit of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

MAX_OPS = 127
MAX_COMMIT_BYTES = 1_441_792
MAX_VALUE_BYTES = 1_048_576
MAX_KEY_BYTES = 512

Revision = int


class StoreError(Exception):
    """The store cannot do what was asked."""


class LawError(StoreError):
    """The caller broke a law of the store; nothing was done."""


class TooBigError(LawError):
    """A commit holds more than one may: too many ops, too large a value, too much together."""


class UnavailableError(StoreError):
    """The store cannot commit or read now; whether this commit took effect is not known here."""


class ReadOnlyError(UnavailableError):
    """The store refuses writes (disk full); this commit took no effect."""


class CorruptError(StoreError):
    """A stored record cannot be read; the message names its key and a remedy."""


class CompactedError(StoreError):
    """A watch asked for events older than the store remembers: range anew."""


class Item(NamedTuple):
    """One key as it is stored."""

    key: bytes
    value: bytes
    created: Revision
    modified: Revision


class Range(NamedTuple):
    """Items in key order, all as of `revision`; `more` when `limit` cut the answer."""

    revision: Revision
    items: list[Item]
    more: bool


class Guard(NamedTuple):
    """The key was last written at `revision`; 0 = it is absent."""

    key: bytes
    revision: Revision


class Put(NamedTuple):
    """Write a key; under a lease, the key goes when the lease ends."""

    key: bytes
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """Delete a key; deleting an absent key is no error and makes no event."""

    key: bytes


class DeleteRange(NamedTuple):
    """Delete every key that begins with `prefix`."""

    prefix: bytes


Op = Put | Delete | DeleteRange


class Change(NamedTuple):
    """One key changed: its new value, or None where it was deleted."""

    key: bytes
    value: bytes | None


class Event(NamedTuple):
    """All changes of one revision."""

    revision: Revision
    changes: tuple[Change, ...]


class Store(Protocol):
    """A durable, ordered, watchable map from bytes to bytes."""

    async def get(self, key: bytes) -> Item | None:
        """One key, or None."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Several keys as of one revision, in the order asked."""
        ...

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        since: Revision = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Range:
        """Keys with `prefix` in key order, at one revision.

        `after` (a whole key) skips up to and including it, for paging; `since` keeps keys whose
        modification revision is larger; `limit` 0 = no limit; `reverse` = largest key first
        (`after` then skips down to and including it), which costs etcd as much as the whole
        prefix, whatever the limit; `keys_only` leaves values empty.
        """
        ...

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        """All ops at once if every guard holds: the revision, durable. None when a guard failed.

        Raises `LawError`, `ReadOnlyError`, `UnavailableError`.
        """
        ...

    def watch(self, after: Revision) -> AsyncGenerator[Event, None]:
        """Events with revisions larger than `after`, in order, for ever.

        Raises `CompactedError`, and `UnavailableError` once the store is closed.
        """
        ...

    async def lease(self, ttl_s: float) -> int:
        """A lease for `Put`: its keys go when it is not kept alive for `ttl_s`, or is revoked."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False when it has already ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """End a lease now and delete its keys."""
        ...

    def snapshot(self) -> AsyncGenerator[Range]:
        """Every key that no lease holds, in key order, in pages, all as of one revision.

        For backups: it may be slow, and others read and commit meanwhile.
        """
        ...

    async def newest(self) -> Revision:
        """A revision that `watch` reaches at once, not older than any commit answered before.

        Commits of other nodes too: a view that has come so far may tell what is not there.
        """
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may write to it as well."""
        ...

    @property
    def revision(self) -> Revision:
        """The newest revision known to be durable."""
        ...

    @property
    def fault(self) -> str:
        """Why it cannot be relied on now, for a person; "" when it can."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then close."""
        ...
