"""Checks a stretch of an audit file: reads it, line by line, through a walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from colonist_protocol.audit import EventRequest, colony_chain
from colonist_protocol.audit_checkpoints import CheckpointWalk, Heads
from colonist_protocol.audit_events import EventWalk, Tally
from colonist_protocol.audit_layout import Outline, Source, Stretch, whole
from colonist_protocol.audit_members import MemberWalk
from colonist_protocol.audit_reading import (
    EVENT_START,
    AuditError,
    Fault,
    Servers,
    read,
    read_event,
)
from colonist_protocol.audit_requests import read_content


class CheckpointOutcome(NamedTuple):
    """What a stretch of checkpoints had."""

    fault: Fault | None = None
    heads: Sequence[bytes] = ()
    first_k: int = 0
    first_time: int = 0
    last_k: int = 0
    last_time: int = 0
    continued: Sequence[int] = ()
    signer: int = -1
    """Which server key signed the last one."""
    number: int = 0


class EventOutcome(NamedTuple):
    """What a stretch of chains had."""

    fault: Fault | None
    tally: Tally
    uses: list[bytes]
    found: frozenset[str]


def before(source: Source, stretch: Stretch) -> bytes | None:
    """The line of the checkpoint or event before a stretch."""
    return None if stretch.before < 0 else source.line(stretch.before).removesuffix(b"\n")


def _lines(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a block that begins at an offset, with their line feeds."""
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start) + 1 or len(data)
        yield offset + start, data[start:stop]
        start = stop


def read_members(
    source: Source, outlined: Outline, servers: Servers, heads: Heads
) -> tuple[MemberWalk, Fault | None]:
    """Who was a member when, from the colony's own chain, whose signatures are checked later."""
    walk = MemberWalk(outlined.header.colony, servers)
    chain = colony_chain(outlined.tag)
    offset = at = outlined.chains_at
    try:
        while offset < outlined.end_at:
            at = offset
            line = source.line(at)
            if not line.startswith(EVENT_START):
                break
            event = read_event(whole(line))
            if event.chain != chain:
                break
            offset += len(line)
            content = None
            following = source.line(offset) if offset < outlined.end_at else b""
            if following and not following.startswith(EVENT_START):
                at = offset
                content = read_content(read(whole(following), EventRequest, "request").payload)
                offset += len(following)
            walk.take(event, content, heads.seek(chain, event.n))
    except AuditError as error:
        return walk, Fault(str(error), at, chain=error.chain, n=error.n)
    return walk, None


def check_checkpoints(source: Source, stretch: Stretch, walk: CheckpointWalk) -> CheckpointOutcome:
    """Check a stretch of checkpoints."""
    heads: list[bytes] = []
    at = stretch.start
    fault = None
    try:
        for offset, line in _lines(source.read(stretch.start, stretch.end), stretch.start):
            at = offset
            heads += walk.take(whole(line))
        at = stretch.end
        walk.finish()
    except AuditError as error:
        fault = Fault(str(error), at, chain=error.chain, n=error.n)
    heads.sort()
    last = walk.last
    last_k, last_time = (last.k, last.time) if last is not None else (0, 0)
    return CheckpointOutcome(
        fault,
        heads,
        walk.first_k,
        walk.first_time,
        last_k,
        last_time,
        walk.continued,
        walk.signer,
        walk.count,
    )


def check_events(
    source: Source, stretch: Stretch, walk: EventWalk, *, is_last: bool
) -> EventOutcome:
    """Check a stretch of chains; `is_last`: no more is to follow."""
    at = stretch.start
    fault = None
    try:
        for offset, line in _lines(source.read(stretch.start, stretch.end), stretch.start):
            at = offset
            walk.take(whole(line), offset)
        at = stretch.end
        walk.end(is_last=is_last)
    except AuditError as error:
        chain, n = (error.chain, error.n) if error.chain else walk.place
        fault = Fault(str(error), at, chain=chain, n=n)
    return EventOutcome(fault, walk.tally, walk.uses, frozenset(walk.found))
