"""Limits and buckets: what is granted, what is refused, and what is remembered of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_core.limits import MAX_LIMIT, SWEEP_NS, Buckets, Limits, Rate, read_limits
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import SECOND_NS

RATE = Rate(per_s=10, burst=3)
START_NS = 5 * SECOND_NS

rates = st.builds(Rate, per_s=st.integers(1, 1000), burst=st.integers(1, 50))
asks = st.lists(
    st.tuples(st.integers(0, 3 * SECOND_NS), st.sampled_from("abc"), st.integers(1, 9)),
    max_size=60,
)


# -- settings


def test_limits_are_read_over_those_that_stood_before() -> None:
    base = read_limits(" rate=5 , polls = 4,")
    assert (base.rate, base.polls, base.burst) == (5, 4, Limits().burst)
    assert read_limits("polls=9", base) == Limits(rate=5, polls=9)
    assert read_limits("") == Limits()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("speed=5", "no limit 'speed'"),
        ("=5", "no limit ''"),
        ("rate", "rate=NUMBER"),
        ("rate=", "rate=NUMBER"),
        ("rate=-1", "rate=NUMBER"),
        ("rate=1.5", "rate=NUMBER"),
        ("rate=\u0661", "rate=NUMBER"),
        ("rate=1,rate=2", "rate is given twice"),
        ("rate=0", f"rate is not 1 to {MAX_LIMIT}"),
        ("polls=1000000001", f"polls is not 1 to {MAX_LIMIT}"),
    ],
)
def test_what_is_no_limit_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(InvalidValueError, match=told):
        read_limits(text)


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (SECOND_NS + 1, 1), (1, 0)])
def test_a_rate_without_any_requests_is_none(per_s: int, burst: int) -> None:
    with pytest.raises(InvalidValueError, match="is none"):
        Rate(per_s=per_s, burst=burst)


# -- one bucket


def test_a_full_bucket_gives_a_burst_and_then_what_comes_in() -> None:
    buckets = Buckets(RATE, 8)
    assert [buckets.take("a", START_NS) for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a", START_NS) == RATE.unit_ns
    assert buckets.take("a", START_NS + RATE.unit_ns - 1) == 1
    assert buckets.take("a", START_NS + RATE.unit_ns) == 0
    assert buckets.take("a", START_NS + RATE.unit_ns) > 0


def test_more_than_a_burst_is_taken_from_a_full_bucket_and_owed() -> None:
    buckets = Buckets(RATE, 8)
    assert buckets.take("a", START_NS, 30) == 0
    assert buckets.take("a", START_NS) == 28 * RATE.unit_ns
    assert buckets.take("a", START_NS + 27 * RATE.unit_ns, 30) == 3 * RATE.unit_ns


def test_what_is_charged_may_be_owed() -> None:
    buckets = Buckets(RATE, 1)
    for key in "ab":  # b draws on what is shared
        assert buckets.take(key, START_NS) == 0
        buckets.charge(key, 5)
        assert buckets.take(key, START_NS) == 4 * RATE.unit_ns


def test_what_is_given_back_was_never_taken() -> None:
    buckets = Buckets(RATE, 8)
    for _ in range(3):
        assert buckets.take("a", START_NS) == 0
    buckets.give_back("a", 2)
    assert [buckets.take("a", START_NS) == 0 for _ in range(3)] == [True, True, False]


@given(rates, asks)
def test_no_key_gets_more_than_its_rate_and_burst(
    rate: Rate, asks: list[tuple[int, str, int]]
) -> None:
    """Within any span: burst and what comes in meanwhile, but for one ask beyond the burst."""
    buckets, now_ns = Buckets(rate, 8), START_NS
    granted: dict[str, list[tuple[int, int]]] = {}
    for pause_ns, key, units in asks:
        now_ns += pause_ns
        if not buckets.take(key, now_ns, units):
            granted.setdefault(key, []).append((now_ns, units))
    for given_out in granted.values():
        for first, (since_ns, _) in enumerate(given_out):
            units = 0
            for at_ns, count in given_out[first:]:
                units += count
                room = rate.burst + (at_ns - since_ns) / rate.unit_ns
                assert units <= room + max(0, count - rate.burst) + 1e-6


@given(rates, asks)
def test_who_waits_as_long_as_it_was_told_is_served(
    rate: Rate, asks: list[tuple[int, str, int]]
) -> None:
    buckets, now_ns = Buckets(rate, 8), START_NS
    for pause_ns, key, units in asks:
        now_ns += pause_ns
        lacks_ns = buckets.take(key, now_ns, units)
        if lacks_ns:
            now_ns += lacks_ns
            assert buckets.take(key, now_ns, units) == 0


@given(asks)
def test_one_key_takes_nothing_from_another(asks: list[tuple[int, str, int]]) -> None:
    """What a key is answered is the same as if it were alone."""
    together, now_ns = Buckets(RATE, 8), START_NS
    alone = {key: Buckets(RATE, 8) for key in "abc"}
    for pause_ns, key, units in asks:
        now_ns += pause_ns
        assert together.take(key, now_ns, units) == alone[key].take(key, now_ns, units)


# -- many keys


def test_keys_beyond_the_capacity_share_one_bucket_and_hold_nothing() -> None:
    buckets = Buckets(RATE, 2)
    for key in "ab":
        assert buckets.take(key, START_NS, 3) == 0
    served = sum(buckets.take(f"stranger {n}", START_NS) == 0 for n in range(1000))
    assert served == RATE.burst
    assert len(buckets) == 2
    buckets.give_back("stranger 0")
    assert buckets.take("stranger 1001", START_NS) == 0


def test_who_has_been_quiet_is_forgotten_when_room_is_needed() -> None:
    buckets = Buckets(RATE, 2)
    for key in "ab":
        assert buckets.take(key, START_NS) == 0
    later_ns = START_NS + SWEEP_NS
    assert buckets.take("a", later_ns) == 0
    for _ in range(3):
        assert buckets.take("c", later_ns) == 0
    assert buckets.take("c", later_ns) > 0
    assert len(buckets) == 2  # of a and c: b was full again


def test_room_is_looked_for_once_a_second() -> None:
    buckets = Buckets(Rate(per_s=1000, burst=1), 1)
    assert buckets.take("a", START_NS) == 0
    assert buckets.take("b", START_NS) == 0
    assert buckets.take("c", START_NS + SWEEP_NS - 1) == 0
    assert len(buckets) == 1
    assert buckets.take("d", START_NS + SWEEP_NS) == 0
    assert buckets.take("d", START_NS + SWEEP_NS) > 0
