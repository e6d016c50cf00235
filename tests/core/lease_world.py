"""Executors with drifting clocks, a server, and messages that are late or lost, in virtual time.

One process with `overlap: never` is granted, worked on, renewed, and granted again; the rules are
the core's own. Each executor works whenever it believes that it may. Nobody sees true time but the
judge, who looks whether two ever work at the same instant.
"""

from __future__ import annotations

import random
from typing import Final

from colonist_core import lease
from colonist_core.attempt import renewed
from colonist_core.lease import Flag
from colonist_core.process import (
    Cause,
    Grantee,
    Limits,
    Live,
    What,
    assigned,
    born,
    expired,
    returned,
)
from colonist_protocol.errors import AttemptOverError, InvalidValueError
from tests.core.rows import asks

PID: Final = "5a" * 32
DRIFT: Final = 0.1
LIMIT_S: Final = 10
START_NS: Final = 1_795_246_274_278_554_097


class Clock:
    """Runs at 0.9 to 1.1 times the true speed, from any reading."""

    def __init__(self, chance: random.Random) -> None:
        extremes = (1 - DRIFT, 1 + DRIFT)
        self.rate = chance.choice((*extremes, chance.uniform(*extremes)))
        self._zero = chance.uniform(0, 1e6)

    def at(self, true_s: float) -> float:
        return self._zero + true_s * self.rate

    def true_at(self, reading: float) -> float:
        return (reading - self._zero) / self.rate


class World:
    """The judge's view. A cycle is one grant of the process."""

    def __init__(
        self, chance: random.Random, *, stop: float = lease.STOP, margin: bool = True
    ) -> None:
        self._chance = chance
        self._stop = stop
        self._margin = margin
        self.overlaps = 0
        self.handed_on = 0
        self.renewals = 0
        self._now = 0.0
        self._server = Clock(chance)
        self._busy_until = 0.0
        """True time at which the last of all who were ever granted it stops to work, at most."""

    def run(self, cycles: int) -> None:
        """Grant it so often."""
        live = self._born()
        for number in range(cycles):
            if number % 64 == 0:  # as a process, and as a server, begin anew
                self._now = max(self._now, self._busy_until)
                self._server = Clock(self._chance)
                live = self._born()
            live = self._cycle(live)

    def _server_ns(self, true_s: float) -> int:
        return START_NS + int(self._server.at(true_s) * 1e9)

    def _born(self) -> Live:
        now_ns = self._server_ns(self._now)
        return born(
            PID,
            now_ns=now_ns,
            priority_ns=now_ns,
            placement=asks(),
            limits=Limits(0, LIMIT_S, -1, Flag.NEVER_OVERLAPS),
            label="",
            initiator="u",
            funcname="f",
            cause=Cause("ad" * 32),
        )

    def _cycle(self, live: Live) -> Live:
        """One attempt from its grant to its end; what it leaves of the process."""
        chance = self._chance
        self._now += chance.choice((0.0, 0.0, chance.expovariate(1)))
        clock = Clock(chance)
        sent = self._now - chance.choice((0.0, chance.expovariate(1)))  # it waited for work
        cause = Cause("be" * 32, b"d", b"s", b"{}")
        granted_ns = self._server_ns(self._now)
        live = assigned(live, PID, executor=cause.who, node="n", now_ns=granted_ns, cause=cause)
        by = Grantee(live.attempt, live.nonce, cause.who)
        granted = self._now
        if self._busy_until > granted + 1e-6:
            self.overlaps += 1
        until = self._work(live, clock, sent, granted)
        live, until = self._renew_often(live, by, clock, until, cause)
        return self._end(live, granted, until)

    def _work(self, live: Live, clock: Clock, sent: float, made: float) -> float:
        """Until when, in true time, it works by a reply made then to a request of that time."""
        told_s = lease.left_s(live.lease_end_ns, self._server_ns(made))
        return clock.true_at(clock.at(sent) + self._stop * told_s)

    def _renew_often(
        self, live: Live, by: Grantee, clock: Clock, until: float, cause: Cause
    ) -> tuple[Live, float]:
        """Renew some times, if at all, each before or after it has stopped; some are lost."""
        chance = self._chance
        while chance.random() < 0.5:
            sent = self._now + chance.expovariate(1 / LIMIT_S)
            made = sent + chance.choice((0.0, chance.expovariate(2)))
            if made >= self._requeued_at(live):
                break
            is_lost = chance.random() < 0.2
            is_asleep = chance.random() < 0.2
            count = chance.choice((0, live.renewed, live.renewed + 1))
            try:
                after = renewed(live, PID, by, count, now_ns=self._server_ns(made), cause=cause)
            except (InvalidValueError, AttemptOverError):
                continue
            live = after
            self._now = made
            self.renewals += 1
            if not is_lost:
                until = max(until, self._work(live, clock, sent, made))
            elif is_asleep:  # it woke, does not know for how long it slept, and must not go on
                until = min(until, sent)
        return live, until

    def _requeued_at(self, live: Live) -> float:
        deadline_ns = live.deadline_ns if self._margin else live.lease_end_ns
        return self._server.true_at((deadline_ns - START_NS) / 1e9)

    def _end(self, live: Live, granted: float, until: float) -> Live:
        """It gives the process back, or its time is up."""
        now_ns = self._server_ns(self._now)
        if self._chance.random() < 0.2:
            self._now = max(self._now, granted)
            self._busy_until = min(until, self._now)
            return returned(live, PID, What.RELEASED, now_ns=now_ns)
        self._busy_until = until
        self._now = max(self._now, self._requeued_at(live))
        self.handed_on += 1
        after = expired(live, PID, now_ns=self._server_ns(self._now))
        return after if isinstance(after, Live) else self._born()
