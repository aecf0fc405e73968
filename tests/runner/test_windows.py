"""``window=``: nothing starts outside, whatever brings it there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    At,
    Every,
    InvalidOption,
    JobExpired,
    Limit,
    Retry,
    Runner,
    Tasks,
    Unique,
    Window,
    current_job,
)
from asyncjobs.testing import ManualClock, run_until_idle

tasks = Tasks()
NIGHT = Window("22:00", "06:00", tz="Europe/Berlin")
EVENING = datetime(2026, 1, 10, 21, 0, tzinfo=UTC)  # 22:00 in Berlin: it opens
MORNING = datetime(2026, 1, 11, 5, 0, tzinfo=UTC)  # 06:00 in Berlin: it closes
NEXT_EVENING = EVENING + timedelta(days=1)


class Log:
    """When each run began, by the clock that is moved by hand."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.starts: list[datetime] = []
        self.again = asyncio.Semaphore(0)
        """One leave a permit."""


@tasks.task(name="heavy", window=NIGHT, retry=Retry(attempts=3, base=3600, jitter=False))
async def heavy(how: str = "well") -> None:
    log: Log = current_job().state
    log.starts.append(log.clock.datetime())
    if how == "wait":
        await log.again.acquire()
    elif how == "fail" and current_job().attempt == 1:
        raise ValueError


@tasks.task(name="light")
async def light() -> None: ...


@tasks.task(name="after", window=NIGHT)
async def after(outcome: Any) -> None:
    await heavy.function()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(EVENING)


def runner_on(tmp_path: Path, clock: ManualClock, **options: Any) -> tuple[Runner, Log]:
    log = Log(clock)
    runner = Runner(tmp_path / "jobs.db", clock=clock, state=log, **options)
    runner.include(tasks)
    return runner, log


async def until_started(log: Log, starts: int) -> None:
    while len(log.starts) < starts:
        await asyncio.sleep(0)


async def test_backlog_stops_at_closing_time_and_goes_on_at_the_next_opening(
    tmp_path: Path, clock: ManualClock
) -> None:
    runner, log = runner_on(tmp_path, clock, concurrency=2)
    async with runner:
        handles = await runner.enqueue_many([heavy.job("wait") for _ in range(10)])
        await until_started(log, 2)
        clock.move_to(MORNING - timedelta(seconds=1))
        for _ in range(2):
            log.again.release()
        await until_started(log, 4)
        clock.move_to(MORNING)
        for _ in range(20):  # those that run go on, and nothing follows them
            log.again.release()
        await run_until_idle(runner)
        jobs = [await handle.job() for handle in handles]
        states = sorted((job.status, job.reason, job.attempt) for job in jobs if not job.finished)
        assert states == [("scheduled", "window", 0)] * 6
        assert {job.run_at for job in jobs if not job.finished} == {NEXT_EVENING}
        await (await light.enqueue())
        assert len(log.starts) == 4
        clock.move_to(NEXT_EVENING)
        await asyncio.gather(*handles)
        assert log.starts[4:] == [NEXT_EVENING] * 6
        assert await runner.registry.check() == []


async def test_retry_and_callback_wait_for_the_window(tmp_path: Path, clock: ManualClock) -> None:
    clock.move_to(MORNING - timedelta(minutes=30))
    runner, log = runner_on(tmp_path, clock)
    async with runner:
        failing = await heavy.enqueue("fail")
        await run_until_idle(runner)
        job = await failing.job()
        assert (job.status, job.reason, job.run_at) == ("retrying", "error", NEXT_EVENING)
        clock.move_to(MORNING)
        await (await light.options(on_complete=after).enqueue())
        clock.move_to(NEXT_EVENING)
        await failing
        await run_until_idle(runner)
        assert log.starts == [MORNING - timedelta(minutes=30), NEXT_EVENING, NEXT_EVENING]


async def test_job_whose_window_closes_between_claim_and_start_is_put_back(
    tmp_path: Path, clock: ManualClock
) -> None:
    runner, log = runner_on(tmp_path, clock)
    async with runner:
        await run_until_idle(runner)
        commit = runner.engine().commit
        written = commit.on_written

        def closing_time() -> None:
            written()
            clock.move_to(MORNING)

        commit.on_written = closing_time
        handle = await heavy.enqueue()
        commit.on_written = written
        await run_until_idle(runner)
        job = await handle.job()
        assert (job.status, job.reason, job.run_at) == ("scheduled", "window", NEXT_EVENING)
        assert (job.attempt, job.claim, log.starts) == (0, 1, [])
        clock.move_to(NEXT_EVENING)
        await handle
        assert log.starts == [NEXT_EVENING]


async def test_window_of_a_job_takes_the_place_of_its_tasks(
    tmp_path: Path, clock: ManualClock
) -> None:
    runner, log = runner_on(tmp_path, clock)
    async with runner:
        handle = await heavy.options(window=Window("12:00", "13:00", days="mon")).enqueue()
        assert (await handle.job()).run_at == datetime(2026, 1, 12, 12, tzinfo=UTC)
        clock.move_to(datetime(2026, 1, 12, 12, tzinfo=UTC))
        await handle
        assert log.starts == [clock.datetime()]


async def test_jobs_of_schedules_wait_for_their_window(tmp_path: Path, clock: ManualClock) -> None:
    runner, log = runner_on(tmp_path, clock)
    runner.schedule("hourly", Every(3600), heavy.job())
    runner.schedule("once", At(MORNING + timedelta(minutes=90)), heavy.job())
    async with runner:
        for _ in range(24):
            clock.advance(3600)
            await run_until_idle(runner)
        nightly = [EVENING + timedelta(hours=hour) for hour in range(1, 8)]
        # What came by day is done in the evening: of each schedule the one that waited.
        assert log.starts[:7] == nightly
        assert set(log.starts[7:]) == {NEXT_EVENING}
        (once,) = (await runner.registry.list(trigger="schedule:once")).jobs
        assert (once.state, once.started_at) == ("completed", NEXT_EVENING)


async def test_job_that_expires_before_its_window_opens_is_cancelled(
    tmp_path: Path, clock: ManualClock
) -> None:
    clock.move_to(MORNING)
    runner, log = runner_on(tmp_path, clock)
    async with runner:
        handle = await heavy.options(expires=3600).enqueue()
        clock.advance(3600)
        with pytest.raises(JobExpired):
            await handle
        assert log.starts == []


async def test_job_of_a_transaction_of_the_application_waits_for_its_window(
    tmp_path: Path, clock: ManualClock
) -> None:
    import aiosqlite

    clock.move_to(MORNING)
    runner, log = runner_on(tmp_path, clock)
    async with runner, aiosqlite.connect(tmp_path / "jobs.db") as connection:
        async with runner.transaction(connection) as tx:
            handle = await runner.enqueue(heavy.job(), tx=tx)
        assert (await handle.job()).run_at == NEXT_EVENING
        clock.move_to(NEXT_EVENING)
        await handle
        assert log.starts == [NEXT_EVENING]


async def test_job_that_is_replaced_by_one_without_a_window_no_longer_speaks_of_one(
    tmp_path: Path, clock: ManualClock
) -> None:
    clock.move_to(MORNING)
    runner, _ = runner_on(tmp_path, clock)
    newest = Unique(on_conflict="replace")
    async with runner:
        handle = await light.options(window=NIGHT, unique=newest).enqueue()
        assert (await handle.job()).reason == "window"
        await light.options(delay=60, unique=newest).enqueue()

        job = await handle.job()
        assert (job.status, job.reason) == ("scheduled", None)


@pytest.mark.parametrize("window", ["22:00-06:00", ("22:00", "06:00"), True, ""])
def test_window_that_is_none_is_refused_for_task_and_job(window: Any) -> None:
    with pytest.raises(InvalidOption, match="window must be a Window such as"):
        heavy.options(window=window)
    with pytest.raises(InvalidOption, match="window must be a Window such as"):

        @Tasks().task(window=window)
        async def never() -> None: ...


@pytest.mark.parametrize("ordered", [False, True])
async def test_job_that_is_put_off_gives_its_permit_back_unless_its_key_is_ordered(
    tmp_path: Path, clock: ManualClock, ordered: bool
) -> None:
    runner, log = runner_on(tmp_path, clock, concurrency=1)
    limit = Limit(key="tenant", running=None if ordered else 1, ordered=ordered)

    @runner.task(limit=limit)
    async def work(tenant: str, name: str) -> str:
        log.starts.append(log.clock.datetime())
        return name

    async with runner:
        blocker = await heavy.enqueue("wait")
        await until_started(log, 1)
        nightly = await work.options(window=NIGHT).enqueue("t", "nightly")
        daily = await work.enqueue("t", "daily")
        assert [(await job.job()).state for job in (nightly, daily)] == ["queued", "blocked"]
        clock.move_to(MORNING)
        log.again.release()
        await blocker
        await run_until_idle(runner)
        assert (await nightly.job()).attempt == 0
        assert len(log.starts) == (1 if ordered else 2)
        clock.move_to(NEXT_EVENING)
        assert [await nightly, await daily] == ["nightly", "daily"]
        assert log.starts[1:] == [NEXT_EVENING if ordered else MORNING, NEXT_EVENING]
        assert await runner.registry.check() == []
