"""Coroutine jobs: the pool's bound, contexts, timeouts, and jobs that do not stop."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from datetime import timedelta

import pytest

from asyncjobs import JobCancelled, JobFailed, JobTimedOut, Retry, Runner, Tasks, current_job
from asyncjobs.testing import ManualClock, run_until_idle

from .support import PATIENCE_SECONDS

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="untouched")


@pytest.mark.parametrize("runner", [{"concurrency": 3}], indirect=True)
async def test_no_more_jobs_run_at_once_than_concurrency(runner: Runner) -> None:
    running, most = 0, 0

    @runner.task
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1

    await runner.enqueue_many([count.job() for _ in range(100)])
    await asyncio.gather(*[count.enqueue() for _ in range(20)])
    await run_until_idle(runner)

    assert (most, running) == (3, 0)
    assert await runner.registry.count(state="completed") == 120


@pytest.mark.parametrize("runner", [{"concurrency": 1, "durability": "normal"}], indirect=True)
async def test_a_thousand_jobs_start_in_the_order_in_which_they_were_enqueued(
    runner: Runner,
) -> None:
    jobs = 1_000
    started: list[int] = []

    @runner.task
    async def note(number: int) -> None:
        started.append(number)

    await runner.enqueue_many([note.job(number) for number in range(jobs // 2)])
    await asyncio.gather(*(note.enqueue(number) for number in range(jobs // 2, jobs)))
    await run_until_idle(runner)

    assert started == list(range(jobs))


@pytest.mark.parametrize("runner", [{"concurrency": 1}], indirect=True)
async def test_context_variables_of_one_job_do_not_reach_the_next(runner: Runner) -> None:
    @runner.task
    async def leak(text: str) -> str:
        before = VARIABLE.get()
        VARIABLE.set(text)
        await asyncio.sleep(0)
        return before

    handles = await runner.enqueue_many([leak.job("a"), leak.job("b")])

    assert await asyncio.gather(*handles) == ["untouched", "untouched"]


async def test_context_of_the_enqueuer_does_not_reach_the_job(runner: Runner) -> None:
    @runner.task
    async def read() -> str:
        return VARIABLE.get()

    VARIABLE.set("of a request")
    handle = await read.enqueue()

    assert await handle == "untouched"


async def test_sync_function_can_run_in_the_loop(runner: Runner) -> None:
    @runner.task(executor="coroutine")
    def where() -> bool:
        return asyncio.get_running_loop() is not None and current_job().attempt == 1

    assert await (await where.enqueue()) is True


async def test_timeout_ends_the_attempt_by_cancellation(runner: Runner) -> None:
    cancelled = asyncio.Event()

    @runner.task(timeout=0.01)
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    handle = await forever.enqueue()
    with pytest.raises(JobTimedOut):
        await handle

    assert cancelled.is_set()
    assert (await handle.job()).reason == "timeout"


async def test_timeout_of_one_call_replaces_that_of_the_task(runner: Runner) -> None:
    @runner.task(timeout=3600)
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(JobTimedOut, match=r"0\.01 s"):
        await (await forever.options(timeout=timedelta(milliseconds=10)).enqueue())


async def test_job_that_ends_in_time_is_not_touched_by_its_timeout(runner: Runner) -> None:
    @runner.task(timeout=0.01)
    async def quick() -> str:
        return "done"

    handle = await quick.enqueue()
    value = await handle
    await asyncio.sleep(0.02)

    assert (value, await handle) == ("done", "done")


async def test_timeout_is_retried_as_the_policy_says(runner: Runner, clock: ManualClock) -> None:
    runs: list[int] = []

    @runner.task(timeout=0.01, retry=Retry(attempts=2, base=1, jitter=False))
    async def slow_at_first() -> str:
        runs.append(current_job().attempt)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "done"

    handle = await slow_at_first.enqueue()
    await run_until_idle(runner)
    between = await handle.job()
    clock.advance(1)

    assert (between.status, between.reason) == ("retrying", "timeout")
    assert (await handle, runs) == ("done", [1, 2])


async def test_timeout_is_not_retried_when_the_task_says_so(runner: Runner) -> None:
    @runner.task(timeout=0.01, retry=Retry(attempts=5), retry_timeouts=False)
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(JobTimedOut):
        await (await forever.enqueue())


async def test_value_returned_after_the_interruption_counts(runner: Runner) -> None:
    @runner.task(timeout=0.01)
    async def saves_what_it_has() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "half"
        return "whole"

    assert await (await saves_what_it_has.enqueue()) == "half"


async def test_job_that_swallows_one_cancellation_is_told_again(runner: Runner) -> None:
    told: list[int] = []

    @runner.task(timeout=0.01)
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append(1)
                if len(told) == 3:
                    raise

    with pytest.raises(JobTimedOut):
        await (await stubborn.enqueue())
    assert len(told) == 3


async def test_job_that_swallows_every_cancellation_is_given_up_and_keeps_its_slot(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.services.dispatcher.FIRST_INTERRUPT_SECONDS", 0.001)
    released = asyncio.Event()

    @runner.task(timeout=0.01)
    async def deaf() -> str:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    handle = await deaf.enqueue()
    with pytest.raises(JobTimedOut):
        await handle
    before = runner.tally.late_values
    released.set()
    await run_until_idle(runner)

    assert (before, runner.tally.late_values) == (0, 1)
    assert (await handle.job()).state == "failed"


async def test_newer_run_of_a_job_is_untouched_by_the_end_of_one_that_was_given_up(
    runner: Runner, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.services.dispatcher.FIRST_INTERRUPT_SECONDS", 0.001)
    released, second = asyncio.Event(), asyncio.Event()

    @runner.task(retry=Retry(attempts=2, base=0, jitter=False))
    async def deaf_at_first() -> str:
        if current_job().attempt == 2:
            second.set()
            await asyncio.Event().wait()
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    handle = await deaf_at_first.options(timeout=0.01).enqueue()
    await second.wait()
    runner_job = await handle.job()
    released.set()
    await asyncio.sleep(0)
    answer = await handle.cancel()

    assert (runner_job.state, runner_job.attempt, answer) == ("running", 2, "requested")
    with pytest.raises((JobCancelled, JobTimedOut)):
        await handle
    await run_until_idle(runner)
    assert runner.tally.late_values == 1
    assert await runner.registry.check() == []


async def test_cancelled_error_of_the_jobs_own_making_is_a_failure(runner: Runner) -> None:
    @runner.task(retry=Retry(attempts=3))
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(JobFailed, match="CancelledError"):
        await (await cancels_itself.enqueue())


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_system_exit_in_a_job_fails_the_job_alone(runner: Runner, executor: str) -> None:
    @runner.task(executor=executor, retry=Retry(attempts=5))
    async def leaves() -> None:
        sys.exit(3)

    @runner.task(executor=executor)
    def leaves_too() -> None:
        raise SystemExit("bye")

    with pytest.raises(JobFailed, match="SystemExit: 3"):
        await (await leaves.enqueue())
    with pytest.raises(JobFailed, match="SystemExit: bye"):
        await (await leaves_too.enqueue())
    assert runner.healthy


async def test_both_pools_full_hide_no_job_enqueued_meanwhile(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    gate = asyncio.Event()
    path = tmp_path_factory.mktemp("full") / "jobs.db"
    async with Runner(path, concurrency=1, threads=1) as runner:
        loop = asyncio.get_running_loop()

        @runner.task
        async def hold() -> None:
            await gate.wait()

        @runner.task
        def hold_thread() -> None:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)

        first = [await hold.enqueue(), await hold_thread.enqueue()]
        await run_until_running(runner, 2)
        late = await hold.enqueue()
        gate.set()

        async with asyncio.timeout(5):
            await asyncio.gather(*(handle.result() for handle in [*first, late]))


async def run_until_running(runner: Runner, jobs: int) -> None:
    """Both jobs have been claimed once the registry says so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await runner.registry.count(state="running") < jobs:
            await asyncio.sleep(0)


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_stored_job_without_arguments_whose_task_now_needs_one_fails_at_once(
    runner: Runner, executor: str
) -> None:
    async def before() -> None: ...

    async def after(needed: int) -> None: ...

    old = Tasks().task(name="changed")(before).job()
    runner.task(name="changed", executor=executor, retry=Retry(attempts=3, base=0))(after)

    job = await (await runner.enqueue(old)).wait()

    assert (job.state, job.reason, job.attempt) == ("failed", "invalid_arguments", 1)
