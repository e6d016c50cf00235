"""Rendering what is to be shown, and handing it to the sinks: one task, in order.

What waits here is bounded in number and bytes; `is_full` says when. A render that fails ends the
subscriptions that it was for, never the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from colonist_protocol import codec, envelope
from colonist_protocol.errors import ColonistError, NotFoundError
from colonist_protocol.subscription import SubscribeProcess
from colonist_server.repo import keys, moments
from colonist_server.repo.listing import Listing
from colonist_server.repo.moments import Moment
from colonist_server.repo.nouns import Colony
from colonist_server.repo.topics import Ending, Subscription
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Revision

log = logging.getLogger(__name__)

MAX_PENDING: Final = 10_000
MAX_PENDING_BYTES: Final = 67_108_864
BATCH: Final = 64
LARGE_BYTES: Final = 65_536
"""A frame after whose making others on the loop have a turn."""
TURN_BYTES: Final = 262_144
"""What is handed to sinks before others have a turn: about half a millisecond. No frame counts less
than `SINK_BYTES`: serving a sink costs more than copying that."""
SINK_BYTES: Final = 4_096

NOW: Final[Revision] = 2**63
"""Later than whatever a subscription has seen."""

_EVENT: Final = SubscribeProcess.msgtype()


class Show(NamedTuple):
    """Show a moment to the followers, and to those in the crowds who have not seen it."""

    moment: Moment
    revision: Revision
    followers: Sequence[Subscription]
    crowds: Sequence[Sequence[Subscription]] = ()
    size: int = 0


class End(NamedTuple):
    """All that came before it was handed out: say that nothing more will come."""

    subscription: Subscription
    ending: Ending


class LookUp(NamedTuple):
    """Show how a process ended that is not in the view any more."""

    subscription: Subscription


Job = Show | End | LookUp
Drop = Callable[[Subscription, Ending], None]
"""Takes a subscription out of the books and ends it, with nothing more to be handed to it."""


class Delivery:
    """What is on its way to subscribers."""

    __slots__ = ("_bytes", "_drop", "_jobs", "_listing", "_ready", "_shows", "_turn", "_writes")

    def __init__(self, writes: Writes, listing: Listing, drop: Drop) -> None:
        self._writes = writes
        self._listing = listing
        self._drop = drop
        self._jobs: deque[Job] = deque()
        self._shows = 0
        self._bytes = 0
        self._turn = 0
        self._ready = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether more is on its way than is good."""
        return self._shows > MAX_PENDING or self._bytes > MAX_PENDING_BYTES

    def put(self, job: Job) -> None:
        """Hand out after all that was put before."""
        self._jobs.append(job)
        if isinstance(job, Show):
            self._shows += 1
            self._bytes += job.size
        self._ready.set()

    def forget_crowds(self) -> None:
        """Let go of what only those want who follow whole colonies."""
        kept = [job for job in self._jobs if not isinstance(job, Show) or job.followers]
        self._jobs.clear()
        self._shows = self._bytes = 0
        for job in kept:
            self.put(job._replace(crowds=()) if isinstance(job, Show) else job)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._jobs:
                await self._hand_out(self._take())

    def _take(self) -> list[Job]:
        """The next few jobs; their births are read together, the rest one by one."""
        jobs = [self._jobs.popleft() for _ in range(min(BATCH, len(self._jobs)))]
        for job in jobs:
            if isinstance(job, Show):
                self._shows -= 1
                self._bytes -= job.size
        return jobs

    async def ended(self, colony: Colony, pid: bytes) -> Moment:
        """A process that has ended. Raises `NotFoundError`, `UnavailableError`."""
        item = await self._writes.past.read(keys.closed(pid))
        if item is None:
            raise NotFoundError("Failed to subscribe to process, process not found")
        return moments.of_closed(colony, pid, item.value)

    def show_end(self, subscription: Subscription, moment: Moment) -> None:
        """Show how a process ended to one who follows nothing else with this subscription."""
        self.put(Show(moment, NOW, (subscription,)))
        self.put(End(subscription, Ending.DONE))

    async def _hand_out(self, jobs: Sequence[Job]) -> None:
        with suppress(Exception):  # told when it is met again
            await self._listing.expect([job.moment.pid for job in jobs if isinstance(job, Show)])
        for job in jobs:
            if isinstance(job, Show):
                await self._show(job)
            elif isinstance(job, LookUp):
                await self._look_up(job.subscription)
            elif not job.subscription.is_over:
                job.subscription.is_over = True
                job.subscription.sink.over(job.subscription, job.ending)

    async def _show(self, job: Show) -> None:
        """One at a time is rendered, encoded and handed out: each may be large."""
        crowds = [each for crowd in job.crowds for each in crowd if each.seen < job.revision]
        audience = [each for each in (*job.followers, *crowds) if not each.is_over]
        if not audience:
            return
        frame = await self._frame(job.moment)
        if frame is None:
            for subscription in audience:
                self._drop(subscription, Ending.UNREADABLE)
        elif frame:
            await self._deliver(frame, audience)

    async def _frame(self, moment: Moment) -> bytes | None:
        """An event; empty for what was removed meanwhile; None when it cannot be read."""
        try:
            [process] = await self._listing.of_moments([moment])
            if process is None:
                return b""
            return envelope.pack_reply(_EVENT, codec.encode(process))
        except ColonistError as error:
            log.warning("subscribers cannot be served: %s", error)
        except Exception:
            log.exception("subscribers cannot be served")
        return None

    async def _deliver(self, frame: bytes, audience: Sequence[Subscription]) -> None:
        if len(frame) > LARGE_BYTES:
            await asyncio.sleep(0)
        for subscription in audience:
            if subscription.is_over:
                continue
            subscription.sink.deliver(frame)
            self._turn += max(len(frame), SINK_BYTES)
            if self._turn >= TURN_BYTES:
                self._turn = 0
                await asyncio.sleep(0)

    async def _look_up(self, subscription: Subscription) -> None:
        order = subscription.order
        try:
            self.show_end(subscription, await self.ended(order.colony, order.pid or b""))
        except NotFoundError:
            self.put(End(subscription, Ending.REMOVED))
        except ColonistError:
            self.put(End(subscription, Ending.UNREADABLE))
