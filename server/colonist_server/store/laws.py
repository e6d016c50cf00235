"""The laws of a commit that can be judged without looking into the store.

Pure and shared by every implementation, so that all of them refuse the same commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from colonist_server.store.interface import (
    MAX_COMMIT_BYTES,
    MAX_KEY_BYTES,
    MAX_OPS,
    MAX_VALUE_BYTES,
    DeleteRange,
    Guard,
    LawError,
    Op,
    Put,
    Revision,
    TooBigError,
)

KEYS_END = b"\xff" * (MAX_KEY_BYTES + 1)
"""Larger than every key."""


class Shape(NamedTuple):
    """What an implementation wants to know of a lawful commit before it plans it."""

    size: int
    prefixes: tuple[bytes, ...]
    leases: tuple[int, ...]


def check(guards: Sequence[Guard], ops: Sequence[Op]) -> Shape:
    """Raise `LawError` unless the commit is lawful.

    Runs on the loop for every commit, so it is written for speed.
    """
    if not 0 < len(ops) <= MAX_OPS or len(guards) > MAX_OPS:
        raise TooBigError(
            f"{len(ops)} ops and {len(guards)} guards: 1 to {MAX_OPS} and 0 to {MAX_OPS}"
        )
    present = dict(guards)
    prefixes: tuple[bytes, ...] = ()
    singles: Sequence[Op] = ops
    if DeleteRange in map(type, ops):
        prefixes = tuple(op.prefix for op in ops if type(op) is DeleteRange)
        singles = [op for op in ops if type(op) is not DeleteRange]
    written = {op[0]: op for op in singles}
    if len(written) != len(singles):
        raise LawError("a key twice in one commit")
    size, guarded, leases = _check_singles(written, present)
    size += _keys_size(present) + _keys_size(written)
    size += 2 * sum(map(len, prefixes))  # etcd is told both ends
    if size > MAX_COMMIT_BYTES:
        raise TooBigError(f"a commit of {size} bytes: at most {MAX_COMMIT_BYTES}")
    if prefixes:
        guarded = _check_ranges(prefixes, present, written) or guarded
    if not guarded:
        raise LawError("a commit must write or delete a key that it guards")
    return Shape(size, prefixes, tuple(leases))


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key larger than every key with this prefix."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else KEYS_END


def _check_singles(
    written: dict[bytes, Op], present: dict[bytes, Revision]
) -> tuple[int, bool, list[int]]:
    """Bytes of values; whether an op writes or deletes a guarded key; leases named."""
    size = 0
    guarded = False
    leases: list[int] = []
    for key, op in written.items():
        if type(op) is Put:
            length = len(op[1])
            if length > MAX_VALUE_BYTES:
                raise TooBigError(f"{key!r}: a value of {length} bytes: at most {MAX_VALUE_BYTES}")
            size += length
            guarded = guarded or key in present
            if op[2]:
                leases.append(op[2])
        # Deleting what is guarded as absent changes nothing: that could succeed twice.
        elif present.get(key, 0) > 0:
            guarded = True
    return size, guarded, leases


def _keys_size(keys: Iterable[bytes]) -> int:
    total = 0
    for key in keys:
        size = len(key)
        if not 0 < size <= MAX_KEY_BYTES:
            raise LawError(f"a key of {size} bytes: at least 1, at most {MAX_KEY_BYTES}")
        total += size
    return total


def _check_ranges(
    prefixes: tuple[bytes, ...], present: dict[bytes, Revision], written: dict[bytes, Op]
) -> bool:
    """No put under a prefix; True if a range deletes a key that is guarded as present."""
    for prefix in prefixes:
        if len(prefix) > MAX_KEY_BYTES:
            raise LawError(f"a prefix of {len(prefix)} bytes: at most {MAX_KEY_BYTES}")
    for key, op in written.items():
        if type(op) is Put and key.startswith(prefixes):
            raise LawError(f"{key!r} put under a delete-range of the same commit")
    return any(revision > 0 and key.startswith(prefixes) for key, revision in present.items())
