"""What follows when a schedule's time has come: missed times, overlap, limits, and the jobs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product, takewhile
from typing import Any

import pytest

from asyncjobs import At, Cron, Every, InvalidOption, Task
from asyncjobs.clock import MICROSECONDS, to_datetime, to_instant
from asyncjobs.records import NewJob, Occurrence
from asyncjobs.rules.joboptions import read_options
from asyncjobs.rules.schedule import (
    CATCH_UP_MAX,
    CATCH_UPS,
    COUNT_MAX,
    KEY_ROOM,
    LATE,
    OVERLAPS,
    Plan,
    Standing,
    Step,
    _newest,
    advance,
    check_future,
    check_plan,
    check_template,
    jitter_of,
    make_job,
    make_plan,
    next_after_change,
    release,
)
from tests.oracles import seed_of

MINUTE = 60 * MICROSECONDS
START = to_instant(datetime(2026, 5, 1, tzinfo=UTC), "start")


def past(minutes: int) -> datetime:
    return to_datetime(START + minutes * MINUTE)


def plan_of(**options: Any) -> Plan:
    return make_plan(check_plan({"when": Every(60), **options}))


def step_of(
    minutes: float,
    *,
    waiting: int | None = None,
    runs: int = 0,
    busy: bool = False,
    next_in: int = 0,
    **options: Any,
) -> tuple[list[int], int | None, int | None, int, int]:
    """Fired, next, waiting, missed, skipped, in minutes; at so many minutes past the start."""
    standing = Standing(
        START + next_in * MINUTE, None if waiting is None else START + waiting * MINUTE, runs
    )
    now = START + round(minutes * MINUTE)
    return in_minutes(advance(plan_of(**options), standing, now, unfinished=busy))


def in_minutes(step: Step) -> tuple[list[int], int | None, int | None, int, int]:
    def minutes(time: int | None) -> int | None:
        return None if time is None else (time - START) // MINUTE

    fired = [(time - START) // MINUTE for time in step.fire]
    standing = step.standing
    return (
        fired, minutes(standing.next_at), minutes(standing.waiting_at), step.missed, step.skipped,
    )  # fmt: skip


# One time


@pytest.mark.parametrize(("catch_up", "overlap"), list(product(CATCH_UPS, OVERLAPS)))
def test_a_time_that_has_come_fires_once(catch_up: str, overlap: str) -> None:
    if (catch_up, overlap) != ("all", "skip"):
        assert step_of(0.01, catch_up=catch_up, overlap=overlap) == ([0], 1, None, 0, 0)


# Times that were missed


@pytest.mark.parametrize(
    ("catch_up", "overlap", "step"),
    [
        ("latest", "queue", ([5], 6, None, 5, 0)),
        ("latest", "allow", ([5], 6, None, 5, 0)),
        ("none", "queue", ([5], 6, None, 5, 0)),
        ("all", "allow", ([0, 1, 2, 3, 4, 5], 6, None, 0, 0)),
        ("all", "queue", ([0], 6, 1, 0, 0)),  # the others stand in line
    ],
)
def test_what_follows_from_six_times_at_once(
    catch_up: str, overlap: str, step: tuple[Any, ...]
) -> None:
    assert step_of(5.5, catch_up=catch_up, overlap=overlap) == step


def test_none_makes_nothing_of_a_time_that_is_more_than_a_minute_past() -> None:
    late = LATE / MINUTE
    options: dict[str, Any] = {"when": Every(3_600), "catch_up": "none"}
    assert step_of(late, **options)[0] == [0]
    assert step_of(late + 0.001, **options) == ([], 60, None, 1, 0)


def test_all_makes_up_for_the_newest_thousand_times() -> None:
    fired, following, _, missed, _ = step_of(CATCH_UP_MAX + 9, catch_up="all", overlap="allow")
    assert fired == list(range(10, CATCH_UP_MAX + 10))
    assert (following, missed) == (CATCH_UP_MAX + 10, 10)


@pytest.mark.parametrize("when", [Every(1), Cron("* * 0-3 1-4 * *", seconds=True)])
def test_more_times_than_are_counted_are_left_behind_at_once(when: Every | Cron) -> None:
    plan = plan_of(when=when, catch_up="all", overlap="allow")
    first = plan.first(START)
    assert first is not None
    now = first + 200 * 86_400 * MICROSECONDS
    step = advance(plan, Standing(first, None, 0), now, unfinished=False)
    assert step.fire == list(_until(plan, step.fire[0], now + 1))
    assert (len(step.fire), step.missed) == (CATCH_UP_MAX, COUNT_MAX - CATCH_UP_MAX)
    assert step.standing.next_at == plan.first(now)


def test_newest_times_are_found_also_where_they_are_far_denser_than_the_first_ones() -> None:
    plan = plan_of(when=Every(1))
    days = 100 * 86_400 * MICROSECONDS
    found = _newest(plan, START, days)
    assert found[-1] == START
    assert found == list(_until(plan, found[0], START + 1))
    assert 1 <= len(found) <= CATCH_UP_MAX


def test_time_that_is_none_any_more_by_new_rules_of_its_zone_fires_nothing() -> None:
    assert step_of(0.5, when=Every(60, to_datetime(START + 40 * MICROSECONDS))) == (
        [],
        0,
        None,
        0,
        0,
    )


# Overlap


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ({"overlap": "allow"}, ([0], 1, None, 0, 0)),
        ({"overlap": "skip"}, ([], 1, None, 0, 1)),
        ({"overlap": "queue"}, ([], 1, 0, 0, 0)),
        ({"overlap": "queue", "catch_up": "all"}, ([], 1, 0, 0, 0)),
    ],
)
def test_what_a_time_brings_while_the_last_job_has_not_finished(
    given: dict[str, Any], step: tuple[Any, ...]
) -> None:
    assert step_of(0.5, busy=True, **given) == step


def test_newest_time_takes_the_place_of_the_one_that_waits() -> None:
    assert step_of(5.5, next_in=5, waiting=4, busy=True) == ([], 6, 5, 0, 1)


def test_every_time_waits_in_its_turn_under_all() -> None:
    assert step_of(5.5, next_in=5, waiting=3, busy=True, catch_up="all") == ([], 6, 3, 0, 0)
    assert step_of(5.5, next_in=5, waiting=3, catch_up="all") == ([3], 6, 4, 0, 0)


def test_time_that_waits_fires_although_newer_ones_are_too_late() -> None:
    options: dict[str, Any] = {"when": Every(600), "catch_up": "none"}
    assert step_of(15, next_in=10, waiting=0, busy=True, **options) == ([], 20, 0, 1, 0)
    assert step_of(15, next_in=10, waiting=0, **options) == ([0], 20, None, 1, 0)


@pytest.mark.parametrize(
    ("options", "next_in", "step"),
    [
        ({}, 6, ([3], 6, None, 0, 0)),
        ({"catch_up": "all"}, 6, ([3], 6, 4, 0, 0)),
        ({"catch_up": "all"}, 4, ([3], 4, None, 0, 0)),
        ({"catch_up": "all", "until": past(5)}, None, ([3], None, 4, 0, 0)),
        ({"catch_up": "all", "until": past(3)}, None, ([3], None, None, 0, 0)),
        ({"max_runs": 5}, 6, ([3], None, None, 0, 0)),
        ({"max_runs": 6}, 6, ([3], 6, None, 0, 0)),
    ],
)  # fmt: skip
def test_what_waits_fires_when_the_last_job_has_finished(
    options: dict[str, Any], next_in: int | None, step: tuple[Any, ...]
) -> None:
    next_at = None if next_in is None else START + next_in * MINUTE
    standing = Standing(next_at, START + 3 * MINUTE, 4)
    assert in_minutes(release(plan_of(**options), standing)) == step


# The end


def test_until_is_the_last_possible_time() -> None:
    until = to_datetime(START + 2 * MINUTE)
    assert step_of(1.5, next_in=1, until=until)[:2] == ([1], 2)
    assert step_of(2, next_in=2, until=until)[:2] == ([2], None)
    assert step_of(9, until=until) == ([2], None, None, 2, 0)


def test_max_runs_ends_it() -> None:
    assert step_of(0, runs=1, max_runs=3)[:2] == ([0], 1)
    assert step_of(0, runs=2, max_runs=3)[:2] == ([0], None)
    assert step_of(9, runs=1, max_runs=3, catch_up="all", overlap="allow")[:2] == ([0, 1], None)


def test_one_time_ends_by_itself() -> None:
    assert step_of(0, when=At(to_datetime(START))) == ([0], None, None, 0, 0)
    assert step_of(0, busy=True, when=At(to_datetime(START))) == ([], None, 0, 0, 0)


# A random walk


@pytest.mark.parametrize("rounds", [200, pytest.param(20_000, marks=pytest.mark.proof)])
def test_every_time_is_fired_missed_skipped_or_waits_whatever_happens(rounds: int) -> None:
    """Ticks late or in time, clocks stepped both ways, jobs that end early or late."""
    chance = random.Random(seed_of("schedules"))
    fired_in_all = 0
    for _ in range(rounds):
        catch_up, overlap = chance.choice(CATCH_UPS), chance.choice(OVERLAPS)
        if (catch_up, overlap) == ("all", "skip"):
            continue
        when = chance.choice([Every(60), Every(300), Cron("*/7 1-22 * * *", tz="Europe/Berlin")])
        plan = plan_of(when=when, catch_up=catch_up, overlap=overlap)
        first = plan.first(START)
        standing, busy, now = Standing(first, None, 0), False, START
        fired: list[int] = []
        missed = skipped = 0
        for _ in range(30):
            now += round(chance.choice((1, 30, 600, 80_000, -3_600)) * chance.random() * 1e6)
            if busy and chance.random() < 0.5:
                busy = False
                steps = [release(plan, standing)] if standing.waiting_at is not None else []
            elif standing.next_at is not None and standing.next_at <= now:
                steps = [advance(plan, standing, now, unfinished=busy)]
            else:
                steps = []
            for step in steps:
                fired += step.fire
                missed, skipped = missed + step.missed, skipped + step.skipped
                standing, busy = step.standing, busy or bool(step.fire)
                assert standing.next_at is not None
                assert overlap != "queue" or len(step.fire) <= 1
        assert fired == sorted(set(fired))
        assert first is not None
        assert standing.next_at is not None
        passed = list(_until(plan, first, standing.next_at))
        assert set(fired) <= set(passed)
        in_line = 0
        if standing.waiting_at is not None:
            line = [time for time in passed if time >= standing.waiting_at]
            in_line = len(line) if catch_up == "all" else 1
        assert len(passed) == len(fired) + missed + skipped + in_line
        if (catch_up, overlap) == ("all", "allow") and not missed:
            assert fired == passed
        fired_in_all += len(fired)
    assert fired_in_all > rounds


def _until(plan: Plan, first: int, end: int) -> Iterator[int]:
    return takewhile(lambda time: time < end, plan.times(first - 1))


# Changes


def test_change_that_leaves_the_times_leaves_the_next_one_also_when_it_is_past() -> None:
    before, standing = plan_of(), Standing(START, None, 3)
    now = START + 10 * MINUTE
    changed = plan_of(overlap="skip")
    assert next_after_change(changed, before, standing, last_at=None, now=now) == START
    ended = plan_of(max_runs=3)
    assert next_after_change(ended, before, standing, last_at=None, now=now) is None
    over = plan_of(until=to_datetime(START - MINUTE))
    assert next_after_change(over, before, standing, last_at=None, now=now) is None


def test_other_times_begin_from_now_and_never_before_the_last_that_fired() -> None:
    plan, standing = plan_of(when=Every(120)), Standing(START, None, 3)
    now = START + 10 * MINUTE
    for before in (plan_of(), None):
        assert (
            next_after_change(plan, before, standing, last_at=START, now=now) == START + 12 * MINUTE
        )
    put_back = next_after_change(plan, plan_of(), standing, last_at=now, now=START)
    assert put_back == START + 12 * MINUTE


def test_schedule_that_had_ended_goes_on_when_its_new_plan_allows_it() -> None:
    standing = Standing(None, None, 3)
    plan = plan_of(max_runs=4)
    found = next_after_change(plan, plan_of(max_runs=3), standing, last_at=START, now=START)
    assert found == START + MINUTE


# Jobs


def template(**options: Any) -> NewJob[Any]:
    def report(kind: str) -> None: ...

    return check_template("nightly", Task(report, name="report").options(**options).job("daily"))


def test_job_of_a_time_is_made_like_the_one_given() -> None:
    given = template(priority=7, queue="reports", tags=["a"], key="k", meta={"x": 1}, timeout=5)
    job = make_job(given, plan_of(), Occurrence("nightly", START), START + 5)
    assert (job.task, job.queue, job.priority, job.tags) == ("report", "reports", 7, ("a",))
    assert (job.trigger, job.run_at, job.created_at) == ("schedule:nightly", START, START + 5)
    assert job.arguments == '{"kind":"daily"}'
    assert job.key == "k@2026-05-01T00:00:00+00:00"
    assert job.options is not None
    options = read_options(job.options)
    assert options is not None
    assert (options.timeout, options.scheduled) == (5, Occurrence("nightly", START))
    assert options.followed


def test_delay_of_the_job_comes_on_top_of_its_time() -> None:
    job = make_job(template(delay=30), plan_of(), Occurrence("nightly", START), START)
    assert (job.run_at, job.delay) == (START + 30 * MICROSECONDS, None)


def test_jitter_is_the_same_for_whoever_asks_and_another_for_each_time() -> None:
    plan = plan_of(jitter=10)
    found = [jitter_of(plan, "nightly", START + n * MINUTE) for n in range(200)]
    assert found == [jitter_of(plan, "nightly", START + n * MINUTE) for n in range(200)]
    assert found != [jitter_of(plan, "daily", START + n * MINUTE) for n in range(200)]
    assert all(0 <= late <= 10 * MICROSECONDS for late in found)
    assert len(set(found)) > 190
    assert max(found) - min(found) > 9 * MICROSECONDS
    assert jitter_of(plan_of(), "nightly", START) == 0
    late = make_job(template(), plan, Occurrence("nightly", START), START)
    assert late.run_at == START + found[0]
    by_hand = make_job(template(), plan, Occurrence("nightly", START, by_hand=True), START)
    assert by_hand.run_at == START


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"when": "@daily"}, r"when must be Cron\(...\), Every\(...\) or At\(...\), got str"),
        ({"catch_up": "some"}, "catch_up='some' is not known; it is one of latest, all, none"),
        ({"overlap": True}, "overlap=True is not known; it is one of queue, skip, allow"),
        ({"jitter": -1}, "jitter=-1 is out of range"),
        ({"jitter": "5"}, "jitter must be seconds"),
        ({"until": datetime(2026, 1, 1)}, "until=2026-01-01T00:00:00 has no time zone"),
        ({"max_runs": 0}, "max_runs=0 is out of range"),
        ({"max_runs": 1.0}, "max_runs must be an int"),
        ({"when": Every(1), "jitter": 3600}, "jitter=3600 is longer than the 1 s from one time to"),
        ({"when": Cron("* * * * *"), "jitter": 61, "overlap": "skip"}, "longer than the 60 s"),
        ({"catch_up": "all", "overlap": "skip"}, "catch_up='all' and overlap='skip' contradict"),
    ],
)
def test_option_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        plan_of(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"when": Every(1), "jitter": 1},
        {"when": Every(1), "jitter": 3600, "overlap": "allow"},
        {"when": Cron("0 9,10 * * *"), "jitter": 7200},  # nearer to each other only once a day
        {"when": At(to_datetime(START)), "jitter": 3600},
    ],
)
def test_jitter_that_leaves_time_between_is_taken(options: dict[str, Any]) -> None:
    assert plan_of(**options).jitter == options["jitter"] * 1_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": to_datetime(START)}, "until=2026-05-01T00:00:00.* is past"),
        ({"when": At(to_datetime(START))}, "At.2026-05-01T00:00:00.* is past"),
        ({"until": to_datetime(START + 5)}, "until comes before the first time"),
    ],
)
def test_schedule_that_is_over_before_it_begins_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        check_future(plan_of(**options), START)
    check_future(plan_of(until=to_datetime(START + MINUTE)), START)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (lambda: "report", "needs what task.job"),
        (lambda: template(at=datetime.now(UTC)), "at= contradicts a schedule"),
        (lambda: template(expires=datetime(2999, 1, 1, tzinfo=UTC)), "expires=2999-01-01T.*until="),
        (lambda: template(key="k" * 1_000), "key is 1000 characters long"),
    ],
)
def test_job_that_cannot_be_made_again_and_again_is_refused(job: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        check_template("nightly", job())


def test_longest_key_fits_with_its_time() -> None:
    key = "k" * (1_024 - KEY_ROOM)
    at = to_instant(datetime(2026, 5, 1, tzinfo=UTC) + timedelta(microseconds=1), "at")
    job = make_job(template(key=key), plan_of(), Occurrence("nightly", at), at)
    assert job.key is not None
    assert len(job.key) <= 1_024
