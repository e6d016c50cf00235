"""The chains of an audit file: events bound to each other, signed, under checkpoints.

A stretch of them can be checked by itself, given the line of the event before it and what the
checkpoints say from there on. So a file is checked by as many workers as there are cores.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from colonist_protocol import digests
from colonist_protocol.audit import REMOVED, EventRequest, colony_chain
from colonist_protocol.audit_checkpoints import Cover, Heads, head_key, missing
from colonist_protocol.audit_members import Members
from colonist_protocol.audit_once import pack_use
from colonist_protocol.audit_reading import (
    EVENT_START,
    AuditError,
    Servers,
    check_chain_id,
    read,
    read_event,
    signer,
)
from colonist_protocol.audit_requests import (
    CAUSED,
    NOTHING,
    REDELIVERED,
    UNREAD,
    UNSIGNED,
    Use,
    use,
)
from colonist_protocol.evidence import EventLine
from colonist_protocol.identity import is_id

LATE_MS: Final = 60_000
"""An event under no checkpoint may be so much older than the last one: clocks differ."""
NOWHERE: Final = ("", -1)
_TAG: Final = digests.EVENT.encode() + b"\n"


class Frame(NamedTuple):
    """What all stretches of a file have in common."""

    colony: str
    tag: str
    servers: Servers
    tail: int = 1
    """The number of the checkpoint that is still to come."""
    last_time: int = 0
    """When the last checkpoint was made."""
    is_cut: bool = False
    """Whether the file's history begins later than the colony's."""
    members: Members | None = None
    wanted: frozenset[str] = frozenset()
    """Hashes of events, and ids of chains, that receipts name."""


class Tally(NamedTuple):
    """What a stretch had."""

    chains: int = 0
    events: int = 0
    signed: int = 0
    unread: int = 0
    unproven: int = 0
    removed: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(*(one + two for one, two in zip(self, other, strict=True)))


class _Place(NamedTuple):
    chain: str
    n: int
    what: str
    hash: str


class EventWalk:
    """Goes through a stretch of chains, line by line.

    `before` is the line of the event before the stretch. `heads` begins with that event's chain.
    """

    def __init__(self, frame: Frame, heads: Heads, before: bytes | None) -> None:
        """Raises `AuditError` when the line before is no event."""
        self._frame = frame
        self._heads = heads
        self._colony_chain = colony_chain(frame.tag)
        self._last: _Place | None = None
        self._open: EventLine | None = None
        self._open_at = 0
        self._now = NOWHERE
        self._chains = self._events = self._signed = 0
        self._unread = self._unproven = self._removed = 0
        self.uses: list[bytes] = []
        """A record for each request, as `audit_requests` packs them."""
        self.found: set[str] = set()
        """Which of the wanted are there."""
        if before is not None:
            event = read_event(before)
            self._last = _Place(event.chain, event.n, event.what, _hash(before))
            check_chain_id(event.chain, frame.tag)
            key = head_key(event.chain, event.n)
            while heads.next is not None and heads.next.key <= key:
                heads.drop()

    @property
    def tally(self) -> Tally:
        """What there was so far."""
        return Tally(
            self._chains, self._events, self._signed, self._unread, self._unproven, self._removed
        )

    @property
    def place(self) -> tuple[str, int]:
        """Chain and number of the event that the last line is about, as far as it is known."""
        return self._now

    def take(self, line: bytes, offset: int) -> None:
        """The next line. Raises `AuditError`."""
        if line.startswith(EVENT_START):
            self._close(NOTHING)
            self._now = NOWHERE
            self._event(line, offset)
        else:
            self._request(line)

    def end(self, *, is_last: bool) -> None:
        """There are no more. Raises `AuditError` when that `is_last` and events are missing."""
        self._close(NOTHING)
        if is_last and self._heads.next is not None:
            raise missing(self._heads.next)

    def _event(self, line: bytes, offset: int) -> None:
        event = read_event(line)
        self._now = event.chain, event.n
        place = _Place(event.chain, event.n, event.what, _hash(line))
        self._check_form(event)
        self._link(event)
        cover = self._heads.cover(event.chain, event.n, place.hash)
        self._last = place
        self._events += 1
        if cover.group == self._frame.tail:
            self._unproven += 1
            is_going = self._frame.is_cut and event.what == REMOVED  # forgotten, as soon as may be
            if event.time < self._frame.last_time - LATE_MS and not is_going:
                raise AuditError(
                    "older than the last checkpoint, and under none; if a server has just "
                    "started, it is not done yet: export again"
                )
        self._sign(event, cover)
        self._open, self._open_at = event, offset
        self._removed += event.what == REMOVED
        self._note(place)

    def _check_form(self, event: EventLine) -> None:
        check_chain_id(event.chain, self._frame.tag)
        if bool(event.who) != bool(event.req) or bool(event.who) != bool(event.sig):
            raise AuditError("who, req and sig go together")
        if event.what not in (CAUSED if event.who else UNSIGNED):
            by = "somebody" if event.who else "the server by itself"
            raise AuditError(f"{event.what[:64]!r} is nothing that {by} can do")

    def _link(self, event: EventLine) -> None:
        last = self._last
        if last is None or event.chain != last.chain:
            if last is not None and event.chain < last.chain:
                raise AuditError("the chains are not in the order of their ids")
            self._chains += 1
            self._begin(event)
            return
        if last.what == REMOVED:
            raise AuditError(f"event {event.n} follows a removal")
        if event.n != last.n + 1:
            raise AuditError(f"event {event.n} follows {last.n}: there is something missing")
        if event.prev != last.hash:
            raise AuditError("the event before is not the one that it was made after")

    def _begin(self, event: EventLine) -> None:
        if event.n == 0:
            if event.prev:
                raise AuditError("the first event of a chain cannot have one before it")
            return
        is_cut = self._frame.is_cut and event.chain == self._colony_chain
        if event.what != REMOVED and not is_cut:
            raise AuditError(f"the chain begins with event {event.n}: there is something missing")
        if not is_id(event.prev):
            raise AuditError("the event names none before it")
        self._skip(event)

    def _skip(self, event: EventLine) -> None:
        """Of a chain whose beginning is not kept, what checkpoints said of that."""
        key = head_key(event.chain, event.n)
        while (head := self._heads.next) is not None and head.key < key:
            if head.key[:32] != key[:32]:
                raise missing(head)
            if head.n == event.n - 1 and head.hash != event.prev:
                raise AuditError("the event before is not the one that it was made after")
            self._heads.drop()

    def _sign(self, event: EventLine, cover: Cover) -> None:
        if not event.who:
            return
        if not is_id(event.req):
            raise AuditError("req is no digest")
        who = signer(bytes.fromhex(event.req), event.sig)
        if who != event.who:
            raise AuditError(f"signed by {who[:12]}..., not by {event.who[:12]}...")
        self._signed += 1
        is_proven = cover.group != self._frame.tail  # else who came since may not be in the file
        if is_proven and self._frame.members is not None and event.chain != self._colony_chain:
            self._frame.members.check(who, cover)

    def _note(self, place: _Place) -> None:
        wanted = self._frame.wanted
        if not wanted:
            return
        if place.hash in wanted:
            self.found.add(place.hash)
        if place.chain in wanted:
            self.found.add(place.chain if place.what == REMOVED else kept(place.chain))

    def _request(self, line: bytes) -> None:
        event = self._open
        request = read(line, EventRequest, "line of an audit file")
        if request.of != "event" or event is None:
            raise AuditError("a request stands beside no event")
        self._close(use(event, request, self._frame.colony, self._frame.servers))

    def _close(self, found: Use) -> None:
        event, self._open = self._open, None
        if event is None or not event.who:
            return
        self._unread += found.kind == UNREAD
        if event.what != REDELIVERED:  # the same grant, shown once more
            self.uses.append(pack_use(event, found, self._open_at))


def kept(chain: str) -> str:
    """What `found` holds of a wanted chain that is there; of one that was removed, its id."""
    return f"{chain} is there"


def first_key(before: bytes | None) -> bytes:
    """Where the heads begin that a stretch after this line needs. Raises `AuditError`."""
    if before is None:
        return b""
    return head_key(read_event(before).chain, 0)


def _hash(line: bytes) -> str:
    return hashlib.sha3_256(_TAG + line).hexdigest()
