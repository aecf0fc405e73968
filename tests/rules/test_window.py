"""Windows against brute force, minute by minute, in eleven zones over three years."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from asyncjobs import InvalidOption, Window
from asyncjobs.clock import to_datetime, to_instant
from asyncjobs.rules.window import DAYS, closed_until, due_in_window, window_of
from tests.oracles import seed_of

from .test_cron import DAY_MINUTES, ZONES

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NIGHTS = Window("22:00", "06:00", tz="Europe/Berlin")


def instant(text: str) -> int:
    return to_instant(datetime.fromisoformat(text), "text")


def opening(window: Window, text: str) -> str:
    return to_datetime(window.opening(instant(text))).isoformat()


@cache
def changes_of(zone: str) -> list[datetime]:
    """The hours of its three years in which the clock is changed."""
    tz, hour = ZoneInfo(zone), datetime(ZONES[zone], 1, 1, tzinfo=UTC)
    changes = []
    for _ in range(3 * 365 * 24):
        if hour.astimezone(tz).utcoffset() != (hour + HOUR).astimezone(tz).utcoffset():
            changes.append(hour)
        hour += HOUR
    return changes


def is_open(window: Window, wall: datetime) -> bool:
    """By counting: the minutes since it opened, on this day or the one before."""
    opens, closes = (int(text[:2]) * 60 + int(text[3:]) for text in (window.opens, window.closes))
    length = (closes - opens) % DAY_MINUTES or DAY_MINUTES
    minute = wall.hour * 60 + wall.minute
    for day in (wall, wall - timedelta(days=1)):
        since = minute - opens if day is wall else minute - opens + DAY_MINUTES
        name = DAYS[day.weekday()]
        if 0 <= since < length and (window.days is None or name in window.days.split(",")):
            return True
    return False


def brute_force(window: Window, after: datetime) -> datetime:
    """The first full minute from this one on at which it is open."""
    zone = ZoneInfo(window.tz)
    while not is_open(window, after.astimezone(zone)):
        after += MINUTE
    return after


def a_window(chance: random.Random, zone: str, *, around: datetime | None) -> Window:
    minutes = [chance.randrange(DAY_MINUTES) for _ in range(2)]
    if around is not None:  # one that begins or ends where the clock is changed
        wall = around.astimezone(ZoneInfo(zone))
        near = [wall.hour * 60 + chance.randrange(-90, 180) for _ in range(2)]
        minutes = [minute % DAY_MINUTES for minute in near]
    days = None
    if chance.random() < 0.3:
        days = ",".join(chance.sample(DAYS, chance.randrange(1, 7)))
    if minutes[0] == minutes[1] and days is None:
        minutes[1] = (minutes[0] + 1) % DAY_MINUTES
    opens, closes = (f"{minute // 60:02}:{minute % 60:02}" for minute in minutes)
    return Window(opens, closes, tz=zone, days=days)


@pytest.mark.parametrize("rounds", [150, pytest.param(6_000, marks=pytest.mark.proof)])
def test_openings_of_three_years_are_those_of_brute_force(rounds: int) -> None:
    chance = random.Random(seed_of("windows"))
    changing = [zone for zone in ZONES if changes_of(zone)]
    assert len(changing) >= 8
    waited = 0
    for number in range(rounds):
        around = None
        zone = chance.choice(list(ZONES))
        after = datetime(ZONES[zone], 1, 1, tzinfo=UTC) + chance.randrange(3 * 525_600) * MINUTE
        if number % 3:
            zone = chance.choice(changing)
            around = chance.choice(changes_of(zone))
            after = around + chance.randrange(-1_500, 180) * MINUTE
        window = a_window(chance, zone, around=around)
        expected = brute_force(window, after)
        found = to_datetime(window.opening(to_instant(after, "after")))
        assert found == expected, (window, after)
        waited += found > after
    print(f"{waited} of {rounds} were closed")
    assert waited > rounds // 3


def test_window_over_midnight_is_open_on_both_sides_of_it() -> None:
    assert opening(NIGHTS, "2026-01-10T20:59:59.999999Z") == "2026-01-10T21:00:00+00:00"
    assert opening(NIGHTS, "2026-01-10T21:00:00Z") == "2026-01-10T21:00:00+00:00"
    assert opening(NIGHTS, "2026-01-11T04:59:59.999999Z") == "2026-01-11T04:59:59.999999+00:00"
    assert opening(NIGHTS, "2026-01-11T05:00:00Z") == "2026-01-11T21:00:00+00:00"


def test_window_follows_the_clock_into_summer() -> None:
    assert opening(NIGHTS, "2026-07-10T12:00:00Z") == "2026-07-10T20:00:00+00:00"


def test_window_that_begins_in_a_jump_opens_right_after_it() -> None:
    window = Window("02:30", "04:00", tz="Europe/Berlin")
    assert opening(window, "2026-03-29T00:00:00Z") == "2026-03-29T01:00:00+00:00"


def test_window_that_lies_in_a_jump_stays_closed_that_day() -> None:
    window = Window("02:15", "02:45", tz="Europe/Berlin")
    assert opening(window, "2026-03-29T00:00:00Z") == "2026-03-30T00:15:00+00:00"


def test_window_in_an_hour_that_is_shown_twice_is_open_twice() -> None:
    window = Window("02:15", "02:45", tz="Europe/Berlin")
    assert opening(window, "2026-10-25T00:00:00Z") == "2026-10-25T00:15:00+00:00"
    assert opening(window, "2026-10-25T00:45:00Z") == "2026-10-25T01:15:00+00:00"


def test_day_is_the_one_on_which_it_opens() -> None:
    window = Window("22:00", "06:00", days="Fri - Sat")
    assert window.days == "fri-sat"
    assert opening(window, "2026-01-04T05:59:00Z") == "2026-01-04T05:59:00+00:00"  # a Sunday
    assert opening(window, "2026-01-04T23:00:00Z") == "2026-01-09T22:00:00+00:00"


def test_days_may_be_open_as_a_whole_and_go_round_the_week() -> None:
    window = Window("00:00", "00:00", days="sat-mon,wed")
    assert opening(window, "2026-01-06T00:00:00Z") == "2026-01-07T00:00:00+00:00"
    assert opening(window, "2026-01-08T12:00:00Z") == "2026-01-10T00:00:00+00:00"
    assert Window("22:00", "06:00", days="mon-sun") == Window("22:00", "06:00")


def test_window_may_open_and_close_at_a_second() -> None:
    window = Window("10:00:30", "10:00:31")
    assert opening(window, "2026-01-01T10:00:31Z") == "2026-01-02T10:00:30+00:00"


def test_window_at_the_end_of_time_is_left_alone() -> None:
    end = instant("9999-12-31T23:30:00+00:00")
    assert Window("01:00", "02:00").opening(end) == end


def test_window_says_itself_in_english() -> None:
    assert NIGHTS.sentence == "From 22:00 to 06:00 (Europe/Berlin)"
    assert Window("22:00", "06:00", days="fri").sentence == "From 22:00 to 06:00, fri (UTC)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opens": "24:00", "closes": "06:00"}, r"opens\)='24:00' must be a time .* '00:00'"),
        ({"opens": "22:00", "closes": "6:00"}, r"closes\)='6:00' must be a time such as"),
        ({"opens": "22:60", "closes": "06:00"}, r"opens\)='22:60'"),
        ({"opens": "22:00\n", "closes": "06:00"}, r"opens\)="),
        ({"opens": "", "closes": "06:00"}, r"opens\) must not be empty"),
        ({"opens": 22, "closes": "06:00"}, r"opens\) must be a str, got int"),
        ({"opens": "06:00", "closes": "06:00:00"}, "never closed"),
        ({"opens": "00:00", "closes": "00:00", "days": "mon-sun"}, "never closed"),
        ({"opens": "22:00", "closes": "06:00", "tz": "Europe/Berln"}, "tz='Europe/Berln'.*no time"),
        ({"opens": "22:00", "closes": "06:00", "tz": 1}, r"Window\(tz\) must be a str"),
        ({"opens": "22:00", "closes": "06:00", "days": "mon-"}, r"days\)='mon-' must name days"),
        ({"opens": "22:00", "closes": "06:00", "days": "monday"}, r"days\)='monday'"),
        ({"opens": "22:00", "closes": "06:00", "days": ""}, r"days\) must not be empty"),
    ],
)
def test_window_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Window(**options)


def test_window_is_found_among_stored_options() -> None:
    stored = msgspec.json.encode({"carried": {"a": '"window":'}, "window": NIGHTS}).decode()
    assert window_of(stored) == NIGHTS
    assert window_of(None) is None
    assert window_of('{"timeout":1}') is None
    assert window_of('{"window":{"opens":"22:00","closes":"06:00","tz":"Nowhere"}}') is None
    noon = instant("2026-01-10T12:00:00Z")
    opens_at = instant("2026-01-10T21:00:00Z")
    assert closed_until(stored, noon) == opens_at
    assert closed_until(stored, opens_at) is None
    assert closed_until(None, noon) is None


def test_job_that_is_due_in_the_past_is_put_off_only_if_its_window_is_closed_now() -> None:
    stored = msgspec.json.encode({"window": NIGHTS}).decode()
    past, noon = instant("2026-01-10T10:00:00Z"), instant("2026-01-10T12:00:00Z")
    night = instant("2026-01-10T22:00:00Z")
    assert due_in_window(stored, past, noon) == instant("2026-01-10T21:00:00Z")
    assert due_in_window(stored, past, night) == past
    assert due_in_window(None, past, noon) == past
