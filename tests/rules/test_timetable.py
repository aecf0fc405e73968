"""``Cron``, ``Every``, ``At``: what they mean, what they say, and what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any

import msgspec
import pytest

from asyncjobs import At, Cron, Every, InvalidOption
from asyncjobs.clock import to_datetime, to_instant
from asyncjobs.rules.timetable import When

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def shown(when: When, after: datetime, count: int = 3) -> list[str]:
    """The next times, in UTC."""
    times = islice(when.times(to_instant(after, "after")), count)
    return [to_datetime(time).strftime("%Y-%m-%d %H:%M:%S") for time in times]


# Cron


@pytest.mark.parametrize(
    ("alias", "expression"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Annually", "0 0 1 1 *"),
    ],
)
def test_alias_means_its_expression(alias: str, expression: str) -> None:
    assert shown(Cron(alias), NOON) == shown(Cron(expression), NOON)


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("0 7 * * mon-fri", ["2026-05-04 05:00:00", "2026-05-05 05:00:00", "2026-05-06 05:00:00"]),
        ("0 0 L * *", ["2026-05-30 22:00:00", "2026-06-29 22:00:00", "2026-07-30 22:00:00"]),
        ("0 0 LW jun *", ["2026-06-29 22:00:00", "2027-06-29 22:00:00", "2028-06-29 22:00:00"]),
        ("0 8 * * mon#1", ["2026-05-04 06:00:00", "2026-06-01 06:00:00", "2026-07-06 06:00:00"]),
        ("0 8 13 * fri", ["2026-05-08 06:00:00", "2026-05-13 06:00:00", "2026-05-15 06:00:00"]),
    ],
)
def test_fields_mean_what_cron_says(expression: str, times: list[str]) -> None:
    assert shown(Cron(expression, tz="Europe/Berlin"), NOON) == times


def test_six_fields_begin_with_seconds() -> None:
    when = Cron("*/20 30 7 * * *", tz="UTC", seconds=True)
    assert shown(when, NOON) == [
        "2026-05-02 07:30:00",
        "2026-05-02 07:30:20",
        "2026-05-02 07:30:40",
    ]


def test_appointment_in_an_hour_that_is_shown_twice_comes_once_also_with_seconds() -> None:
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)
    for when in (
        Cron("30 2 * * *", tz="Europe/Berlin"),
        Cron("0 30 2 * * *", tz="Europe/Berlin", seconds=True),
    ):
        assert shown(when, before, 2) == ["2026-10-25 00:30:00", "2026-10-26 01:30:00"]
        second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
        assert shown(when, second_pass, 1) == ["2026-10-26 01:30:00"]


def test_appointments_that_the_clock_jumps_over_come_once_right_after_it() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    when = Cron("0,15,45 2 * * *", tz="Europe/Berlin")
    assert shown(when, before, 2) == ["2026-03-29 01:00:00", "2026-03-30 00:00:00"]
    skipped_day = datetime(2011, 12, 29, 20, tzinfo=UTC)
    when = Cron("0 7 * * *", tz="Pacific/Apia")
    assert shown(when, skipped_day, 2) == ["2011-12-30 10:00:00", "2011-12-30 17:00:00"]


def test_expression_with_a_star_follows_the_hands_of_the_clock() -> None:
    when = Cron("*/30 2 * * *", tz="Europe/Berlin")
    twice = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert shown(when, twice, 4) == [
        "2026-10-25 00:00:00",
        "2026-10-25 00:30:00",
        "2026-10-25 01:00:00",
        "2026-10-25 01:30:00",
    ]
    jump = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert shown(when, jump, 1) == ["2026-03-30 00:00:00"]


def test_hour_that_begins_with_half_an_hour_shown_twice_is_whole() -> None:
    when = Cron("*/10 2 * * *", tz="Australia/Lord_Howe")
    before = datetime(2026, 4, 4, 12, tzinfo=UTC)
    assert shown(when, before, 7)[:6] == [f"2026-04-04 15:{n}0:00" for n in (3, 4, 5)] + [
        f"2026-04-04 16:{n}0:00" for n in (0, 1, 2)
    ]


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        (Cron("0 7 * * MON", "Europe/Berlin"), "At 07:00 on Monday (Europe/Berlin)"),
        (Cron("0 7 * * mon-fri"), "At 07:00 on Monday through Friday (UTC)"),
        (Cron("@daily"), "At 00:00 every day (UTC)"),
        (Cron("*/15 * * * *"), "Every 15th minute of every hour (UTC)"),
        (Cron("*/10 * * * * *", seconds=True), "Every 10th second of every minute (UTC)"),
        (Every(1), "Every second"),
        (Every(90), "Every 90 seconds"),
        (Every(1.5), "Every 1.5 seconds"),
        (Every(60), "Every minute"),
        (Every(timedelta(hours=2)), "Every 2 hours"),
        (Every(86_400, NOON), "Every day, counted from 2026-05-01 12:00:00 UTC"),
        (At(NOON), "Once, on 2026-05-01 12:00:00 UTC"),
    ],
)  # fmt: skip
def test_timetable_says_in_english_what_it_means(when: When, sentence: str) -> None:
    assert when.sentence == sentence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expression": "0 0 30 2 *"}, "never fires: no month that it names has that day"),
        ({"expression": "0 0 31 4,jun *"}, "never fires: no month that it names has that day"),
        ({"expression": "0 0 */31 2 1#5"}, "never fires: no such day comes within fifty years"),
        ({"expression": "61 * * * *"}, "bad minute"),
        ({"expression": "0 24 * * *"}, "bad hour"),
        ({"expression": "0 0 0 * *"}, "bad day-of-month"),
        ({"expression": "0 0 31 13 *"}, "bad month"),
        ({"expression": "0 0 * * sat-sun"}, "bad day-of-week"),
        ({"expression": "*/0 * * * *"}, "bad minute: from 0 to 59; ranges go upwards$"),
        ({"expression": "*/61 * * * *"}, "a step of 61 minutes, and there are 60"),
        ({"expression": "0,5/90 * * * *"}, "a step of 90 minutes"),
        ({"expression": "0 */25 * * *"}, "a step of 25 hours, and there are 24"),
        ({"expression": "*/90 * * * * *", "seconds": True}, "a step of 90 seconds"),
        ({"expression": "0 0 * * *", "seconds": True}, "5 fields, not 6: second minute"),
        ({"expression": "0 0 0 * * *"}, "6 fields, not 5.*seconds=True takes six"),
        ({"expression": "* * *"}, "3 fields, not 5"),
        ({"expression": "@daily", "seconds": True}, "leave seconds out"),
        ({"expression": "@dayly"}, "not known; it is one of @hourly"),
        ({"expression": "@daily", "seconds": 1}, "seconds.* must be True or False"),
        ({"expression": ""}, "expression.* must not be empty"),
        ({"expression": "* * * *\x00 *"}, "control characters"),
        ({"expression": "9" * 5_000 + " * * * *"}, "characters long"),
        ({"expression": 5}, "must be a str"),
        ({"expression": "0 0 0 31 2,4 *", "seconds": True}, "never fires"),
        ({"expression": "  "}, "0 fields, not 5"),
        ({"expression": "@daily", "tz": "Europe/Berln"}, "tz='Europe/Berln'.* no time zone"),
        ({"expression": "@daily", "tz": "UTC+1"}, r"tz='UTC\+1'.* no time zone"),
        ({"expression": "@daily", "tz": ""}, "tz.* must not be empty"),
        ({"expression": "@daily", "tz": "../../etc/passwd"}, "no time zone"),
        ({"expression": "@daily", "tz": "Europe"}, "no time zone"),
        ({"expression": "@daily", "tz": None}, "tz.* must be a str"),
    ],
)
def test_cron_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Cron(**options)


@pytest.mark.parametrize("expression", ["*/60 * * * *", "0 */24 * * *", "0 0 */31 */12 */7"])
def test_step_as_long_as_its_field_is_taken(expression: str) -> None:
    assert Cron(expression).expression == expression


# Every


def test_period_is_counted_from_1970_or_from_its_anchor() -> None:
    assert shown(Every(3_600), NOON + timedelta(seconds=1)) == [
        "2026-05-01 13:00:00",
        "2026-05-01 14:00:00",
        "2026-05-01 15:00:00",
    ]
    anchored = Every(timedelta(hours=1), NOON + timedelta(days=9, minutes=20))
    assert shown(anchored, NOON, 2) == ["2026-05-01 12:20:00", "2026-05-01 13:20:00"]
    assert shown(anchored, NOON + timedelta(minutes=20), 1) == ["2026-05-01 13:20:00"]


def test_same_period_is_equal_however_it_was_given() -> None:
    berlin = timezone(timedelta(hours=2))
    assert Every(60) == Every(timedelta(minutes=1))
    assert Every(60, NOON) == Every(60.0, NOON.astimezone(berlin))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, r"Every\(seconds\)=0 is out of range: from 1"),
        ({"seconds": -5}, "out of range"),
        ({"seconds": 0.999}, "out of range"),
        ({"seconds": timedelta(0)}, "out of range"),
        ({"seconds": -0.0}, "out of range"),
        ({"seconds": timedelta(seconds=-1)}, "=-1 is out of range"),
        ({"seconds": float("nan")}, "out of range"),
        ({"seconds": 1e12}, "out of range"),
        ({"seconds": "60"}, r"Every\(seconds\) must be seconds"),
        ({"seconds": True}, "must be seconds"),
        ({"seconds": 60, "anchor": datetime(2026, 1, 1)}, r"Every\(anchor\).* no time zone"),
        ({"seconds": 60, "anchor": 5}, r"Every\(anchor\) must be a datetime"),
    ],
)
def test_period_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Every(**options)


# At


def test_one_time_comes_once() -> None:
    assert shown(At(NOON), NOON - timedelta(microseconds=1)) == ["2026-05-01 12:00:00"]
    assert shown(At(NOON), NOON) == []


@pytest.mark.parametrize("time", [datetime(2026, 1, 1), "2026-01-01", None])
def test_time_without_a_zone_is_refused(time: Any) -> None:
    with pytest.raises(InvalidOption, match=r"At\(time\)"):
        At(time)


@pytest.mark.parametrize(
    "when",
    [
        Cron("@daily", tz="Europe/Berlin"),
        Every(60),
        Every(1.5, NOON),
        At(NOON + timedelta(microseconds=1)),
    ],
)
def test_timetable_comes_back_from_json_equal(when: When) -> None:
    assert msgspec.json.decode(msgspec.json.encode(when), type=When) == when
