"""Tallies of functions, made to stand on their own.

A stored tally counts the runs up to a revision of its store. On another store revisions are others,
so what came after is counted in, as a server does when it starts.
"""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.records import FunctionRecord
from colonist_server.repo.view import View
from colonist_server.store.interface import Item

_TAG: Final = slice(2, 2 + keys.TAG_BYTES)
_HELD: Final = (keys.COLONY, keys.FUNCTION, keys.USER, keys.EXECUTOR)


class Tallies:
    """Counts what passes by: colonies, members and functions, then what ended, in key order."""

    def __init__(self) -> None:
        self._view = View()

    def note(self, items: list[Item]) -> None:
        """Take note of some items."""
        for item in items:
            if item.key.startswith(_HELD):
                self._view.apply(item.key, item.value, item.modified)
            elif item.key.startswith(keys.ENDED):
                self._count(item)

    def folded(self) -> dict[bytes, FunctionRecord]:
        """Each function with every run that was saved; `through` is for the caller to set."""
        return {
            key: msgspec.structs.replace(function.record, tally=function.tally)
            for colony in self._view.colonies.values()
            for key, function in colony.functions.items()
        }

    def _count(self, item: Item) -> None:
        colony = self._view.tags.get(item.key[_TAG])
        if colony is None or not colony.functions:
            return
        if item.key.startswith(keys.ended_in(colony.tag, State.SUCCESS)):
            self._view.tally(colony, item.value, item.modified)
