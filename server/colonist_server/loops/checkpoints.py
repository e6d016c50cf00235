"""Signs checkpoints, at most one each 5 s, and none while nothing changes. The leader does it.

Heads that change are noted from the moment at which this node leads; what changed before, and is in
no checkpoint yet, is found by the revision through which the newest one goes. A colony that has
none gets all its heads, the archive's too. Where a commit is lost to another node, which took
itself for the leader, this one begins anew from what that has written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from colonist_protocol.errors import ColonistError, CorruptRecordError
from colonist_server.loops.leadership import Leadership
from colonist_server.repo import keys
from colonist_server.repo.checkpoints import Checkpoints
from colonist_server.repo.ends import UnstatedEnds
from colonist_server.repo.epochs import Epochs
from colonist_server.repo.heads import Heads
from colonist_server.repo.nouns import Colony
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Item, Range, Revision

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
RETRY_S: Final = 5.0
MOST: Final = 20_000
"""Heads that are held before they are signed."""
_PAGE: Final = 100
"""Ends of processes may be large."""


class _OvertakenError(Exception):
    """Another node wrote a checkpoint, or the view was loaded anew."""


class CheckpointLoop:
    """Keeps the evidence of all colonies signed."""

    __slots__ = ("_checkpoints", "_epochs", "_heads", "_leadership", "_view", "_writes")

    def __init__(
        self,
        writes: Writes,
        checkpoints: Checkpoints,
        heads: Heads,
        *,
        epochs: Epochs,
        leadership: Leadership,
    ) -> None:
        self._writes = writes
        self._view = writes.view
        self._checkpoints = checkpoints
        self._heads = heads
        self._epochs = epochs
        self._leadership = leadership

    async def run(self) -> None:
        """Sign until cancelled."""
        while True:
            await self._leadership.wait()
            try:
                await self._lead()
            except _OvertakenError:
                log.info("checkpoints go on from what is stored")
            except ColonistError as error:
                log.warning("checkpoints are not signed, trying again: %s", error)
                await asyncio.sleep(RETRY_S)
            except Exception:  # what is stored must not end the server at each start (P1)
                log.exception("checkpoints are not signed")
                await asyncio.sleep(RETRY_S)
            finally:
                self._heads.end()

    async def _lead(self) -> None:
        loaded = self._view.loaded_revision
        self._heads.begin()
        for colony in list(self._view.tags.values()):
            await self._catch_up(colony)
        while True:
            await self._heads.woken.wait()
            if not self._leadership.is_leader or loaded != self._view.loaded_revision:
                raise _OvertakenError
            await self.sign()
            await asyncio.sleep(EVERY_S)

    async def sign(self) -> None:
        """Sign all that is noted. Raises `UnavailableError`."""
        for tag in self._heads.tags():
            colony = self._view.tags.get(tag)
            through = self._view.reached
            heads = self._heads.take(tag)
            if colony is None or not heads:
                continue
            await self._write(colony, heads, through)

    async def _write(
        self, colony: Colony, heads: dict[bytes, tuple[int, bytes]], through: Revision | None
    ) -> None:
        try:
            is_done = await self._checkpoints.write(
                colony, heads, through=through, era=self._epochs.era
            )
        except ColonistError:
            self._heads.give_back(heads)
            raise
        if not is_done and not colony.is_gone:
            raise _OvertakenError

    async def _catch_up(self, colony: Colony) -> None:
        """Note what is in no checkpoint.

        In another era, after a restore, revisions are others: all that the store holds is stated
        again, and what the archive holds was stated before it came there. Ends of processes that
        were removed are not: they are forgotten with the first checkpoint that names them.
        """
        newest = self._checkpoints.newest(colony.tag)
        since = newest.through if newest.era == self._epochs.era else 0
        is_first = not (newest.through or newest.whole)
        self._heads.note_held(colony, since)
        async with aclosing(self._stored(colony, keys.CLOSED, since, is_first)) as pages:
            async for items in pages:
                await self._note(colony, items)
        ends = UnstatedEnds(self._checkpoints, colony, newest, is_again=not since)
        async with aclosing(self._stored(colony, keys.REMOVED, since, is_first)) as pages:
            async for items in pages:
                await self._note(colony, await ends.take(items))
        await self._note(colony, await ends.rest())

    async def _stored(
        self, colony: Colony, kind: bytes, since: Revision, is_first: bool
    ) -> AsyncGenerator[Sequence[Item]]:
        after = b""
        more = True
        while more and not colony.is_gone:
            page = await self._page(kind + colony.tag, after, since, is_first)
            yield page.items
            more = page.more and bool(page.items)
            after = page.items[-1].key if page.items else b""

    async def _page(self, prefix: bytes, after: bytes, since: Revision, is_first: bool) -> Range:
        if is_first:
            return await self._writes.past.range(prefix, after=after, limit=_PAGE, hidden=True)
        return await self._writes.range(prefix, after=after, limit=_PAGE, since=since)

    async def _note(self, colony: Colony, items: Sequence[Item]) -> None:
        for item in items:
            try:
                self._heads.note([item])
            except CorruptRecordError as error:
                self._view.quarantine(item.key, str(error))
        if self._heads.count(colony.tag) >= MOST:
            await self._write(colony, self._heads.take(colony.tag), None)
