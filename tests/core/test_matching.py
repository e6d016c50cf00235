"""Which executor may run what: the rules of COLONIES-RPC section 4.2, said once more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_core.matching import UNLIMITED, Placement, Profile, fits, has_room, placement
from tests.core.rows import asks, placements, profiles

words = st.sampled_from(["", "a", "A", "ß", "SS", "*"])


@given(
    wanted_type=words,
    type=words,
    names=st.none() | st.lists(words, max_size=3),
    name=words,
    wanted_location=words,
    location=words,
    amounts=st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(-1, 3)] * 2),
)
def test_an_executor_fits_when_each_condition_of_the_table_holds(
    *, wanted_type, type, names, name, wanted_location, location, amounts
):
    cpu, mem, offered_cpu, offered_mem = amounts
    wanted = placement(type=wanted_type, names=names, location=wanted_location, cpu=cpu, mem=mem)
    offered = Profile(type, name, location.casefold(), offered_cpu, offered_mem)
    holds = [
        wanted_type == type,
        not names or "*" in names or name in names,
        not wanted_location or wanted_location.casefold() == location.casefold(),
        offered_cpu == UNLIMITED or cpu <= offered_cpu,
        offered_mem == UNLIMITED or mem <= offered_mem,
    ]
    assert fits(wanted, offered) == all(holds)


@pytest.mark.parametrize("names", [None, [], ["*"], ["ada", "*"]])
def test_any_name_has_one_form(names):
    assert asks(names=names).names == ()


def test_names_are_sorted_and_stand_once():
    assert asks(names=["cyd", "ada", "cyd"]).names == ("ada", "cyd")


def test_the_location_has_one_case():
    assert asks(location="LuND") == asks(location="lund")


@pytest.mark.parametrize(
    ("amounts", "offered", "has"),
    [
        ((5, 5), (5, 5), True),
        ((6, 5), (5, 5), False),
        ((5, 6), (5, 5), False),
        ((6, 5), (UNLIMITED, 5), True),
        ((5, 6), (5, UNLIMITED), True),
        ((0, 0), (0, 0), True),
        ((1, 0), (0, 0), False),
    ],
)
def test_room_is_what_is_offered_or_no_limit(amounts, offered, has):
    assert has_room(*amounts, Profile("t", "n", "", *offered)) is has


@given(placements, profiles)
def test_room_is_a_part_of_fitting(wanted, offered):
    if fits(wanted, offered):
        assert has_room(wanted.cpu, wanted.mem, offered)
        assert fits(Placement(wanted.type), offered)
