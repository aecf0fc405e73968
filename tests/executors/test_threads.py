"""Thread jobs: the pool's bound, timeouts that do not interrupt, and being asked to stop."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from pathlib import Path

import pytest

from asyncjobs import JobCancelled, JobFailed, JobTimedOut, Retry, Runner, current_job
from asyncjobs.testing import run_until_idle

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="untouched")


@pytest.mark.parametrize("runner", [{"threads": 3}], indirect=True)
async def test_no_more_threads_run_at_once_than_the_runner_has(runner: Runner) -> None:
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []
    all_there = threading.Barrier(3, timeout=10)

    @runner.task
    def count(number: int) -> None:
        with lock:
            running.append(number)
            most.append(len(running))
        if number < 3:
            all_there.wait()
        with lock:
            running.remove(number)

    await runner.enqueue_many([count.job(number) for number in range(60)])
    await run_until_idle(runner)

    assert max(most) == 3
    assert await runner.registry.count(state="completed") == 60


async def test_job_runs_off_the_event_loops_thread_with_its_own_context(runner: Runner) -> None:
    @runner.task
    def inside(text: str) -> tuple[int, str, int]:
        before = VARIABLE.get()
        VARIABLE.set(text)
        return threading.get_ident(), before, current_job().attempt

    handles = [await inside.enqueue("a"), await inside.enqueue("b")]
    seen = await asyncio.gather(*(handle.result() for handle in handles))

    assert all(thread != threading.get_ident() for thread, _, _ in seen)
    assert [before for _, before, _ in seen] == ["untouched", "untouched"]


async def test_async_function_gets_a_loop_of_its_own_in_a_thread(runner: Runner) -> None:
    here = asyncio.get_running_loop()

    @runner.task(executor="thread")
    async def elsewhere() -> tuple[bool, str]:
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is here, current_job().task

    same, name = await (await elsewhere.enqueue())

    assert not same
    assert name.endswith("elsewhere")


async def test_job_in_a_loop_of_its_own_cannot_use_the_runner_and_hears_it(runner: Runner) -> None:
    @runner.task
    async def child() -> None: ...

    @runner.task(executor="thread")
    async def parent() -> None:
        await child.enqueue()

    with pytest.raises(JobFailed, match="event loop"):
        await asyncio.wait_for((await parent.enqueue()).result(), 5)
    assert await runner.registry.count(task=child.name) == 0


async def test_timeout_decides_the_outcome_while_the_thread_runs_on(runner: Runner) -> None:
    release = threading.Event()

    @runner.task(timeout=0.01, retry=Retry(attempts=5))
    def blocks() -> str:
        release.wait(10)
        return "late"

    handle = await blocks.enqueue()
    with pytest.raises(JobTimedOut) as caught:
        await handle
    late_before = runner.tally.late_values
    release.set()
    await run_until_idle(runner)

    job = await handle.job()
    assert (caught.value.reason, job.state, job.attempt) == ("timeout", "failed", 1)
    assert (late_before, runner.tally.late_values) == (0, 1)
    assert job.result is None
    assert len(await runner.registry.attempts(handle.id)) == 1


@pytest.mark.parametrize("runner", [{"threads": 1}], indirect=True)
async def test_timed_out_thread_keeps_its_slot_until_it_returns(runner: Runner) -> None:
    release, started = threading.Event(), []

    @runner.task(timeout=0.01)
    def blocks() -> None:
        release.wait(10)

    @runner.task
    def after() -> bool:
        started.append(1)
        return release.is_set()

    with pytest.raises(JobTimedOut):
        await (await blocks.enqueue())

    @runner.task
    async def claimed_later() -> None: ...

    handle = await after.enqueue()
    await (await claimed_later.enqueue())
    waiting = list(started)
    release.set()

    assert waiting == []
    assert await handle is True


@pytest.mark.parametrize("runner", [{"threads": 1}], indirect=True)
async def test_late_end_of_a_timed_out_thread_lets_the_runner_become_idle(runner: Runner) -> None:
    release = threading.Event()

    @runner.task(timeout=0.01)
    def blocks() -> None:
        release.wait(10)

    with pytest.raises(JobTimedOut):
        await (await blocks.enqueue())
    idle = asyncio.create_task(run_until_idle(runner))
    await asyncio.sleep(0)
    early = idle.done()
    release.set()

    await asyncio.wait_for(idle, 5)
    assert not early


async def test_timeout_of_a_thread_is_retried_when_the_task_asks_for_it(runner: Runner) -> None:
    release = threading.Event()

    @runner.task(timeout=0.02, retry=Retry(attempts=2, base=0, jitter=False), retry_timeouts=True)
    def blocks_at_first() -> str:
        if current_job().attempt == 1:
            release.wait(10)
            return "late"
        return "second"

    handle = await blocks_at_first.enqueue()
    value = await handle
    release.set()
    await run_until_idle(runner)

    assert (value, await handle, runner.tally.late_values) == ("second", "second", 1)


async def test_cancelled_thread_runs_on_until_it_looks(runner: Runner) -> None:
    started, look = threading.Event(), threading.Event()

    @runner.task
    def looks() -> None:
        started.set()
        look.wait(10)
        assert current_job().stop_requested
        current_job().check_stop()

    handle = await looks.enqueue()
    await asyncio.to_thread(started.wait, 10)
    answer = await handle.cancel("enough")
    meanwhile = await handle.job()
    look.set()

    with pytest.raises(JobCancelled, match="enough") as caught:
        await handle
    assert (answer, meanwhile.state, meanwhile.cancel_reason) == ("requested", "running", "enough")
    assert caught.value.reason == "enough"


async def test_cancelled_thread_that_never_looks_keeps_its_result(runner: Runner) -> None:
    started, release = threading.Event(), threading.Event()

    @runner.task
    def ignores() -> str:
        started.set()
        release.wait(10)
        return "done"

    handle = await ignores.enqueue()
    await asyncio.to_thread(started.wait, 10)
    await handle.cancel()
    release.set()

    assert await handle == "done"


async def test_check_stop_lets_a_job_go_on_that_nobody_stopped(runner: Runner) -> None:
    @runner.task
    def looks() -> bool:
        current_job().check_stop()
        return current_job().stop_requested

    assert await (await looks.enqueue()) is False


async def test_thread_sees_the_stop_of_the_runner_and_is_released(tmp_path: Path) -> None:
    started = threading.Event()
    async with Runner(tmp_path / "jobs.db", grace=0) as runner:

        @runner.task
        def looks() -> None:
            started.set()
            pause = threading.Event()
            while not pause.wait(0.001):
                current_job().check_stop()

        handle = await looks.enqueue()
        await asyncio.to_thread(started.wait, 10)

    async with Runner(tmp_path / "jobs.db") as runner:
        job = await runner.registry.get(handle.id)
        check = await runner.registry.check()
    # Nobody here knows the task, so it may have been set aside.
    assert (job.state in ("queued", "blocked"), job.attempt, job.crashes) == (True, 0, 0)
    assert check == []
