"""Handing work to executors that wait for it.

A waiter stands in its colony's waiting room under what it can run. A process that becomes free
claims the longest parked waiter that fits, in one step without an await, and nobody else hears of
it. A submit that finds a waiter commits submission and assignment together. What nobody can
receive any more goes back at once (event `undelivered`: the attempt is consumed, the retry is not).

Other nodes may hand out the same queue. Where one of them goes first (`sharing`), a process is left
to it for a moment, under a timer: then whoever waits here gets it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final

from colonist_core.lease import Flag
from colonist_core.matching import Placement
from colonist_core.process import Cause, Live, What, assigned, returned
from colonist_core.waiters import Parking, WaitingRoom
from colonist_protocol.errors import (
    AssignPausedError,
    AssignPausedTimeoutError,
    ColonistError,
    NoProcessError,
    UnavailableError,
)
from colonist_protocol.process import State
from colonist_server.repo import chain, effects, keys, once
from colonist_server.repo.clock import Clock
from colonist_server.repo.nouns import Colony, Executor, Row
from colonist_server.repo.records import ExecutorRecord, all_ids, decode_live
from colonist_server.repo.redelivery import Redelivery, grant_guards, granted, refused
from colonist_server.repo.sharing import (
    LAST_TURN_S,
    WINDOW,
    Alone,
    Interest,
    Pace,
    Peers,
    choose,
    turn_s,
)
from colonist_server.repo.unsure import Unsure
from colonist_server.repo.view import View
from colonist_server.repo.waiting import Alike, Ask, Grant, Waiter, Wake
from colonist_server.repo.writes import ATTEMPTS, Plan, Writes
from colonist_server.store.interface import Guard, Revision

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
LOOKED_AT: Final = 1_000
"""So many waiting processes are looked at for one that is small enough."""

NOTHING: Final = "No process available for assignment"
PAUSED: Final = "No processes available: colony assignments are paused"
PAUSED_TIMEOUT: Final = "Assignment timeout: colony assignments are paused"

Work = Callable[[], Coroutine[Any, Any, None]]
Spawn = Callable[[Work], None]
"""Runs something in the background until it is done."""


class HandOver:
    """The waiting rooms, and the assignments made in them."""

    __slots__ = (
        "_alike",
        "_clock",
        "_closing",
        "_node",
        "_pace",
        "_peers",
        "_redelivery",
        "_rooms",
        "_spawn",
        "_unsure",
        "_view",
        "_writes",
        "conflicts",
        "grants",
        "interest",
    )

    def __init__(
        self,
        writes: Writes,
        view: View,
        clock: Clock,
        spawn: Spawn,
        *,
        node: str,
        peers: Peers | None = None,
    ) -> None:
        self._writes = writes
        self._view = view
        self._clock = clock
        self._spawn = spawn
        self._node = node
        self._peers = peers or Alone()
        self.interest = Interest(clock)
        self._pace = Pace()
        self._unsure = Unsure()
        self.grants = 0
        """Assignments that were committed."""
        self.conflicts = 0
        """Those that were lost to a change by somebody else, mostly another node's assignment."""
        self._rooms: dict[Colony, WaitingRoom[Waiter]] = {}
        self._alike = Alike()
        self._closing = False
        self._redelivery = Redelivery(writes, view, clock, doubt=self.doubt, node=node)
        view.listen(self)
        view.follow(keys.SEALED, self._recorded)

    # -- asking for work

    async def assign(self, ask: Ask, timeout_s: float) -> Grant:
        """The next process for this executor, waiting up to `timeout_s`; negative: not at all.

        Raises `NoProcessError`, `AssignPausedError`, `AssignPausedTimeoutError`, `AccessError`.
        """
        until = self._clock.monotonic() + timeout_s
        self.interest.note(ask.colony.tag, ask.profile.type)
        while True:
            doubtful = await self._redelivery.give(ask)
            if doubtful is not None:
                return doubtful
            found = self._claim_row(ask) or await self._wait(ask, until)
            if isinstance(found, Grant):
                return found
            grant = await self._grant(found, ask) if found is not None else None
            if grant is not None:
                return grant

    def _claim_row(self, ask: Ask) -> Row | None:
        colony = ask.colony
        if colony.record.is_paused or self._closing:
            return None
        row = self._next_row(ask)
        if row is not None:
            colony.queue.discard(row)
            row.claimed = True
        return row

    def _next_row(self, ask: Ask) -> Row | None:
        colony, profile = ask.colony, ask.profile
        others = self._peers.interested(colony.tag, profile.type)
        if not others and not ask.max_reply:
            return colony.queue.first(profile)
        fitting: Iterator[Row] = colony.queue.fitting(profile)
        if ask.max_reply:
            fitting = (row for row in islice(fitting, LOOKED_AT) if ask.takes(row.live()))
        if not others:
            return next(fitting, None)
        window = islice(fitting, WINDOW)
        step_s = self._pace.step_s
        choice = choose(window, self._node, others, self._clock.monotonic(), step_s)
        for row in choice.left:
            self._leave(row, turn_s(row.pid, self._node, others, step_s))
        return choice.taken

    def _leave(self, row: Row, wait_s: float) -> None:
        """Leave a row to a node that goes before this one, but not for ever."""
        row.left_at = self._clock.monotonic()
        self._clock.call_at(row.left_at + wait_s, partial(self._hand_out, row))

    async def _wait(self, ask: Ask, until: float) -> Row | Grant | None:
        """Wait for work; None: look again, this executor may have been given some before."""
        if ask.once is not None:
            await self._writes.refresh([])  # granted before, it is not to wait again
        if self._clock.monotonic() >= until or self._closing:
            raise _nothing(ask.colony, waited=False)
        if not ask.is_allowed:
            raise refused(ask)
        waiter = Waiter(ask, asyncio.get_running_loop().create_future(), until)
        room = self._room(ask.colony)
        room.park(waiter)
        self._alike.add(waiter)
        if len(ask.colony.queue):  # nodes come and go: turns may have changed under their timers
            again = self._clock.monotonic() + LAST_TURN_S
            self._clock.call_at(again, partial(self._serve, waiter))
        waiter.timer = self._clock.call_at(until, lambda: _time_is_up(room, waiter))
        try:
            woken = await waiter.future
            effects.happened()
        except asyncio.CancelledError:
            self._gone(waiter)
            raise
        finally:
            waiter.timer.cancel()
            room.unpark(waiter)
            self._alike.remove(waiter)
            self.interest.note(ask.colony.tag, ask.profile.type)
        if woken is Wake.LOOK_AGAIN:
            await self._writes.refresh([])
            return None
        if isinstance(woken, Wake):
            raise (refused(ask) if woken is Wake.REFUSED else _nothing(ask.colony, waited=True))
        return woken

    def _gone(self, waiter: Waiter) -> None:
        """The connection died while parked: what was on its way goes to somebody else."""
        if not waiter.future.done() or waiter.future.cancelled():
            return
        match waiter.future.result():
            case Grant() as grant:
                self.hand_back(grant)
            case Row() as row:
                self._release(row)
            case _:
                pass

    # -- giving work

    def claim_waiter(self, colony: Colony, live: Live) -> Waiter | None:
        """Take the waiter that a process about to be submitted can go to at once."""
        room = self._rooms.get(colony)
        if room is None or colony.record.is_paused or self._closing:
            return None
        return self._claim(room, live.placement, lambda: live)

    @staticmethod
    def _claim(
        room: WaitingRoom[Waiter], placement: Placement, live: Callable[[], Live]
    ) -> Waiter | None:
        """The longest parked waiter that fits, that may be granted something, and that takes it."""
        aside: list[Waiter] = []
        while (waiter := room.claim(placement)) is not None:
            if waiter.is_stale:
                waiter.wake(Wake.LOOK_AGAIN)
            elif waiter.ask.max_reply and not waiter.ask.takes(live()):
                aside.append(waiter)
            else:
                break
        for each in aside:
            room.release(each)
        return waiter

    def granting(self, waiter: Waiter, pid: bytes, live: Live, plan: Plan) -> Plan:
        """A commit that also grants to a claimed waiter."""
        guards = [*plan.guards, Guard(waiter.ask.executor.key, waiter.ask.executor.revision)]
        bound = waiter.ask.once
        if bound is None:
            return Plan(guards, plan.ops)
        bound.say(granted(pid, live))
        return Plan(*bound.join(guards, plan.ops))

    def grant_to(self, waiter: Waiter, grant: Grant) -> None:
        """Answer a claimed waiter with a committed assignment."""
        self.grants += 1
        if waiter.ask.once is not None:
            waiter.ask.once.is_spent = True
        if not waiter.ask.is_allowed:  # removed since: whoever removed it may have missed this
            waiter.wake(Wake.REFUSED)
            self.hand_back(grant)
        elif not waiter.wake(grant):
            self.hand_back(grant)

    def release_waiter(self, waiter: Waiter) -> None:
        """The claim came to nothing: park again, and look whether something else fits."""
        if waiter.future.done():
            return
        if not waiter.ask.is_allowed:  # nobody refuses a waiter while it is claimed
            waiter.wake(Wake.REFUSED)
        elif waiter.ask.once is not None:  # it may have been granted something elsewhere
            waiter.wake(Wake.LOOK_AGAIN)
        elif self._clock.monotonic() >= waiter.until or self._closing:
            waiter.wake(Wake.TIME_IS_UP)
        else:
            self._room(waiter.ask.colony).release(waiter)
            self._serve(waiter)

    def hand_back(self, grant: Grant) -> None:
        """Nobody received this assignment: put the process back, in the background.

        One that was in doubt is in doubt again: its executor may have had it before.
        """
        if grant.is_again:
            self._redelivery.doubt_again(grant.pid, grant.live)
            return
        self._spawn(partial(self._hand_back, grant.pid, grant.live))

    def assigned_to(self, live: Live, pid: bytes, cause: Cause) -> Live:
        """The live record after granting it to whoever signed the request."""
        return assigned(
            live,
            pid.hex(),
            executor=cause.who,
            node=self._node,
            now_ns=self._clock.now_ns(),
            cause=cause,
        )

    async def _grant(self, row: Row, ask: Ask) -> Grant | None:
        """Commit the assignment of a claimed row; None when the race was lost."""
        if not ask.is_allowed:
            self._release(row)
            raise refused(ask)
        if not row.claimed:
            return None  # it changed before its claimer had a turn: cancelled, made to wait, moved
        after = self.assigned_to(row.live(), row.pid, ask.cause)
        once.say(granted(row.pid, after))
        try:
            guards, ops = once.bind(grant_guards(row, ask), chain.rewrite(row.pid, after))
        except ColonistError:
            self._release(row)
            raise
        begun = self._clock.monotonic()
        try:
            revision = await self._writes.commit(guards, ops)
        except asyncio.CancelledError:
            self._spawn(partial(self._settle, row, Plan(guards, ops), after))
            raise
        except ColonistError as error:
            self._release(row)
            if isinstance(error, UnavailableError):
                self.note_unsure(row.pid, after)
            raise
        self._pace.note(self._clock.monotonic() - begun)
        if revision is not None:
            self.grants += 1
            return Grant(row.pid, after)
        self.conflicts += 1
        try:
            await self._writes.refresh([guard.key for guard in guards])
        finally:
            self._release(row)
        return None

    async def _settle(self, row: Row, plan: Plan, after: Live) -> None:
        """Find out what became of a commit nobody waited for, by sending it again; undo it."""
        key = keys.live(row.pid)
        try:
            revision = await self._writes.commit(plan.guards, plan.ops)
            item = (await self._writes.refresh([key]))[0] if revision is None else None
        except ColonistError:
            self._release(row)
            self.note_unsure(row.pid, after)
            raise
        if revision is None and (item is None or decode_live(item.value).head != after.head):
            self._release(row)
        else:
            await self._hand_back(row.pid, after)

    def note_unsure(self, pid: bytes, live: Live) -> None:
        """An assignment was sent, its executor was told of an error: should it come, it goes back.

        A commit that failed may have taken place, or may do so later.
        """
        if self._unsure.note(pid, live, self._view.rows.get(pid)):
            self._spawn(partial(self._hand_back, pid, live))

    async def _hand_back(self, pid: bytes, granted: Live) -> None:
        try:
            await self._try_hand_back(pid, granted)
        except ColonistError as error:
            log.warning("process=%s not back in the queue, trying again: %s", pid.hex(), error)
            again = partial(self._spawn, partial(self._hand_back, pid, granted))
            self._clock.call_at(self._clock.monotonic() + RETRY_S, again)

    async def _try_hand_back(self, pid: bytes, granted: Live) -> None:
        """Put it back as long as nothing has happened to it since.

        A node that stood still for long may have been taken for dead, and its assignment given once
        more, as the same attempt, by another node.
        """
        for _ in range(ATTEMPTS):
            row = self._view.rows.get(pid)
            if row is None or row.state != State.RUNNING:
                return
            live = row.live()
            if live.head != granted.head or _is_leased(live):
                return
            after = returned(live, row.id, What.UNDELIVERED, now_ns=self._clock.now_ns())
            key = keys.live(pid)
            if await self._writes.commit([Guard(key, row.revision)], chain.rewrite(pid, after)):
                log.info(
                    "undelivered process=%s attempt=%d: back in the queue", row.id, live.attempt
                )
                return
            await self._writes.refresh([key])

    def _release(self, row: Row) -> None:
        """A claimed row is free again, unless it changed meanwhile."""
        if not row.claimed:
            return
        row.claimed = False
        is_there = row.state == State.WAITING and self._view.rows.get(row.pid) is row
        if is_there and not row.blocked:
            row.colony.queue.add(row)
            self._offer(row)

    def _offer(self, row: Row) -> None:
        """A row has become free: wake the waiter that it fits, unless another node goes first."""
        room = self._rooms.get(row.colony)
        if room is None or row.placement.type not in room.types:
            return
        others = self._peers.interested(row.colony.tag, row.placement.type)
        wait_s = turn_s(row.pid, self._node, others, self._pace.step_s) if others else 0.0
        if not wait_s:
            self._hand_out(row)
        elif not row.left_at:
            self._leave(row, wait_s)
        else:
            self._clock.call_at(row.left_at + wait_s, partial(self._hand_out, row))

    def _hand_out(self, row: Row) -> None:
        """Wake the waiter that a free row fits, if there is one."""
        room = self._rooms.get(row.colony)
        if room is None or row.colony.record.is_paused or self._closing or not row.ticket:
            return
        waiter = self._claim(room, row.placement, row.live)
        if waiter is not None:
            row.colony.queue.discard(row)
            row.claimed = True
            if not waiter.wake(row):
                self._release(row)

    def _serve(self, waiter: Waiter) -> None:
        """A waiter is parked again: give it what fits meanwhile."""
        if waiter.parking is not Parking.PARKED:
            return
        row = self._claim_row(waiter.ask)
        if row is None:
            return
        self._room(waiter.ask.colony).unpark(waiter)
        if not waiter.wake(row):
            self._release(row)

    def _room(self, colony: Colony) -> WaitingRoom[Waiter]:
        room = self._rooms.get(colony)
        if room is None:
            room = self._rooms[colony] = WaitingRoom()
        return room

    def doubt(self, row: Row, executor_id: str) -> None:
        """Note an assignment that its executor may never have seen: somebody may wait for it."""
        if not self._redelivery.doubt(row, executor_id):
            return
        room = self._rooms.get(row.colony)
        if room is None:
            return
        for waiter in room.everyone():
            if executor_id in all_ids(waiter.ask.executor.record):
                room.unpark(waiter)
                waiter.wake(Wake.LOOK_AGAIN)
                return

    # -- what the view learns

    def row_changed(self, row: Row) -> None:
        """A process is free: look for a waiter."""
        if self._unsure and self._unsure.came(row):
            self._spawn(partial(self._hand_back, row.pid, row.live()))
        if row.state == State.WAITING:
            self._offer(row)
        else:
            row.left_at = 0.0

    def _recorded(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A sealed request took effect, here or at another node: who waits by it need not wait."""
        del revision
        if value is None:
            return
        for waiter in self._alike.parked(key):
            self._room(waiter.ask.colony).unpark(waiter)
            waiter.wake(Wake.LOOK_AGAIN)

    def executor_changed(
        self, colony: Colony, executor: Executor, before: ExecutorRecord | None
    ) -> None:
        """An executor that may not work any more, or not under this key, is told so."""
        room = self._rooms.get(colony)
        if room is None or before is None:
            return
        for waiter in room.of(before.type, executor.name):
            if not waiter.ask.is_allowed:
                room.unpark(waiter)
                waiter.wake(Wake.REFUSED)

    def colony_changed(self, colony: Colony) -> None:
        """A resumed colony serves its waiters; it refuses those that may not wait any more."""
        room = self._rooms.get(colony)
        if room is None:
            return
        for waiter in room.everyone():
            if waiter.ask.is_allowed:
                self._serve(waiter)
            else:
                room.unpark(waiter)
                waiter.wake(Wake.REFUSED)
        if colony.is_gone:
            del self._rooms[colony]

    def classes(self) -> tuple[tuple[bytes, str], ...]:
        """What executors ask this node for: tag of the colony and type of executor, in order.

        What nobody has asked for in the last seconds is left out.
        """
        return self.interest.classes(
            (colony.tag, type) for colony, room in self._rooms.items() for type in room.types
        )

    def parked(self) -> int:
        """How many assigns wait."""
        return sum(len(room) for room in self._rooms.values())

    def close(self) -> None:
        """Answer everyone who waits, and let nobody wait any more."""
        self._closing = True
        for room in self._rooms.values():
            for waiter in room.everyone():
                room.unpark(waiter)
                waiter.wake(Wake.CLOSING)


def _is_leased(live: Live) -> bool:
    """Whether only time may take it back: its executor can ask for the same grant once more."""
    return live.is_sealed and bool(live.flags & Flag.NEVER_OVERLAPS)


def _time_is_up(room: WaitingRoom[Waiter], waiter: Waiter) -> None:
    """A waiter that is being served just now is not disturbed; its claim decides."""
    if waiter.parking is Parking.PARKED:
        room.unpark(waiter)
        waiter.wake(Wake.TIME_IS_UP)


def _nothing(colony: Colony, *, waited: bool) -> ColonistError:
    if not colony.record.is_paused:
        return NoProcessError(NOTHING)
    return AssignPausedTimeoutError(PAUSED_TIMEOUT) if waited else AssignPausedError(PAUSED)
