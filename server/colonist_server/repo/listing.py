"""Reading processes: one, lists by state, history, attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

from colonist_core.process import Closed, Live
from colonist_protocol.errors import NotFoundError
from colonist_protocol.process import FINAL, GetProcesses, Process, State
from colonist_server.repo import keys, render
from colonist_server.repo.attributes import attributes_of
from colonist_server.repo.births import Births, Submitted
from colonist_server.repo.budget import Budget
from colonist_server.repo.kin import Family
from colonist_server.repo.moments import Moment
from colonist_server.repo.nouns import Colony, Row
from colonist_server.repo.outputs import MAX_JOINED_BYTES, Outputs, text_of
from colonist_server.repo.past import Reads
from colonist_server.repo.records import (
    AttributeRecord,
    Ended,
    all_ids,
    decode_closed,
    decode_ended,
)
from colonist_server.repo.render import Kin
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes

MAX_HISTORY: Final = 1000
MAX_EVENT_INPUT_BYTES: Final = 262_144

_PAGE: Final = 200
_AHEAD: Final = 8
"""Births that are read together for events: each may be large."""
_Shown = tuple[bytes, Live, Closed | None, bool, bool]


class _Room:
    """What a reply has left for processes, and for the inputs among them."""

    __slots__ = ("inputs", "reply")

    def __init__(self, max_input_bytes: int = 0) -> None:
        self.reply = Budget()
        self.inputs = Budget(max_input_bytes or MAX_JOINED_BYTES)


class Listing:
    """Processes as they are read."""

    __slots__ = ("_births", "_family", "_past", "_view", "_writes")

    def __init__(self, writes: Writes, births: Births, outputs: Outputs) -> None:
        self._writes = writes
        self._past = writes.past
        self._view: View = writes.view
        self._births = births
        self._family = Family(writes, outputs)

    async def get(self, colony: Colony, pid: bytes) -> Process:
        """One process. Raises `NotFoundError`."""
        row = self._view.rows.get(pid)
        if row is not None:
            found = await self._render(colony, [_of_row(row)])
        else:
            item = await self._past.read(keys.closed(pid))
            found = await self._render(colony, [_of_closed(pid, item.value)] if item else [])
        if not found:
            raise NotFoundError("Failed to get process, process not found")
        return found[0]

    async def expect(self, pids: Sequence[bytes]) -> None:
        """Have the births of processes that are shown soon in memory; few reads for all."""
        for start in range(0, len(pids), _AHEAD):
            await self._births.of_many(list(dict.fromkeys(pids[start : start + _AHEAD])))

    async def of_moments(self, moments: Sequence[Moment]) -> list[Process | None]:
        """Processes as they were at some moments; None for one that was removed since.

        What is longer than `MAX_EVENT_INPUT_BYTES` is left to whoever reads the process.
        """
        found: list[Process | None] = []
        for colony, pid, live, closed, has_attributes, has_output in moments:
            shown = [(pid, live, closed, has_attributes, has_output)]
            rendered = await self._render(
                colony, shown, is_past=True, max_input_bytes=MAX_EVENT_INPUT_BYTES
            )
            found.extend(rendered or [None])
        return found

    async def granted(self, colony: Colony, pid: bytes, live: Live, row: Row | None) -> Process:
        """A process as it was just assigned, with what it was given before.

        Raises `NotFoundError`.
        """
        has_attributes = row is None or row.has_attributes
        has_output = row is None or row.has_output
        found = await self._render(colony, [(pid, live, None, has_attributes, has_output)])
        if not found:
            raise NotFoundError("Failed to get process, process not found")
        return found[0]

    async def members(self, colony: Colony, wid: bytes, numbers: Iterable[int]) -> list[Process]:
        """Some members of a workflow, in order; one that was removed is left out."""
        room = _Room()
        shown: list[Process] = []
        for part in room.reply.portions([keys.member(wid, number) for number in numbers]):
            found = await self._members(part)
            shown += await self._show(colony, found, self._kin(found), room)
        return shown

    async def _members(self, pids: Sequence[bytes]) -> list[_Shown]:
        ended: dict[bytes, _Shown] = {}
        missing = [pid for pid in pids if pid not in self._view.rows]
        while missing:  # those that end while others are read are read too
            ended.update((entry[0], entry) for entry in await self._read_closed(missing))
            looked_for = {*ended, *missing}
            missing = [pid for pid in pids if pid not in self._view.rows and pid not in looked_for]
        live = {pid: _of_row(row) for pid in pids if (row := self._view.rows.get(pid)) is not None}
        found = [live.get(pid) or ended.get(pid) for pid in pids]
        return [entry for entry in found if entry is not None]

    async def birth(self, pid: bytes) -> Submitted:
        """What a process was submitted with. Raises `NotFoundError`."""
        birth = await self._births.of(pid)
        if birth is None:
            raise NotFoundError("Failed to get process, process not found")
        return birth

    async def by_state(self, colony: Colony, wanted: GetProcesses) -> list[Process]:
        """Up to `count` processes in a state, in the order of COLONIES-RPC section 2.6.

        Fewer where those would be over `REPLY_BYTES`.
        """
        state = State(wanted.state)
        if state in FINAL:
            return await self._closed(colony, wanted, state)
        rows = _waiting(colony) if state == State.WAITING else _running(colony)
        ids = _ids(colony, wanted)
        fitting = (row for row in rows if _matches(row.live(), wanted, ids))
        shown = [_of_row(row) for row in islice(fitting, wanted.count)]
        if state == State.RUNNING:  # those of one moment were committed in any order
            shown.sort(key=lambda entry: entry[1].started_ns)
        return await self._render(colony, shown)

    async def history(
        self, colony: Colony, *, state: State, since_ns: int, executor: str
    ) -> list[Process]:
        """The newest `MAX_HISTORY` processes submitted since then, oldest first.

        Where those would be over `REPLY_BYTES`, the oldest of them: the rest is younger.
        """
        if state in FINAL:
            ended = await self._ended_since(colony, state, since_ns, executor)
            return await self._render_closed(colony, ended)
        rows = _waiting(colony) if state == State.WAITING else _running(colony)
        shown = [
            _of_row(row)
            for row in rows
            if (live := row.live()).submitted_ns >= since_ns
            and (not executor or live.executor == executor)
        ]
        shown.sort(key=lambda entry: entry[1].submitted_ns)
        return await self._render(colony, shown[-MAX_HISTORY:])

    async def _ended_since(
        self, colony: Colony, state: State, since_ns: int, executor: str
    ) -> list[bytes]:
        """Those that ended last, in the order of their submission."""
        found: list[tuple[int, bytes]] = []
        after = b""
        while len(found) < MAX_HISTORY:
            page = await self._past.range(
                keys.ended_in(colony.tag, state), after=after, limit=_PAGE
            )
            listed = [(item.key, decode_ended(item.value)) for item in page.items]
            found.extend(
                (ended.submitted_ns, key[-keys.PID_BYTES :])
                for key, ended in listed
                if ended.submitted_ns >= since_ns and (not executor or ended.executor == executor)
            )
            # Nothing that ended before then was submitted after it.
            if not page.more or listed[-1][1].ended_ns < since_ns:
                break
            after = listed[-1][0]
        return [pid for _, pid in sorted(found[:MAX_HISTORY], key=lambda entry: entry[0])]

    async def _closed(self, colony: Colony, wanted: GetProcesses, state: State) -> list[Process]:
        ids = _ids(colony, wanted)
        pids: list[bytes] = []
        after = b""
        while len(pids) < wanted.count:
            page = await self._past.range(
                keys.ended_in(colony.tag, state), after=after, limit=_PAGE
            )
            pids.extend(
                item.key[-keys.PID_BYTES :]
                for item in page.items
                if _lists(decode_ended(item.value), wanted, ids)
            )
            if not page.more:
                break
            after = page.items[-1].key
        return await self._render_closed(colony, pids[: wanted.count])

    async def _render_closed(self, colony: Colony, pids: Sequence[bytes]) -> list[Process]:
        room = _Room()
        shown: list[Process] = []
        for part in room.reply.portions(pids):
            found = await self._read_closed(part)
            shown += await self._show(colony, found, self._kin(found), room)
        return shown

    async def _read_closed(self, pids: Sequence[bytes]) -> list[_Shown]:
        items = await self._past.read_many([keys.closed(pid) for pid in pids])
        return [
            _of_closed(pid, item.value)
            for pid, item in zip(pids, items, strict=True)
            if item is not None
        ]

    async def _render(
        self,
        colony: Colony,
        found: Sequence[_Shown],
        *,
        is_past: bool = False,
        max_input_bytes: int = 0,
    ) -> list[Process]:
        """As many as a reply may hold.

        Of the past, each is in the state that its record says, whatever has happened since.
        """
        family = self._kin(found)
        if is_past:
            family = {pid: kin.of_record() for pid, kin in family.items()}
        room = _Room(max_input_bytes)
        shown: list[Process] = []
        for part in room.reply.portions(found):
            shown += await self._show(colony, part, family, room)
        return shown

    def _kin(self, found: Iterable[_Shown]) -> dict[bytes, Kin]:
        return self._family.of_many(entry[:3] for entry in found)

    async def _show(
        self, colony: Colony, found: Sequence[_Shown], family: dict[bytes, Kin], room: _Room
    ) -> list[Process]:
        """One read for all births, one for all outputs, one per process that has attributes."""
        is_past = any(entry[2] is not None for entry in found)
        births = await self._births.of_many([entry[0] for entry in found], is_past=is_past)
        outputs = await self._outputs(found, self._source(is_past=is_past))
        members = [entry[:3] for entry in found]
        family = await self._family.with_inputs(members, family, room.inputs)
        shown: list[Process] = []
        for (pid, live, closed, has_attributes, _), birth in zip(found, births, strict=True):
            if birth is None:
                continue  # removed meanwhile
            kin = family.get(pid, None if keys.number_of(pid) else render.ALONE)
            if kin is None:
                room.reply.spend()  # on the relations of those before it
                break
            out = render.result(closed) if closed else render.NO_OUTPUT
            process = render.process(
                pid.hex(),
                colony.record.name,
                birth,
                live,
                out=outputs.get(pid, out) if render.is_empty(out) else out,
                errors=render.reasons(closed) if closed else (),
                attributes=await self._attributes(pid, closed) if has_attributes else (),
                kin=kin,
            )
            if not room.reply.holds(process):
                break
            shown.append(process)
        return shown

    async def _outputs(self, found: Sequence[_Shown], source: Reads) -> dict[bytes, bytes]:
        pids = [pid for pid, _, _, _, has_output in found if has_output]
        if not pids:
            return {}
        items = await source.read_many([keys.output(pid) for pid in pids])
        return {
            pid: text_of(item.value)
            for pid, item in zip(pids, items, strict=True)
            if item is not None
        }

    async def _attributes(
        self, pid: bytes, closed: Closed | None
    ) -> list[tuple[str, AttributeRecord]]:
        return await attributes_of(self._writes, pid, has_ended=closed is not None)

    def _source(self, *, is_past: bool) -> Reads:
        """What lives is never asked for in the archive."""
        return self._past if is_past else self._writes


def _running(colony: Colony) -> Iterator[Row]:
    """All that runs; not what was cancelled with its workflow."""
    return (row for row in colony.running.values() if _is_still(row, State.RUNNING))


def _waiting(colony: Colony) -> Iterator[Row]:
    """All that waits in the order in which it would run, also for parents; not what is doomed."""
    blocked = [row for row in colony.blocked.values() if _is_still(row, State.WAITING)]
    if not blocked:
        return iter(colony.queue)
    blocked.sort(key=_order)
    return merge(colony.queue, blocked, key=_order)


def _is_still(row: Row, state: State) -> bool:
    return row.workflow is None or row.workflow.graph.state_of(row.number) == state


def _order(row: Row) -> tuple[int, bytes]:
    return row.priority_ns, row.pid


def _of_row(row: Row) -> _Shown:
    return row.pid, row.live(), None, row.has_attributes, row.has_output


def _of_closed(pid: bytes, value: bytes) -> _Shown:
    closed = decode_closed(value)
    return pid, closed.live, closed, closed.has_attributes, closed.has_output


def _ids(colony: Colony, wanted: GetProcesses) -> frozenset[str]:
    """Under which ids the executor works, or has worked, that a list is about; empty: any."""
    if not wanted.executorid:
        return frozenset()
    holder = colony.holder(wanted.executorid)
    return frozenset(all_ids(holder.record) if holder is not None else (wanted.executorid,))


def _matches(live: Live, wanted: GetProcesses, ids: frozenset[str]) -> bool:
    return (
        (not wanted.executortype or live.placement.type == wanted.executortype)
        and (not wanted.label or live.label == wanted.label)
        and (not wanted.initiator or live.initiator == wanted.initiator)
        and (not ids or live.executor in ids)
    )


def _lists(ended: Ended, wanted: GetProcesses, ids: frozenset[str]) -> bool:
    return (
        (not wanted.executortype or ended.type == wanted.executortype)
        and (not wanted.label or ended.label == wanted.label)
        and (not wanted.initiator or ended.initiator == wanted.initiator)
        and (not ids or ended.executor in ids)
    )
