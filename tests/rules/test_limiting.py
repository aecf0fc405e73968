"""Rates: what they allow, to the job, however often and late somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import inf, nan
from random import Random

import pytest

from asyncjobs import InvalidOption, Rate
from asyncjobs.clock import MICROSECONDS
from asyncjobs.rules.limiting import Pace, check_rate, check_running

NOON = 1_900_000_000_000_000


def starts_within(pace: Pace, seconds: float, next_look: Callable[[int, int], int]) -> int:
    """How many start when all that may start does, at each look."""
    now, spent, started = NOON, 0.0, 0
    while now < NOON + seconds * MICROSECONDS:
        room = pace.room(spent, now)
        spent = pace.after(spent, now, room)
        started += room
        now = next_look(now, pace.next_at(spent, now))
    return started


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [(Rate(1), 60), (Rate(7, per=3), 60), (Rate(100), 60), (Rate(997), 60), (Rate(20_000), 20)],
)
def test_rate_is_kept_within_one_percent(rate: Rate, seconds: int) -> None:
    pace = rate.pace()
    expected = seconds * MICROSECONDS / pace.interval
    started = starts_within(pace, seconds, lambda _, next_at: next_at)
    # The burst comes on top of the first period: what a quiet time has saved.
    assert expected - 1 <= started <= expected * 1.01 + 1


def test_looks_that_come_late_cost_nothing_within_the_burst() -> None:
    chance = Random(5)
    pace = Rate(1_000).pace()
    late = starts_within(pace, 60, lambda _, next_at: next_at + chance.randrange(90_000))
    assert 59_900 <= late <= 60_100


def test_burst_may_start_at_once_and_then_one_an_interval() -> None:
    pace = Rate(10, per=1, burst=3).pace()
    assert pace.room(0.0, NOON) == 3
    spent = pace.after(0.0, NOON, 3)
    assert pace.room(spent, NOON) == 0
    assert pace.next_at(spent, NOON) == NOON + 100_000
    assert pace.room(spent, NOON + 99_990) == 0
    assert pace.room(spent, NOON + 100_000) == 1
    assert pace.room(spent, NOON + 300_000) == 3
    assert pace.room(spent, NOON + 900_000) == 3


def test_clock_that_is_set_back_costs_one_burst_at_most() -> None:
    pace = Rate(10, burst=2).pace()
    spent = pace.after(0.0, NOON, 2)
    hour_before = NOON - 3_600 * MICROSECONDS
    assert pace.room(spent, hour_before) == 0
    assert pace.next_at(spent, hour_before) == hour_before + 100_000
    assert pace.after(spent, hour_before, 1) == hour_before + 300_000


def test_rate_that_was_made_faster_forgets_what_it_owed() -> None:
    spent = Rate(1, per=3_600).pace().after(0.0, NOON, 1)
    assert Rate(10, burst=1).pace().next_at(spent, NOON) == NOON + 100_000


@pytest.mark.parametrize(
    ("jobs", "burst"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (1_000, 100)]
)
def test_burst_is_a_tenth_of_the_jobs_if_not_said(jobs: int, burst: int) -> None:
    assert Rate(jobs).pace().burst == burst


def test_rate_is_stored_in_whole_microseconds() -> None:
    assert Rate(5, per=timedelta(minutes=1), burst=2).pace() == Pace(5, 60_000_000, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, r"Rate\(jobs\)=0"),
        ({"jobs": -1}, r"Rate\(jobs\)=-1"),
        ({"jobs": 1.5}, r"Rate\(jobs\) must be an int"),
        ({"jobs": 10**7}, r"Rate\(jobs\)=10000000"),
        ({"jobs": 1, "per": 0}, r"Rate\(per\)=0 is too short"),
        ({"jobs": 1, "per": -1}, r"Rate\(per\)"),
        ({"jobs": 1, "per": nan}, r"Rate\(per\)"),
        ({"jobs": 1, "per": inf}, r"Rate\(per\)"),
        ({"jobs": 1, "per": "1"}, r"Rate\(per\)"),
        ({"jobs": 11, "per": 0.00001}, r"Rate\(per\)=1e-05 is too short for 11 jobs"),
        ({"jobs": 1, "burst": 0}, r"Rate\(burst\)=0"),
    ],
)
def test_rate_that_means_nothing_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Rate(**options)  # type: ignore[arg-type]


def test_smallest_period_is_taken() -> None:
    assert Rate(10, per=0.00001).pace().interval == 1.0


@pytest.mark.parametrize("value", [-1, 10**6 + 1, "2", None, True])
def test_cap_that_means_nothing_is_refused(value: object) -> None:
    with pytest.raises(InvalidOption, match="running"):
        check_running(value)


def test_cap_from_nothing_to_a_million_is_taken() -> None:
    assert [check_running(value) for value in (0, 1, 10**6)] == [0, 1, 10**6]


def test_number_is_no_rate() -> None:
    with pytest.raises(InvalidOption, match=r"rate must be a Rate such as .* got int"):
        check_rate(10)
