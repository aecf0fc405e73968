"""Faults that the proofs of this folder have found, each as the smallest case that shows it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncjobs import (
    JobCancelled,
    ResultGone,
    Retry,
    RetryLater,
    Runner,
    Snooze,
    current_job,
)
from asyncjobs.errors import RunnerClosed
from asyncjobs.running.mailbox import Mailboxes
from asyncjobs.store.base import Cancel
from tests.oracles import deadline


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    """On the machine's clock: the manual one looks as if it were stepped every second."""
    async with Runner(tmp_path / "jobs.db", grace=1) as runner:
        yield runner


async def test_mailboxes_collected_as_garbage_do_not_disturb_who_walks_over_them() -> None:
    mailboxes = Mailboxes()
    held = [mailboxes.open(f"held {number}", local=True) for number in range(10_000)]
    thresholds = gc.get_threshold()
    # Room for what is made here; then the walk itself makes the collector run.
    gc.collect()
    gc.set_threshold(3_000)
    cycle: list[object] = []
    try:
        for number in range(100):
            cycle = [mailboxes.open(f"lost {number}", local=True)]
            cycle.append(cycle)  # only the garbage collector can free it
        del cycle
        mailboxes.fail_all(RunnerClosed("stopped"))
    finally:
        gc.set_threshold(*thresholds)
    assert mailboxes.find("held 0") is held[0]


async def test_a_retry_whose_caller_is_cancelled_still_gets_the_job_run(runner: Runner) -> None:
    ran = asyncio.Semaphore(0)

    @runner.task
    async def job() -> None:
        ran.release()

    handle = await job.enqueue()
    await handle
    await ran.acquire()
    async with deadline(10):
        call = asyncio.ensure_future(handle.retry())
        await asyncio.sleep(0)
        call.cancel()
        await ran.acquire()


async def test_a_cancel_whose_caller_is_cancelled_still_reaches_the_run(runner: Runner) -> None:
    begun = asyncio.Event()

    @runner.task
    async def job() -> None:
        begun.set()
        await asyncio.Event().wait()

    handle = await job.enqueue()
    await begun.wait()
    async with deadline(10):
        call = asyncio.ensure_future(handle.cancel())
        await asyncio.sleep(0)
        call.cancel()
        await expect(handle, JobCancelled)


async def test_a_delete_whose_caller_is_cancelled_still_wakes_who_waits(runner: Runner) -> None:
    @runner.task
    async def job() -> None: ...

    handle = await job.options(delay=1000).enqueue()
    async with deadline(10):
        waiting = asyncio.ensure_future(expect(handle, ResultGone))
        call = asyncio.ensure_future(runner.registry.delete(handle.id))
        await asyncio.sleep(0)
        call.cancel()
        await waiting


@pytest.mark.parametrize("signal", [Snooze(0), RetryLater(0), ValueError("as ever")])
async def test_a_cancel_that_meets_the_end_of_a_run_keeps_it_from_another(
    runner: Runner, signal: Exception
) -> None:
    runs = []

    @runner.task(retry=Retry(attempts=5, base=0))
    async def job() -> None:
        runs.append(current_job().attempt)
        if len(runs) == 1:
            # As if the request were written between the end of the code and that of the run.
            await runner.engine().store.write([Cancel([current_job().id], "enough")])
            raise signal

    async with deadline(10):
        handle = await job.enqueue()
        await expect(handle, JobCancelled)
    assert runs == [1]
    assert (await runner.registry.get(handle.id)).cancel_reason == "enough"
    assert await runner.registry.check() == []


async def test_what_a_zombie_claimed_after_its_rescue_is_not_stranded(tmp_path: Path) -> None:
    """The rescuer found nothing more, the zombie woke and claimed, then its file was taken away."""
    begun = asyncio.Event()
    async with deadline(20), Runner(tmp_path / "jobs.db", lease_seconds=0.3) as runner:

        @runner.task
        async def job() -> int:
            if current_job().fence[1] == 1:
                begun.set()
                await asyncio.Event().wait()
            return current_job().fence[1]

        handle = await job.enqueue()
        await begun.wait()
        (file,) = (tmp_path / "jobs.db-runners").glob("*.lock")
        file.unlink()
        assert await handle > 1
        assert runner.tally.lost_reports == 1
        assert await runner.registry.check() == []


async def expect(handle: object, error: type[Exception]) -> None:
    """Await ``handle``; it must raise ``error``."""
    try:
        await handle  # type: ignore[misc]
    except error:
        return
    raise AssertionError(f"not {error.__name__}")
