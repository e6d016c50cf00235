"""Ending what took too long: one timer for all deadlines, nothing polled.

A deadline runs on the monotonic clock from when this node learnt of it. A process has one entry
that counts, the newest; others are dropped when they ring, or all at once when they are most of the
heap.

Where nodes share the store each has them all, and the leader rings. The clock that wrote a deadline
may be another node's: so what counts is how long it was when it was written, from when this node
heard of that; only of what was loaded it counts what is left by the clock of whoever wrote it.

A lease that was counted is never cut, whatever the clocks are set to. Where no two attempts may
overlap, nodes that share a store wait as much longer as their clocks may be apart
(`colonist_core.lease`).
"""

from __future__ import annotations

import asyncio
import logging
from heapq import heapify, heappop, heappush
from typing import Final

from colonist_core import lease
from colonist_core.lease import Flag
from colonist_protocol.errors import ColonistError, ConflictError
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS
from colonist_server.loops.leadership import Leadership
from colonist_server.repo.clock import Clock, Timer
from colonist_server.repo.nodes import SKEW_NS, Nodes
from colonist_server.repo.nouns import Colony, Executor, Row
from colonist_server.repo.processes import Processes
from colonist_server.repo.records import ExecutorRecord
from colonist_server.repo.view import View

log = logging.getLogger(__name__)

BATCH: Final = 500
RETRY_S: Final = 1.0
EARLY_S: Final = 1e-6
"""Loops fire a timer as early as their clock's resolution: that is in time, not to be set again."""

APART_S: Final = lease.apart(2 * SKEW_NS / SECOND_NS)
"""A node is ready with a clock that is `SKEW_NS` off the middle: two may be twice that apart."""

_SLACK: Final = 1000
_Entry = tuple[float, int, Row]


class Deadlines:
    """A listener of the view that ends or re-queues processes in time."""

    __slots__ = (
        "_clock",
        "_due",
        "_heap",
        "_leadership",
        "_nodes",
        "_number",
        "_processes",
        "_timer",
        "_view",
    )

    def __init__(
        self,
        view: View,
        processes: Processes,
        clock: Clock,
        *,
        leadership: Leadership,
        nodes: Nodes,
    ) -> None:
        self._view = view
        self._processes = processes
        self._clock = clock
        self._leadership = leadership
        self._nodes = nodes
        self._heap: list[_Entry] = []
        self._number = 0
        self._timer: Timer | None = None
        self._due = asyncio.Event()
        view.listen(self)

    def row_changed(self, row: Row) -> None:
        """Note a deadline, unless it is noted."""
        is_running = row.state == State.RUNNING
        if is_running != bool(row.held_for):
            row.alarm = 0  # the state is another, and so what its deadline means
        if not is_running:
            row.held_until, row.held_for = 0.0, 0
        if not row.deadline_ns:
            return
        due = self._due_at(row)
        if not row.alarm or row.alarm_for != row.deadline_ns:
            self._push(due, row)

    def _due_at(self, row: Row) -> float:
        if row.held_for == row.deadline_ns:
            return row.held_until
        due = self._clock.monotonic() + (row.deadline_ns - self._began_ns(row)) / SECOND_NS
        if row.state != State.RUNNING:
            return due
        if self._view.is_shared and row.live().flags & Flag.NEVER_OVERLAPS:
            due += APART_S
        row.held_until, row.held_for = max(row.held_until, due), row.deadline_ns
        return row.held_until

    def _began_ns(self, row: Row) -> int:
        """What time it is now by the clock that wrote the deadline."""
        if not self._view.is_shared:
            return self._clock.now_ns()
        live = row.live()
        if self._view.is_loading:
            return self._clock.now_ns() + self._nodes.offset_ns(live.node)
        graph = row.workflow.graph if row.workflow is not None else None
        if graph is None or row.state != State.WAITING:
            return live.changed_ns
        return max(live.changed_ns, graph.ready_ns.get(row.number, 0))

    def executor_changed(
        self, colony: Colony, executor: Executor, before: ExecutorRecord | None
    ) -> None:
        """Deadlines do not depend on executors."""

    def colony_changed(self, colony: Colony) -> None:
        """Deadlines run on while a colony is paused (COLONIES-RPC section 4.6)."""

    async def run(self) -> None:
        """Ring until cancelled."""
        while True:
            await self._due.wait()
            await self._leadership.wait()
            self._due.clear()
            async with asyncio.TaskGroup() as group:
                for row, deadline_ns in self._pop_due():
                    group.create_task(self._expire(row, deadline_ns))
            self._arm()

    async def _expire(self, row: Row, deadline_ns: int) -> None:
        try:
            await self._processes.expire(row, deadline_ns)
        except ConflictError:
            return  # it moved on just now
        except ColonistError as error:
            log.warning("deadline of process=%s not kept, trying again: %s", row.id, error)
            if not row.alarm and row.deadline_ns == deadline_ns:
                self._push(self._clock.monotonic() + RETRY_S, row)

    def _push(self, due: float, row: Row) -> None:
        self._number += 1
        row.alarm, row.alarm_for = self._number, row.deadline_ns
        heappush(self._heap, (due, self._number, row))
        if len(self._heap) > 2 * len(self._view.rows) + _SLACK:
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapify(self._heap)
        if self._heap and self._heap[0][1] == self._number:
            self._arm()

    def _counts(self, entry: _Entry) -> bool:
        _, number, row = entry
        return row.alarm == number and self._view.rows.get(row.pid) is row

    def _pop_due(self) -> list[tuple[Row, int]]:
        due: list[tuple[Row, int]] = []
        now = self._clock.monotonic() + EARLY_S
        while self._heap and self._heap[0][0] <= now and len(due) < BATCH:
            entry = heappop(self._heap)
            if not self._counts(entry):
                continue
            row = entry[2]
            row.alarm = 0
            if row.alarm_for == row.deadline_ns:
                due.append((row, row.deadline_ns))
        return due

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = self._clock.call_at(self._heap[0][0], self._due.set)
