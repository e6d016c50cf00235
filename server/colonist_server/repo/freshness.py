"""The barrier: when what this node believes is not older than what others were told.

On a store that nodes share, another node's commit reaches this view a little after its caller was
answered. `fresh` returns when the view has come so far as the store was when it was called; after
it a read sees all that was acknowledged before, at whatever node. One question to the store serves
all who wait for its answer to be asked: never those who came while it was under way, since the
store may have looked before what they know of was written. On a store that is not shared the view
is always fresh, and this costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

from colonist_protocol.errors import ColonistError, UnavailableError
from colonist_server.repo.handover import Spawn
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Revision

DEADLINE_S: Final = 2.0
BEHIND: Final = "this node is behind the store; ask again, or another node"

_Round = asyncio.Future[str]
"""Those who wait together; its result is what went wrong, "" for nothing."""


class Freshness:
    """Lets callers wait until the view is as new as the store."""

    __slots__ = ("_asking", "_behind", "_next", "_spawn", "_writes", "rounds")

    def __init__(self, writes: Writes, spawn: Spawn) -> None:
        self._writes = writes
        self._spawn = spawn
        self._asking = False
        self._next: _Round | None = None
        self._behind: list[tuple[Revision, _Round]] = []
        self.rounds = 0
        """How often the store was asked."""

    @property
    def is_needed(self) -> bool:
        """Whether the view may be older than what others were told."""
        return self._writes.store.is_shared

    async def fresh(self) -> None:
        """Return when the view shows everything that was acknowledged before. May be cancelled.

        Raises `UnavailableError` when that takes longer than `DEADLINE_S`, with the reason.
        """
        if not self.is_needed:
            return
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if not self._asking:
            self._asking = True
            self._spawn(self._ask)
        await self._answered(mine)

    async def reach(self, revision: Revision) -> None:
        """Return when the view shows what was written at a revision; raises as `fresh` does.

        Also at the only node: what one of its requests has written another may read in the store
        before it is in the view.
        """
        shown: _Round = asyncio.get_running_loop().create_future()
        self._wait_for(revision, shown)
        await self._answered(shown)

    async def _answered(self, mine: _Round) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                fault = await asyncio.shield(mine)
        except TimeoutError:
            fault = self._writes.store.fault
            raise UnavailableError(
                f"the store does not answer: {fault}" if fault else BEHIND
            ) from None
        if fault:
            raise UnavailableError(fault)

    async def _ask(self) -> None:
        """Ask the store once for all who wait, again while others have come meanwhile."""
        try:
            while self._next is not None:
                served, self._next = self._next, None
                self.rounds += 1
                try:
                    self._wait_for(await self._writes.newest(), served)
                except ColonistError as error:
                    served.set_result(str(error))
        finally:
            self._asking = False

    def _wait_for(self, revision: Revision, served: _Round) -> None:
        view = self._writes.view
        if view.reached >= revision:
            served.set_result("")
            return
        self._behind.append((revision, served))
        view.on_reached = self._reached

    def _reached(self, revision: Revision) -> None:
        waiting = self._behind
        self._behind = [each for each in waiting if each[0] > revision]
        for wanted, served in waiting:
            if wanted <= revision:
                served.set_result("")
        if not self._behind:
            self._writes.view.on_reached = None
