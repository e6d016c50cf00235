import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_protocol import evidence, names, times, topics, units
from colonist_protocol.errors import (
    AmountError,
    ColonistError,
    InvalidValueError,
    NameFormError,
    TimeFormError,
)


@given(st.integers(-(2**62), 2**63 - 1))
def test_a_time_keeps_its_microseconds(ns):
    expected = ns // 1000 * 1000 if ns else 0
    assert times.from_text(times.to_text(ns)) == expected


@pytest.mark.parametrize("ns", [2**70, -(2**70), 10**40])
def test_a_time_outside_the_calendar_is_refused(ns):
    with pytest.raises(TimeFormError):
        times.to_text(ns)


def test_early_years_have_four_digits():
    ns = times.from_text("0999-01-01T00:00:00Z")
    assert times.to_text(ns) == "0999-01-01T00:00:00.000000Z"


@given(
    st.text(max_size=30)
    | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]*)?(Z|[+-][0-9:]{5})")
)
def test_any_text_for_a_time_causes_no_other_error(text):
    with contextlib.suppress(ColonistError):
        times.from_text(text)


@given(st.integers(0, 2**63 - 1))
def test_the_normal_form_of_cpu_is_read_again(amount):
    assert units.parse_cpu(units.cpu_text(amount)) == amount


@given(st.integers(0, 2**63 - 1))
def test_the_normal_form_of_memory_rounds_down(amount):
    again = units.parse_memory(units.memory_text(amount))
    assert 0 <= amount - again < 2**20


@given(st.text(max_size=24) | st.from_regex(r"[0-9]{1,22}[a-zA-Z]{0,4}"))
def test_any_text_for_an_amount_causes_no_other_error(text):
    for parse in (units.parse_cpu, units.parse_memory):
        with contextlib.suppress(AmountError):
            assert 0 <= parse(text) < 2**63


@given(st.text(max_size=140))
def test_a_name_that_passes_is_a_text_and_one_line(name):
    try:
        names.check_name(name, "name")
    except NameFormError:
        return
    assert names.check_text(name, "text") == name
    assert name == name.strip(" ")
    assert len(name.splitlines()) == 1
    name.encode()


def test_half_a_character_is_no_name():
    with pytest.raises(NameFormError, match=r"udc80"):
        names.check_name("a\udc80b", "name")


@given(st.text(max_size=100))
def test_any_topic_is_read_or_not_ours(topic):
    assert topics.Topics().parse_device(topic) is None


@given(
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(["req", "rep", "state", "lost"]),
)
def test_a_topic_names_its_device(device, leaf):
    house = topics.Topics()
    assert house.parse_device(house.device(device, leaf)) == (device, leaf)


def test_no_part_of_a_digest_can_be_read_as_two():
    with pytest.raises(InvalidValueError):
        evidence.tagged_digest("t", "a\nb")
