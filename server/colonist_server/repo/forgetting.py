"""Forgetting evidence: old checkpoints, and the ends of the removed processes that only they name.

With them go the results that were recorded for such processes, and for those of which nothing was
known (`results`): from then on nothing at all is known of them.

From one commit on they are told no more; the colony's chain says so in the same commit. Then they
are deleted, the checkpoints last, so that whatever a stop leaves is found again. What they name and
is still there is stated in a new checkpoint before: so every event stays under one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from colonist_core.process import MILLISECOND_NS
from colonist_protocol.errors import ContendedError
from colonist_server.repo import keys
from colonist_server.repo.checkpoints import Checkpoints, unpack
from colonist_server.repo.heads import Heads, closed_head
from colonist_server.repo.nouns import Colony
from colonist_server.repo.past import ARCHIVED, reading
from colonist_server.repo.records import decode_checkpoint, decode_removed
from colonist_server.repo.trail import Changed, Trail, Warrant
from colonist_server.repo.writes import Plan, Writes
from colonist_server.store.interface import MAX_OPS, Delete, Guard, Item

_TOGETHER: Final = 8
_AT_ONCE: Final = 100
"""Keys that are looked at together: closed records may be large."""
PAUSE_S: Final = 0.005
_SIGNED_WITHIN_S: Final = 30
_SLACK: Final = 16
"""It is done when there is a sixteenth more than is to be kept."""


class Forgetting:
    """Takes old evidence away, of one colony at a time."""

    __slots__ = ("_checkpoints", "_heads", "_trail", "_writes")

    def __init__(
        self, writes: Writes, checkpoints: Checkpoints, heads: Heads, trail: Trail
    ) -> None:
        self._writes = writes
        self._checkpoints = checkpoints
        self._heads = heads
        self._trail = trail

    async def forget(self, colony: Colony, until_ns: int, now_ns: int) -> int:
        """Forget what was signed until then; how many checkpoints. Raises `ContendedError`."""
        await self._delete_forgotten(colony)
        await self._delete_results(colony)
        first = (await self._checkpoints.stored(colony, limit=1)).items
        slack_ns = (now_ns - until_ns) // _SLACK
        if not first or _time_ns(first[0]) > until_ns - slack_ns:
            return 0
        begun = self._heads.begun
        last = await self._state_again(colony, until_ns)
        if begun != self._heads.begun:
            raise ContendedError("what was to be signed again may not have been")
        if last:
            await self._tell(colony, last)
            await self._delete_forgotten(colony)
            await self._delete_results(colony)
        return last

    # -- what stays

    async def _state_again(self, colony: Colony, until_ns: int) -> int:
        """Have what is there, and is named by nothing newer, signed again; the last one to go."""
        last = 0
        more = True
        while more:
            page = await self._checkpoints.stored(colony, after=last, limit=_TOGETHER)
            for item in page.items:
                k = keys.number_of_checkpoint(item.key)
                is_kept = k >= self._checkpoints.newest(colony.tag).k
                if is_kept or _time_ns(item) > until_ns:
                    await self._until_signed(colony)
                    return last
                await self._note_again(colony, item)
                await asyncio.sleep(PAUSE_S)
                last = k
            more = page.more and bool(page.items)
        await self._until_signed(colony)
        return last

    async def _note_again(self, colony: Colony, item: Item) -> None:
        named = unpack(colony.tag, decode_checkpoint(item.value).heads)
        for start in range(0, len(named), _AT_ONCE):
            part = named[start : start + _AT_ONCE]
            turn = -1
            found: dict[bytes, tuple[int, bytes]] = {}
            while turn != self._heads.turn:  # else what was read may be older than what was signed
                turn = self._heads.turn
                found = await self._heads_of([chain for chain, _, _ in part])
            self._heads.give_back(
                {chain: found[chain] for chain, n, hash in part if found.get(chain) == (n, hash)}
            )

    async def _heads_of(self, chains: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
        """The heads of those that are there."""
        items = await self._writes.past.read_many([keys.closed(chain) for chain in chains])
        found = {
            chain: closed_head(item.value)
            for chain, item in zip(chains, items, strict=True)
            if item is not None
        }
        for chain in chains:
            held = self._heads.head_of(chain)
            if held is not None:
                found[chain] = held
        return found

    async def _until_signed(self, colony: Colony) -> None:
        """Wait for all that is noted by now; more may be noted meanwhile."""
        noted = self._heads.noted(colony.tag)
        for _ in range(_SIGNED_WITHIN_S):
            is_taken = noted is None or self._heads.noted(colony.tag) is not noted
            if is_taken and not self._checkpoints.is_writing:
                return
            await asyncio.sleep(1)
        raise ContendedError("nothing is signed: evidence is not forgotten now")

    # -- what goes

    async def _tell(self, colony: Colony, last: int) -> None:
        def decide() -> Plan:
            if colony.is_gone:
                raise ContendedError("the colony was removed")
            plan = self._checkpoints.forgetting(colony, Plan([], []), last)
            what = Changed.FORGOTTEN
            return self._trail.joined(plan, colony.tag, what, "", Warrant(), about=last)

        await self._trail.apply(colony.tag, decide)

    async def _delete_forgotten(self, colony: Colony) -> None:
        last = self._checkpoints.newest(colony.tag).forgotten
        while last:
            page = await self._checkpoints.stored(colony, limit=_TOGETHER)
            some = [item for item in page.items if keys.number_of_checkpoint(item.key) <= last]
            for item in some:
                await self._delete_ends(colony, item)
            await self.delete(some)
            if not some or len(some) < len(page.items) or not page.more:
                return

    async def _delete_ends(self, colony: Colony, item: Item) -> None:
        named = {
            chain: n for chain, n, _ in unpack(colony.tag, decode_checkpoint(item.value).heads)
        }
        wanted = [keys.removed(chain) for chain in named]
        for start in range(0, len(wanted), _AT_ONCE):
            items = await self._writes.past.read_many(wanted[start : start + _AT_ONCE])
            await self.delete(
                [
                    each
                    for each in items
                    if each is not None
                    and decode_removed(each.value).n == named[each.key[len(keys.REMOVED) :]]
                ]
            )

    async def _delete_results(self, colony: Colony) -> None:
        """Those of processes so old that nothing else is left of them; keys go by their birth."""
        until_ns = await self._checkpoints.forgotten_ns(colony)
        after = b""
        more = until_ns > 0
        while more:
            page = await self._writes.past.range(
                keys.RESULT + colony.tag, after=after, limit=_AT_ONCE, keys_only=True
            )
            old = [item for item in page.items if _born_ns(item) < until_ns]
            known = await self._known({keys.pid_of_result(item.key) for item in old})
            await self.delete([each for each in old if keys.pid_of_result(each.key) not in known])
            await asyncio.sleep(PAUSE_S)
            more = page.more and len(old) == len(page.items)
            after = page.items[-1].key if page.items else after

    async def _known(self, pids: Collection[bytes]) -> set[bytes]:
        """Those of which there is a record, or the end of their chain."""
        kinds = (keys.live, keys.closed, keys.removed)
        items = await self._writes.past.read_many([kind(pid) for pid in pids for kind in kinds])
        return {
            pid
            for number, pid in enumerate(pids)
            if any(items[number * len(kinds) : (number + 1) * len(kinds)])
        }

    async def delete(self, items: Sequence[Item]) -> None:
        """Delete some keys, wherever they are."""
        near = [item for item in items if item.modified != ARCHIVED]
        for start in range(0, len(near), MAX_OPS):
            some = near[start : start + MAX_OPS]
            await self._writes.commit(
                [Guard(item.key, item.modified) for item in some],
                [Delete(item.key) for item in some],
            )
        archive = self._writes.past.archive
        if archive is not None and items:
            async with reading():
                await archive.delete([item.key for item in items])


def _born_ns(result: Item) -> int:
    return keys.born_ns(keys.pid_of_result(result.key))


def _time_ns(item: Item) -> int:
    return decode_checkpoint(item.value).time_ms * MILLISECOND_NS
