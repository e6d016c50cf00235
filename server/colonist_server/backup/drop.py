"""Giving up one record that cannot be read."""

from __future__ import annotations

from colonist_server.backup.form import BackupError
from colonist_server.repo.soundness import fault, key_text
from colonist_server.store.interface import Delete, Guard, Store


async def drop(store: Store, key: bytes, *, even_if_sound: bool = False) -> str:
    """Delete a key; why it could not be read. Raises `BackupError`."""
    item = await store.get(key)
    if item is None:
        raise BackupError(f"{key_text(key)}: there is no such key")
    why = fault(key, item.value)
    if not why and not even_if_sound:
        raise BackupError(f"{key_text(key)} can be read: --force to drop it all the same")
    if await store.commit([Guard(key, item.modified)], [Delete(key)]) is None:
        raise BackupError(f"{key_text(key)} has just been written: look again")
    return why
