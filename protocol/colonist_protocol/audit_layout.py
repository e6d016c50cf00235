"""Where things are in an audit file, and how it is cut into stretches that are checked apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import msgspec

from colonist_protocol.audit import Checkpoint, Header
from colonist_protocol.audit_reading import (
    CHECKPOINT_START,
    END_START,
    EVENT_START,
    MAX_LINE_BYTES,
    TAG_CHARS,
    AuditError,
    Counts,
    End,
    Fault,
    read,
    read_header,
)

_END_BYTES: Final = 4096
_COUNTED_BYTES: Final = 1 << 20
_TOO_LONG: Final = f"the line is longer than {MAX_LINE_BYTES} bytes"


class Source(Protocol):
    """A file, or what stands for one."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def line(self, offset: int, /) -> bytes:
        """The line that begins there, with its line feed; of one too long the beginning.

        Empty at the end of the file. Too long is over `MAX_LINE_BYTES`.
        """
        ...

    def read(self, start: int, end: int, /) -> bytes:
        """What stands from `start` up to `end`."""
        ...


class Stretch(NamedTuple):
    """A part of a file that begins with an event or checkpoint.

    `before` is where the one before it begins; -1: there is none.
    """

    start: int
    end: int
    before: int = -1


class Outline(NamedTuple):
    """A file as far as its first and last line and the beginning of the chains tell."""

    header: Header
    tag: str
    checkpoints_at: int
    chains_at: int
    end_at: int
    end: End | None
    """None: the file was cut off, or its last line is none."""


class FaultError(Exception):
    """The file is wrong; no more is looked at."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def outline(source: Source) -> Outline:
    """Read the first and the last line, and find the chains. Raises `FaultError`."""
    first = source.line(0)
    try:
        header = read_header(whole(first))
    except AuditError as error:
        raise FaultError(Fault(str(error), 0)) from None
    chains_at = _find_chains(source, len(first))
    end_at, end = _find_end(source)
    return Outline(
        header,
        _find_tag(source, len(first), chains_at),
        len(first),
        chains_at,
        max(end_at, chains_at),
        end if end_at >= chains_at else None,
    )


def whole(line: bytes) -> bytes:
    """A line without its line feed. Raises `AuditError` where it has none, or is too long."""
    if len(line) > MAX_LINE_BYTES:
        raise AuditError(_TOO_LONG)
    if not line.endswith(b"\n"):
        raise AuditError("the file ends in the middle of a line: it was cut off")
    return line[:-1]


def _find_chains(source: Source, start: int) -> int:
    offset = start
    while line := source.line(offset):
        if line.startswith((EVENT_START, END_START)):
            break
        if len(line) > MAX_LINE_BYTES:
            raise FaultError(Fault(_TOO_LONG, offset))
        offset += len(line)
    return offset


def _find_tag(source: Source, checkpoints_at: int, chains_at: int) -> str:
    """What the first head, else the first event, says. Whether it is true is seen later."""
    line = source.line(checkpoints_at)
    if line.startswith(CHECKPOINT_START):
        try:
            heads = msgspec.json.decode(line, type=Checkpoint).heads
        except (msgspec.DecodeError, UnicodeDecodeError):
            heads = ()
        if heads:
            return heads[0][0][:TAG_CHARS]
    chain = source.line(chains_at)[len(EVENT_START) :]
    return chain[:TAG_CHARS].decode(errors="replace")


def _find_end(source: Source) -> tuple[int, End | None]:
    start = max(0, source.size - _END_BYTES)
    tail = source.read(start, source.size)
    last = tail.rfind(b"\n", 0, len(tail) - 1) + 1
    try:
        return start + last, read(whole(tail[last:]), End, "last line")
    except AuditError:
        return source.size, None


def count(source: Source, outlined: Outline, found: Counts, hash: str) -> Fault | None:
    """Hold the last line against what the file has."""
    end = outlined.end
    if end is None:
        return Fault("the file ends without its last line: it was cut off", source.size)
    said = Counts(end.chains, end.events, end.checkpoints)
    for name, one, other in zip(Counts._fields, said, found, strict=True):
        if one != other:
            return Fault(f"the last line says {one} {name}; there are {other}", outlined.end_at)
    if not end.end or end.hash != hash:
        text = "the file is not as it was written: its bytes do not fit the hash in its last line"
        return Fault(text, outlined.end_at)
    return None


def stretches(
    source: Source, start: int, end: int, *, begin: bytes, step: int
) -> Iterator[Stretch]:
    """Cut a part into stretches of about `step` bytes that begin with a line that begins so.

    Where no such line follows, something is wrong, and the last stretch ends after that.
    """
    before = -1
    while end - start > step:
        next_before, middle = _next_two(source, start + step, end, begin)
        yield Stretch(start, middle, before)
        if next_before < 0:
            return
        start, before = middle, next_before
    yield Stretch(start, end, before)


def _next_two(source: Source, offset: int, end: int, begin: bytes) -> tuple[int, int]:
    """Where the next two lines of the kind begin; -1 and an end where there are none.

    Between them stands one other line at most.
    """
    offset += len(source.line(offset))
    found, others = -1, 0
    while offset < end and others <= 1:
        line = source.line(offset)
        if not line.startswith(begin):
            others += 1
        elif found >= 0:
            return found, offset
        else:
            found, others = offset, 0
        offset += len(line)
    return -1, min(offset, end)


def line_of(source: Source, offset: int) -> int:
    """The number of the line that an offset is in, from 1."""
    steps = range(0, offset, _COUNTED_BYTES)
    return 1 + sum(
        source.read(start, min(start + _COUNTED_BYTES, offset)).count(b"\n") for start in steps
    )
