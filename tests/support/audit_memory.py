"""Checks an audit file that is in memory, one stretch after the other, by the protocol alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from colonist_protocol import audit_layout as layout
from colonist_protocol import audit_stretches as stretches
from colonist_protocol.audit_checkpoints import (
    CheckpointWalk,
    Groups,
    Heads,
)
from colonist_protocol.audit_events import EventWalk, Frame, Tally, first_key
from colonist_protocol.audit_layout import (
    FaultError,
    Outline,
    Stretch,
)
from colonist_protocol.audit_once import repeated
from colonist_protocol.audit_reading import (
    CHECKPOINT_START,
    EVENT_START,
    MAX_LINE_BYTES,
    AuditError,
    Counts,
    Fault,
    Servers,
)
from colonist_protocol.audit_stretches import CheckpointOutcome, EventOutcome
from tests.support.audit_files import sha3


class Memory:
    def __init__(self, data: bytes, longest: int = MAX_LINE_BYTES + 1) -> None:
        self.data = data
        self.size = len(data)
        self._longest = longest

    def line(self, offset: int, /) -> bytes:
        stop = self.data.find(b"\n", offset) + 1 or self.size
        return self.data[offset : min(stop, offset + self._longest)]

    def read(self, start: int, end: int, /) -> bytes:
        return self.data[start:end]


def cut(source: Memory, start: int, end: int, begin: bytes, step: int) -> list[Stretch]:
    return list(layout.stretches(source, start, end, begin=begin, step=step))


def check(data: bytes, pin: str, *, step: int = 1 << 20, wanted: Sequence[str] = ()) -> Tally:
    """What a sound file has. Raises `FaultError`."""
    return examine(data, pin, step=step, wanted=wanted)[0]


def examine(
    data: bytes, pin: str, *, step: int = 1 << 20, wanted: Sequence[str] = ()
) -> tuple[Tally, str, set[str]]:
    """What it has, why members are not known, and what of the wanted is there."""
    source = Memory(data)
    outlined = layout.outline(source)
    try:
        servers = Servers(outlined.header, pin)
    except AuditError as error:
        raise FaultError(Fault(str(error), 0)) from None
    outcomes = list(checkpoints(source, outlined, servers, step))
    heads = sorted(head for outcome in outcomes for head in outcome.heads)
    last = outcomes[-1]
    is_cut = outcomes[0].first_k > 1
    continued = [k for outcome in outcomes for k in outcome.continued]
    groups = Groups(continued, last.last_k, is_cut=is_cut)
    members, fault = stretches.read_members(source, outlined, servers, Heads(iter(heads), groups))
    frame = Frame(
        outlined.header.colony,
        outlined.tag,
        servers,
        tail=groups.tail,
        last_time=last.last_time,
        is_cut=is_cut,
        members=members.members,
        wanted=frozenset(wanted),
    )
    walks = Walks(frame, heads, groups)
    found = list(events(source, outlined, walks, fault, step))
    told(fault)
    tally = Tally()
    for each in found:
        tally = tally.plus(each.tally)
    counts = Counts(tally.chains, tally.events, sum(each.number for each in outcomes))
    told(layout.count(source, outlined, counts, sha3(data[: outlined.end_at])))
    twice = repeated(sorted(use for each in found for use in each.uses))
    if twice is not None:
        raise FaultError(Fault(twice.text, twice.offset))
    return tally, members.unknown, {name for each in found for name in each.found}


def checkpoints(
    source: Memory, outlined: Outline, servers: Servers, step: int
) -> Iterator[CheckpointOutcome]:
    start, end = outlined.checkpoints_at, outlined.chains_at
    for stretch in cut(source, start, end, CHECKPOINT_START, step):
        line = stretches.before(source, stretch)
        walk = CheckpointWalk(outlined.header.colony, outlined.tag, servers, line)
        found = stretches.check_checkpoints(source, stretch, walk)
        told(found.fault)
        yield found


class Walks(NamedTuple):
    """Makes a walk for each stretch."""

    frame: Frame
    heads: list[bytes]
    groups: Groups

    def after(self, line: bytes | None) -> EventWalk:
        key = first_key(line)
        rest = Heads((head for head in self.heads if head >= key), self.groups)
        return EventWalk(self.frame, rest, line)


def events(
    source: Memory,
    outlined: Outline,
    walks: Walks,
    limit: Fault | None,
    step: int,
) -> Iterator[EventOutcome]:
    start, end = outlined.chains_at, outlined.end_at
    for stretch in cut(source, start, end, EVENT_START, step):
        walk = walks.after(stretches.before(source, stretch))
        is_last = stretch.end == end and outlined.end is not None
        found = stretches.check_events(source, stretch, walk, is_last=is_last)
        if limit is None or (found.fault is not None and found.fault.offset <= limit.offset):
            told(found.fault)
        told(limit)
        yield found


def told(fault: Fault | None) -> None:
    if fault is not None:
        raise FaultError(fault)


def problem(data: bytes, pin: str, *, step: int = 1 << 20) -> str:
    """What is wrong with a file; "": nothing."""
    try:
        check(data, pin, step=step)
    except FaultError as error:
        return error.fault.text
    return ""
