"""Ids that were a member's and are nobody's any more: of removed users, of executors begun anew.

An executor that was removed keeps its record, and with it its ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from colonist_server.repo import keys
from colonist_server.repo.known_ids import KnownIds
from colonist_server.repo.view import View
from colonist_server.store.interface import Op, Put, Revision

_TAG: Final = slice(len(keys.GONE), len(keys.GONE) + keys.TAG_BYTES)
_ID: Final = slice(len(keys.GONE) + keys.TAG_BYTES, None)


class Gone:
    """Those of all colonies; `known`: which colonies each was known to."""

    __slots__ = ("_keys", "known")

    def __init__(self, view: View) -> None:
        self._keys: dict[bytes, Revision] = {}
        self.known = KnownIds()
        view.hold(keys.GONE, self._apply, self._held)

    def has(self, tag: bytes, id: str) -> bool:
        """Whether an id was a member's of that colony once."""
        return keys.gone(tag, id) in self._keys

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        if value is None:
            if self._keys.get(key, revision) < revision:
                del self._keys[key]
                self.known.discard(key[_ID].hex(), key[_TAG])
        else:
            self.known.add(key[_ID].hex(), key[_TAG])
            self._keys[key] = max(revision, self._keys.get(key, 0))

    def _held(self) -> set[bytes]:
        return set(self._keys)


def mark(tag: bytes, ids: Iterable[str]) -> list[Op]:
    """Write down that these are nobody's any more."""
    return [Put(keys.gone(tag, id), b"") for id in ids]
