"""What must hold of all that a store holds of processes; for tests.

Each is in one place only, its state follows from its events, its chain of hashes is whole, and
nothing is left of what was removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from colonist_core.process import Closed, Event, Live, What, step
from colonist_protocol import codec
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.identity import digest
from colonist_protocol.process import FINAL, State
from colonist_server.repo import keys
from colonist_server.repo.records import (
    Birth,
    decode_birth,
    decode_closed,
    decode_ended,
    decode_live,
    decode_workflow,
)

EVENTS = msgspec.msgpack.Decoder(tuple[Event, ...])


def check_books(stored: Mapping[bytes, bytes]) -> None:
    """Every process is in one state, its chain is whole, what was removed left nothing behind."""
    births = {
        name[2:]: decode_birth(value)
        for name, value in stored.items()
        if name.startswith(keys.BIRTH)
    }
    lives = {
        name[2:]: decode_live(value) for name, value in stored.items() if name.startswith(keys.LIVE)
    }
    ends = {
        name[2:]: decode_closed(value)
        for name, value in stored.items()
        if name.startswith(keys.CLOSED)
    }
    listed = {
        name[-keys.PID_BYTES :]: (keys.state_of_ended(name), decode_ended(value))
        for name, value in stored.items()
        if name.startswith(keys.ENDED) and keys.kind_of_ended(name) == keys.KIND_PROCESS
    }
    assert not lives.keys() & ends.keys()
    assert lives.keys() | ends.keys() == births.keys()
    assert {pid: closed.live.state for pid, closed in ends.items()} == {
        pid: state for pid, (state, _) in listed.items()
    }
    moved = _moved(stored)
    for pid, birth in births.items():
        found: Live | Closed = lives.get(pid) or ends[pid]
        live = found.live if isinstance(found, Closed) else found
        check_chain(pid, _first(pid, birth, stored), (*moved.get(pid, ()), *live.events), live)
        assert (live.state in FINAL) == isinstance(found, Closed)
    for prefix in (keys.OUTPUT, keys.ATTRIBUTE, keys.EVENTS):
        owners = {name[2 : 2 + keys.PID_BYTES] for name in stored if name.startswith(prefix)}
        assert owners <= births.keys(), prefix
    assert {value for name, value in stored.items() if name.startswith(b"ai/")} <= births.keys()


def _moved(stored: Mapping[bytes, bytes]) -> dict[bytes, list[Event]]:
    """The events of each process that stand in keys of their own, in order."""
    found: dict[bytes, list[Event]] = {}
    for name in sorted(name for name in stored if name.startswith(keys.EVENTS)):
        pid = name[len(keys.EVENTS) : len(keys.EVENTS) + keys.PID_BYTES]
        found.setdefault(pid, []).extend(EVENTS.decode(stored[name]))
    return found


def _first(pid: bytes, birth: Birth, stored: Mapping[bytes, bytes]) -> EventLine:
    """The submit: of a member it is the workflow's."""
    workflow = stored.get(keys.workflow(pid[: keys.WID_BYTES]))
    if workflow is None:
        request, signature = digest(codec.to_base64(birth.payload).encode()), birth.signature
    else:
        record = decode_workflow(workflow)
        request, signature = record.digest, record.signature
    return EventLine(
        chain=pid.hex(),
        n=0,
        what="submitted",
        who=birth.initiator_id,
        attempt=0,
        time=birth.submitted_ns // 1_000_000,
        req=request.hex(),
        sig=signature.hex(),
        prev="",
    )


def check_chain(pid: bytes, line: EventLine, events: Sequence[Event], live: Live) -> None:
    """The events from the first on lead to the state and the head, each by a legal step."""
    state, attempt = State.WAITING, 0
    for number, event in enumerate(events, 1):
        state = step(state, What(event.what))
        attempt += event.what == What.ASSIGNED
        assert event.attempt == attempt
        line = EventLine(
            chain=pid.hex(),
            n=number,
            what=What(event.what).name.lower(),
            who=event.who.hex(),
            attempt=attempt,
            time=event.time_ms,
            req=event.digest.hex(),
            sig=event.signature.hex(),
            prev=event_hash(line).hex(),
        )
    assert (live.state, live.attempt, live.count) == (state, attempt, line.n + 1)
    assert live.head == event_hash(line)
