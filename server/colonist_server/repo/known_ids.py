"""Which colonies know an id: so that a caller of whom none does costs a look, not one for each."""

from __future__ import annotations

from collections.abc import Collection


class KnownIds:
    """The tags of colonies, by the ids that they know; an id is one colony's nearly always."""

    __slots__ = ("_tags",)

    def __init__(self) -> None:
        self._tags: dict[str, bytes | dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._tags)

    def tags(self, id: str) -> Collection[bytes]:
        """Those of the colonies that know it."""
        found = self._tags.get(id)
        return (found,) if isinstance(found, bytes) else found or ()

    def add(self, id: str, tag: bytes) -> None:
        """A colony knows it; saying it twice changes nothing."""
        found = self._tags.setdefault(id, tag)
        if isinstance(found, dict):
            found[tag] = None
        elif found != tag:
            self._tags[id] = {found: None, tag: None}

    def discard(self, id: str, tag: bytes) -> None:
        """A colony does not know it, or no more."""
        found = self._tags.get(id)
        if isinstance(found, dict):
            found.pop(tag, None)
        if found == tag or not found:
            self._tags.pop(id, None)
