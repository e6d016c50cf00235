"""Times on the wire: RFC 3339, UTC, micro-seconds; unset is the year 1 (COLONIES-RPC section 3.1).

Inside, a time is an integer of nanoseconds since 1970, and 0 is unset.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from colonist_protocol.errors import InvalidValueError

UNSET: Final = "0001-01-01T00:00:00Z"
SECOND_NS: Final = 1_000_000_000

_MICROSECOND_NS: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_text(time_ns: int) -> str:
    """RFC 3339 with micro-seconds; `UNSET` for 0."""
    if time_ns == 0:
        return UNSET
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{_second(seconds)}.{rest // _MICROSECOND_NS:06d}Z"


def from_text(text: str) -> int:
    """Nanoseconds since 1970; 0 for the year 1 and for "". Raises `InvalidValueError`."""
    if not text:
        return 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValueError(f"{text[:40]!r} is not an RFC 3339 time") from None
    if time.year == 1:
        return 0
    if time.tzinfo is None:
        raise InvalidValueError(f"{text[:40]!r} has no time zone")
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * _MICROSECOND_NS


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
