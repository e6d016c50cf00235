"""The evidence of one process as a table: what, when, who, and whether it was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from colonist_cli.audit.report import when
from colonist_cli.output import Column
from colonist_protocol.audit import ProcessEvidence
from colonist_protocol.audit_checkpoints import (
    KEY_BYTES,
    CheckpointWalk,
    Groups,
    Heads,
    head_key,
)
from colonist_protocol.audit_events import EventWalk, Frame
from colonist_protocol.audit_reading import (
    EVENT_START,
    TAG_CHARS,
    AuditError,
    Servers,
    read_event,
    read_header,
)
from colonist_protocol.evidence import EventLine

SERVER: Final = "the server"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An event. `checked` says by what it is proven, or what is wrong with it."""

    n: int
    time: str
    what: str
    attempt: int
    who: str
    id: str
    checked: str
    is_sound: bool = True


SHOWN: Final[Sequence[Column[Shown]]] = (
    Column("n", lambda each: each.n),
    Column("time", lambda each: each.time),
    Column("event", lambda each: each.what),
    Column("attempt", lambda each: each.attempt or ""),
    Column("who", lambda each: each.who),
    Column("checked", lambda each: each.checked),
)


def shown(evidence: ProcessEvidence, pin: str, names: Mapping[str, str]) -> list[Shown]:
    """The events, each checked with all before it; `pin` "": under the id that the server names.

    Raises `AuditError` where header or checkpoint are wrong.
    """
    header = read_header(evidence.header.encode())
    servers = Servers(header, pin or header.server)
    lines = [line.encode() for line in evidence.lines]
    chain = _chain_of(lines)
    frame = Frame(header.colony, chain[:TAG_CHARS], servers, tail=0)
    records = _heads(evidence.checkpoints, frame, chain)
    ks = {int.from_bytes(record[KEY_BYTES : KEY_BYTES + 8], "big") for record in records}
    groups = Groups((), max(ks, default=0))
    walk = EventWalk(frame._replace(tail=groups.tail), Heads(iter(records), groups), None)
    return list(_rows(walk, lines, names))


def _chain_of(lines: Sequence[bytes]) -> str:
    if not lines:
        return ""
    return read_event(lines[0]).chain


def _heads(lines: Sequence[str], frame: Frame, chain: str) -> list[bytes]:
    """What the checkpoints say of this chain."""
    found: list[bytes] = []
    for checkpoint, signature in zip(lines[::2], lines[1::2], strict=True):
        walk = CheckpointWalk(frame.colony, frame.tag, frame.servers, None)
        walk.take(checkpoint.encode())
        found += walk.take(signature.encode())
        if not frame.servers.vouches(walk.signer):
            raise AuditError("the checkpoint was signed by a server key from before the pinned one")
    own = head_key(chain, 0)[:32] if chain else b""
    return sorted(record for record in found if record[:32] == own)


def _rows(walk: EventWalk, lines: Sequence[bytes], names: Mapping[str, str]) -> Iterator[Shown]:
    for number, line in enumerate(lines):
        if not line.startswith(EVENT_START):
            continue
        event = read_event(line)
        unproven = walk.tally.unproven
        try:
            walk.take(line, number)
            following = lines[number + 1 : number + 2]
            if following and not following[0].startswith(EVENT_START):
                walk.take(following[0], number + 1)
        except AuditError as error:
            yield _row(event, names, f"WRONG: {error}", is_sound=False)
            return
        checked = "signed" if event.who else "said by the server"
        if walk.tally.unproven > unproven:
            checked += ", under no checkpoint yet"
        yield _row(event, names, checked)
    walk.end(is_last=True)


def _row(
    event: EventLine, names: Mapping[str, str], checked: str, *, is_sound: bool = True
) -> Shown:
    return Shown(
        n=event.n,
        time=when(event.time),
        what=event.what,
        attempt=event.attempt,
        who=names.get(event.who, event.who[:12]) if event.who else SERVER,
        id=event.who,
        checked=checked,
        is_sound=is_sound,
    )
