"""Which plain requests may be sent twice without asking anybody.

A plain request has no protection against replay: each time it arrives it takes effect. Reads have
none; a close has the same one; an assign gives, at worst, a second process, which comes back when
its time is over. Everything else (a submit, a log line) would be there twice. Sealed requests are
all repeatable, by the law of the seal.
"""

from __future__ import annotations

from typing import Final

ASSIGN: Final = "assignprocessmsg"

_READS: Final = frozenset({"versionmsg", "searchlogsmsg"})
_ABSOLUTE: Final = frozenset({ASSIGN, "closesuccessfulmsg", "closefailedmsg"})


def has_effect(payloadtype: str) -> bool:
    """Whether a repeatable request changes something, so that its reply is worth keeping."""
    return payloadtype in _ABSOLUTE


def is_repeatable(payloadtype: str) -> bool:
    """Whether the same bytes may arrive at the server more than once."""
    return payloadtype.startswith("get") or payloadtype in _READS or payloadtype in _ABSOLUTE
