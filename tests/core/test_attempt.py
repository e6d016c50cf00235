"""What an attempt may do to its process: results early and late, renewals, and being heard of."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_core.attempt import check_attempt, confirmed, counts, recorded, renewed, winner
from colonist_core.lease import MAX_LIMIT_S, Flag
from colonist_core.process import (
    EXEC_EXPIRED,
    MAX_UNSTARTED,
    NEVER_STARTED,
    NONCE_BYTES,
    Cause,
    Closed,
    Grantee,
    Limits,
    Live,
    What,
    assigned,
    born,
    ended,
    expired,
    is_newest,
    redelivered,
    returned,
)
from colonist_protocol.errors import AttemptOverError, InvalidValueError
from colonist_protocol.process import State
from colonist_protocol.times import SECOND_NS
from tests.core.rows import asks
from tests.core.test_process import PID, START_NS, verify

ADA = Cause("ad" * 32, b"\x01" * 32, b"\x02" * 65, b"{}")
BEN = Cause("be" * 32, b"\x03" * 32, b"\x04" * 65, b"{}")
PLAIN = Cause("ca" * 32, b"\x05" * 32, b"\x06" * 65)


def newborn(max_exec_s: int = 60, max_retries: int = -1, flags: int = 0, most: int = 1000) -> Live:
    return born(
        PID,
        now_ns=START_NS,
        priority_ns=START_NS,
        placement=asks(),
        limits=Limits(0, max_exec_s, max_retries, flags, most),
        label="l",
        initiator="ada",
        funcname="f",
        cause=Cause("ad" * 32, b"\x01" * 32, b"\x02" * 65),
    )


def grant(live: Live, cause: Cause = ADA, now_ns: int = START_NS) -> tuple[Live, Grantee]:
    after = assigned(live, PID, executor=cause.who, node="n", now_ns=now_ns, cause=cause)
    return after, Grantee(after.attempt, after.nonce, cause.who)


def test_only_what_was_granted_to_a_sealed_request_has_a_nonce():
    sealed, by = grant(newborn())
    assert by.nonce == sealed.head[:NONCE_BYTES]
    assert sealed.is_sealed
    plain, _ = grant(newborn(), PLAIN)
    assert not plain.is_sealed


def test_a_grant_seen_again_keeps_its_nonce_or_gets_one():
    sealed, by = grant(newborn())
    again = redelivered(sealed, PID, node="m", now_ns=START_NS + 1, cause=BEN)
    assert again.nonce == by.nonce
    plain, _ = grant(newborn(), PLAIN)
    assert not redelivered(plain, PID, node="m", now_ns=START_NS + 1, cause=PLAIN).nonce
    again = redelivered(plain, PID, node="m", now_ns=START_NS + 1, cause=BEN)
    assert again.nonce == again.head[:NONCE_BYTES]


def test_the_same_number_in_another_past_is_another_attempt():
    live, by = grant(newborn())
    other, _ = grant(newborn(), now_ns=START_NS + SECOND_NS)
    assert is_newest(live, by)
    assert other.attempt == live.attempt
    assert not is_newest(other, by)


@pytest.mark.parametrize("flags", [0, Flag.REJECTS_LATE])
@pytest.mark.parametrize("what", [What.SUCCEEDED, What.FAILED])
@pytest.mark.parametrize("is_old", [False, True])
def test_which_results_count(flags, what, is_old):
    live, by = grant(newborn(flags=flags))
    live = returned(live, PID, What.REQUEUED, now_ns=START_NS + 1)
    if is_old:
        live, _ = grant(live, BEN)
    expected = not is_old or (what is What.SUCCEEDED and not flags)
    assert counts(live, by, what) is expected


def test_a_late_success_is_its_executors_work():
    live, by = grant(newborn(), now_ns=START_NS + 5 * SECOND_NS)
    live = returned(live, PID, What.REQUEUED, now_ns=START_NS + 6 * SECOND_NS)
    live, _ = grant(live, BEN, START_NS + 7 * SECOND_NS)
    now_ns = START_NS + 9 * SECOND_NS
    closed = ended(live, PID, What.SUCCEEDED, now_ns=now_ns, cause=ADA, payload=b"{}", by=by)
    assert (closed.live.executor, closed.live.attempt) == (ADA.who, 2)
    assert closed.seal == ADA.seal
    assert winner(closed.live) == (1, by.nonce)
    assert closed.live.started_ns // 1_000_000 == (START_NS + 5 * SECOND_NS) // 1_000_000
    assert closed.live.events[-1].attempt == 1


def test_a_late_success_of_a_forgotten_attempt_began_who_knows_when():
    live = newborn()
    by = Grantee(7, b"\x07" * 8, ADA.who)
    closed = ended(live, PID, What.SUCCEEDED, now_ns=START_NS + 9, cause=ADA, by=by)
    assert (closed.live.started_ns, closed.live.executor) == (START_NS + 9, ADA.who)


def test_the_result_of_the_attempt_that_runs_names_it():
    live, by = grant(newborn())
    closed = ended(live, PID, What.FAILED, now_ns=START_NS + 9, cause=ADA, payload=b"{}", by=by)
    assert closed.live.started_ns == START_NS
    assert winner(closed.live) == (1, by.nonce)


def test_what_no_sealed_result_ended_has_no_winner():
    live, _ = grant(newborn())
    plain, _ = grant(newborn(), PLAIN)
    cancelled = ended(live, PID, What.CANCELLED, now_ns=START_NS + 9, cause=BEN)
    closed = ended(plain, PID, What.SUCCEEDED, now_ns=START_NS + 9, cause=PLAIN)
    bare = msgspec.structs.replace(live, events=())
    assert [winner(each) for each in (cancelled.live, closed.live, bare)] == [None] * 3


@pytest.mark.parametrize("is_running", [False, True])
def test_what_is_recorded_changes_nothing_but_the_chain(is_running):
    live, by = grant(newborn())
    live = returned(live, PID, What.RELEASED, now_ns=START_NS + 1)
    if is_running:
        live, _ = grant(live, BEN)
    after = recorded(live, PID, by, now_ns=START_NS + 9, cause=ADA)
    assert after.events[-1].attempt == 1
    same = msgspec.structs.replace(
        after, head=live.head, count=live.count, events=live.events, flags=live.flags
    )
    assert same == live
    assert after.count == live.count + 1


def test_an_attempt_is_confirmed_once():
    live, by = grant(msgspec.structs.replace(newborn(), unstarted=3))
    after = confirmed(live, PID, by, now_ns=START_NS + 1, cause=ADA)
    assert after.is_confirmed
    assert (after.unstarted, after.events[-1].what) == (0, What.CONFIRMED)
    assert confirmed(after, PID, by, now_ns=START_NS + 2, cause=ADA) is after
    verify(after)


def test_an_attempt_that_is_over_says_nothing_more():
    live, by = grant(newborn())
    back = returned(live, PID, What.REQUEUED, now_ns=START_NS + 1)
    other, _ = grant(back, BEN)
    for now in (back, other):
        for act in (
            lambda now=now: check_attempt(now, by),
            lambda now=now: confirmed(now, PID, by, now_ns=START_NS + 2, cause=ADA),
            lambda now=now: renewed(now, PID, by, 1, now_ns=START_NS + 2, cause=ADA),
        ):
            with pytest.raises(AttemptOverError):
                act()


def test_a_renewal_says_where_the_lease_ends_and_never_moves_it_back():
    live, by = grant(newborn())
    once = renewed(live, PID, by, 1, now_ns=START_NS + 1, cause=ADA)
    assert once.lease_end_ns == once.deadline_ns == START_NS + 120 * SECOND_NS
    assert once.is_confirmed
    for count in (0, 1):
        same = renewed(once, PID, by, count, now_ns=START_NS + 2, cause=ADA)
        assert same is once
    verify(once)


def test_nothing_is_gained_by_renewals_that_were_hoarded():
    live, by = grant(newborn())
    with pytest.raises(InvalidValueError, match="over 1,"):
        renewed(live, PID, by, 2, now_ns=START_NS + 60 * SECOND_NS - 1, cause=ADA)
    after = renewed(live, PID, by, 2, now_ns=START_NS + 60 * SECOND_NS, cause=ADA)
    assert after.deadline_ns == START_NS + 180 * SECOND_NS


def test_a_spec_says_how_often():
    live, by = grant(newborn(most=0))
    with pytest.raises(InvalidValueError, match="maxrenewals, 0"):
        renewed(live, PID, by, 1, now_ns=START_NS + 1, cause=ADA)
    assert renewed(live, PID, by, 0, now_ns=START_NS + 1, cause=ADA).is_confirmed


def test_without_a_limit_there_is_nothing_to_renew():
    live, by = grant(newborn(max_exec_s=0))
    after = renewed(live, PID, by, 5, now_ns=START_NS + 1, cause=ADA)
    assert (after.renewed, after.deadline_ns, after.lease_end_ns) == (0, 0, 0)


def test_a_renewal_of_the_longest_lease_fits_into_what_is_stored():
    flags = Flag.NEVER_OVERLAPS
    live, by = grant(newborn(max_exec_s=2 * MAX_LIMIT_S, flags=flags))
    after = renewed(live, PID, by, 1, now_ns=START_NS + 1, cause=ADA)
    assert after.lease_end_ns < after.deadline_ns < 2**63


def test_the_end_of_an_attempt_of_which_nothing_was_heard_is_no_retry():
    live = newborn(max_retries=0)
    for number in range(1, MAX_UNSTARTED):
        live, _ = grant(live)
        after = expired(live, PID, now_ns=START_NS + 1)
        assert isinstance(after, Live)
        assert (after.unstarted, after.retries) == (number, 0)
        live = after
    live, _ = grant(live)
    closed = expired(live, PID, now_ns=START_NS + 1)
    assert isinstance(closed, Closed)
    assert (closed.live.state, closed.errors) == (State.FAILED, (NEVER_STARTED,))
    verify(closed.live)


def test_who_was_heard_of_ends_the_row_of_those_who_were_not():
    live, _ = grant(newborn(max_retries=0))
    back = expired(live, PID, now_ns=START_NS + 1)
    assert isinstance(back, Live)
    live, by = grant(back)
    live = confirmed(live, PID, by, now_ns=START_NS + 2, cause=ADA)
    closed = expired(live, PID, now_ns=START_NS + 3)
    assert isinstance(closed, Closed)
    assert closed.errors == (EXEC_EXPIRED,)
    plain, _ = grant(msgspec.structs.replace(back, max_retries=-1), PLAIN)
    after = expired(plain, PID, now_ns=START_NS + 3)
    assert isinstance(after, Live)
    assert (after.unstarted, after.retries) == (0, 1)


@given(st.integers(1, 10**6), st.integers(0, 10**15))
def test_a_late_failure_of_an_older_attempt_never_counts(seconds, gap_ns):
    live, by = grant(newborn(max_exec_s=seconds))
    live = returned(live, PID, What.REQUEUED, now_ns=START_NS + gap_ns)
    live, _ = grant(live, BEN, START_NS + gap_ns)
    assert not counts(live, by, What.FAILED)
