"""Unique jobs together with expiry, schedules, retention, retries, purges, callbacks and limits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from asyncjobs import (
    Every,
    InvalidOption,
    JobExpired,
    JobFailed,
    JobOutcome,
    Limit,
    Runner,
    Tasks,
    Unique,
)
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

REPLACE = Unique(by=(), on_conflict="replace")

tasks = Tasks()
ran: list[Any] = []
gates: list[asyncio.Event] = []


@tasks.task(name="one", unique=Unique(by=()))
async def one(value: int = 0) -> int:
    ran.append(value)
    return value


@tasks.task(name="slow", unique=Unique(by=("value",)))
async def slow(value: int = 0) -> None:
    ran.append(value)
    await gates[0].wait()


@tasks.task(name="fragile", unique=Unique())
async def fragile() -> None:
    ran.append("fragile")
    if not gates[0].is_set():
        raise ValueError("not yet")


@tasks.task(name="window", throttle=600, keep_completed=1)
async def window(value: int) -> int:
    return value


@tasks.task(name="told", unique=Unique(by="all of them"))
async def told(outcome: JobOutcome) -> None:
    ran.append(outcome.result)


@tasks.task(name="tenant", limit=Limit(key="tenant", running=1), unique=Unique(by=("page",)))
async def tenant_page(tenant: str, page: int) -> str:
    ran.append((tenant, page))
    await gates[0].wait()
    return tenant


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    gates[:] = [asyncio.Event()]
    ran.clear()
    runner.include(tasks)


async def test_job_that_has_expired_stands_for_nothing(runner: Runner, clock: ManualClock) -> None:
    await runner.registry.pause_queue("default")
    first = await one.options(expires=60).enqueue(1)
    clock.advance(61)
    second = await one.enqueue(2)
    assert not second.existing
    await runner.registry.resume_queue("default")
    assert await second == 2
    with pytest.raises(JobExpired):
        await first


async def test_replaced_job_expires_when_the_new_one_says(
    runner: Runner, clock: ManualClock
) -> None:
    await runner.registry.pause_queue("default")
    first = await one.options(expires=60).enqueue(1)
    clock.advance(30)
    await one.options(unique=REPLACE, expires=60).enqueue(2)
    clock.advance(59)
    await run_until_idle(runner)
    assert (await first.job()).state == "queued"
    clock.advance(2)
    with pytest.raises(JobExpired):
        await first


@pytest.mark.parametrize("expires", [1.0, timedelta(seconds=5)])
def test_debounced_job_that_would_expire_before_it_is_due_is_refused(expires: Any) -> None:
    with pytest.raises(InvalidOption, match="expires and debounce contradict"):
        Tasks().task(name="late", debounce=5, expires=expires)(lambda: None)
    with pytest.raises(InvalidOption, match="expires and debounce contradict"):
        one.options(debounce=5, expires=expires)


async def test_time_of_a_schedule_makes_no_second_job_while_the_first_waits(
    runner: Runner, clock: ManualClock
) -> None:
    await runner.registry.pause_queue("default")
    await runner.schedules.create("often", Every(60), one.job(1), overlap="allow")
    for _ in range(3):
        clock.advance(60)
        await run_until_idle(runner)
    (job,) = (await runner.registry.list(task="one")).jobs
    now = await runner.schedules.run_now("often")
    assert (now.id, job.trigger) == (job.id, "schedule:often")
    await runner.registry.resume_queue("default")
    assert await now == 1
    clock.advance(60)
    await run_until_idle(runner)
    assert await runner.registry.count(task="one", state="completed") == 2
    assert await runner.registry.check() == []


async def test_next_of_a_schedule_starts_though_its_job_was_replaced_by_hand(
    runner: Runner, clock: ManualClock
) -> None:
    await runner.registry.pause_queue("default")
    await runner.schedules.create("turns", Every(60), one.options(unique=REPLACE).job(1))
    clock.advance(60)
    await run_until_idle(runner)
    await one.options(unique=REPLACE).enqueue(7)
    clock.advance(60)
    await run_until_idle(runner)  # this time waits for the end of the job before it
    assert (await runner.registry.schedule("turns")).waiting_for == clock.datetime()
    await runner.registry.resume_queue("default")
    await until(lambda: len(ran) == 2)
    await run_until_idle(runner)
    assert ran == [7, 1]
    assert (await runner.registry.schedule("turns")).waiting_for is None
    assert await runner.registry.check() == []


async def test_times_of_a_schedule_that_make_no_job_are_skipped_and_no_runs(
    runner: Runner, clock: ManualClock
) -> None:
    rule = Unique(while_=90)
    job = one.options(unique=rule).job(1)
    await runner.schedules.create("thrice", Every(60), job, max_runs=3)
    stood = []
    for _ in range(7):
        clock.advance(60)
        await run_until_idle(runner)
        schedule = await runner.registry.schedule("thrice")
        stood.append((schedule.runs, schedule.skipped))
    assert stood == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 2), (3, 2)]
    assert (await runner.registry.schedule("thrice")).next_run is None
    assert await runner.registry.count(task="one", state="completed") == 3
    assert await runner.registry.check() == []


async def test_schedule_whose_last_time_made_no_job_goes_on(
    runner: Runner, clock: ManualClock
) -> None:
    await one.options(unique=Unique(while_=90)).enqueue(1)
    job = one.options(unique=Unique(while_=90)).job(1)
    await runner.schedules.create("once", Every(60), job, max_runs=1)
    clock.advance(60)
    await run_until_idle(runner)
    schedule = await runner.registry.schedule("once")
    assert (schedule.runs, schedule.skipped) == (0, 1)
    assert schedule.next_run == clock.datetime() + timedelta(seconds=60)
    clock.advance(60)
    await run_until_idle(runner)
    schedule = await runner.registry.schedule("once")
    assert (schedule.runs, schedule.skipped, schedule.next_run) == (1, 1, None)
    assert await runner.registry.check() == []


async def test_dead_letter_that_is_retried_holds_again(runner: Runner) -> None:
    first = await fragile.enqueue()
    with pytest.raises(JobFailed):
        await first
    gates[0].set()
    await runner.registry.pause_queue("default")
    await runner.registry.retry_all(task="fragile", state="failed", dry_run=False)
    assert (await fragile.enqueue()).id == first.id
    await runner.registry.resume_queue("default")
    await first
    assert not (await fragile.enqueue()).existing


async def test_dead_letter_runs_beside_a_newer_one_that_holds(runner: Runner) -> None:
    first = await fragile.enqueue()
    with pytest.raises(JobFailed):
        await first
    gates[0].set()
    second = await fragile.options(delay=60).enqueue()
    await first.retry()
    await first
    assert (await fragile.enqueue()).id == second.id
    assert await runner.registry.check() == []


async def test_job_stays_longer_than_its_task_says_while_its_window_is_open(
    runner: Runner, clock: ManualClock
) -> None:
    handles = [await window.enqueue(value) for value in range(3)]
    await asyncio.gather(*handles)
    pruner = runner.engine().pruner
    await pruner.prune()
    assert [(await window.enqueue(value)).existing for value in range(3)] == [True] * 3
    clock.advance(601)
    await pruner.prune()
    assert [job.id for job in (await runner.registry.list(task="window")).jobs] == [handles[2].id]
    assert await runner.registry.check() == []


async def test_job_whose_window_outlasts_the_runners_retention_is_pruned_after_it(
    runner: Runner, clock: ManualClock
) -> None:
    handle = await one.options(throttle=timedelta(days=20)).enqueue()
    await handle
    pruner = runner.engine().pruner
    for days in (8, 8):
        clock.advance(timedelta(days=days))
        await pruner.prune()
    assert await runner.registry.count(task="one") == 1
    clock.advance(timedelta(days=5))
    await pruner.prune()
    await pruner.prune()
    assert await runner.registry.count(task="one") == 0


async def test_purged_job_stands_for_nothing(runner: Runner) -> None:
    await runner.registry.pause_queue("default")
    await one.enqueue(1)
    await runner.registry.purge_queue("default", dry_run=False)
    again = await one.enqueue(2)
    assert not again.existing
    assert await runner.registry.check() == []


async def test_each_outcome_is_told_though_the_callback_is_unique(runner: Runner) -> None:
    for value in (1, 2):
        await one.options(on_complete=told, unique=Unique()).enqueue(value)
    await run_until_idle(runner)
    assert sorted(ran, key=str) == [1, 1, 2, 2]


async def test_replaced_job_is_followed_by_the_callback_of_the_new_one(runner: Runner) -> None:
    first = await one.options(delay=60).enqueue(1)
    await one.options(unique=REPLACE, on_complete=told).enqueue(2)
    assert await first == 2
    await run_until_idle(runner)
    assert ran == [2, 2]


async def test_replaced_job_goes_to_the_line_of_its_new_key(runner: Runner) -> None:
    replace = tenant_page.options(unique=Unique(by=("page",), on_conflict="replace"))
    running = await tenant_page.enqueue("large", 1)
    await until(lambda: ran)
    waiting = await tenant_page.enqueue("large", 2)
    behind = await tenant_page.enqueue("large", 3)
    assert (await waiting.job()).reason == "limit"

    assert (await replace.enqueue("small", 2)).id == waiting.id

    await until(lambda: len(ran) == 2)
    assert ran == [("large", 1), ("small", 2)]
    assert await runner.registry.check() == []
    gates[0].set()
    tenants = await asyncio.gather(running, waiting, behind)
    assert list(tenants) == ["large", "small", "large"]
    assert await runner.registry.check() == []


async def test_replaced_job_keeps_its_turn_in_the_line_of_its_key(runner: Runner) -> None:
    replace = tenant_page.options(unique=Unique(by=("page",), on_conflict="replace"))
    handles = [await tenant_page.enqueue("large", page) for page in (1, 2, 3)]
    await until(lambda: ran)
    await replace.enqueue("large", 2)
    assert (await handles[1].job()).reason == "limit"
    gates[0].set()
    await asyncio.gather(*handles)
    assert [page for _, page in ran] == [1, 2, 3]
    assert await runner.registry.check() == []
