"""The form of a backup file, in bytes. No I/O.

    magic · blocks · the trailer's block

A block is a head of 17 bytes (kind, length as stored, length unpacked, CRC-32 of head and content)
and its content, a msgpack value packed by zlib. The first block tells what the file is of, then
come the store's items in key order, then the archive's rows, and at last a trailer with their
numbers and the SHA-256 of everything before it. So a flipped bit is found in the block where it is,
and a file that was cut or put together otherwise by its trailer.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

import msgspec

from colonist_server.archive.interface import Row
from colonist_server.store.interface import MAX_KEY_BYTES, MAX_VALUE_BYTES, Item, StoreError

MAGIC: Final = b"\x89COLONIST-BACKUP\r\n\x1a\n"
FORMAT: Final = 1
MAX_BLOCK_BYTES: Final = 16_777_216
"""A page of a snapshot is 4 MiB and one value at most."""

_HEAD: Final = struct.Struct(">BIII")
_CHECKED: Final = struct.Struct(">BII")
_LEVEL: Final = 1
"""Level 6 takes four times as long for a tenth less."""
T = TypeVar("T")


class BackupError(StoreError):
    """A backup cannot be made, or a file is no whole backup; nothing was changed."""


class Kind(IntEnum):
    """What a block holds."""

    ABOUT = 1
    ITEMS = 2
    ROWS = 3
    END = 4


class About(msgspec.Struct, frozen=True, array_like=True):
    """What a backup is of. `schema` is that of the records, `archive` the archive's identity."""

    format: int
    schema: int
    made_ns: int
    revision: int
    version: str
    archive: str = ""


class End(msgspec.Struct, frozen=True, array_like=True):
    """How many there were, and the SHA-256 of what is before."""

    items: int
    rows: int
    digest: bytes


class Block(NamedTuple):
    """A block as it stands in the file, its head read."""

    kind: int
    stored: int
    size: int
    crc: int


HEAD_BYTES: Final = _HEAD.size
_encode: Final = msgspec.msgpack.Encoder().encode
_about: Final = msgspec.msgpack.Decoder(About)
_items: Final = msgspec.msgpack.Decoder(list[Item])
_rows: Final = msgspec.msgpack.Decoder(list[Row])
_end: Final = msgspec.msgpack.Decoder(End)


def pack(kind: Kind, value: object) -> bytes:
    """A block."""
    raw = _encode(value)
    stored = zlib.compress(raw, _LEVEL)
    crc = zlib.crc32(stored, zlib.crc32(_CHECKED.pack(kind, len(stored), len(raw))))
    return _HEAD.pack(kind, len(stored), len(raw), crc) + stored


def read_head(data: bytes) -> Block:
    """The head of a block. Raises `BackupError`."""
    block = Block(*_HEAD.unpack(data))
    if max(block.stored, block.size) > MAX_BLOCK_BYTES or block.kind not in list(Kind):
        raise BackupError("the head of the block is damaged")
    return block


def open_block(block: Block, stored: bytes) -> bytes:
    """What a block holds, unpacked. Raises `BackupError`."""
    if zlib.crc32(stored, zlib.crc32(_CHECKED.pack(*block[:3]))) != block.crc:
        raise BackupError("the block is damaged: its check sum is another")
    try:
        opened = zlib.decompressobj()
        raw = opened.decompress(stored, block.size + 1)
    except zlib.error as error:
        raise BackupError(f"the block is damaged: {error}") from error
    if len(raw) != block.size:
        raise BackupError("the block is damaged: its length is another")
    return raw


def read_about(raw: bytes) -> About:
    """What a backup is of. Raises `BackupError`."""
    return _decode(_about, raw)


def read_items(raw: bytes) -> list[Item]:
    """Items of the store. Raises `BackupError`."""
    items = _decode(_items, raw)
    for item in items:
        _check_sizes(item.key, item.value)
    return items


def read_rows(raw: bytes) -> list[Row]:
    """Rows of the archive. Raises `BackupError`."""
    rows = _decode(_rows, raw)
    for row in rows:
        _check_sizes(row.key, row.value)
    return rows


def read_end(raw: bytes) -> End:
    """The trailer. Raises `BackupError`."""
    return _decode(_end, raw)


def _check_sizes(key: bytes, value: bytes) -> None:
    if not 0 < len(key) <= MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
        raise BackupError("the block holds a key or value of a size that no store has")


def _decode(decoder: msgspec.msgpack.Decoder[T], raw: bytes) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise BackupError(f"the block cannot be read: {error}") from error
