"""The bounds of generators and their arguments."""

from __future__ import annotations

import pytest

from colonist_protocol.errors import InvalidValueError, TooLargeError
from colonist_protocol.generator import (
    MAX_ARGUMENT_BYTES,
    MAX_COPIES_BYTES,
    MAX_FIRING_BYTES,
    MAX_SPEC_BYTES,
    MAX_TIMEOUT_S,
    MAX_TRIGGER,
    MIN_ARGUMENT_BYTES,
    Generator,
    check,
    largest_argument,
    packed,
)


@pytest.mark.parametrize("trigger", [1, 2, MAX_TRIGGER])
@pytest.mark.parametrize("timeout", [-(2**63), -1, 0, 1, MAX_TIMEOUT_S])
def test_what_makes_sense_passes(trigger: int, timeout: int) -> None:
    check(Generator(trigger=trigger, timeout=timeout, workflowspec="x" * MAX_SPEC_BYTES))


@pytest.mark.parametrize("trigger", [-1, 0, MAX_TRIGGER + 1])
def test_P1_a_trigger_that_makes_no_sense_is_refused(trigger: int) -> None:
    with pytest.raises(InvalidValueError, match="trigger"):
        check(Generator(trigger=trigger))


def test_a_timeout_beyond_a_century_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="timeout"):
        check(Generator(trigger=1, timeout=MAX_TIMEOUT_S + 1))


def test_a_spec_is_measured_in_bytes() -> None:
    with pytest.raises(TooLargeError, match="workflowspec"):
        check(Generator(trigger=1, workflowspec="\u00e5" * (MAX_SPEC_BYTES // 2 + 1)))


@pytest.mark.parametrize("trigger", [1, 7, 100, MAX_TRIGGER])
@pytest.mark.parametrize("roots", [0, 1, 3, 16])
def test_the_arguments_of_a_firing_fit_it_and_all_of_its_copies(trigger: int, roots: int) -> None:
    largest = largest_argument(trigger, roots)
    assert MIN_ARGUMENT_BYTES <= largest <= MAX_ARGUMENT_BYTES
    assert largest * trigger <= MAX_FIRING_BYTES
    assert largest * trigger * roots <= MAX_COPIES_BYTES


def test_too_many_copies_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="too many"):
        largest_argument(MAX_TRIGGER, 10_000)


def test_an_argument_is_measured_as_json() -> None:
    assert packed("\u00e5", 4) == '"\u00e5"'.encode()
    assert packed("\x00", 8) == b'"\\u0000"'
    with pytest.raises(TooLargeError, match="8 bytes: 7 at most"):
        packed("\x00", 7)
