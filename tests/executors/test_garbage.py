"""What finished runs leave behind: nothing that only the garbage collector could find."""

import gc
from collections.abc import Iterator

import pytest

from asyncjobs import JobFailed, Runner
from asyncjobs.running.context import Run

JOBS = 20


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def runs_left() -> int:
    return sum(isinstance(thing, Run) for thing in gc.get_objects())


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_completed_runs_are_freed_without_the_collector(
    runner: Runner, no_collector: None, executor: str
) -> None:
    @runner.task(executor=executor)
    async def no_op() -> None:
        pass

    for handle in await runner.enqueue_many(no_op.job() for _ in range(JOBS)):
        await handle

    del handle
    assert runs_left() == 0


async def test_failed_runs_are_freed_without_the_collector(
    runner: Runner, no_collector: None
) -> None:
    @runner.task
    async def fail() -> None:
        raise ValueError("no")

    for handle in await runner.enqueue_many(fail.job() for _ in range(JOBS)):
        with pytest.raises(JobFailed):
            await handle

    del handle
    assert runs_left() == 0


async def test_runs_that_will_be_retried_are_freed_without_the_collector(
    runner: Runner, no_collector: None
) -> None:
    @runner.task(retry=lambda attempt, error: 0 if attempt < 3 else None)
    async def fail_twice() -> None:
        raise ValueError("no")

    handle = await fail_twice.enqueue()
    with pytest.raises(JobFailed):
        await handle

    del handle
    assert runs_left() == 0
