"""That a request had no more events than it may have, and all of one kind.

A verifier keeps a record of fixed length for each signed event, sorts them, on disk if need be, and
so brings together those of one request.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from colonist_protocol.audit_reading import TAG_CHARS
from colonist_protocol.audit_requests import (
    CAUSED,
    CAUSES,
    COUNTED,
    EACH,
    EMPTIED,
    ONE,
    REMOVE_CLAIM,
    Use,
)
from colonist_protocol.evidence import EventLine

ONCE_BYTES: Final = 80
_GROUP_BYTES: Final = 40
_CHAIN_END: Final = 68
_WHAT_AT: Final = 69

_WHATS: Final = sorted(CAUSED)
_EMPTYING: Final = sorted(CAUSES[REMOVE_CLAIM])
"""What one request may cause together."""
_CODES: Final = {what: code for code, what in enumerate(_WHATS)}


def pack_use(event: EventLine, found: Use, offset: int) -> bytes:
    """A record of `ONCE_BYTES` about an event of somebody, to be sorted and given to `repeated`."""
    return b"".join(
        (
            bytes.fromhex(event.req),
            bytes.fromhex(event.who[: 2 * (_GROUP_BYTES - 32)]),
            bytes.fromhex(event.chain[TAG_CHARS:]),
            bytes((found.kind, _CODES[event.what])),
            found.number.to_bytes(2, "big"),
            offset.to_bytes(8, "big"),
        )
    )


class Repeated(NamedTuple):
    """A request that was used too often, or for two things: where the last use is."""

    offset: int
    text: str


def repeated(records: list[bytes]) -> Repeated | None:
    """The first request of these sorted records that was used wrongly."""
    start = 0
    for index in range(1, len(records) + 1):
        if index < len(records) and records[index][:_GROUP_BYTES] == records[start][:_GROUP_BYTES]:
            continue
        if index - start > 1 and (text := _judge(records[start:index])):
            last = max(int.from_bytes(record[-8:], "big") for record in records[start:index])
            return Repeated(last, f"the request {records[start][:32].hex()} {text}")
        start = index
    return None


def _judge(group: list[bytes]) -> str:
    """What is wrong with the events of one request; "": nothing."""
    whats = sorted({_WHATS[record[_WHAT_AT]] for record in group})
    if len(whats) > 1 and whats != _EMPTYING:
        return f"caused {' and '.join(whats)}: one of them is not what it said"
    kinds = {record[_CHAIN_END]: record for record in group}
    allowed = len(group)
    if ONE in kinds:
        allowed = 1
    elif COUNTED in kinds:
        record = kinds[COUNTED]
        allowed = int.from_bytes(record[_WHAT_AT + 1 : _WHAT_AT + 3], "big")
    elif EMPTIED in kinds:
        claims = sum(_WHATS[record[_WHAT_AT]] == _EMPTYING[0] for record in group)
        allowed -= max(claims - 1, 0)
    elif EACH in kinds:
        allowed = len({record[:_CHAIN_END] for record in group})
    return f"had {len(group)} events: too many" if len(group) > allowed else ""
