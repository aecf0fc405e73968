"""Cron expressions against brute force, minute by minute over three years in eleven zones."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from asyncjobs import Cron, InvalidOption
from asyncjobs.clock import to_datetime, to_instant
from asyncjobs.rules import cron
from tests.oracles import seed_of

# Zone and first of its three years. Half hours, quarters, changes at midnight, a month without
# summer time in its middle, a day that was left out.
ZONES = {
    "Europe/Berlin": 2026,
    "America/New_York": 2026,
    "Australia/Lord_Howe": 2026,
    "Asia/Kathmandu": 2026,
    "America/St_Johns": 2026,
    "Africa/Casablanca": 2026,
    "Pacific/Apia": 2010,
    "Pacific/Chatham": 2026,
    "America/Santiago": 2026,
    "Asia/Tehran": 2020,
    "UTC": 2026,
}
DAY_MINUTES = 1_440
QUARTER = 15
EPOCH = datetime(1970, 1, 1)
MINUTE = timedelta(minutes=1)


class Years(NamedTuple):
    """Three years of a zone, minute by minute."""

    start: int
    """The first minute, counted from 1970 in UTC."""
    walls: array[int]
    """What the clock shows at each, as a minute counted from 1970."""
    changes: list[int]
    """Places at which the clock is changed."""


@cache
def years_of(zone: str) -> Years:
    tz = ZoneInfo(zone)
    start, end = (
        int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 60
        for year in (ZONES[zone], ZONES[zone] + 3)
    )
    walls = array("q")
    changes = []
    for minute in range(start, end, QUARTER):
        shown = datetime.fromtimestamp(minute * 60, tz).replace(tzinfo=None)
        wall = (shown - EPOCH) // MINUTE
        if walls and wall - walls[-1] != 1:
            changes.append(len(walls))
        walls.extend(range(wall, wall + QUARTER))
    return Years(start, walls, changes)


class Expression(NamedTuple):
    """A random expression, and what its fields mean, which nobody had to parse."""

    text: str
    minutes: frozenset[int]
    """Of the day."""
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """Sunday is 0."""
    either_day: bool
    by_the_hands: bool

    def matches_day(self, day: int) -> bool:
        date = EPOCH + timedelta(days=day)
        if date.month not in self.months:
            return False
        found = (date.day in self.days, date.isoweekday() % 7 in self.weekdays)
        return any(found) if self.either_day else all(found)


def a_field(chance: random.Random, low: int, high: int, star: float) -> tuple[str, frozenset[int]]:
    """A random field, and the values that it stands for."""
    kind = chance.random()
    if kind < star:
        return "*", frozenset(range(low, high + 1))
    if kind < star + 0.15:
        step = chance.randint(2, max(2, (high - low) // 2))
        return f"*/{step}", frozenset(range(low, high + 1, step))
    if kind < star + 0.3:
        first = chance.randint(low, high)
        last = chance.randint(first, high)
        return f"{first}-{last}", frozenset(range(first, last + 1))
    values = frozenset(chance.randint(low, high) for _ in range(chance.choice((1, 1, 2, 3))))
    return ",".join(map(str, sorted(values))), values


def an_expression(chance: random.Random, *, sparse: bool) -> Expression:
    minute, minutes = a_field(chance, 0, 3 if sparse else 59, 0.0 if sparse else 0.2)
    hour, hours = a_field(chance, 0, chance.choice((3, 3, 23)), 0.1 if sparse else 0.3)
    if minute.startswith("*"):
        minutes = frozenset(range(0, 60, int(minute.partition("/")[2] or 1)))
    if hour.startswith("*"):
        hours = frozenset(range(0, 24, int(hour.partition("/")[2] or 1)))
    day, days = a_field(chance, 1, 28, 0.7)
    if day.startswith("*"):
        days = frozenset(range(1, 32, int(day.partition("/")[2] or 1)))
    month, months = a_field(chance, 1, 12, 0.8)
    weekday, weekdays = a_field(chance, 0, 6, 0.7)
    if weekday.startswith("*/"):  # 0 to 7, and 7 is Sunday as well
        weekdays = frozenset(n % 7 for n in range(0, 8, int(weekday[2:])))
    return Expression(
        f"{minute} {hour} {day} {month} {weekday}",
        frozenset(60 * h + m for h in hours for m in minutes),
        days,
        months,
        weekdays,
        either_day=not (day.startswith("*") or weekday.startswith("*")),
        by_the_hands=minute.startswith("*") or hour.startswith("*"),
    )


def brute_force(expression: Expression, walls: array[int]) -> Iterator[int]:
    """Places of the minutes at which it fires: by the hands when they match; by appointment when
    the clock reaches a matching time for the first time, or passes it by."""
    minutes = bytearray(minute in expression.minutes for minute in range(DAY_MINUTES))
    matches_day = cache(expression.matches_day)
    reached = walls[0] - 1
    for place, wall in enumerate(walls):
        if wall == reached + 1 or expression.by_the_hands:
            if minutes[wall % DAY_MINUTES] and matches_day(wall // DAY_MINUTES):
                yield place
            reached = wall
        elif wall > reached:
            passed = range(reached + 1, wall + 1)
            if any(minutes[w % DAY_MINUTES] and matches_day(w // DAY_MINUTES) for w in passed):
                yield place
            reached = wall


def compare(expression: Expression, zone: str, first: int, last: int) -> int:
    """Compare all times in a span of minutes; how many there are."""
    years = years_of(zone)
    before = max(first - DAY_MINUTES, 0)  # what the clock has shown already, matters
    expected = [
        years.start + before + place
        for place in brute_force(expression, years.walls[before:last])
        if before + place > first
    ]
    begin = to_datetime((years.start + first) * 60_000_000)
    end = to_datetime((years.start + last) * 60_000_000)
    times = takewhile(lambda time: time < end, cron.times(expression.text, ZoneInfo(zone), begin))
    found = [to_instant(time, "time") // 60_000_000 for time in times]
    assert found == expected, (expression.text, zone, sorted(set(found) ^ set(expected))[:3])
    return len(found)


@pytest.mark.parametrize("rounds", [1, pytest.param(300, marks=pytest.mark.proof)])
def test_all_times_of_three_years_are_those_of_brute_force(rounds: int) -> None:
    chance = random.Random(seed_of("cron over years"))
    count = 0
    for _ in range(rounds):
        zone = chance.choice(list(ZONES))
        walls = years_of(zone).walls
        count += compare(an_expression(chance, sparse=True), zone, 0, len(walls))
    print(f"{count} times compared")


@pytest.mark.parametrize("rounds", [60, pytest.param(30_000, marks=pytest.mark.proof)])
def test_all_times_around_a_change_of_the_clock_are_those_of_brute_force(rounds: int) -> None:
    chance = random.Random(seed_of("cron around changes"))
    changing = [zone for zone in ZONES if years_of(zone).changes]
    assert len(changing) >= 8
    count = 0
    for _ in range(rounds):
        zone = chance.choice(changing)
        years = years_of(zone)
        change = chance.choice(years.changes)
        # Often it begins right within the hours that are shown twice.
        first = max(change - chance.choice((-20, 30, 70, 1_500)), 0)
        expression = an_expression(chance, sparse=False)
        count += compare(expression, zone, first, first + 3 * DAY_MINUTES)
    print(f"{count} times compared")
    assert count >= 2_000


@pytest.mark.parametrize("expression", ["0 0 */31 2 1#5", "0 * */31 2 1#5"])
def test_expression_that_never_fires_has_no_times(expression: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    assert list(cron.times(expression, zone, datetime(2026, 1, 1, tzinfo=UTC))) == []
    with pytest.raises(InvalidOption, match="never fires"):
        Cron(expression)
