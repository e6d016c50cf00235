"""Chains told from what is stored are those that were hashed, whatever happened to the process."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from colonist_core.history import links, removal, submission
from colonist_core.matching import placement
from colonist_core.process import (
    TRANSITIONS,
    Cause,
    Closed,
    Event,
    Limits,
    Live,
    What,
    assigned,
    born,
    ended,
    redelivered,
    returned,
)
from colonist_protocol.evidence import event_hash
from colonist_protocol.process import State

PID = "ab" * 32
SUBMITTER = Cause("11" * 32, b"\x01" * 32, b"\x02" * 65)
EXECUTOR = Cause("22" * 32, b"\x03" * 32, b"\x04" * 65)
BORN_NS = 1_800_000_000_123_456_789


def newborn() -> Live:
    return born(
        PID,
        now_ns=BORN_NS,
        priority_ns=BORN_NS,
        placement=placement(type="t", names=[], location="", cpu=0, mem=0),
        limits=Limits(0, 0, -1),
        label="",
        initiator="ann",
        funcname="f",
        cause=SUBMITTER,
    )


def after(live: Live, what: What, now_ns: int) -> Live | Closed:
    if what is What.ASSIGNED:
        return assigned(live, PID, executor=EXECUTOR.who, node="n", now_ns=now_ns, cause=EXECUTOR)
    if what is What.REDELIVERED:
        return redelivered(live, PID, node="n", now_ns=now_ns, cause=EXECUTOR)
    if TRANSITIONS[State(live.state)][what] == State.WAITING:
        return returned(live, PID, what, now_ns=now_ns)
    return ended(live, PID, what, now_ns=now_ns, cause=EXECUTOR)


MADE_HERE = (
    What.ASSIGNED,
    What.SUCCEEDED,
    What.FAILED,
    What.CANCELLED,
    What.REQUEUED,
    What.EXPIRED,
    What.WAITED_OUT,
    What.UNDELIVERED,
    What.REDELIVERED,
    What.ORPHANED,
    What.RELEASED,
)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(MADE_HERE), max_size=30))
def test_a_told_chain_ends_in_the_head_of_the_record(wanted: list[What]) -> None:
    live = newborn()
    now_ns = BORN_NS
    for what in wanted:
        if what not in TRANSITIONS[State(live.state)]:
            continue
        now_ns += 7_000_001
        step = after(live, what, now_ns)
        live = step.live if isinstance(step, Closed) else step
    told = list(links(PID, [submission(BORN_NS, SUBMITTER), *live.events]))
    assert len(told) == live.count
    assert told[-1].head == live.head
    assert [link.line.n for link in told] == list(range(live.count))
    assert [link.line.prev for link in told[1:]] == [link.head.hex() for link in told[:-1]]
    for n in range(1, live.count):
        rest = list(links(PID, live.events[n - 1 :], first=n, head=told[n - 1].head))
        assert rest == told[n:]


def test_the_end_of_a_removed_process_goes_on_from_its_head() -> None:
    live = newborn()
    event = Event(0, 3, 5, b"\x05" * 32, b"\x06" * 32, b"\x07" * 65)
    link = removal(PID, live.count, event, live.head)
    assert link.head == event_hash(link.line)
    line = link.line
    assert (line.n, line.what, line.attempt, line.time) == (1, "removed", 3, 5)
    assert (line.prev, line.who, line.req) == (live.head.hex(), "05" * 32, "06" * 32)
