"""A store at which something happens to one commit: its node dies, or the answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from colonist_server.repo import keys
from colonist_server.repo.records import WorkflowState, decode_workflow
from colonist_server.store.interface import Delete, Guard, Op, Revision, UnavailableError
from tests.support.memory_store import MemoryStore

LATE_S = 1.5
WAYS = ("before", "after", "lost", "late")
"""The node dies before the commit, or after it; the answer is lost; the commit comes late."""

# What a node writes at its start and end, and what the leader keeps account of.
_HOUSE = (b"n/", b"nh/", b"m/", b"f/", keys.EPOCH, keys.NEWEST_CHECKPOINT)


class StoppingStore(MemoryStore):
    """Counts the commits from `arm` on. `stopped` is set when the node is to be taken for dead."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = asyncio.Event()
        self.was_met = False
        self._left = -1
        self._way = ""

    def arm(self, at: int, way: str) -> None:
        """Let it happen to the commit number `at`, from 0 on; negative: to none."""
        self.stopped.clear()
        self._left, self._way = at, way

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if self.stopped.is_set():
            await asyncio.Event().wait()  # a dead node does nothing
        if ops[0][0].startswith(_HOUSE):
            return await super().commit(guards, ops)
        self._left -= 1
        if self._left != -1:
            return await super().commit(guards, ops)
        self.was_met = True
        if self._way in ("after", "lost"):
            await super().commit(guards, ops)
        if self._way == "late":
            asyncio.get_running_loop().call_later(LATE_S, self._apply_late, guards, ops)
        if self._way in ("lost", "late"):
            raise UnavailableError("no answer in time")
        self.stopped.set()
        await asyncio.Event().wait()
        return None

    def _apply_late(self, guards: Sequence[Guard], ops: Sequence[Op]) -> None:
        if self._hold(guards):
            self._apply(ops)


async def remove_opened(store: MemoryStore) -> list[bytes]:
    """Remove the workflows that are open, as their owner may before the next start; their ids."""
    heads = (await store.range(keys.WORKFLOW)).items
    opened = [
        item.key[len(keys.WORKFLOW) :]
        for item in heads
        if decode_workflow(item.value).state == WorkflowState.OPEN
    ]
    for wid in opened:
        for kind in (keys.WORKFLOW, keys.SHAPE, keys.REQUEST, keys.BIRTH, keys.LIVE):
            for item in (await store.range(kind + wid)).items:
                await store.commit([Guard(item.key, item.modified)], [Delete(item.key)])
    return opened
