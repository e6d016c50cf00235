"""When a cron runs: turn after turn, each planned once (COLONIES-RPC section 4.8).

An interval runs on its own grid, from when it was added or last run by hand; a random one once in
each interval, at a moment that follows from its seed and the number of the turn, so that every node
finds the same; a timetable when its calendar names a second. Turns that were missed are not made up
for one by one: the turn that is due stands for all of them, and the next lies after now.
"""

from __future__ import annotations

import hashlib
from datetime import tzinfo
from typing import Final

import msgspec

from colonist_core.cron_calendar import Calendar
from colonist_protocol.times import SECOND_NS

NEVER: Final = 0

_MICROSECOND_NS: Final = 1_000
_SEED_BYTES: Final = 8


class Interval(msgspec.Struct, frozen=True):
    """A run each so many nanoseconds, or at a random moment in each such time."""

    length_ns: int
    is_random: bool = False


class Timetable(msgspec.Struct, frozen=True):
    """A run at each second that a calendar names, in a time zone."""

    calendar: Calendar
    zone: tzinfo


Schedule = Interval | Timetable


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """One planned run: its number, from 1 on, and when. `NEVER` where the calendar has an end.

    `base_ns` is where the interval begins of which it is the turn.
    """

    number: int
    base_ns: int
    at_ns: int


def start(schedule: Schedule, now_ns: int, seed: bytes, number: int = 1) -> Turn:
    """The first turn, or the first after a run by hand."""
    if isinstance(schedule, Timetable):
        return Turn(number, now_ns, _named(schedule, now_ns))
    wait_ns = _moment(schedule, seed, number) if schedule.is_random else schedule.length_ns
    return Turn(number, now_ns, now_ns + wait_ns)


def following(schedule: Schedule, turn: Turn, now_ns: int, seed: bytes) -> Turn:
    """The turn after one that runs now: later than now, and than its own time.

    Its own time is later than now where the clock was set back meanwhile.
    """
    number = turn.number + 1
    now_ns = max(now_ns, turn.at_ns)
    if isinstance(schedule, Timetable):
        return Turn(number, now_ns, _named(schedule, now_ns))
    length_ns = schedule.length_ns
    if not schedule.is_random:
        base_ns = now_ns - (now_ns - turn.at_ns) % length_ns
        return Turn(number, base_ns, base_ns + length_ns)
    moment_ns = _moment(schedule, seed, number)
    base_ns = turn.base_ns + max(1, (now_ns - turn.base_ns) // length_ns) * length_ns
    if base_ns + moment_ns <= now_ns:
        base_ns += length_ns
    return Turn(number, base_ns, base_ns + moment_ns)


def _named(schedule: Timetable, now_ns: int) -> int:
    found = schedule.calendar.next(now_ns // SECOND_NS, schedule.zone)
    return NEVER if found is None else found * SECOND_NS


def _moment(schedule: Interval, seed: bytes, number: int) -> int:
    digest = hashlib.sha3_256(seed + number.to_bytes(_SEED_BYTES, "big")).digest()
    found = int.from_bytes(digest[:_SEED_BYTES], "big") % schedule.length_ns
    return found - found % _MICROSECOND_NS
