"""Whether a store and an archive belong together: the store remembers who holds its history.

An archive that cannot be reached stops nobody: it is compared at the first contact instead, before
anything else is asked of it (`ClaimedArchive`).
"""

from __future__ import annotations

from typing import Final

from colonist_server.archive.interface import Archive, ArchiveError, ArchiveUnavailableError
from colonist_server.repo import keys
from colonist_server.repo.claimed_archive import ClaimedArchive
from colonist_server.store.interface import Guard, Put, Store, StoreError

_SEVERAL: Final = (
    "the archive is a file of this machine, but the store has other nodes: {}. "
    "Give all of them one archive in PostgreSQL: --archive postgresql://user@host/database"
)
_NONE: Final = (
    "m/archive says that this store's history is in the archive {}: give its address by --archive"
)
_OTHER: Final = (
    "m/archive says that this store's history is in the archive {}, but --archive leads to {}: "
    "give the address of the first"
)
_EMPTY: Final = "a database without one"
_SHOWN: Final = 64


async def claim(store: Store, archive: Archive | None, node: str) -> ClaimedArchive | None:
    """The store's archive; None where there is none. The first one becomes it.

    Raises `StoreError` when it is surely another. One that cannot be reached is compared later.
    """
    if archive is None:
        await _check_none(store)
        return None
    await _check_alone(store, archive, node)
    claimed = ClaimedArchive(archive, lambda: compare(store, archive))
    try:
        await claimed.compare()
    except ArchiveUnavailableError as error:
        # A file that was never there is a mistake in the address.
        if archive.is_local and await store.get(keys.ARCHIVE) is None:
            raise
        claimed.start_without(error)
    return claimed


async def compare(store: Store, archive: Archive) -> None:
    """Make contact. Raises `StoreError` unless this is the archive of the store."""
    item = await store.get(keys.ARCHIVE)
    identity = await archive.meet(may_make=item is None)
    if item is None:
        put = Put(keys.ARCHIVE, identity.encode())
        if await store.commit([Guard(keys.ARCHIVE, 0)], [put]) is not None:
            return
        item = await store.get(keys.ARCHIVE)
    known = item.value.decode(errors="replace")[:_SHOWN] if item is not None else ""
    if known != identity:
        raise ArchiveError(_OTHER.format(known, identity or _EMPTY))


async def _check_none(store: Store) -> None:
    item = await store.get(keys.ARCHIVE)
    if item is not None:
        raise StoreError(_NONE.format(item.value.decode(errors="replace")[:_SHOWN]))


async def _check_alone(store: Store, archive: Archive, node: str) -> None:
    if not (archive.is_local and store.is_shared):
        return
    items = (await store.range(keys.NODE, keys_only=True)).items
    others = sorted(keys.name_of_node(each.key) for each in items if each.key != keys.node(node))
    if others:
        raise StoreError(_SEVERAL.format(", ".join(others)))
