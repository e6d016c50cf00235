"""What travels between the store and a writer in a process of its own: frames of msgpack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from colonist_server.store.batch import Commit, LeaseEnd, Probe
from colonist_server.store.framing import framed
from colonist_server.store.interface import (
    Change,
    Delete,
    DeleteRange,
    Event,
    Guard,
    Op,
    Put,
    Revision,
)
from colonist_server.store.writer import Outcome, Work


class Parcel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One work under its number. A lease alone: end it. Nothing at all: probe."""

    number: int
    guards: tuple[Guard, ...] = ()
    puts: tuple[Put, ...] = ()
    deletes: tuple[Delete, ...] = ()
    ranges: tuple[DeleteRange, ...] = ()
    size: int = 0
    lease: int = 0


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of one work; `is_event` if it changed anything, `deleted` the keys that went."""

    number: int
    revision: Revision | None
    is_event: bool
    deleted: tuple[bytes, ...]


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An outcome on its way back; `taken` counts the frames of work taken so far."""

    taken: int
    revision: Revision
    done: tuple[Done, ...]
    wrote: bool
    fault: str
    last: bool


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_parcels: Final = msgspec.msgpack.Decoder(list[Parcel | None]).decode
_decode_report: Final = msgspec.msgpack.Decoder(Report).decode


def pack_parcels(parcels: Iterable[Parcel | None]) -> bytes:
    """A frame of work; None asks the writer to stop."""
    return framed(_encode(list(parcels)))


def unpack_works(frame: bytes) -> list[Work | None]:
    """The works in a frame, with their numbers for tickets."""
    return [_work(parcel) if parcel is not None else None for parcel in _decode_parcels(frame)]


def parcel(number: int, work: Work) -> Parcel:
    """A work, to be sent under a number."""
    if isinstance(work, LeaseEnd):
        return Parcel(number, lease=work.lease)
    if isinstance(work, Probe):
        return Parcel(number)
    ops = work.ops
    return Parcel(
        number,
        work.guards,
        tuple([op for op in ops if type(op) is Put]),
        tuple([op for op in ops if type(op) is Delete]),
        tuple([op for op in ops if type(op) is DeleteRange]) if work.prefixes else (),
        work.size,
    )


def _work(parcel: Parcel) -> Work:
    if parcel.lease:
        return LeaseEnd(parcel.lease, parcel.number)
    if not parcel.size:
        return Probe(parcel.number)
    prefixes = tuple(op.prefix for op in parcel.ranges)
    ops: tuple[Op, ...] = (*parcel.puts, *parcel.deletes, *parcel.ranges)
    return Commit(parcel.guards, ops, parcel.number, parcel.size, prefixes)


def pack_report(outcome: Outcome, before: Revision, taken: int) -> bytes:
    """A frame for an outcome; `before` is the revision before it."""
    events = {event.revision: event for event in outcome.events}
    done: list[Done] = []
    for ticket, revision in outcome.answers:
        number = ticket if isinstance(ticket, int) else 0
        event = events.get(revision) if revision is not None and revision > before else None
        if event is None:
            done.append(Done(number, revision, is_event=False, deleted=()))
            continue
        before = event.revision
        deleted = tuple([change.key for change in event.changes if change.value is None])
        done.append(Done(number, revision, is_event=True, deleted=deleted))
    return framed(
        _encode(
            Report(taken, outcome.revision, tuple(done), outcome.wrote, outcome.fault, outcome.last)
        )
    )


def unpack_report(frame: bytes, works: dict[int, Work]) -> tuple[int, Outcome]:
    """Frames taken, and the outcome; takes the works that it answers out of `works`."""
    report = _decode_report(frame)
    answers: list[tuple[object, Revision | None]] = []
    events: list[Event] = []
    for done in report.done:
        work = works.pop(done.number)
        answers.append((work.ticket, done.revision))
        if done.is_event and done.revision is not None:
            events.append(Event(done.revision, _changes(work, done.deleted)))
    outcome = Outcome(report.revision, answers, events, report.wrote, report.fault, report.last)
    return report.taken, outcome


def _changes(work: Work, deleted: tuple[bytes, ...]) -> tuple[Change, ...]:
    """What a work changed, in the order of its ops."""
    if type(work) is not Commit:
        return tuple([Change(key, None) for key in deleted])
    if not deleted:
        return tuple([Change(op[0], op[1]) for op in work.ops if type(op) is Put])
    changes: list[Change] = []
    for op in work.ops:
        if type(op) is Put:
            changes.append(Change(op[0], op[1]))
        elif type(op) is DeleteRange:
            changes.extend(Change(key, None) for key in deleted if key.startswith(op[0]))
        elif op[0] in deleted:
            changes.append(Change(op[0], None))
    return tuple(changes)
