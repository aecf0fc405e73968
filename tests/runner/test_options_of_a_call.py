"""What ``options(...)`` takes from the task, and what ``None`` takes away."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from asyncjobs import (
    InvalidOption,
    JobOutcome,
    Limit,
    NewJob,
    Retry,
    Runner,
    Task,
    Tasks,
    Unique,
    Window,
)
from asyncjobs.running.context import current_run

tasks = Tasks()


@tasks.task(name="follows")
async def follows(outcome: JobOutcome) -> None: ...


@tasks.task(
    name="full",
    retry=Retry(attempts=3),
    timeout=30,
    expires=60,
    window=Window("22:00", "06:00"),
    on_complete=follows,
    on_failure=follows,
    limit=Limit(key="tenant"),
    unique=Unique(),
)
async def full(tenant: str) -> None: ...


@tasks.task(name="debounced", debounce=5)
async def debounced(number: int) -> None: ...


@tasks.task(name="throttled", throttle=5)
async def throttled(number: int) -> None: ...


def stored(job: NewJob[Any]) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(job.options or "{}")
    return options


def test_what_is_left_out_stays_as_the_task_has_it() -> None:
    job = full.options(priority=1, on_crash="fail").job("a")

    assert (job.expires, job.hold is not None, job.limit is not None) == (60_000_000, True, True)
    assert set(stored(job)) == {"window", "on_complete", "on_failure", "limited"}


@pytest.mark.parametrize("option", ["window", "on_complete", "on_failure"])
def test_none_takes_away_what_travels_with_the_job(option: str) -> None:
    job = full.options(**{option: None}).job("a")  # type: ignore[arg-type]

    kept = {"window", "on_complete", "on_failure", "limited"} - {option}
    assert set(stored(job)) == kept


def test_none_takes_away_limit_expiry_and_uniqueness() -> None:
    free = full.options(limit=None, expires=None, unique=None).job("a")

    assert (free.limit, free.expires, free.expires_at, free.hold, free.key) == (None,) * 5
    assert "limited" not in stored(free)


@pytest.mark.parametrize("option", ["unique", "throttle", "debounce"])
@pytest.mark.parametrize("task", [debounced, throttled], ids=lambda task: task.name)
def test_none_for_one_way_to_be_the_same_takes_the_place_of_all(
    task: Task[[int], None], option: str
) -> None:
    job = task.options(**{option: None}).job(1)  # type: ignore[arg-type]

    assert (job.hold, job.key, job.delay) == (None, None, None)


def test_none_leaves_the_other_ways_that_are_given() -> None:
    job = debounced.options(debounce=None, throttle=60).job(1)

    assert job.hold is not None
    assert (job.hold.held, job.delay) == ("window", None)


def test_what_none_has_taken_away_contradicts_nothing() -> None:
    assert debounced.options(debounce=None, delay=3).job(1).delay == 3_000_000
    assert debounced.options(unique=None, key="k").job(1).key == "k"
    assert full.options(expires=None, delay=3_600).job("a").expires is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "k", "unique": None, "throttle": 5}, "key contradicts unique"),
        ({"unique": None, "delay": 5, "debounce": 5}, "delay and at contradict debounce"),
        ({"debounce": None, "debounce_max": 5}, "debounce_max needs debounce"),
        ({"limit": None, "delay": 61}, "expires and delay contradict"),
    ],
)
def test_what_is_left_is_still_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        full.options(**options)


def test_options_without_a_none_of_their_own_stay_with_none() -> None:
    @Tasks().task(name="own", queue="mail", priority=7, max_crashes=9, keep_result=False)
    async def own() -> None: ...

    job = own.options(
        queue=None, priority=None, on_crash=None, max_crashes=None, keep_result=None
    ).job()

    assert (job.queue, job.priority, job.max_crashes) == ("mail", 7, 9)
    assert stored(job) == {"keep_result": False}


async def test_job_without_the_timeout_and_retries_of_its_task_runs_once_for_as_long_as_it_takes(
    runner: Runner,
) -> None:
    seen: list[object] = []

    @runner.task(name="slow", timeout=30, retry=Retry(attempts=3, base=0))
    async def slow() -> None:
        seen.append(current_run.get().timeout)
        raise ValueError

    job = await (await slow.options(timeout=None, retry=None).enqueue()).wait()

    assert (job.state, job.attempt, seen) == ("failed", 1, [None])


async def test_job_without_the_limit_and_uniqueness_of_its_task_is_another_and_runs(
    runner: Runner,
) -> None:
    @runner.task(name="held", limit=Limit(running=0), unique=Unique())
    async def held(tenant: str) -> str:
        return tenant

    first = await held.enqueue("a")
    free = await held.options(unique=None, limit=None).enqueue("a")

    assert await free == "a"
    assert first.id != free.id
    assert (await first.job()).status == "blocked"


def test_signature_shows_which_options_none_takes_away() -> None:
    shown = str(inspect.signature(Task.options))

    assert "limit: 'Limit | UnsetType | None' = UNSET" in shown
    assert "queue: 'str | None' = None" in shown
