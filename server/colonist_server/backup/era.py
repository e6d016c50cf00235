"""Another era for a store that came back without `restore`: a snapshot of etcd, a copied file."""

from __future__ import annotations

import os

import msgspec

from colonist_protocol.tokens import ERA_BYTES
from colonist_server.backup.form import BackupError
from colonist_server.repo import keys
from colonist_server.repo.records import SCHEMA, EpochRecord, decode_epoch, encode
from colonist_server.repo.soundness import fault, key_text
from colonist_server.store.interface import Guard, Put, Store


async def begin_another(store: Store) -> int:
    """Let nothing take effect any more that was sealed before; the minute, which goes on.

    The new era is written at once and not left to the server that starts: servers that are at work
    take it up, and are at no moment without one. Raises `BackupError`, `StoreError`.
    """
    if await store.get(keys.RESTORING) is not None:
        raise BackupError("a restore into the store was begun and not finished: repeat it")
    schema = await store.get(keys.SCHEMA)
    if schema is None or schema.value != str(SCHEMA).encode():
        raise BackupError("no server of this version has been on the store: it has no era yet")
    while (item := await store.get(keys.EPOCH)) is not None:
        record = msgspec.structs.replace(_record(item.value), era=os.urandom(ERA_BYTES))
        put = Put(keys.EPOCH, encode(record))
        if await store.commit([Guard(keys.EPOCH, item.modified)], [put]) is not None:
            return record.n
    return 0  # the server that starts begins its first


def _record(value: bytes) -> EpochRecord:
    if why := fault(keys.EPOCH, value):
        name = key_text(keys.EPOCH)
        raise BackupError(
            f"{name}: {why}; colonist store drop {name} lets the server that starts"
            " begin another era"
        )
    return decode_epoch(value)
