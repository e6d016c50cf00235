"""Which ends of removed processes no checkpoint names yet.

Such an end is forgotten with the checkpoint that names it, so none may be stated twice. Where
revisions tell nothing, after a restore, those of long before are taken for named: clocks of nodes
are not that far apart. The rest is looked for in what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from colonist_protocol.errors import CorruptRecordError
from colonist_server.repo import keys
from colonist_server.repo.checkpoints import Checkpoints, pack
from colonist_server.repo.evidence import removed_link
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import NewestRecord, decode_removed
from colonist_server.store.interface import Item

LONG_MS: Final = 3_600_000
HELD: Final = 5_000
"""They are looked for together."""


class UnstatedEnds:
    """Picks them out, page by page; `newest` is of before the first one."""

    __slots__ = ("_checkpoints", "_colony", "_held", "_is_again", "_newest")

    def __init__(
        self, checkpoints: Checkpoints, colony: Colony, newest: NewestRecord, *, is_again: bool
    ) -> None:
        """`is_again`: they may be of any age, and not only of after the last whole checkpoint."""
        self._checkpoints = checkpoints
        self._colony = colony
        self._newest = newest
        self._is_again = is_again
        self._held: dict[bytes, Item] = {}

    async def take(self, items: Sequence[Item]) -> list[Item]:
        """Some more that are stored; those of them, and of earlier ones, that are known to be.

        What cannot be read is given back too. Raises `UnavailableError`.
        """
        broken: list[Item] = []
        for item in items:
            try:
                self._hold(item)
            except CorruptRecordError:
                broken.append(item)
        return broken + (await self.rest() if len(self._held) >= HELD else [])

    async def rest(self) -> list[Item]:
        """All that are not given yet. Raises `UnavailableError`."""
        held, self._held = self._held, {}
        if held:
            await self._checkpoints.drop_named(self._colony, held, after=await self._after())
        return list(held.values())

    def _hold(self, item: Item) -> None:
        record = decode_removed(item.value)
        if self._is_again and record.time_ms < self._newest.whole_ms - LONG_MS:
            return
        pid = item.key[len(keys.REMOVED) :]
        mark = pack([pid], {pid: (record.n, removed_link(pid, record).head)})
        self._held[mark] = item

    async def _after(self) -> int:
        """None of them stands in a checkpoint up to this one."""
        if not self._is_again:
            return self._newest.whole
        since_ms = self._newest.whole_ms - 2 * LONG_MS
        return await self._checkpoints.first_since(self._colony, since_ms) - 1
