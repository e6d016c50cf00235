"""When the six fields of a cron expression are met, in a time zone (COLONIES-RPC section 4.8).

Where the clock of the zone jumps (docs/adr/0010): fields that name *every* hour follow the time
that passes, so a doubled hour has its runs twice and a skipped one has none. Any others name times
of day: in a doubled hour they are met once, the first time; what falls into a skipped hour is met
once, at the moment after it.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

import msgspec

_SECOND: Final = timedelta(seconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_YEAR: Final = 9990
_LONGEST_MONTHS: Final = 12 * 8
"""From a 29 February to the next around 2100: eight years."""
_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY: Final = 2
_HOURS: Final = 24
_MONTH_DAYS: Final = 31
_WEEK_DAYS: Final = 7


class Calendar(msgspec.Struct, frozen=True):
    """Six fields, each a sorted tuple of what it names; `zone` is "" where none was given.

    `is_either`: both day fields are restricted, and a day that meets either of them counts.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    zone: str = ""

    @property
    def is_either(self) -> bool:
        """Whether a day that meets one of the two day fields counts."""
        return len(self.days) < _MONTH_DAYS and len(self.weekdays) < _WEEK_DAYS

    @property
    def is_hourly(self) -> bool:
        """Whether it names every hour, and so follows the time that passes."""
        return len(self.hours) == _HOURS

    def next(self, after_s: int, zone: tzinfo) -> int | None:
        """The first second after `after_s` (since 1970) that it names; None: not in this era."""
        found = self._next(after_s, zone)
        early, late = _instants(_wall(after_s, zone), zone)
        if not self.is_hourly or not after_s == early < late:
            return found
        # The wall's time up to here is yet to come a second time.
        again = self._wall_after(_wall(_change(early, late, zone), zone) - _SECOND)
        times = [found] if again is None else [found, _instants(again, zone)[1]]
        return min((time for time in times if time is not None), default=None)

    def _next(self, after_s: int, zone: tzinfo) -> int | None:
        wall = _wall(after_s, zone)
        while (named := self._wall_after(wall)) is not None:
            early, late = _instants(named, zone)
            if early > late:
                change = _change(late, early, zone)
                if not self.is_hourly:
                    return change
                wall = _wall(change, zone) - _SECOND
            elif early > after_s:
                return early
            elif self.is_hourly:
                return late
            else:
                wall = _wall(_change(early, late, zone) - 1, zone)
        return None

    def _wall_after(self, wall: datetime) -> datetime | None:
        """The first time on a wall's clock after `wall` that it names."""
        wall += _SECOND
        if wall.year > _LAST_YEAR:
            return None
        if self._has_day(wall.date()):
            time = self._time_from(wall.hour, wall.minute, wall.second)
            if time is not None:
                return datetime(wall.year, wall.month, wall.day, *time)  # noqa: DTZ001 - a wall's
        day = self._day_after(wall.date())
        if day is None:
            return None
        first = (self.hours[0], self.minutes[0], self.seconds[0])
        return datetime(day.year, day.month, day.day, *first)  # noqa: DTZ001

    def _time_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        if hour in self.hours:
            if minute in self.minutes:
                at = bisect_left(self.seconds, second)
                if at < len(self.seconds):
                    return hour, minute, self.seconds[at]
            at = bisect_left(self.minutes, minute + 1)
            if at < len(self.minutes):
                return hour, self.minutes[at], self.seconds[0]
        at = bisect_left(self.hours, hour + 1)
        if at < len(self.hours):
            return self.hours[at], self.minutes[0], self.seconds[0]
        return None

    def _day_after(self, day: date) -> date | None:
        year, month, number = day.year, day.month, day.day + 1
        for _ in range(_LONGEST_MONTHS + 1):
            if month in self.months:
                for each in range(number, _length(year, month) + 1):
                    if self._has_day(date(year, month, each)):
                        return date(year, month, each)
            year, month, number = year + month // 12, month % 12 + 1, 1
        return None

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        has_day, has_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return has_day or has_weekday if self.is_either else has_day and has_weekday

    def is_possible(self) -> bool:
        """Whether any day of any year meets it."""
        return self.is_either or any(self.days[0] <= _LENGTHS[month - 1] for month in self.months)


def _length(year: int, month: int) -> int:
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 28 if month == _FEBRUARY and not is_leap else _LENGTHS[month - 1]


def _wall(time_s: int, zone: tzinfo) -> datetime:
    """What a clock on a wall of the zone shows."""
    return (_EPOCH + time_s * _SECOND).astimezone(zone).replace(tzinfo=None, fold=0)


def _instants(wall: datetime, zone: tzinfo) -> tuple[int, int]:
    """When a wall shows it, with the offsets from before and from after a change (PEP 495).

    The second is larger where it is shown twice, the first where it is never shown.
    """
    early, late = ((wall.replace(tzinfo=zone, fold=fold) - _EPOCH) // _SECOND for fold in (0, 1))
    return early, late


def _change(low_s: int, high_s: int, zone: tzinfo) -> int:
    """The first second of the new offset; the clocks change once after `low_s`, by `high_s`."""
    offset = _EPOCH + low_s * _SECOND
    before = offset.astimezone(zone).utcoffset()
    while high_s - low_s > 1:
        middle = (low_s + high_s) // 2
        if (_EPOCH + middle * _SECOND).astimezone(zone).utcoffset() == before:
            low_s = middle
        else:
            high_s = middle
    return high_s
