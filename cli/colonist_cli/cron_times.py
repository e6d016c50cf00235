"""When a cron will run: what its expression or its interval means, for people. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from colonist_cli import durations
from colonist_cli.exits import CliError, Exit
from colonist_core.cron import NEVER, Interval, Schedule, Timetable, Turn, following, start
from colonist_core.cron_expression import Every, parse
from colonist_protocol.cron import OFF, Cron
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import SECOND_NS, from_text

SHOWN: Final = 5


def expression(at: str, zone: str) -> str:
    """An expression as the server takes it, in a zone. Raises `CliError`."""
    if not zone:
        return at
    if at.startswith(("TZ=", "CRON_TZ=")):
        raise CliError(Exit.USAGE, "--zone, and a zone in the expression too")
    return f"TZ={zone} {at}"


def schedule(cron: Cron) -> Schedule:
    """The rule; an interval wins over the expression. Raises `CliError`."""
    if cron.interval != OFF:
        return Interval(cron.interval * SECOND_NS, cron.random)
    try:
        found = parse(cron.cronexpression)
    except InvalidValueError as error:
        raise CliError(Exit.USAGE, str(error)) from None
    if isinstance(found, Every):
        return Interval(found.seconds * SECOND_NS)
    return Timetable(found, _zone(found.zone))


def after(cron: Cron, now_ns: int, count: int = SHOWN) -> list[str]:
    """The next runs, of a cron that would be added now. Raises `CliError`."""
    rule = schedule(cron)
    if isinstance(rule, Interval) and rule.is_random:
        return _moments(rule, now_ns, count)
    return _texts(rule, start(rule, now_ns, b""), count)


def planned(cron: Cron, count: int = SHOWN) -> list[str]:
    """The next runs of a cron that is there, from its own next run on. Raises `CliError`."""
    next_ns = from_text(cron.nextrun)
    if not next_ns:
        return []
    rule = schedule(cron)
    if isinstance(rule, Interval) and rule.is_random:
        first = _text(next_ns, UTC)
        return [first, f"then once in each {durations.shown(cron.interval)}, at random"]
    return _texts(rule, Turn(1, next_ns, next_ns), count)


def rule(cron: Cron) -> str:
    """`every 1h`, `every 1h at random`, or the expression."""
    if cron.interval == OFF:
        return cron.cronexpression
    return f"every {durations.shown(cron.interval)}{' at random' if cron.random else ''}"


def _texts(rule: Schedule, turn: Turn, count: int) -> list[str]:
    zone = rule.zone if isinstance(rule, Timetable) else UTC
    found: list[str] = []
    while len(found) < count and turn.at_ns != NEVER:
        found.append(_text(turn.at_ns, zone))
        turn = following(rule, turn, turn.at_ns, b"")
    return found


def _moments(rule: Interval, now_ns: int, count: int) -> list[str]:
    """Which moments they will be follows from an id that only the server knows."""
    edges = [_text(now_ns + turn * rule.length_ns, UTC) for turn in range(count + 1)]
    return [f"between {begin} and {end}" for begin, end in pairwise(edges)]


def _text(time_ns: int, zone: tzinfo) -> str:
    moment = datetime.fromtimestamp(time_ns // SECOND_NS, UTC).astimezone(zone)
    return f"{moment:%a %Y-%m-%d %H:%M:%S %Z}"


def _zone(name: str) -> tzinfo:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise CliError(Exit.USAGE, f"there is no time zone {name[:64]!r} here") from None
