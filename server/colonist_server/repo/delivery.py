"""Rendering what is to be shown, and handing it to the sinks: one task, in order.

A render that fails ends the subscriptions that it was for, never the server.

Each frame of a sealed subscription is signed, which costs fifty times as much as handing it out. So
a caller has only so many of them in a second, and whoever would have more is told so and let go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from colonist_core.limits import Buckets, Rate
from colonist_protocol import codec, envelope
from colonist_protocol.errors import ColonistError, NotFoundError
from colonist_protocol.subscription import SubscribeProcess
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys, moments
from colonist_server.repo.backlog import Backlog, End, Job, LookUp, Show
from colonist_server.repo.clock import Clock
from colonist_server.repo.listing import Listing
from colonist_server.repo.moments import Moment
from colonist_server.repo.nouns import Colony
from colonist_server.repo.topics import Ending, Subscription
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Revision

log = logging.getLogger(__name__)

LARGE_BYTES: Final = 65_536
"""A frame after whose making others on the loop have a turn."""
TURN_BYTES: Final = 262_144
"""What is handed to sinks before others have a turn: about half a millisecond. No frame counts less
than `SINK_BYTES`: serving a sink costs more than copying that."""
SINK_BYTES: Final = 4_096
SEALED_BYTES: Final = 16_384
"""The same for one that is signed."""
SEALED_SIZES: Final = 4
"""A byte that is signed costs as much as so many that are copied."""

SEALED_RATE: Final = Rate(per_s=2_000, burst=4_000)
"""Events signed for one caller; a larger one counts as several."""
SEALED_UNIT_BYTES: Final = 16_384
MAX_CALLERS: Final = 65_536

NOW: Final[Revision] = 2**63
"""Later than whatever a subscription has seen."""

_EVENT: Final = SubscribeProcess.msgtype()


Drop = Callable[[Subscription, Ending], None]
"""Takes a subscription out of the books and ends it, with nothing more to be handed to it."""


class Delivery:
    """What is on its way to subscribers."""

    __slots__ = (
        "_clock",
        "_drop",
        "_listing",
        "_ready",
        "_sealed",
        "_turn",
        "_writes",
        "backlog",
    )

    def __init__(self, writes: Writes, listing: Listing, clock: Clock, drop: Drop) -> None:
        self._writes = writes
        self._listing = listing
        self._drop = drop
        self._clock = clock
        self.backlog = Backlog()
        self._sealed = Buckets(SEALED_RATE, MAX_CALLERS)
        self._turn = 0
        self._ready = asyncio.Event()

    def put(self, job: Job) -> None:
        """Hand out after all that was put before for this colony."""
        self.backlog.put(job)
        self._ready.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self.backlog:
                await self._hand_out(self.backlog.take())

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
        """A few jobs: their births are read together, the rest one by one."""
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
            if subscription.order.is_sealed:
                self._seal(frame, subscription)
            else:
                subscription.sink.deliver(frame)
                self._turn += max(len(frame), SINK_BYTES)
            if self._turn >= TURN_BYTES:
                self._turn = 0
                await asyncio.sleep(0)

    def _seal(self, frame: bytes, subscription: Subscription) -> None:
        """Hand an event to one for whom it is signed, or end it: its caller has had too many."""
        self._turn += max(SEALED_SIZES * len(frame), SEALED_BYTES)
        now_ns = int(self._clock.monotonic() * SECOND_NS)
        units = 1 + len(frame) // SEALED_UNIT_BYTES
        if self._sealed.take(subscription.order.who, now_ns, units):
            self._drop(subscription, Ending.TOO_MANY)
        else:
            subscription.sink.deliver(frame)

    async def _look_up(self, subscription: Subscription) -> None:
        order = subscription.order
        try:
            self.show_end(subscription, await self.ended(order.colony, order.pid or b""))
        except NotFoundError:
            self.put(End(subscription, Ending.REMOVED))
        except ColonistError:
            self.put(End(subscription, Ending.UNREADABLE))
