"""Cron expressions: six fields, seconds first (COLONIES-RPC section 4.8).

`[TZ=Area/City ]second minute hour day-of-month month day-of-week`, or a descriptor (`@daily`).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from colonist_core.cron_calendar import Calendar
from colonist_protocol.cron import MAX_INTERVAL_S
from colonist_protocol.errors import InvalidValueError

MAX_CHARS: Final = 256

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DESCRIPTORS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_ZONE: Final = re.compile(r"(?:CRON_)?TZ=(\S*)\s*(.*)", re.DOTALL)
_PART: Final = re.compile(
    r"(?:([*?])|([a-z]{3}|[0-9]{1,2})(?:-([a-z]{3}|[0-9]{1,2}))?)(?:/([0-9]{1,9}))?"
)
_DURATION: Final = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _WEEKDAYS),
)


class Every(msgspec.Struct, frozen=True):
    """`@every 1h30m`."""

    seconds: int


def parse(text: str) -> Calendar | Every:
    """Read an expression; whether its zone exists is not known here. Raises `InvalidValueError`."""
    if len(text) > MAX_CHARS:
        raise InvalidValueError(f"cron expression is longer than {MAX_CHARS} characters")
    text, zone = text.strip(), ""
    prefix = _ZONE.fullmatch(text)
    if prefix is not None:
        zone, text = prefix.groups()
        if not zone:
            raise InvalidValueError("cron expression: no time zone after TZ=")
    if not text:
        raise InvalidValueError("empty cron expression string")
    if text.startswith("@"):
        return _descriptor(text, zone)
    return _calendar(text, zone)


def _descriptor(text: str, zone: str) -> Calendar | Every:
    name, _, rest = text.partition(" ")
    if name == "@every":
        return _every(rest.strip())
    if text not in _DESCRIPTORS:
        raise InvalidValueError(f"unrecognized cron descriptor: {text[:40]!a}")
    return _calendar(_DESCRIPTORS[text], zone)


def _every(text: str) -> Every:
    match = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part) for part in match.groups("0")) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not total:
        raise InvalidValueError(
            f"cron expression: {text[:40]!a} is no time of a second or more, such as 1h30m"
        )
    if total > MAX_INTERVAL_S:
        raise InvalidValueError(f"cron expression: @every is at most {MAX_INTERVAL_S} seconds")
    return Every(total)


def _calendar(text: str, zone: str) -> Calendar:
    texts = text.split()
    if len(texts) != len(_FIELDS):
        found = " ".join(texts)[:80]
        raise InvalidValueError(f"expected exactly 6 fields, found {len(texts)}: [{found}]")
    seconds, minutes, hours, days, months, weekdays = map(_field, texts, _FIELDS)
    made = Calendar(seconds, minutes, hours, days, months, weekdays, zone)
    if not made.is_possible():
        raise InvalidValueError(f"cron expression: no month of it has a day {made.days[0]}")
    return made


def _field(text: str, field: _Field) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.lower())
        if match is None:
            raise InvalidValueError(f"cron expression: {part[:40]!a} is no {field.name}")
        star, first, last, step = match.groups()
        low = field.low if star else _value(first, field)
        high = field.high
        if last:
            high = _value(last, field)
        elif not star and not step:
            high = low
        if low > high:
            raise InvalidValueError(
                f"cron expression: {field.name} {part[:40]!a} ends before it begins"
            )
        if step and not int(step):
            raise InvalidValueError(f"cron expression: {field.name} {part[:40]!a} has a step of 0")
        found.update(range(low, high + 1, int(step or 1)))
    return tuple(sorted(found))


def _value(text: str, field: _Field) -> int:
    if text in field.names:
        return field.names.index(text) + field.low
    if not text.isdigit() or not field.low <= int(text) <= field.high:
        raise InvalidValueError(
            f"cron expression: {field.name} {text} is not {field.low} to {field.high}"
        )
    return int(text)
