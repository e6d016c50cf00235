"""Cron expressions and schedules: against the rules, against cronsim, and around changed clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_core.cron import NEVER, Interval, Timetable, Turn, following, start
from colonist_core.cron_calendar import Calendar
from colonist_core.cron_expression import Every, parse
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import SECOND_NS

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # half an hour
APIA = ZoneInfo("Pacific/Apia")  # had no 30 December 2011
ZONES: list[tzinfo] = [UTC, BERLIN, NEW_YORK, LORD_HOWE, APIA]

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def calendar(text: str) -> Calendar:
    found = parse(text)
    assert isinstance(found, Calendar)
    return found


def at(text: str, zone: tzinfo = UTC) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def runs(text: str, after: str, count: int, zone: tzinfo = UTC) -> list[str]:
    """The next runs, as a clock in the zone shows them, with its offset."""
    time: int | None = at(after, zone)
    found: list[str] = []
    for _ in range(count):
        time = calendar(text).next(time, zone)
        assert time is not None
        found.append(datetime.fromtimestamp(time, zone).isoformat())
    return found


# -- what is read


@pytest.mark.parametrize(
    ("text", "member", "values"),
    [
        ("* * * * * *", "seconds", range(60)),
        ("? * * * * *", "seconds", range(60)),
        ("0/1 * * * * *", "seconds", range(60)),
        ("*/5 * * * * *", "seconds", range(0, 60, 5)),
        ("?/20 * * * * *", "seconds", (0, 20, 40)),
        ("40/7 * * * * *", "seconds", (40, 47, 54)),
        ("10-40/5 * * * * *", "seconds", range(10, 41, 5)),
        ("5,1,1-3 * * * * *", "seconds", (1, 2, 3, 5)),
        ("7/100 * * * * *", "seconds", (7,)),
        ("0 59 * * * *", "minutes", (59,)),
        ("0 0 0,23 * * *", "hours", (0, 23)),
        ("0 0 0 1,31 * *", "days", (1, 31)),
        ("0 0 0 * jan,DEC *", "months", (1, 12)),
        ("0 0 0 * feb-Apr *", "months", (2, 3, 4)),
        ("0 0 0 * * sun,Sat", "weekdays", (0, 6)),
        ("0 0 0 * * mon-fri/2", "weekdays", (1, 3, 5)),
        ("0 0 0 * * 0", "weekdays", (0,)),
        ("  0   0 0 * *\t3 ", "weekdays", (3,)),
        ("@yearly", "months", (1,)),
        ("@annually", "days", (1,)),
        ("@monthly", "days", (1,)),
        ("@weekly", "weekdays", (0,)),
        ("@daily", "hours", (0,)),
        ("@midnight", "minutes", (0,)),
        ("@hourly", "hours", range(24)),
    ],
)
def test_what_a_field_names(text, member, values):
    assert getattr(calendar(text), member) == tuple(values)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("TZ=Europe/Berlin 0 0 3 * * *", "Europe/Berlin"),
        ("CRON_TZ=Asia/Tokyo 0 0 3 * * *", "Asia/Tokyo"),
        ("TZ=UTC @daily", "UTC"),
        ("0 0 3 * * *", ""),
    ],
)
def test_a_zone_may_stand_before(text, zone):
    assert calendar(text).zone == zone


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("@every 1h30m", 5400),
        ("@every 876000h", 3_153_600_000),
        ("@every 10s", 10),
        ("@every 2m1s", 121),
        ("TZ=UTC @every 1h", 3600),
    ],
)
def test_every_is_an_interval(text, seconds):
    assert parse(text) == Every(seconds)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty cron expression string"),
        ("   ", "empty cron expression string"),
        ("TZ=Europe/Berlin", "empty cron expression string"),
        ("TZ= 0 0 0 * * *", "no time zone"),
        ("* * * * *", r"expected exactly 6 fields, found 5: \[\* \* \* \* \*\]"),
        ("* * * * * * *", "expected exactly 6 fields, found 7"),
        ("60 * * * * *", "second 60 is not 0 to 59"),
        ("* * 24 * * *", "hour 24 is not 0 to 23"),
        ("* * * 0 * *", "day of month 0 is not 1 to 31"),
        ("* * * * 13 *", "month 13 is not 1 to 12"),
        ("* * * * * 7", "day of week 7 is not 0 to 6"),
        ("* * * * mon *", "month mon is not"),
        ("* * * * * jan", "day of week jan is not"),
        ("5-1 * * * * *", "ends before it begins"),
        ("*/0 * * * * *", "step of 0"),
        ("*-5 * * * * *", "is no second"),
        ("1, * * * * *", "is no second"),
        ("1--2 * * * * *", "is no second"),
        ("-1 * * * * *", "is no second"),
        ("1.5 * * * * *", "is no second"),
        ("\u0661 * * * * *", "is no second"),
        ("*/*/2 * * * * *", "is no second"),
        ("* * * L * *", "is no day of month"),
        ("0 0 0 31 feb *", "no month of it has a day 31"),
        ("0 0 0 30 2 ?", "no month of it has a day 30"),
        ("0 0 0 31 4,6,9,11 *", "no month of it has a day 31"),
        ("@reboot", "unrecognized cron descriptor"),
        ("@daily x", "unrecognized cron descriptor"),
        ("@every", "no time of a second"),
        ("@every 0s", "no time of a second"),
        ("@every 876001h", "at most 3153600000 seconds"),
        ("@every 3000000h", "at most 3153600000 seconds"),
        ("@every 999999999h", "at most 3153600000 seconds"),
        ("@every 1m1h", "no time of a second"),
        ("@every -1h", "no time of a second"),
        ("*" * 257, "longer than 256"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(InvalidValueError, match=why):
        parse(text)


# -- when it is met


def test_a_second_after_the_other():
    assert runs("0/1 * * * * *", "2026-12-31 23:59:58", 3) == [
        "2026-12-31T23:59:59+00:00",
        "2027-01-01T00:00:00+00:00",
        "2027-01-01T00:00:01+00:00",
    ]


def test_the_next_is_later_than_now_also_when_now_is_named():
    assert runs("0 0 3 * * *", "2026-01-01 03:00:00", 1) == ["2026-01-02T03:00:00+00:00"]


def test_either_day_counts_when_both_are_restricted():
    assert runs("0 0 0 13 * fri", "2026-03-01", 4) == [
        "2026-03-06T00:00:00+00:00",
        "2026-03-13T00:00:00+00:00",
        "2026-03-20T00:00:00+00:00",
        "2026-03-27T00:00:00+00:00",
    ]
    assert runs("0 0 0 13 jun mon", "2026-06-08", 3)[:2] == [
        "2026-06-13T00:00:00+00:00",
        "2026-06-15T00:00:00+00:00",
    ]


def test_both_days_count_when_one_is_free():
    assert runs("0 0 0 13 * ?", "2026-03-01", 2) == [
        "2026-03-13T00:00:00+00:00",
        "2026-04-13T00:00:00+00:00",
    ]


def test_a_leap_day_is_found_over_the_year_that_is_none():
    assert runs("0 0 0 29 2 *", "2096-03-01", 2) == [
        "2104-02-29T00:00:00+00:00",
        "2108-02-29T00:00:00+00:00",
    ]


def test_an_impossible_day_with_a_weekday_is_possible():
    assert runs("0 0 0 31 feb mon", "2026-01-01", 1) == ["2026-02-02T00:00:00+00:00"]


def test_the_calendar_has_an_end():
    assert calendar("0 0 0 1 1 *").next(at("9991-01-01"), UTC) is None
    assert calendar("0 0 * * * *").next(at("9990-12-31 23:59:59"), UTC) is None


def test_what_no_day_meets_is_not_searched_for_ever():
    impossible = Calendar((0,), (0,), (0,), (31,), (2,), tuple(range(7)))
    assert not impossible.is_possible()
    assert impossible.next(at("2026-01-01"), UTC) is None


def test_a_day_that_only_the_first_of_its_months_has():
    """`days[0]` decides whether it is possible; the months that lack it are passed over."""
    assert runs("0 0 0 31 jan,feb *", "2026-02-01", 1) == ["2027-01-31T00:00:00+00:00"]


# -- where the clock jumps


def test_what_falls_into_the_skipped_hour_is_met_once_right_after_it():
    assert runs("0 0,30 2 * * *", "2026-03-28 12:00", 4, BERLIN) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:00:00+02:00",
    ]


def test_a_time_that_the_jump_ends_at_is_met_once():
    assert runs("0 0 2,3 * * *", "2026-03-29 01:30", 2, BERLIN) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:00:00+02:00",
    ]


def test_the_doubled_hour_is_met_once_the_first_time():
    assert runs("0 30 2 * * *", "2026-10-24 12:00", 2, BERLIN) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_between_the_two_passes_nothing_is_met_again():
    second_pass = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    for text in ("0 30 2 * * *", "* * 2 * * *"):
        found = calendar(text).next(int(second_pass.timestamp()), BERLIN)
        assert found is not None
        assert datetime.fromtimestamp(found, BERLIN).day == 26


def test_every_hour_follows_the_time_that_passes():
    assert runs("0 30 * * * *", "2026-03-29 00:30", 3, BERLIN) == [
        "2026-03-29T01:30:00+01:00",
        "2026-03-29T03:30:00+02:00",
        "2026-03-29T04:30:00+02:00",
    ]
    assert runs("0 30 * * * *", "2026-10-25 01:30", 3, BERLIN) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:30:00+01:00",
    ]


def test_each_second_goes_on_through_the_jumps():
    every = calendar("* * * * * *")
    for start_s in (at("2026-03-29 01:59:50", BERLIN), at("2026-10-25 01:59:50", BERLIN)):
        for time in range(start_s, start_s + 7300):
            assert every.next(time, BERLIN) == time + 1


def test_a_change_of_half_an_hour():
    assert runs("0 45 1 * * *", "2026-04-04 12:00", 2, LORD_HOWE) == [
        "2026-04-05T01:45:00+11:00",
        "2026-04-06T01:45:00+10:30",
    ]
    assert runs("0 15 2 * * *", "2026-10-03 12:00", 2, LORD_HOWE) == [
        "2026-10-04T02:30:00+11:00",
        "2026-10-05T02:15:00+11:00",
    ]


def test_a_day_that_a_zone_left_out():
    assert runs("0 0 12 30 12 *", "2011-12-01 00:00", 2, APIA) == [
        "2011-12-31T00:00:00+14:00",
        "2012-12-30T12:00:00+14:00",
    ]
    assert runs("0 0 * 30 12 *", "2011-12-01 00:00", 1, APIA) == ["2012-12-30T00:00:00+14:00"]


# -- against another implementation


def texts(
    low: int, high: int, names: list[str] | None = None, *, steps: bool = True
) -> st.SearchStrategy[str]:
    values = st.integers(low, high)
    shown = st.one_of(
        values.map(str),
        *([st.sampled_from(names)] if names else []),
    )
    parts = st.one_of(
        shown,
        st.tuples(values, values).map(lambda pair: "{}-{}".format(*sorted(pair))),
        *(
            [st.tuples(values, st.integers(1, 9)).map(lambda pair: "{}/{}".format(*pair))]
            if steps
            else []
        ),
    )
    return st.lists(parts, min_size=1, max_size=3).map(",".join)


STAR = st.just("*")
MOMENTS = st.integers(at("2025-01-01"), at("2030-01-01"))


@settings(max_examples=300, deadline=None)
@given(
    fields=st.tuples(
        st.one_of(STAR, texts(0, 59)),
        st.one_of(STAR, texts(0, 59)),
        st.one_of(STAR, texts(0, 23)),
        st.one_of(STAR, texts(1, 28)),
        st.one_of(STAR, texts(1, 12, MONTHS)),
        st.one_of(STAR, texts(0, 6, WEEKDAYS, steps=False)),  # theirs go on to 7
    ),
    after=MOMENTS,
)
def test_the_same_as_cronsim_in_utc(fields, after):
    text = " ".join(fields)
    if "*" not in fields[3:6:2] and not calendar(text).is_either:
        return  # "1/1" names every day: it is free here, and restricted for cronsim
    theirs = CronSim(text, datetime.fromtimestamp(after, UTC))
    ours: int | None = after
    for _ in range(5):
        assert ours is not None
        ours = calendar(text).next(ours, UTC)
        assert ours == next(theirs).timestamp(), text


# A day or two before a clock jumps.
JUMPS: dict[str, list[str]] = {
    "Europe/Berlin": ["2026-03-28", "2026-10-24", "2027-03-27"],
    "America/New_York": ["2026-03-07", "2026-10-31"],
    "Australia/Lord_Howe": ["2026-04-04", "2026-10-03"],
}


@pytest.mark.parametrize("zone", JUMPS)
@settings(max_examples=40, deadline=None)
@given(
    minute=texts(0, 59),
    hour=st.sampled_from(["0", "1", "2", "3", "1-3", "0-4", "2,23"]),
    later=st.integers(0, 100_000),
)
def test_the_same_as_cronsim_for_times_of_day_while_the_clock_jumps(zone, minute, hour, later):
    """Its rule is Debian's: after a jump once, in a doubled hour once."""
    _compare(f"0 {minute} {hour} * * *", f"{minute} {hour} * * *", zone, later)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@settings(max_examples=8, deadline=None)
@given(minute=texts(0, 59), later=st.integers(0, 100_000))
def test_the_same_as_cronsim_for_every_hour_while_the_clock_jumps(zone, minute, later):
    """Not on Lord Howe Island: of its second half hour cronsim 2.8 leaves out the first minute."""
    _compare(f"0 {minute} * * * *", f"0 {minute} * * * *", zone, later)


def _compare(text: str, theirs: str, name: str, later: int) -> None:
    """Over three days around each jump."""
    zone = ZoneInfo(name)
    for day in JUMPS[name]:
        after = at(day, zone) + later
        oracle = CronSim(theirs, datetime.fromtimestamp(after, zone))
        wanted = [0.0]
        while wanted[-1] < after + 3 * 86_400:
            if (found := next(oracle).timestamp()) > max(after, wanted[-1]):
                wanted.append(found)
        ours: int | None = after
        for time in wanted[1:]:
            assert ours is not None
            ours = calendar(text).next(ours, zone)
            assert ours == time, (text, day)


@settings(max_examples=200, deadline=None)
@given(
    fields=st.tuples(texts(0, 59), texts(0, 59), texts(0, 23), texts(1, 31), texts(1, 12)),
    zone=st.sampled_from(ZONES),
    after=st.integers(at("2000-01-01"), at("2100-01-01")),
)
def test_it_always_goes_forward(fields, zone, after):
    try:
        made = calendar(" ".join([*fields, "*"]))
    except InvalidValueError:
        return
    time: int | None = after
    for _ in range(20):
        before, time = time, made.next(time, zone)
        assert time is not None
        assert time > before


# -- turns

NOW = 1_800_000_000 * SECOND_NS
SEED = b"cron"


def test_an_interval_runs_on_its_own_grid():
    every = Interval(10 * SECOND_NS)
    turn = start(every, NOW, SEED)
    assert turn == Turn(1, NOW, NOW + 10 * SECOND_NS)
    late = following(every, turn, turn.at_ns + 3 * SECOND_NS, SEED)
    assert (late.number, late.at_ns) == (2, NOW + 20 * SECOND_NS)


def test_missed_turns_are_one():
    every = Interval(10 * SECOND_NS)
    turn = following(every, start(every, NOW, SEED), NOW + 1003 * SECOND_NS, SEED)
    assert (turn.number, turn.at_ns) == (2, NOW + 1010 * SECOND_NS)


def test_a_turn_at_the_very_moment_of_the_next_leaves_that_out():
    every = Interval(10 * SECOND_NS)
    turn = following(every, start(every, NOW, SEED), NOW + 20 * SECOND_NS, SEED)
    assert turn.at_ns == NOW + 30 * SECOND_NS


def test_a_clock_that_was_set_back_brings_no_turn_again():
    daily = Timetable(calendar("@daily"), UTC)
    turn = start(daily, NOW, SEED)
    again = following(daily, turn, turn.at_ns - 1800 * SECOND_NS, SEED)
    assert again.at_ns == turn.at_ns + 86_400 * SECOND_NS
    every = Interval(10 * SECOND_NS)
    turn = start(every, NOW, SEED)
    assert following(every, turn, NOW - 3600 * SECOND_NS, SEED).at_ns == NOW + 20 * SECOND_NS


def test_a_timetable_ends_with_the_calendar():
    end_ns = at("9990-12-31 23:59:59") * SECOND_NS
    assert start(Timetable(calendar("@daily"), UTC), end_ns, SEED).at_ns == NEVER


@given(st.integers(1, 100_000), st.binary(min_size=1, max_size=32))
def test_a_random_interval_has_one_run_in_each(length_s, seed):
    every = Interval(length_s * SECOND_NS, is_random=True)
    turn = start(every, NOW, seed)
    for number in range(1, 20):
        base_ns = NOW + (number - 1) * every.length_ns
        assert turn.number == number
        assert base_ns <= turn.at_ns < base_ns + every.length_ns
        turn = following(every, turn, turn.at_ns, seed)


def test_random_moments_differ_by_turn_and_by_seed():
    every = Interval(3600 * SECOND_NS, is_random=True)
    moments = {
        start(every, NOW, seed, number).at_ns for seed in (b"a", b"b") for number in range(9)
    }
    assert len(moments) == 18
    assert start(every, NOW, b"a").at_ns == start(every, NOW, b"a").at_ns


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_random_turn_that_was_missed_is_made_up_for_once(length_s, late_s):
    every = Interval((length_s + 1) * SECOND_NS, is_random=True)
    turn = start(every, NOW, SEED)
    now_ns = turn.at_ns + late_s * SECOND_NS
    after = following(every, turn, now_ns, SEED)
    assert now_ns < after.at_ns < now_ns + 2 * every.length_ns


def test_a_run_by_hand_begins_a_new_interval():
    every = Interval(10 * SECOND_NS)
    assert start(every, NOW + 3, SEED, 7) == Turn(7, NOW + 3, NOW + 3 + 10 * SECOND_NS)


def test_a_fixed_offset_is_a_zone_too():
    zone = timezone(timedelta(hours=5, minutes=45))
    assert runs("0 0 0 * * *", "2026-01-01 12:00", 1, zone) == ["2026-01-02T00:00:00+05:45"]
