"""Cancelling jobs: waiting, running, finished, unknown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import InvalidOption, JobCancelled, Runner, UnknownJob, current_job
from asyncjobs.testing import ManualClock, run_until_idle


async def test_waiting_job_is_cancelled_at_once_and_its_awaiter_hears(runner: Runner) -> None:
    ran: list[int] = []

    @runner.task
    async def job() -> None:
        ran.append(1)

    handle = await job.options(delay=60).enqueue()
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    answer = await handle.cancel("changed my mind")

    with pytest.raises(JobCancelled, match="changed my mind") as caught:
        await asyncio.wait_for(waiting, 5)
    row = await handle.job()
    assert (answer, row.state, row.reason) == ("cancelled", "cancelled", "user")
    assert row.cancel_reason == caught.value.reason == "changed my mind"
    assert ran == []


async def test_cancelled_job_does_not_run_when_its_time_comes(
    runner: Runner, clock: ManualClock
) -> None:
    ran: list[int] = []

    @runner.task
    async def job() -> None:
        ran.append(1)

    handle = await job.options(delay=60).enqueue()
    await runner.registry.cancel(handle.id)
    clock.advance(61)
    await run_until_idle(runner)

    assert ran == []
    assert await runner.registry.check() == []


async def test_running_coroutine_is_cancelled(runner: Runner) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    @runner.task
    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    handle = await job.enqueue()
    await started.wait()
    answer = await handle.cancel()

    with pytest.raises(JobCancelled) as caught:
        await handle
    assert (answer, caught.value.reason, cleaned.is_set()) == ("requested", "user", True)


@pytest.mark.parametrize("reason", ["", "not needed"])
async def test_reason_is_the_same_here_and_after_a_restart(
    tmp_path: Path, runner: Runner, reason: str
) -> None:
    async with Runner(tmp_path / "other.db") as first:
        started = asyncio.Event()

        @first.task(name="job")
        async def job() -> None:
            started.set()
            await asyncio.Event().wait()

        handle = await job.enqueue()
        await started.wait()
        await handle.cancel(reason)
        with pytest.raises(JobCancelled) as here:
            await handle
    async with Runner(tmp_path / "other.db") as second:
        with pytest.raises(JobCancelled) as there:
            await second.handle(handle.id)

    assert here.value.reason == there.value.reason == (reason or "user")
    assert str(here.value) == str(there.value)


async def test_coroutine_that_answers_its_cancellation_with_a_value_completes(
    runner: Runner,
) -> None:
    started = asyncio.Event()

    @runner.task
    async def job() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "what there was"
        return ""

    handle = await job.enqueue()
    await started.wait()
    await handle.cancel()

    assert await handle == "what there was"


async def test_cancelling_in_the_turn_in_which_a_job_starts_still_ends_it(runner: Runner) -> None:
    @runner.task
    async def job() -> None:
        await asyncio.Event().wait()

    for turns in range(12):
        enqueueing = asyncio.create_task(job.enqueue())
        for _ in range(turns):
            await asyncio.sleep(0)
        handle = await enqueueing
        await handle.cancel()
        async with asyncio.timeout(5):
            assert (await handle.wait()).state == "cancelled"


async def test_finished_job_cannot_be_cancelled(runner: Runner) -> None:
    @runner.task
    async def job() -> int:
        return 1

    handle = await job.enqueue()
    await handle

    assert await handle.cancel() == "finished"
    assert await handle == 1


async def test_job_between_two_attempts_is_cancelled_at_once(runner: Runner) -> None:
    @runner.task(retry=lambda attempt, error: 60)
    async def job() -> None:
        raise ValueError

    handle = await job.enqueue()
    await run_until_idle(runner)
    answer = await handle.cancel()

    assert (answer, (await handle.job()).state) == ("cancelled", "cancelled")


async def test_cancelled_job_can_be_retried_by_hand(runner: Runner) -> None:
    @runner.task
    async def job() -> int:
        return 1

    handle = await job.options(delay=60).enqueue()
    await handle.cancel("no")
    await handle.retry()

    assert await handle == 1
    assert (await handle.job()).cancel_reason is None


async def test_cancelling_twice_is_harmless(runner: Runner) -> None:
    started = asyncio.Event()

    @runner.task
    async def job() -> None:
        started.set()
        await asyncio.Event().wait()

    handle = await job.enqueue()
    await started.wait()
    answers = await asyncio.gather(handle.cancel("first"), handle.cancel("second"))

    with pytest.raises(JobCancelled) as caught:
        await handle
    assert list(answers) == ["requested", "requested"]
    assert caught.value.reason == "first" == (await handle.job()).cancel_reason


async def test_job_may_cancel_itself_by_its_id(runner: Runner) -> None:
    @runner.task
    async def job() -> None:
        await runner.registry.cancel(current_job().id, "by itself")
        await asyncio.Event().wait()

    with pytest.raises(JobCancelled, match="by itself"):
        await (await job.enqueue())


@pytest.mark.parametrize("reason", [5, "a\x00", "x" * 1025, "\ud800"])
async def test_wrong_reason_is_refused(runner: Runner, reason: Any) -> None:
    with pytest.raises(InvalidOption, match="reason"):
        await runner.registry.cancel("any", reason)


async def test_unknown_job_cannot_be_cancelled(runner: Runner) -> None:
    with pytest.raises(UnknownJob, match="no-such-job"):
        await runner.registry.cancel("no-such-job")
