"""Firing generators in time: by a change when enough arguments wait, else by one timer for all.

Nothing is polled, and a generator that waits costs at most one entry of the heap. Its time runs
from the oldest argument that waits (COLONIES-RPC W14), on the monotonic clock from when this node
learnt of it. Every node watches; the leader fires.
"""

from __future__ import annotations

import asyncio
import logging
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from colonist_protocol.errors import ColonistError
from colonist_protocol.times import SECOND_NS
from colonist_server.loops.leadership import Leadership
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock, Timer
from colonist_server.repo.definitions import HeldError, creator_of
from colonist_server.repo.firings import Firings
from colonist_server.repo.generator import Generator
from colonist_server.repo.generator_view import GeneratorView
from colonist_server.repo.generators import Generators
from colonist_server.repo.nouns import Colony

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
FAULT_RETRY_S: Final = 60.0
AT_ONCE: Final = 32
"""Generators that fire at the same time; the others are next."""

_SLACK: Final = 1000


class _Entry(NamedTuple):
    """When to look at a generator again; `oldest` is then over its time, if it waits still."""

    due: float
    number: int
    generator: Generator
    oldest: bytes


class GeneratorLoop:
    """Watches generators and fires them."""

    __slots__ = (
        "_armed",
        "_busy",
        "_clock",
        "_firings",
        "_generators",
        "_heap",
        "_leadership",
        "_limit",
        "_number",
        "_ready",
        "_resting",
        "_timer",
        "_view",
        "_wake",
    )

    def __init__(
        self,
        generators: Generators,
        firings: Firings,
        clock: Clock,
        leadership: Leadership,
    ) -> None:
        self._leadership = leadership
        leadership.at_election(self._sweep)
        self._generators = generators
        self._view: GeneratorView = generators.view
        self._firings = firings
        self._clock = clock
        self._heap: list[_Entry] = []
        self._armed: set[bytes] = set()
        self._busy: set[bytes] = set()
        self._resting: set[bytes] = set()
        self._ready: dict[bytes, tuple[Generator, bytes | None]] = {}
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._number = 0
        self._timer: Timer | None = None
        self._wake = asyncio.Event()
        self._view.listen(self.changed)
        self._view.view.listen_to_members(self.member_changed)

    def changed(self, generator: Generator) -> None:
        """Fire it, or see to it that it is fired in time."""
        gid = generator.gid
        if gid in self._busy or gid in self._resting:
            return  # whoever is at it looks again at the end
        if not generator.is_at_work or generator.tag not in self._view.view.tags:
            return
        if self._is_held(generator) and not generator.under_way:
            return  # what waits goes on waiting, until the creator may work
        if generator.under_way or generator.ready():
            self._ready.setdefault(gid, (generator, None))
            self._wake.set()
        elif generator.waiting and gid not in self._armed:
            self._arm(generator)

    def member_changed(self, colony: Colony, name: str) -> None:
        """A creator may work again, maybe: its generators fire for what came meanwhile."""
        if name in colony.missed:
            for generator in self._view.of(colony.tag):
                if generator.definition.initiator == name:
                    self.changed(generator)

    def _is_held(self, generator: Generator) -> bool:
        """Whether it was found without a creator that may work, and is so still."""
        colony = self._view.view.tags[generator.tag]
        record = generator.definition
        return record.initiator in colony.missed and creator_of(colony, record) is None

    async def run(self) -> None:
        """Fire until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                await self._leadership.wait()
                self._wake.clear()
                self._pop_due()
                ready, self._ready = self._ready, {}
                for gid, (generator, due) in ready.items():
                    self._busy.add(gid)
                    group.create_task(self._serve(generator, due))
                self._set_timer()

    async def _sweep(self) -> None:
        try:
            await self._generators.sweep_remains()
        except ColonistError as error:
            log.warning("remains of removed generators stay until the next election: %s", error)
        except Exception:  # what is stored must not end the server at each start (P1)
            log.exception("remains of removed generators stay until the next election")

    async def _serve(self, generator: Generator, due: bytes | None) -> None:
        gid = generator.gid
        try:
            async with self._limit:
                await self._leadership.wait()
                await self._firings.serve(generator, due)
        except HeldError as error:
            log.info("generator=%s rests: %s", generator.id, error)
            self._view.view.tags[generator.tag].missed.add(generator.definition.initiator)
        except ColonistError as error:
            log.warning("generator=%s not fired, trying again: %s", generator.id, error)
            self._retry(generator, due, RETRY_S)
        except Exception:  # one must not end the others, nor the server at each start (P1)
            log.exception("generator=%s not fired", generator.id)
            self._retry(generator, due, FAULT_RETRY_S)
        finally:
            self._busy.discard(gid)
        self.changed(generator)

    def _retry(self, generator: Generator, due: bytes | None, after_s: float) -> None:
        self._resting.add(generator.gid)
        self._push(self._clock.monotonic() + after_s, generator, due or b"")

    # -- the timer

    def _arm(self, generator: Generator) -> None:
        timeout_s = generator.record.timeout_s if generator.record is not None else 0
        if timeout_s <= 0:
            return
        oldest = min(generator.waiting)
        left_ns = keys.time_of_argument(oldest) + timeout_s * SECOND_NS - self._clock.now_ns()
        self._armed.add(generator.gid)
        self._push(self._clock.monotonic() + left_ns / SECOND_NS, generator, oldest)

    def _push(self, due: float, generator: Generator, oldest: bytes) -> None:
        self._number += 1
        heappush(self._heap, _Entry(due, self._number, generator, oldest))
        if len(self._heap) > 2 * len(self._view.all) + _SLACK:
            self._heap = [entry for entry in self._heap if entry.generator.is_at_work]
            self._armed &= {entry.generator.gid for entry in self._heap}
            heapify(self._heap)
        if self._heap and self._heap[0].number == self._number:
            self._set_timer()

    def _pop_due(self) -> None:
        now = self._clock.monotonic()
        while self._heap and self._heap[0].due <= now:
            _, _, generator, oldest = heappop(self._heap)
            gid = generator.gid
            self._armed.discard(gid)
            self._resting.discard(gid)
            if gid not in self._busy and oldest in generator.waiting and generator.is_at_work:
                self._ready[gid] = (generator, oldest)
            else:
                self.changed(generator)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = self._clock.call_at(self._heap[0].due, self._wake.set)
