"""The archive beside the store: the same keys and values, of what has ended.

Laws, which every implementation passes (`tests/laws/archive`):

1. What `put` was given is durable when it returns; putting it again is harmless, and so is deleting
   what is absent. So whatever failed or was interrupted may be done again, as a whole.
2. Keys are ordered by their bytes, as in the store.
3. A failed call may have taken effect, but not later than `LATEST_S` after it was made.
4. An archive has an identity: a store remembers the one that holds its history.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple, Protocol

from colonist_server.store.interface import StoreError, UnavailableError

LATEST_S: Final = 30.0


class ArchiveError(StoreError):
    """The archive cannot do what was asked."""


class ArchiveAddressError(ArchiveError):
    """What was given as its address is none."""


class ArchiveFormatError(ArchiveError):
    """What stands at the address is no archive of this version."""


class ArchiveUnavailableError(ArchiveError, UnavailableError):
    """The archive cannot read or write now."""


class Row(NamedTuple):
    """One key with its value."""

    key: bytes
    value: bytes


class Page(NamedTuple):
    """Rows in key order; `more` when the limit cut the answer."""

    rows: list[Row]
    more: bool


class Archive(Protocol):
    """A durable, ordered map from bytes to bytes. All but the properties raise `ArchiveError`."""

    @property
    def identity(self) -> str:
        """What tells it from every other archive; "" until contact was made."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        ...

    async def meet(self, *, may_make: bool) -> str:
        """Make contact: its identity; "" where there is none, and none may be made."""
        ...

    async def put(self, rows: Sequence[Row]) -> None:
        """Write rows, all or none, over what stands under their keys; durable on return."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        """Several keys, in the order asked."""
        ...

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page:
        """Keys with `prefix`, as `Store.range` has them."""
        ...

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Delete some keys."""
        ...

    async def delete_range(self, prefix: bytes) -> None:
        """Delete every key that begins with `prefix`, a part at a time."""
        ...

    def snapshot(self) -> AsyncGenerator[list[Row]]:
        """Every row in key order, in pages; those that come or go meanwhile may be among them."""
        ...

    async def adopt(self, identity: str) -> None:
        """Take the identity of the archive of which this becomes a copy; only while it is empty."""
        ...

    async def close(self) -> None:
        """Finish what was begun, then close."""
        ...
