"""What executors say of running attempts by sealed requests: each has its effect once.

Requests of an attempt are numbered. The output and an attribute are those of the highest number, a
log line is put once per number, and a renewal says how far the lease reaches. So whoever repeats
them, and in whatever order they come, what they leave is the same.

The first of them confirms the attempt: it has started.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from colonist_core.attempt import check_attempt, confirmed, renewed
from colonist_core.lease import Flag
from colonist_core.process import Cause, Live, What, is_newest, redelivered, returned
from colonist_protocol.attribute import attribute_id
from colonist_protocol.errors import AttemptOverError, ContendedError
from colonist_protocol.process import Attempt, State
from colonist_server.repo import chain, keys
from colonist_server.repo.attempts import Attempts, Said
from colonist_server.repo.attributes import Attributes, Setting
from colonist_server.repo.clock import Clock
from colonist_server.repo.journal import executor_pid
from colonist_server.repo.nouns import Executor, Row
from colonist_server.repo.outputs import packed, place_of
from colonist_server.repo.records import (
    AttributeRecord,
    LogRecord,
    all_ids,
    decode_attribute,
    encode,
)
from colonist_server.repo.view import View
from colonist_server.repo.writes import ATTEMPTS, Writes
from colonist_server.store.interface import Guard, Item, Op, Put


class Reports:
    """Takes what attempts say of themselves."""

    __slots__ = ("_attempts", "_attributes", "_clock", "_view", "_writes")

    def __init__(
        self, writes: Writes, attempts: Attempts, attributes: Attributes, clock: Clock
    ) -> None:
        self._writes = writes
        self._attributes = attributes
        self._view: View = writes.view
        self._attempts = attempts
        self._clock = clock

    async def output(self, pid: bytes, out: bytes, said: Said) -> None:
        """Replace the output, unless a later request did. Raises `AttemptOverError`."""
        key = keys.output(pid)
        place = (said.by.number, said.seq)
        for _ in range(ATTEMPTS):
            before = await self._writes.read(key)
            row, live = self._running(pid, said)
            if before is not None and place_of(before.value) >= place:
                return
            row.has_output = True
            ops = [Put(key, packed(place, out)), *self._noted(row, live, said)]
            if await self._commit(row, said, before, key, ops):
                return
        raise ContendedError("the output changed too often")

    async def attribute(
        self, pid: bytes, wanted: AttributeRecord, said: Said
    ) -> tuple[str, AttributeRecord]:
        """Set an attribute, unless a later request did: its id, and what stands there.

        Raises `AttemptOverError`, and `TooLargeError` where it has as many as it may.
        """
        row, _ = self._running(pid, said)
        async with self._attributes.setting(row) as setting:
            return await self._attribute(pid, wanted, said, setting)

    async def _attribute(
        self, pid: bytes, wanted: AttributeRecord, said: Said, setting: Setting
    ) -> tuple[str, AttributeRecord]:
        id = attribute_id(pid.hex(), wanted.key, wanted.kind)
        key = keys.attribute(pid, id)
        record = msgspec.structs.replace(wanted, attempt=said.by.number, seq=said.seq)
        value = encode(record)
        for _ in range(ATTEMPTS):
            before = await self._writes.read(key)
            row, live = self._running(pid, said)
            stored = decode_attribute(before.value) if before is not None else None
            if stored is not None and (stored.attempt, stored.seq) >= (said.by.number, said.seq):
                return id, stored
            setting.begin(before, value)
            row.has_attributes = True
            ops = [
                Put(key, value),
                Put(keys.attribute_index(id), pid),
                *self._noted(row, live, said),
            ]
            if await self._commit(row, said, before, key, ops):
                setting.done()
                return id, record
        raise ContendedError("the attribute changed too often")

    async def line(self, pid: bytes, message: str, said: Said) -> None:
        """Write a line to the process and to its executor's log. Raises `AttemptOverError`."""
        name = said.executor.name
        mine = executor_pid(said.colony.tag, name)
        mark = keys.mark(pid, said.by.number, said.seq)
        for _ in range(ATTEMPTS):
            row, live = self._running(pid, said)
            now_ns = self._clock.now_ns()
            key = keys.log(pid, live.attempt, now_ns)
            record = encode(LogRecord(message, name, pid, now_ns))
            after = self._confirmed(row, live, said)
            after = msgspec.structs.replace(after, flags=after.flags | Flag.MARKED)
            guards = [Guard(keys.live(pid), row.revision), Guard(mark, 0), Guard(key, 0)]
            ops: list[Op] = [
                Put(key, record),
                Put(keys.log(mine, 0, now_ns), record),
                Put(mark, b"\x01"),
                *(chain.rewrite(pid, after) if after != live else ()),
            ]
            if await self._writes.commit([*guards, said.guard], ops):
                return
            items = await self._writes.refresh([keys.live(pid), mark, said.executor.key])
            if items[1] is not None:
                return
        raise ContendedError("the process changed too often")

    async def renew(self, pid: bytes, count: int, said: Said) -> tuple[Attempt, bytes]:
        """Let the lease reach to the end of period number `count`; 0 asks what is left of it.

        With the hash of the event. Raises `AttemptOverError`, `InvalidValueError`.
        """
        for _ in range(ATTEMPTS):
            row, live = self._running(pid, said)
            now_ns = self._clock.now_ns()
            after = renewed(live, row.id, said.by, count, now_ns=now_ns, cause=said.cause)
            # Also what changes nothing is committed: a node that is behind must not say that it
            # runs on.
            ops = chain.rewrite(pid, after)
            if await self._writes.commit([_guard(row), said.guard], ops):
                event = after.head if after.head != live.head else b""
                return self._attempts.of(row.id, after), event
            await self._writes.refresh([keys.live(pid), said.executor.key])
        raise ContendedError("the process changed too often")

    async def granted_again(self, pid: bytes, number: int, by: Executor, cause: Cause) -> None:
        """A reply is about to show a grant once more: from then on it was received.

        Where the first reply was lost, some node may be about to put the process back: whichever
        commit is first, what is told is what holds. One event for each attempt at most; none where
        nobody puts it back, or where the attempt was heard of.
        """
        for _ in range(ATTEMPTS):
            row = self._view.rows.get(pid)
            if row is None or not by.is_approved or not _may_go_back(row, number, by):
                return
            live = row.live()
            now_ns = self._clock.now_ns()
            after = redelivered(live, row.id, node=live.node, now_ns=now_ns, cause=cause)
            guards = [_guard(row), Guard(by.key, by.revision)]
            if await self._writes.commit(guards, chain.rewrite(pid, after)):
                return
            await self._writes.refresh([keys.live(pid), by.key])
        raise ContendedError("the process changed too often")

    async def release(self, pid: bytes, said: Said) -> None:
        """Take a process back unfinished; an attempt that is over has nothing to give back."""
        for number in range(ATTEMPTS):
            row = self._view.rows.get(pid)
            live = row.live() if row is not None and not _is_cancelled(row) else None
            if row is None or live is None or not _is_running(live, said):
                if number or not self._writes.store.is_shared:
                    return
                await self._writes.refresh([keys.live(pid)])  # perhaps this node is behind
                continue
            now_ns = self._clock.now_ns()
            after = returned(live, row.id, What.RELEASED, now_ns=now_ns, cause=said.cause)
            if await self._writes.commit([_guard(row), said.guard], chain.rewrite(pid, after)):
                return
            await self._writes.refresh([keys.live(pid), said.executor.key])
        raise ContendedError("the process changed too often")

    def _running(self, pid: bytes, said: Said) -> tuple[Row, Live]:
        """The process, if the attempt runs it. Ends a doubt. Raises `AttemptOverError`."""
        row = self._view.rows.get(pid)
        if row is None or _is_cancelled(row):
            raise AttemptOverError("the process has ended: stop its work")
        live = row.live()
        check_attempt(live, said.by)
        row.doubtful = False
        return row, live

    def _confirmed(self, row: Row, live: Live, said: Said) -> Live:
        now_ns = self._clock.now_ns()
        return confirmed(live, row.id, said.by, now_ns=now_ns, cause=said.cause)

    def _noted(self, row: Row, live: Live, said: Said) -> Sequence[Op]:
        """Let the record say that the attempt has started, and that more stands beside it."""
        after = self._confirmed(row, live, said)
        if self._writes.store.is_shared and not after.has_more:
            after = msgspec.structs.replace(after, has_more=True)
        return chain.rewrite(row.pid, after) if after is not live else ()

    async def _commit(
        self, row: Row, said: Said, before: Item | None, key: bytes, ops: Sequence[Op]
    ) -> bool:
        """Write what was decided on, or bring the view up for another try."""
        guards = [_guard(row), Guard(key, before.modified if before else 0), said.guard]
        if await self._writes.commit(guards, ops):
            return True
        await self._writes.refresh([keys.live(row.pid), said.executor.key])
        return False


def _guard(row: Row) -> Guard:
    return Guard(keys.live(row.pid), row.revision)


def _may_go_back(row: Row, number: int, by: Executor) -> bool:
    """Whether the attempt is this executor's, and nothing has happened since it was granted."""
    if row.state != State.RUNNING or _is_cancelled(row):
        return False
    live = row.live()
    is_lent = bool(live.flags & Flag.NEVER_OVERLAPS)
    is_new = bool(live.events) and live.events[-1].what == What.ASSIGNED
    is_own = live.attempt == number and live.executor in all_ids(by.record)
    return is_own and is_new and live.is_sealed and not is_lent


def _is_running(live: Live, said: Said) -> bool:
    return live.state == State.RUNNING and is_newest(live, said.by)


def _is_cancelled(row: Row) -> bool:
    """Whether a member is about to be ended with its workflow."""
    return row.workflow is not None and row.workflow.graph.is_cancelled
