"""Invariant 10: whatever executors, clocks and the network do, an attempt's word counts once.

At most one effective close per process; no result without a record; each answered alike for ever;
and where `overlap` is `never`, no two attempts run at once.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colonist_core import lease
from tests.server.attempts_world import LIMIT_S, NAMES, Scene, server
from tests.support.clock import run_virtual
from tests.support.memory_store import MemoryStore

ACTIONS = (
    *("take", "take", "take", "take", "renew", "renew", "log", "finish", "finish", "fail"),
    *("repeat", "repeat", "release", "pause", "wake", "wake", "wake", "reboot", "submit"),
)
FATES = ("heard", "heard", "heard", "reply lost", "request lost")
RATES = (0.9, 0.95, 1.0, 1.05, 1.1)

Step = tuple[str, int, str]
STEPS = st.one_of(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, len(NAMES) - 1), st.sampled_from(FATES)),
    st.tuples(st.just("time"), st.integers(1, LIMIT_S + 3), st.just("")),
    st.tuples(st.just("restart"), st.integers(0, 4), st.just("")),
)


async def play(rates: list[float], server_rate: float, steps: list[Step]) -> Scene:
    scene = Scene(rates)
    async with MemoryStore() as store, AsyncExitStack() as stack:
        scene.made = await stack.enter_async_context(server(store, server_rate))
        await scene.made.found(*NAMES)
        await scene.made.enrol("uma")
        for _ in range(2):
            await scene.step("submit", scene.workers[0], "heard")
        for what, number, fate in steps:
            if what == "time":
                await scene.pass_time(number)
            elif what == "restart":
                await stack.aclose()
                scene.made = await stack.enter_async_context(server(store, server_rate))
            else:
                await scene.step(what, scene.workers[number], fate)
        await scene.reckon()
    return scene


@given(
    st.lists(st.sampled_from(RATES), min_size=len(NAMES), max_size=len(NAMES)),
    st.sampled_from(RATES),
    st.lists(STEPS, min_size=10, max_size=60),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_an_attempts_word_counts_once(
    rates: list[float], server_rate: float, steps: list[Step]
) -> None:
    run_virtual(play(rates, server_rate, steps))


def walk(chance: random.Random, length: int) -> list[Step]:
    steps: list[Step] = []
    for _ in range(length):
        kind = chance.random()
        if kind < 0.2:
            steps.append(("time", chance.choice((1, 2, 3, LIMIT_S + 3)), ""))
        elif kind < 0.22:
            steps.append(("restart", 0, ""))
        else:
            who = chance.randrange(len(NAMES))
            steps.append((chance.choice(ACTIONS), who, chance.choice(FATES)))
    return steps


def rehearse(number: int, length: int) -> Scene:
    chance = random.Random(number)
    rates = [chance.choice(RATES) for _ in NAMES]
    return run_virtual(play(rates, chance.choice(RATES), walk(chance, length)))


@pytest.mark.parametrize("number", range(4))
def test_an_attempts_word_counts_once_in_a_long_life(number: int, seed: int) -> None:
    scene = rehearse(seed + number, 250)
    outcomes = Counter(next(iter(told)) for told in scene.told.values())
    assert outcomes["counted"] > 2
    assert scene.counts.keys() >= set(ACTIONS)


@pytest.mark.campaign
def test_an_attempts_word_counts_once_in_many_long_lives(seed: int) -> None:
    for number in range(200):
        rehearse(seed * 1_000 + number, 400)


def test_executors_that_work_to_the_end_of_the_lease_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The judge can see: a third more than the margin, and two work at once."""
    monkeypatch.setattr(lease, "STOP", 1.25)
    with pytest.raises(AssertionError, match="two work at once"):
        rehearse_many(40)


def rehearse_many(lives: int) -> None:
    for number in range(lives):
        rehearse(number, 150)
