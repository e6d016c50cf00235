"""What a cron may be, apart from its expression and its workflow."""

from __future__ import annotations

import pytest

from colonist_protocol.cron import MAX_INTERVAL_S, MAX_SPEC_BYTES, OFF, Cron, check
from colonist_protocol.errors import InvalidValueError, NameFormError, TooLargeError


@pytest.mark.parametrize("interval", [OFF, 1, MAX_INTERVAL_S])
def test_what_may_be(interval: int) -> None:
    check(Cron(interval=interval))
    check(Cron(interval=1, random=True, workflowspec="\u00e5" * (MAX_SPEC_BYTES // 2)))


@pytest.mark.parametrize(
    ("cron", "error", "words"),
    [
        (Cron(), InvalidValueError, "must be -1"),
        (Cron(interval=-2), InvalidValueError, "must be -1"),
        (Cron(interval=MAX_INTERVAL_S + 1), InvalidValueError, "at most"),
        (Cron(interval=OFF, random=True), InvalidValueError, "Random cron"),
        (Cron(interval=OFF, cronexpression="a\x00"), NameFormError, "control character"),
        (Cron(interval=1, workflowspec="\u00e5" * MAX_SPEC_BYTES), TooLargeError, "bytes"),
    ],
)
def test_what_may_not_be(cron: Cron, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(cron)


@pytest.mark.parametrize(
    ("right", "misspelt", "waits"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, True)],
)
def test_the_flag_to_wait_counts_in_either_spelling(
    right: bool, misspelt: bool, waits: bool
) -> None:
    assert Cron(waitforprevprocessgraph=right, waitforprevprocessgrap=misspelt).waits is waits
    assert Cron(waitforprevprocessgraph=right).waits is right
