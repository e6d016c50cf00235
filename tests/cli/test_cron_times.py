"""When a cron will run, as people are told."""

import msgspec
import pytest

from colonist_cli import cron_times, definitions
from colonist_cli.exits import CliError
from colonist_protocol.cron import OFF, Cron
from colonist_protocol.times import from_text

NOON = from_text("2026-10-24T12:00:00Z")


def cron(**fields: object) -> Cron:
    return msgspec.structs.replace(Cron(interval=OFF), **fields)


def test_an_interval_runs_on_its_grid() -> None:
    runs = cron_times.after(cron(interval=3600), NOON)
    assert runs[0] == "Sat 2026-10-24 13:00:00 UTC"
    assert runs[4] == "Sat 2026-10-24 17:00:00 UTC"
    assert len(runs) == 5


def test_an_expression_without_a_zone_is_utc() -> None:
    runs = cron_times.after(cron(cronexpression="0 */5 * * * *"), NOON, 2)
    assert runs == ["Sat 2026-10-24 12:05:00 UTC", "Sat 2026-10-24 12:10:00 UTC"]


def test_runs_are_shown_on_the_clock_of_the_zone_across_its_change() -> None:
    text = cron_times.expression("0 30 3 * * *", "Europe/Berlin")
    runs = cron_times.after(cron(cronexpression=text), NOON, 2)
    assert runs == ["Sun 2026-10-25 03:30:00 CET", "Mon 2026-10-26 03:30:00 CET"]
    summer = from_text("2026-07-01T12:00:00Z")
    assert cron_times.after(cron(cronexpression=text), summer, 1) == [
        "Thu 2026-07-02 03:30:00 CEST"
    ]


def test_a_random_one_is_told_by_its_intervals() -> None:
    runs = cron_times.after(cron(interval=3600, random=True), NOON, 2)
    first = "between Sat 2026-10-24 12:00:00 UTC and Sat 2026-10-24 13:00:00 UTC"
    assert (runs[0], len(runs)) == (first, 2)
    there = cron(interval=3600, random=True, nextrun="2026-10-24T12:17:00Z")
    assert cron_times.planned(there) == [
        "Sat 2026-10-24 12:17:00 UTC",
        "then once in each 1h, at random",
    ]


def test_a_cron_that_is_there_goes_on_from_its_own_next_run() -> None:
    made = cron(cronexpression="@daily", nextrun="2026-10-25T00:00:00Z")
    assert cron_times.planned(made, 2) == [
        "Sun 2026-10-25 00:00:00 UTC",
        "Mon 2026-10-26 00:00:00 UTC",
    ]
    assert cron_times.planned(cron(cronexpression="@daily")) == []


def test_every_is_an_interval() -> None:
    runs = cron_times.after(cron(cronexpression="@every 1h30m"), NOON, 1)
    assert runs == ["Sat 2026-10-24 13:30:00 UTC"]


@pytest.mark.parametrize("text", ["", "* * *", "0 0 0 31 2 *", "TZ=No/Where * * * * * *", "@never"])
def test_what_never_runs_is_told_before_the_server_is_asked(text: str) -> None:
    with pytest.raises(CliError):
        cron_times.after(cron(cronexpression=text), NOON)


def test_two_zones_are_refused() -> None:
    with pytest.raises(CliError, match="--zone, and a zone in the expression too"):
        cron_times.expression("TZ=UTC @daily", "Europe/Berlin")


def test_a_disabled_cron_has_no_next_run() -> None:
    made = cron(interval=60, nextrun="2026-10-25T00:00:00Z", disabledreason="gone")
    cells = {column.head: column.cell(made) for column in definitions.CRONS}
    assert (cells["NEXT RUN"], cells["DISABLED"], cells["RUNS"]) == ("", "gone", "every 1m")
    assert definitions.next_runs(made) == ""


def test_a_zone_that_only_the_server_knows_still_shows_its_next_run() -> None:
    made = cron(cronexpression="TZ=No/Where @daily", nextrun="2026-10-25T00:00:00Z")
    assert definitions.next_runs(made) == "2026-10-25 00:00:00"


def test_the_nodes_of_a_stored_workflow_are_named() -> None:
    assert definitions.starts('{"functionspecs":[{"nodename":"a","funcname":"f"}]}') == "a: f"
    assert definitions.starts("no json") == "no json"
