"""Which requests may be sent twice without asking anybody.

A plain request has no protection against replay: each time it arrives it takes effect. Reads have
none; a close has the same one; an assign gives, at worst, a second process, which comes back when
its time is over. Everything else (a submit, a log line) would be there twice. Sealed requests are
all repeatable, by the law of the seal: the same bytes take effect at most once.
"""

from __future__ import annotations

from typing import Final

ASSIGN: Final = "assignprocessmsg"

_READS: Final = frozenset(
    {
        "versionmsg",
        "searchlogsmsg",
        "resolvegeneratormsg",
        "subscribeprocessmsg",
        "subscribeprocessesmsg",
    }
)
_ABSOLUTE: Final = frozenset({ASSIGN, "closesuccessfulmsg", "closefailedmsg"})


def has_effect(payloadtype: str) -> bool:
    """Whether a repeatable request changes something, so that its reply is worth keeping."""
    return payloadtype in _ABSOLUTE


def is_read(payloadtype: str) -> bool:
    """Whether a request changes nothing."""
    return payloadtype.startswith("get") or payloadtype in _READS


def is_repeatable(payloadtype: str, *, is_sealed: bool = False) -> bool:
    """Whether the same bytes may arrive at the server more than once."""
    return is_sealed or is_read(payloadtype) or payloadtype in _ABSOLUTE
