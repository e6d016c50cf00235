"""Which of a history is forgotten, and when it is looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_core.retention import LOOK_S, Policy
from colonist_protocol.times import SECOND_NS

NOW = 1_800_000_000 * SECOND_NS


def test_nothing_is_forgotten_unless_somebody_says_so():
    off = Policy()
    assert not off.is_on
    assert off.horizon_ns(NOW) == 0
    assert off.surplus(10**9) == 0
    assert not off.is_crowded(10**9)
    assert off.wait_s(NOW, 1) == LOOK_S


def test_what_ended_an_age_ago_is_forgotten():
    policy = Policy(age_s=60)
    assert policy.is_on
    assert policy.horizon_ns(NOW) == NOW - 60 * SECOND_NS
    assert policy.horizon_ns(1) == 0


@pytest.mark.parametrize(
    ("kept", "surplus", "crowded"),
    [(0, 0, False), (1000, 0, False), (1010, 10, False), (1011, 11, True), (5000, 4000, True)],
)
def test_a_number_is_kept_to_a_hundredth(kept: int, surplus: int, crowded: bool):
    policy = Policy(count=1000)
    assert policy.is_on
    assert (policy.surplus(kept), policy.is_crowded(kept)) == (surplus, crowded)


def test_what_must_be_kept_is_not_tried_again_and_again():
    policy = Policy(count=10)
    assert policy.is_crowded(500)
    assert not policy.is_crowded(505, floor=500)
    assert policy.is_crowded(506, floor=500)


@pytest.mark.parametrize(
    ("age_s", "oldest_s", "wait_s"),
    [
        (60, 0, 60),  # nothing was kept
        (60, 20, 40),
        (60, 59.99, 0.6),
        (60, 1000, 0.6),  # overdue: something stopped it
        (30 * 86_400, 0, LOOK_S),
        (30 * 86_400, 30 * 86_400, LOOK_S),
    ],
)
def test_it_is_looked_again_when_the_oldest_is_due(age_s: float, oldest_s: float, wait_s: float):
    oldest_ns = NOW - int(oldest_s * SECOND_NS) if oldest_s else 0
    assert Policy(age_s=age_s).wait_s(NOW, oldest_ns) == pytest.approx(wait_s)


@given(st.floats(0.001, 1e10), st.integers(0, 2**63), st.integers(0, 2**63))
def test_it_is_never_looked_without_a_pause(age_s: float, now_ns: int, oldest_ns: int):
    assert min(age_s / 100, LOOK_S) <= Policy(age_s=age_s).wait_s(now_ns, oldest_ns) <= LOOK_S
