"""What finished runs leave behind: nothing that only the garbage collector could find."""

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest

from asyncjobs import JobCancelled, JobFailed, Runner
from asyncjobs.running.context import Run

JOBS = 20


def runs() -> int:
    return sum(isinstance(thing, Run) for thing in gc.get_objects())


async def only(expected: int) -> None:
    """Let threads come to where they wait for their next job."""
    deadline = time.monotonic() + 5
    while runs() != expected and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
    assert runs() == expected


@pytest.fixture
def runs_before() -> Iterator[int]:
    """How many runs there are, other tests' included; without a collector from here on."""
    gc.collect()
    gc.disable()
    yield runs()
    gc.enable()


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_completed_runs_are_freed_without_the_collector(
    runner: Runner, runs_before: int, executor: str
) -> None:
    @runner.task(executor=executor)
    async def no_op() -> None:
        pass

    for handle in await runner.enqueue_many(no_op.job() for _ in range(JOBS)):
        await handle

    del handle
    await only(runs_before)


async def test_failed_runs_are_freed_without_the_collector(
    runner: Runner, runs_before: int
) -> None:
    @runner.task
    async def fail() -> None:
        raise ValueError("no")

    for handle in await runner.enqueue_many(fail.job() for _ in range(JOBS)):
        with pytest.raises(JobFailed):
            await handle

    del handle
    await only(runs_before)


async def test_runs_that_will_be_retried_are_freed_without_the_collector(
    runner: Runner, runs_before: int
) -> None:
    @runner.task(retry=lambda attempt, error: 0 if attempt < 3 else None)
    async def fail_twice() -> None:
        raise ValueError("no")

    handle = await fail_twice.enqueue()
    with pytest.raises(JobFailed):
        await handle

    del handle
    await only(runs_before)


async def test_cancelled_runs_are_freed_before_their_time_is_up(
    runner: Runner, runs_before: int
) -> None:
    started = asyncio.Event()

    @runner.task(timeout=3600)
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    for _ in range(JOBS):
        started.clear()
        handle = await endless.enqueue()
        await started.wait()
        await handle.cancel()
        with pytest.raises(JobCancelled):
            await handle

    del handle
    await only(runs_before)
