"""How a server is told what to keep: ages have units, flags win, nonsense is refused."""

from __future__ import annotations

import pytest

from colonist_protocol.errors import InvalidValueError
from colonist_server.config import ServerConfig, age_seconds, retention_age
from colonist_server.main import configure

HOUR = 3600.0
DAY = 86_400.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * DAY), ("12h", 12 * HOUR), ("90m", 5400), ("45s", 45), ("7", 7), ("0", 0)],
)
def test_ages_have_units(text: str, seconds: float) -> None:
    assert age_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "1w", "30 d", "1e9", "9" * 13, "\u0663d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        age_seconds(text)


def test_the_environment_sets_the_age_and_a_flag_wins() -> None:
    on = {"COLONIES_RETENTION": "true", "COLONIES_RETENTION_POLICY": "3600"}
    assert retention_age("", on) == 3600
    assert retention_age("2h", on) == 7200
    assert retention_age("", {**on, "COLONIES_RETENTION": "false"}) == 0
    assert retention_age("", {}) == 0
    with pytest.raises(InvalidValueError, match="does not say"):
        retention_age("", {"COLONIES_RETENTION": "true"})


def test_the_program_takes_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLONIES_RETENTION", raising=False)
    made = configure(["--retention-age", "30d", "--retention-count", "100000"])
    assert (made.retention.age_s, made.retention.count) == (30 * DAY, 100_000)
    assert not configure([]).retention.is_on


@pytest.mark.parametrize(
    "settings",
    [
        {"retention_age_s": -1.0},
        {"retention_age_s": float("nan")},
        {"retention_age_s": float("inf")},
        {"retention_count": -1},
    ],
)
def test_nonsense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidValueError):
        ServerConfig(**settings)
