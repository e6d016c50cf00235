"""Running crons in time: one heap, one timer for the earliest, nothing polled.

An interval is kept on the monotonic clock, so a wall clock that is set does not change its pace. A
calendar follows the wall clock: as long as it has crons, this wakes at least once in `LOOK_S` to
see whether that was set. Set forward, what was jumped over runs then, once; set back, a cron rests
until its next time comes, and no planned time runs twice. Every node watches; the leader starts
runs, of all that were missed between two leaders one for each cron.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from colonist_core.cron import NEVER, Interval
from colonist_protocol.errors import ColonistError, InvalidValueError
from colonist_protocol.times import SECOND_NS
from colonist_server.loops.leadership import Leadership
from colonist_server.repo.clock import Clock, Timer
from colonist_server.repo.cron_ready import Bundle, ReadyRuns
from colonist_server.repo.cron_runs import CronRuns
from colonist_server.repo.cron_view import Cron, CronView
from colonist_server.repo.definitions import HeldError, creator_of
from colonist_server.repo.nouns import Colony, Row, Workflow
from colonist_server.repo.view import View

log = logging.getLogger(__name__)

TAKEN: Final = 2_000
"""Crons that are taken from the heap at once, and put into the order in which they are stored."""
BATCH: Final = 100
"""Runs that are begun before anybody else has a turn."""
LEAD_S: Final = 0.5
"""Where many are due together, what they will commit is made ready so long before."""
MANY: Final = 10
SLICE: Final = 10
"""Runs that are made ready before anybody else has a turn."""
ROUNDING_S: Final = 0.001
"""Loops round their timers: so much later is never too early."""
LOOK_S: Final = 60.0
RETRY_S: Final = 1.0
FAULT_RETRY_S: Final = 60.0
_JUMP_NS: Final = SECOND_NS // 2
_SLACK: Final = 1000


class _Entry(NamedTuple):
    """When to look at a cron, and the turn for which; `NEVER`: to finish a run that is pending."""

    due: float
    number: int
    at_ns: int
    cron: Cron


class CronLoop:
    """A listener of crons and workflows that starts what is due."""

    __slots__ = (
        "_clock",
        "_crons",
        "_heap",
        "_held_up",
        "_leadership",
        "_number",
        "_offset_ns",
        "_ready",
        "_runs",
        "_seen_until",
        "_timer",
        "_view",
        "_wake",
    )

    def __init__(
        self,
        view: View,
        crons: CronView,
        runs: CronRuns,
        ready: ReadyRuns,
        clock: Clock,
        *,
        leadership: Leadership,
    ) -> None:
        self._leadership = leadership
        self._view = view
        self._crons = crons
        self._runs = runs
        self._ready = ready
        self._clock = clock
        self._heap: list[_Entry] = []
        self._held_up: dict[bytes, dict[bytes, Cron]] = {}
        self._number = 0
        self._seen_until = 0.0
        self._offset_ns = self._offset()
        self._timer: Timer | None = None
        self._wake = asyncio.Event()
        crons.listen(self.changed)
        view.graphs.listen(self)
        view.listen_to_members(self.member_changed)

    # -- what the view learns

    def changed(self, cron: Cron) -> None:
        """See to it that it runs in time."""
        cron.is_resting = False
        if cron.is_at_work:
            self._push(self._due(cron), cron)

    def member_changed(self, colony: Colony, name: str) -> None:
        """A creator may work again, maybe: its crons run for all that they missed, once."""
        if name in colony.missed:
            for cron in self._crons.of(colony.tag):
                if cron.is_resting and cron.record.initiator == name:
                    self.changed(cron)

    def workflow_changed(self, workflow: Workflow) -> None:
        """A run may have waited for the end of a workflow."""
        wid = workflow.wid
        if wid in self._held_up and wid not in self._view.workflows:
            for cron in self._held_up.pop(wid).values():
                self.changed(cron)

    def member_released(self, row: Row) -> None:
        """Members do not matter."""

    # -- running

    async def run(self) -> None:
        """Start what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                await self._leadership.wait()
                self._wake.clear()
                self._look_at_clock()
                while due := self._pop_due():
                    for start in range(0, len(due), BATCH):
                        self._begin(due[start : start + BATCH], group)
                        await asyncio.sleep(0)  # requests are served meanwhile
                await self._make_ready()
                self._arm()

    def _begin(self, due: Sequence[tuple[Cron, int]], group: asyncio.TaskGroup) -> None:
        bundles, others = self._ready.bundle(due)
        for bundle in bundles:
            group.create_task(self._serve_bundle(bundle))
        for cron, at_ns in others:
            group.create_task(self._serve(cron, at_ns))

    async def _make_ready(self) -> None:
        """Prepare the runs of the next moment, if they are many."""
        now = self._clock.monotonic()
        self._seen_until = now + LEAD_S + 10 * ROUNDING_S
        if not self._heap or self._heap[0].due > self._seen_until:
            return
        soon = [entry for entry in self._heap if now < entry.due <= self._seen_until]
        if len(soon) < MANY:
            return
        self._ready.forget_missed()
        for number, entry in enumerate(soon):
            if entry.at_ns != NEVER and _is_current(entry):
                self._prepare(entry.cron)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        gc.collect(0)  # some ms that are spent now, and not in the moment for which this is

    def _prepare(self, cron: Cron) -> None:
        try:
            self._ready.prepare(cron)
        except Exception:  # its run will fail alone
            log.exception("cron=%s not made ready", cron.id)

    async def _serve_bundle(self, bundle: Bundle) -> None:
        try:
            is_done = self._leadership.is_leader and await self._ready.start(bundle)
        except ColonistError:
            is_done = False
        except Exception:
            log.exception("runs of %d crons not started together", len(bundle.crons))
            is_done = False
        for cron, at_ns in bundle.crons:
            if not is_done:
                await self._serve(cron, at_ns)
            else:
                self._note_held_up(cron)

    async def _serve(self, cron: Cron, at_ns: int) -> None:
        await self._leadership.wait()
        try:
            await self._runs.serve(cron, at_ns)
        except HeldError as error:
            log.info("cron=%s rests: %s", cron.id, error)
            self._rest(cron)
        except ColonistError as error:
            log.warning("cron=%s not run, trying again: %s", cron.id, error)
            self._retry(cron, RETRY_S)
        except Exception:  # one cron must not end the others, nor the server at each start (P1)
            log.exception("cron=%s not run", cron.id)
            self._retry(cron, FAULT_RETRY_S)
        self._note_held_up(cron)

    def _rest(self, cron: Cron) -> None:
        """Until its creator may work, unless it may by now."""
        if creator_of(cron.colony, cron.record) is not None:
            self.changed(cron)
            return
        cron.is_resting = True
        cron.colony.missed.add(cron.record.initiator)

    def _note_held_up(self, cron: Cron) -> None:
        if self._runs.is_held_up(cron):
            self._held_up.setdefault(cron.record.previous, {})[cron.cid] = cron

    def _retry(self, cron: Cron, after_s: float) -> None:
        self._push(max(self._clock.monotonic() + after_s, self._due(cron)), cron)

    # -- the timer

    def _due(self, cron: Cron) -> float:
        """When the next turn is, on the monotonic clock."""
        record = cron.record
        if record.pending is not None:
            return self._clock.monotonic()
        now_ns = self._clock.now_ns()
        if _is_interval(cron):
            # The last turn may have been later than now: then the wall clock was set back.
            now_ns = max(now_ns, record.planned_ns)
        return self._clock.monotonic() + (record.turn.at_ns - now_ns) / SECOND_NS

    def _push(self, due: float, cron: Cron) -> None:
        self._number += 1
        heappush(self._heap, _Entry(due, self._number, _turn_of(cron), cron))
        if len(self._heap) > 2 * len(self._crons.all) + _SLACK:
            self._heap = [entry for entry in self._heap if _is_current(entry)]
            heapify(self._heap)
        if self._heap and self._heap[0].number == self._number:
            self._arm()

    def _pop_due(self) -> list[tuple[Cron, int]]:
        """What is due, and for which turn; in the order in which it is stored."""
        due: list[tuple[Cron, int]] = []
        now = self._clock.monotonic()
        now_ns = self._clock.now_ns()
        while self._heap and self._heap[0].due <= now and len(due) < TAKEN:
            entry = heappop(self._heap)
            if not _is_current(entry):
                continue
            if entry.at_ns > now_ns and not _is_interval(entry.cron):
                self._push(self._due(entry.cron), entry.cron)
            else:
                due.append((entry.cron, entry.at_ns))
        due.sort(key=_place)
        return due

    def _look_at_clock(self) -> None:
        """Where the wall clock was set, count anew what follows it."""
        offset_ns = self._offset()
        if abs(offset_ns - self._offset_ns) < _JUMP_NS:
            return
        moved_s = (offset_ns - self._offset_ns) / SECOND_NS
        log.warning("the clock moved %+.1f s against the time that passed", moved_s)
        self._offset_ns = offset_ns
        self._heap = [
            entry if _is_interval(entry.cron) else entry._replace(due=self._due(entry.cron))
            for entry in self._heap
            if _is_current(entry)
        ]
        heapify(self._heap)

    def _offset(self) -> int:
        return self._clock.now_ns() - int(self._clock.monotonic() * SECOND_NS)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            when = self._heap[0].due
            if when > self._seen_until:
                when -= LEAD_S
            when = min(when, self._clock.monotonic() + LOOK_S)
            self._timer = self._clock.call_at(when + ROUNDING_S, self._wake.set)


def _is_current(entry: _Entry) -> bool:
    return entry.cron.is_at_work and _turn_of(entry.cron) == entry.at_ns


def _place(due: tuple[Cron, int]) -> bytes:
    return due[0].cid


def _turn_of(cron: Cron) -> int:
    return NEVER if cron.record.pending is not None else cron.record.turn.at_ns


def _is_interval(cron: Cron) -> bool:
    try:
        return isinstance(cron.schedule, Interval)
    except InvalidValueError:
        return False  # its zone is not known here: its run will say so
