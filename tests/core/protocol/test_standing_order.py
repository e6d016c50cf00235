"""How many grants one signature may ask for."""

from __future__ import annotations

import pytest

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.process import MAX_AHEAD, MAX_STANDING, StandingOrder


@pytest.mark.parametrize(("count", "ahead"), [(1, 1), (MAX_STANDING, 1), (1, MAX_AHEAD)])
def test_what_may_be(count: int, ahead: int) -> None:
    order = StandingOrder(count=count, ahead=ahead)
    assert (order.count, order.ahead) == (count, ahead)


@pytest.mark.parametrize(
    ("count", "ahead", "words"),
    [
        (0, 1, "standing.count"),
        (MAX_STANDING + 1, 1, "standing.count"),
        (1, 0, "standing.ahead"),
        (1, MAX_AHEAD + 1, "standing.ahead"),
    ],
)
def test_what_may_not_be(count: int, ahead: int, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        StandingOrder(count=count, ahead=ahead)
