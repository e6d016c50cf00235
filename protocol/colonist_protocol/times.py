"""Times on the wire: RFC 3339, UTC, micro-seconds; unset is the year 1 (COLONIES-RPC section 3.1).

Inside, a time is an integer of nanoseconds since 1970, and 0 is unset.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from colonist_protocol.errors import TimeFormError

UNSET: Final = "0001-01-01T00:00:00Z"
SECOND_NS: Final = 1_000_000_000

_MICROSECOND_NS: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def to_text(time_ns: int) -> str:
    """RFC 3339 with micro-seconds; `UNSET` for 0. Raises `TimeFormError`."""
    if time_ns == 0:
        return UNSET
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{_second(seconds)}.{rest // _MICROSECOND_NS:06d}Z"


def from_text(text: str) -> int:
    """Nanoseconds since 1970; 0 for the year 1 and for "". Raises `TimeFormError`."""
    if not text:
        return 0
    match = _TIME.fullmatch(text)
    if match is None:
        raise TimeFormError(f"{text[:40]!a} is not an RFC 3339 time")
    second, fraction, zone = match.groups(default="")
    try:
        time = datetime.fromisoformat(second.upper() + zone.upper())
        since = time - _EPOCH
    except (ValueError, OverflowError):
        raise TimeFormError(f"{text[:40]!a} is not a time of the calendar") from None
    if time.year == 1:
        return 0
    return (since.days * 86_400 + since.seconds) * SECOND_NS + int(fraction.ljust(9, "0"))


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    except (ValueError, OverflowError, OSError):
        raise TimeFormError(
            f"{seconds} seconds since 1970 are not within years 1 to 9999"
        ) from None
