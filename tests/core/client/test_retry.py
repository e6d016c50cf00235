"""Full jitter: bounded, growing, spread."""

import random

from hypothesis import given
from hypothesis import strategies as st

from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, advice_s, is_transient
from colonist_client.transport import UnreachableError
from colonist_protocol.envelope import Failure


def test_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(uniform=lambda _, high: high, base_s=0.5, cap_s=10)
    assert [backoff.delay_s(n) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


def test_bottom_is_zero_or_the_floor_or_what_is_asked() -> None:
    assert Backoff(uniform=lambda low, _: low).delay_s(5) == 0
    assert Backoff(uniform=lambda low, _: low, floor_s=3).delay_s(5) == 3
    assert Backoff(uniform=lambda low, _: low, floor_s=3).delay_s(5, at_least_s=7) == 7


@given(failures=st.integers(1, 10**9), seed=st.integers())
def test_delay_is_always_within_bounds(failures: int, seed: int) -> None:
    backoff = Backoff(uniform=random.Random(seed).uniform, base_s=1, cap_s=60)
    assert 0 <= backoff.delay_s(failures) <= 60


def test_advice_of_a_server_is_bounded() -> None:
    assert advice_s(ServerError(Failure(503, "busy", "busy", 12.5))) == 12.5
    assert advice_s(ServerError(Failure(503, "busy", "busy", 1e9))) == 3600
    assert advice_s(ServerError(Failure(503, "busy", "busy", -5))) == 0
    assert advice_s(UnreachableError("gone")) == 0


def test_what_may_fare_better_later() -> None:
    assert is_transient(UnreachableError("gone"))
    assert is_transient(ServerError(Failure(500, "broken")))
    assert not is_transient(ServerError(Failure(403, "no")))
    assert not is_transient(ValueError("ours"))
