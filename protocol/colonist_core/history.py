"""The chain of a process, told again from what is stored: the very lines that were hashed.

Nothing is stored of a line but what cannot be derived: a birth is event 0, every later event stands
packed in the record, in order. `vectors` fix the lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from colonist_core.process import MILLISECOND_NS, Cause, Event, What
from colonist_protocol.evidence import EventLine, event_hash

REMOVED: Final = "removed"


class Link(NamedTuple):
    """A line, and the head of the chain after it."""

    line: EventLine
    head: bytes


def submission(submitted_ns: int, cause: Cause) -> Event:
    """Event 0, which no record holds."""
    return Event(
        What.SUBMITTED,
        0,
        submitted_ns // MILLISECOND_NS,
        bytes.fromhex(cause.who),
        cause.digest,
        cause.signature,
    )


def links(
    process_id: str, events: Iterable[Event], *, first: int = 0, head: bytes = b""
) -> Iterator[Link]:
    """The chain from its birth on, or from event number `first` on, which follows `head`."""
    for n, event in enumerate(events, first):
        link = _link(process_id, n, What(event.what).name.lower(), event, head)
        head = link.head
        yield link


def removal(process_id: str, n: int, event: Event, previous: bytes) -> Link:
    """The end of the chain of a process that was removed; `event.what` says nothing."""
    return _link(process_id, n, REMOVED, event, previous)


def _link(process_id: str, n: int, what: str, event: Event, previous: bytes) -> Link:
    line = EventLine(
        chain=process_id,
        n=n,
        what=what,
        who=event.who.hex(),
        attempt=event.attempt,
        time=event.time_ms,
        req=event.digest.hex(),
        sig=event.signature.hex(),
        prev=previous.hex(),
    )
    return Link(line, event_hash(line))
