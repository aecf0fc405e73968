"""Instants, durations and ids."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs.clock import (
    LONGEST_SECONDS,
    SystemClock,
    first_id_at,
    instant_of_id,
    new_id,
    to_datetime,
    to_instant,
    to_microseconds,
    to_seconds,
)
from asyncjobs.errors import InvalidOption

# From 1970 to 9999: what a clock can show.
INSTANTS = st.integers(0, 253_402_300_799_999_999)


@given(st.datetimes(timezones=st.timezones()))
def test_instant_is_the_exact_microsecond_in_utc(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:  # at the ends of datetime's range
        return
    assert to_datetime(to_instant(moment, "at")) == expected


@given(INSTANTS)
def test_instant_survives_the_way_to_datetime_and_back(instant: int) -> None:
    assert to_instant(to_datetime(instant), "at") == instant


def test_both_passes_of_a_repeated_hour_are_told_apart() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)
    assert to_instant(first.replace(fold=1), "at") - to_instant(first, "at") == 3_600_000_000


def test_naive_datetime_is_refused() -> None:
    with pytest.raises(InvalidOption, match="at=2030-01-01T00:00:00 has no time zone"):
        to_instant(datetime(2030, 1, 1), "at")


@pytest.mark.parametrize("value", ["2030-01-01", 5, None])
def test_what_is_no_datetime_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="at must be a datetime, got"):
        to_instant(value, "at")


@pytest.mark.parametrize(
    "value",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
)
def test_instant_that_utc_cannot_show_is_refused(value: datetime) -> None:
    with pytest.raises(InvalidOption, match="at="):
        to_instant(value, "at")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0.0), (1, 1.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (LONGEST_SECONDS, 3153600000.0)],
)
def test_durations_are_seconds_or_timedeltas(value: Any, seconds: float) -> None:
    assert to_seconds(value, "delay") == seconds


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        math.nan,
        math.inf,
        -math.inf,
        LONGEST_SECONDS + 1,
        timedelta(microseconds=-1),
        timedelta.max,
        10**400,
        -(10**400),
        pytest.param(10**5_000, id="huge"),
    ],
)
def test_duration_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"delay.* out of range"):
        to_seconds(value, "delay")


@pytest.mark.parametrize("value", ["5", None, True, [1], 1j])
def test_duration_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="delay must be seconds"):
        to_seconds(value, "delay")


@pytest.mark.parametrize(("value", "fits"), [(0.99, False), (1.0, True), (1.01, True)])
def test_least_duration_is_inclusive(value: float, fits: bool) -> None:
    if fits:
        assert to_seconds(value, "lease", at_least=1.0) == value
    else:
        with pytest.raises(InvalidOption, match="from 1 to"):
            to_seconds(value, "lease", at_least=1.0)


def test_seconds_are_rounded_to_whole_microseconds() -> None:
    assert to_microseconds(0.1 + 0.2) == 300_000


@given(INSTANTS)
def test_new_id_is_a_uuid_of_version_7(instant: int) -> None:
    text = new_id(instant)
    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)


@given(INSTANTS)
def test_instant_of_an_id_is_the_one_it_was_made_at(instant: int) -> None:
    assert instant_of_id(new_id(instant)) == instant
    assert instant_of_id(first_id_at(instant)) == instant


@given(INSTANTS, INSTANTS)
def test_ids_sort_by_time(one: int, other: int) -> None:
    if one != other:
        assert (new_id(one) < new_id(other)) == (one < other)


@given(INSTANTS)
def test_first_id_bounds_every_id_of_its_instant(instant: int) -> None:
    assert first_id_at(instant) <= new_id(instant) < first_id_at(instant + 1)


def test_ids_of_one_instant_are_unequal() -> None:
    assert len({new_id(0) for _ in range(10_000)}) == 10_000


def test_system_clock_says_how_long_until_an_instant() -> None:
    clock = SystemClock()
    now = clock.now()
    assert abs(to_datetime(now) - datetime.now(UTC)) < timedelta(seconds=5)
    assert clock.seconds_until(now - 1) == 0.0
    seconds = clock.seconds_until(clock.now() + 10_000_000)
    assert seconds is not None
    assert 9.0 < seconds <= 10.0
    clock.on_move(lambda: None)()
