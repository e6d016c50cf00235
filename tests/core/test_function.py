"""Tallies of functions against a plain list of runs."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_core.function import Tally, counted

seconds = st.floats(0, 1e6)


@given(st.lists(st.tuples(seconds, seconds), min_size=1))
def test_a_tally_is_what_a_list_of_all_runs_would_say(runs):
    tally = Tally()
    for wait_s, exec_s in runs:
        tally = counted(tally, wait_s, exec_s)
    waits, times = zip(*runs, strict=True)
    assert tally.counter == len(runs)
    assert (tally.min_wait_s, tally.max_wait_s) == (min(waits), max(waits))
    assert (tally.min_exec_s, tally.max_exec_s) == (min(times), max(times))
    assert tally.mean_wait_s == pytest.approx(statistics.fmean(waits))
    assert tally.mean_exec_s == pytest.approx(statistics.fmean(times))


def test_a_function_that_never_ran_has_no_mean():
    assert (Tally().mean_wait_s, Tally().mean_exec_s) == (0, 0)
