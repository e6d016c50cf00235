"""The life of a process: the table, what each step leaves behind, and what time does to it."""

import itertools
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from colonist_core.lease import MAX_LIMIT_S
from colonist_core.process import (
    EXEC_EXPIRED,
    SERVER,
    TRANSITIONS,
    WAIT_EXPIRED,
    Cause,
    Closed,
    Limits,
    Live,
    What,
    assigned,
    born,
    deadline,
    ended,
    expired,
    happened,
    redelivered,
    returned,
    step,
)
from colonist_protocol.errors import ConflictError
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.process import FINAL, State
from colonist_protocol.times import SECOND_NS
from tests.core.rows import asks

PID = "5a" * 32
ADA = Cause("ad" * 32, b"\x01" * 32, b"\x02" * 65)
BEN = Cause("be" * 32, b"\x03" * 32, b"\x04" * 65)
START_NS = 1_795_246_274_278_554_097

RETURNS = (What.REQUEUED, What.UNDELIVERED, What.ORPHANED, What.RELEASED, What.UNSTARTED)
SILENT = (What.CONFIRMED, What.RENEWED, What.RECORDED)
PAIRS = list(itertools.product(State, What))
LEGAL = [(state, what) for state, what in PAIRS if what in TRANSITIONS[state]]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]


def newborn(max_wait_s=0, max_exec_s=0, max_retries=0, now_ns=START_NS) -> Live:
    return born(
        PID,
        now_ns=now_ns,
        priority_ns=now_ns,
        placement=asks(),
        limits=Limits(max_wait_s, max_exec_s, max_retries),
        label="l",
        initiator="ada",
        funcname="f",
        cause=ADA,
    )


def running(**limits) -> Live:
    live = newborn(**limits)
    return assigned(live, PID, executor=BEN.who, node="n", now_ns=START_NS + 1, cause=BEN)


def live_in(state: State) -> Live:
    """A process in a state; a final one as its `Closed.live`."""
    match state:
        case State.WAITING:
            return newborn()
        case State.RUNNING:
            return running()
        case State.CANCELLED:
            what = What.CANCELLED
        case State.FAILED:
            what = What.FAILED
        case State.SUCCESS:
            what = What.SUCCEEDED
    return ended(running(), PID, what, now_ns=START_NS + 2, cause=BEN).live


def happen(live: Live, what: What, now_ns: int) -> Live | Closed:
    """Let one event happen, whatever it is."""
    if what is What.ASSIGNED:
        return assigned(live, PID, executor=BEN.who, node="n", now_ns=now_ns, cause=BEN)
    if what is What.REDELIVERED:
        return redelivered(live, PID, node="m", now_ns=now_ns, cause=BEN)
    if what in RETURNS:
        return returned(live, PID, what, now_ns=now_ns)
    if what in SILENT:
        return happened(live, PID, what, now_ns, BEN)
    return ended(live, PID, what, now_ns=now_ns, cause=BEN)


def verify(live: Live, birth_ns: int = START_NS) -> None:
    """The chain from the birth to the head, without gaps, as an outsider would check it."""
    assert live.count == 1 + len(live.events)
    line = EventLine(
        chain=PID,
        n=0,
        what="submitted",
        who=ADA.who,
        attempt=0,
        time=birth_ns // 1_000_000,
        req=ADA.digest.hex(),
        sig=ADA.signature.hex(),
        prev="",
    )
    attempt = 0
    for number, event in enumerate(live.events, 1):
        attempt += event.what == What.ASSIGNED
        assert event.attempt == attempt
        line = EventLine(
            chain=PID,
            n=number,
            what=What(event.what).name.lower(),
            who=event.who.hex(),
            attempt=attempt,
            time=event.time_ms,
            req=event.digest.hex(),
            sig=event.signature.hex(),
            prev=event_hash(line).hex(),
        )
    assert live.attempt == attempt
    assert live.head == event_hash(line)


@pytest.mark.parametrize(("state", "what"), LEGAL)
def test_a_legal_event_leads_where_the_table_says(state, what):
    before = live_in(state)
    after = happen(before, what, START_NS + 5)
    live = after.live if isinstance(after, Closed) else after
    assert live.state == step(state, what) == TRANSITIONS[state][what]
    assert isinstance(after, Closed) == (live.state in FINAL)
    assert live.changed_ns == START_NS + 5
    verify(live)


@pytest.mark.parametrize(("state", "what"), [pair for pair in ILLEGAL if pair[1] != What.SUBMITTED])
def test_an_illegal_event_raises_and_changes_nothing(state, what):
    before = live_in(state)
    kept = msgspec.msgpack.encode(before)
    with pytest.raises(ConflictError):
        happen(before, what, START_NS + 5)
    assert msgspec.msgpack.encode(before) == kept


@pytest.mark.parametrize("state", State)
def test_nothing_is_submitted_twice(state):
    with pytest.raises(ConflictError):
        step(state, What.SUBMITTED)


def test_what_has_ended_stays_as_it_ended():
    assert {state for state in State if not TRANSITIONS[state]} == FINAL


def test_every_state_and_event_is_reached():
    reached = {after for table in TRANSITIONS.values() for after in table.values()}
    assert reached == set(State)
    assert {what for table in TRANSITIONS.values() for what in table} == set(What) - {
        What.SUBMITTED
    }


@pytest.mark.parametrize(
    ("state", "what", "words"),
    [
        (State.SUCCESS, What.FAILED, "Tried to set successful process as failed"),
        (State.FAILED, What.SUCCEEDED, "Tried to set failed process as successful"),
        (State.FAILED, What.FAILED, "Tried to set failed process as failed"),
        (State.CANCELLED, What.SUCCEEDED, "Tried to set cancelled process as successful"),
        (State.SUCCESS, What.CANCELLED, "Tried to cancel successful process"),
        (State.FAILED, What.CANCELLED, "Tried to cancel failed process"),
        (State.CANCELLED, What.CANCELLED, "Tried to cancel already cancelled process"),
        (State.RUNNING, What.ASSIGNED, "a running process cannot be assigned"),
    ],
)
def test_refusals_are_in_the_words_that_sdk_users_know(state, what, words):
    with pytest.raises(ConflictError, match=f"^{words}$"):
        step(state, what)


def test_a_birth_waits_and_says_who_made_it():
    live = newborn(max_wait_s=10)
    assert live.state == State.WAITING
    assert (live.attempt, live.retries, live.executor, live.started_ns) == (0, 0, "", 0)
    assert live.deadline_ns == START_NS + 10 * SECOND_NS
    verify(live)


def test_an_assignment_starts_an_attempt_and_its_time():
    live = running(max_wait_s=5, max_exec_s=7)
    assert (live.attempt, live.executor, live.node) == (1, BEN.who, "n")
    assert live.started_ns == START_NS + 1
    assert live.deadline_ns == START_NS + 1 + 7 * SECOND_NS


def test_a_redelivery_is_the_same_attempt_with_the_same_deadline():
    before = running(max_exec_s=7)
    after = redelivered(before, PID, node="m", now_ns=START_NS + 9, cause=BEN)
    for name in ("attempt", "deadline_ns", "started_ns", "executor", "retries", "state"):
        assert getattr(after, name) == getattr(before, name)
    assert after.node == "m"
    verify(after)


@pytest.mark.parametrize("what", RETURNS)
def test_only_a_time_out_counts_as_a_retry(what):
    after = returned(running(max_wait_s=10), PID, what, now_ns=START_NS + 100)
    assert after.retries == (what is What.REQUEUED)
    assert (after.state, after.executor, after.node, after.started_ns) == (State.WAITING, "", "", 0)
    assert after.deadline_ns == START_NS + 100 + 10 * SECOND_NS
    assert after.priority_ns == START_NS
    assert after.events[-1].who == b""


def test_an_end_keeps_result_reasons_and_assignee():
    closed = ended(
        running(), PID, What.FAILED, now_ns=START_NS + 9, cause=BEN, payload=b"{}", errors=("e",)
    )
    assert (closed.payload, closed.errors, closed.live.executor) == (b"{}", ("e",), BEN.who)
    assert closed.live.events[-1].who == bytes.fromhex(BEN.who)


@pytest.mark.parametrize("limit_s", [0, -1, -(2**63)])
def test_no_limit_is_no_deadline(limit_s):
    assert deadline(START_NS, limit_s) == 0


@given(st.integers(1, 2**63 - 1))
def test_a_deadline_fits_into_what_is_stored_and_shown(limit_s):
    found = deadline(START_NS, limit_s)
    assert found == START_NS + min(limit_s, MAX_LIMIT_S) * SECOND_NS
    assert found < 2**63


def test_who_waited_too_long_fails():
    closed = expired(newborn(max_wait_s=1), PID, now_ns=START_NS + 2)
    assert isinstance(closed, Closed)
    assert (closed.live.state, closed.errors) == (State.FAILED, (WAIT_EXPIRED,))
    assert closed.live.events[-1].what == What.WAITED_OUT


@given(st.integers(-3, 3), st.integers(0, 5))
def test_a_time_out_is_a_retry_until_there_are_none_left(max_retries, retries):
    live = replace_retries(running(max_exec_s=1, max_retries=max_retries), retries)
    after = expired(live, PID, now_ns=START_NS + 9)
    if max_retries < 0 or retries < max_retries:
        assert isinstance(after, Live)
        assert (after.state, after.retries) == (State.WAITING, retries + 1)
    else:
        assert isinstance(after, Closed)
        assert (after.live.state, after.errors) == (State.FAILED, (EXEC_EXPIRED,))
        assert after.live.retries == retries


def replace_retries(live: Live, retries: int) -> Live:
    return msgspec.structs.replace(live, retries=retries)


def test_three_retries_are_four_runs():
    live, runs = newborn(max_exec_s=1, max_retries=3), 0
    while isinstance(live, Live):
        live = assigned(live, PID, executor=BEN.who, node="n", now_ns=START_NS, cause=BEN)
        runs += 1
        live = expired(live, PID, now_ns=START_NS)
    assert runs == 4
    verify(live.live)


def test_a_stored_process_is_read_back_as_it_was():
    for state in State:
        live = live_in(state)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(live), type=Live) == live


class Fact(NamedTuple):
    """What the model knows."""

    state: State = State.WAITING
    attempt: int = 0
    retries: int = 0
    executor: str = ""
    events: int = 1


class Life(RuleBasedStateMachine):
    """Any walk through the table against a few plain facts."""

    @initialize(wait=st.integers(-1, 2), execute=st.integers(-1, 2), retries=st.integers(-1, 3))
    def birth(self, wait, execute, retries):
        self.now_ns = START_NS
        self.live = newborn(wait, execute, retries)
        self.closed: Closed | None = None
        self.fact = Fact()

    @rule(what=st.sampled_from([what for what in What if what is not What.SUBMITTED]))
    def try_anything(self, what):
        self.now_ns += SECOND_NS
        after = TRANSITIONS[self.fact.state].get(what)
        if after is None:
            with pytest.raises(ConflictError):
                happen(self.live, what, self.now_ns)
            return
        self.take(happen(self.live, what, self.now_ns), what, after)

    @precondition(lambda self: self.fact.state not in FINAL and self.live.deadline_ns)
    @rule()
    def time_is_up(self):
        self.now_ns = self.live.deadline_ns
        live = self.live
        if self.fact.state is State.WAITING:
            what = What.WAITED_OUT
        elif live.max_retries < 0 or self.fact.retries < live.max_retries:
            what = What.REQUEUED
        else:
            what = What.EXPIRED
        self.take(expired(live, PID, now_ns=self.now_ns), what, TRANSITIONS[self.fact.state][what])

    def take(self, after, what, state):
        fact = self.fact
        is_back = state is State.WAITING
        self.fact = Fact(
            state,
            fact.attempt + (what is What.ASSIGNED),
            fact.retries + (what is What.REQUEUED),
            BEN.who if what is What.ASSIGNED else "" if is_back else fact.executor,
            fact.events + 1,
        )
        self.closed = after if isinstance(after, Closed) else None
        self.live = after.live if isinstance(after, Closed) else after

    @invariant()
    def the_record_says_what_the_model_says(self):
        if not hasattr(self, "fact"):
            return
        live = self.live
        found = Fact(State(live.state), live.attempt, live.retries, live.executor, live.count)
        assert found == self.fact
        assert (self.closed is not None) == (self.fact.state in FINAL)
        verify(live)

    @invariant()
    def the_deadline_belongs_to_the_state(self):
        if not hasattr(self, "fact") or self.fact.state in FINAL:
            return
        live = self.live
        limit_s = live.max_wait_s if self.fact.state is State.WAITING else live.max_exec_s
        assert bool(live.deadline_ns) == (limit_s > 0)
        assert bool(live.executor) == bool(live.started_ns) == (self.fact.state is State.RUNNING)


TestLife = Life.TestCase


def test_the_server_is_nobody():
    assert (SERVER.who, SERVER.digest, SERVER.signature) == ("", b"", b"")


def test_the_time_of_one_that_has_parents_does_not_run_from_its_submission():
    """W8: it runs from the end of the last of them, which its workflow knows."""
    with_parents = born(
        PID,
        now_ns=START_NS,
        priority_ns=START_NS,
        placement=asks(),
        limits=Limits(5, 0, 0),
        label="l",
        initiator="ada",
        funcname="f",
        cause=ADA,
        has_parents=True,
    )
    assert with_parents.deadline_ns == 0
    assert newborn(max_wait_s=5).deadline_ns == START_NS + 5 * SECOND_NS


def test_one_whose_parent_failed_fails_with_the_reason_and_only_while_it_waits():
    closed = ended(newborn(), PID, What.PARENT_FAILED, now_ns=START_NS + 3, errors=("why",))
    assert (closed.live.state, closed.errors) == (State.FAILED, ("why",))
    assert closed.live.events[-1].who == b""
    verify(closed.live)
    with pytest.raises(ConflictError, match="a running process cannot be parent_failed"):
        ended(running(), PID, What.PARENT_FAILED, now_ns=START_NS + 3)
