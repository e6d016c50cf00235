"""Assignments of a node that died before anybody could see its reply.

Nothing is written while nobody knows: the executor's next assign gets such a process once more, as
the same attempt with the same deadline. Doubt never moves work to another executor: the first may
be at it. Whoever asks by sealed requests needs none of this: the same request again gets the same
grant, from its record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from colonist_core.process import Live, redelivered
from colonist_protocol.errors import AccessError, ColonistError, PlainRefusedError
from colonist_protocol.process import State
from colonist_server.repo import chain, keys, once
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Row
from colonist_server.repo.plain import MUST_BE_SEALED
from colonist_server.repo.records import all_ids
from colonist_server.repo.view import View
from colonist_server.repo.waiting import Ask, Grant
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Guard


class Redelivery:
    """The assignments in doubt, by executor. `doubt` is told of one that is in doubt again."""

    __slots__ = ("_clock", "_doubt", "_doubtful", "_node", "_view", "_writes")

    def __init__(
        self,
        writes: Writes,
        view: View,
        clock: Clock,
        *,
        doubt: Callable[[Row, str], None],
        node: str,
    ) -> None:
        self._writes = writes
        self._view = view
        self._clock = clock
        self._doubt = doubt
        self._node = node
        self._doubtful: dict[str, list[Row]] = {}

    def __len__(self) -> int:
        return len(self._doubtful)

    def doubt(self, row: Row, executor_id: str) -> bool:
        """Note an assignment that its executor may never have seen; False: it can ask for it."""
        if row.live().is_sealed:
            return False
        row.doubtful = True
        self._doubtful.setdefault(executor_id, []).append(row)
        return True

    def doubt_again(self, pid: bytes, live: Live) -> None:
        """Nobody has seen it this time either."""
        row = self._view.rows.get(pid)
        if row is None or row.state != State.RUNNING or row.doubtful:
            return
        now = row.live()
        if (now.executor, now.attempt) == (live.executor, live.attempt):
            self._doubt(row, live.executor)

    async def give(self, ask: Ask) -> Grant | None:
        """Give whoever asks what it was given before, if that is in doubt.

        Raises `AccessError`, `UnavailableError`.
        """
        if not self._doubtful:
            return None
        for id in all_ids(ask.executor.record):
            grant = await self._give_of(id, ask)
            if grant is not None:
                return grant
        return None

    async def _give_of(self, executor_id: str, ask: Ask) -> Grant | None:
        rows = self._doubtful.get(executor_id)
        if rows is None:
            return None
        while rows:
            row = rows.pop(0)
            is_there = self._view.rows.get(row.pid) is row and not _is_cancelled(row)
            if row.doubtful and row.colony is ask.colony and is_there:
                grant = await self._give_row(row, ask)
                if grant is not None:
                    return grant
        self._doubtful.pop(executor_id, None)
        return None

    async def _give_row(self, row: Row, ask: Ask) -> Grant | None:
        row.doubtful = False
        before = row.live()
        after = redelivered(
            before, row.id, node=self._node, now_ns=self._clock.now_ns(), cause=ask.cause
        )
        once.say(granted(row.pid, after))
        guards = grant_guards(row, ask)
        try:
            revision = await self._writes.commit(guards, chain.rewrite(row.pid, after))
            if revision is None:
                await self._writes.refresh([guard.key for guard in guards])
        except (asyncio.CancelledError, ColonistError):
            self.doubt_again(row.pid, after)
            raise
        if revision is not None:
            return Grant(row.pid, after, is_again=True)
        if row.live().head == before.head:  # else it was given again elsewhere, or is worked on
            self.doubt_again(row.pid, after)
        if not ask.is_allowed:
            raise refused(ask)
        return None


def granted(pid: bytes, live: Live) -> bytes:
    """What the record of a sealed assign says: the process, and which attempt."""
    return pid + live.attempt.to_bytes(4, "big")


def grant_guards(row: Row, ask: Ask) -> tuple[Guard, ...]:
    """All that a decision to assign has read."""
    guards = (
        Guard(keys.live(row.pid), row.revision),
        Guard(ask.executor.key, ask.executor.revision),
        Guard(ask.colony.key, ask.colony.revision),
    )
    if row.workflow is None:
        return guards
    return (*guards, Guard(row.workflow.key, row.workflow.revision))


def refused(ask: Ask) -> AccessError | PlainRefusedError:
    """What is told an executor that may not work any more, or not by such a request."""
    if ask.must_be_sealed:
        return PlainRefusedError(MUST_BE_SEALED)
    name = ask.colony.record.name
    return AccessError(f"Access denied, not a member of Colony with name <{name}>")


def _is_cancelled(row: Row) -> bool:
    """Whether a member is about to be ended with its workflow."""
    return row.workflow is not None and row.workflow.graph.is_cancelled
