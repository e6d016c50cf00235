"""Whether a store and an archive belong together: the store remembers who holds its history."""

from __future__ import annotations

from typing import Final

from colonist_server.archive.interface import Archive
from colonist_server.repo import keys
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


async def claim(store: Store, archive: Archive | None, node: str) -> None:
    """Raise `StoreError` unless this is the archive of the store; the first one becomes it."""
    if archive is not None and archive.is_local and store.is_shared:
        items = (await store.range(keys.NODE, keys_only=True)).items
        others = sorted(
            keys.name_of_node(each.key) for each in items if each.key != keys.node(node)
        )
        if others:
            raise StoreError(_SEVERAL.format(", ".join(others)))
    item = await store.get(keys.ARCHIVE)
    if item is None and archive is not None:
        put = Put(keys.ARCHIVE, archive.identity.encode())
        if await store.commit([Guard(keys.ARCHIVE, 0)], [put]) is not None:
            return
        item = await store.get(keys.ARCHIVE)
    if item is None:
        return
    known = item.value[:64].decode(errors="replace")
    if archive is None:
        raise StoreError(_NONE.format(known))
    if known != archive.identity:
        raise StoreError(_OTHER.format(known, archive.identity))
