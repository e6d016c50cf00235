"""What a verification found, in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from colonist_cli.audit.verify import Report
from colonist_protocol.audit import FIRST_K
from colonist_protocol.audit_reading import Fault


def fault(found: Report) -> str:
    """What is wrong first, and where."""
    return str(Fault(found.fault, found.offset, found.line, found.chain, found.n))


def lines(found: Report) -> Iterator[str]:
    """What a sound file proves, and what it does not."""
    yield f"sound: {found.events} events in {found.chains} chains of the colony {found.colony}"
    yield (
        f"proven: {found.events - found.unproven} of them, by checkpoint {found.last_checkpoint} "
        f"of {when(found.last_time)}"
    )
    yield f"signed by those who caused them: {found.signed}; the rest is the server's word"
    if found.unproven:
        yield f"not proven: {found.unproven} events are newer than the last checkpoint"
    if found.unread:
        yield f"not read: the requests behind {found.unread} events are not in the file"
    if found.removed:
        yield f"removed: {found.removed} processes"
    if found.first_checkpoint > FIRST_K:
        yield f"forgotten: what was before checkpoint {found.first_checkpoint}"
    if found.members:
        yield f"members not checked: {found.members}"
    if found.forgotten_receipts:
        yield (
            f"receipts: {found.receipts - found.forgotten_receipts} of {found.receipts} found, "
            "the others are about history that is forgotten"
        )
    elif found.receipts:
        yield f"receipts: all {found.receipts} found"


def when(ms: int) -> str:
    """A time in UTC; of one that no calendar has the number."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
