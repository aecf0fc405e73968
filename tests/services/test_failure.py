"""When the runner's own task dies: everybody hears of it, nothing hangs, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    ForeignDatabase,
    Runner,
    RunnerFailed,
    RunnerNotStarted,
    StoreError,
    StoreUnavailable,
)
from asyncjobs.testing import ManualClock, run_until_idle
from tests.runner.support import PATIENCE_SECONDS, census, nothing_left, until


class Broken(Exception):
    """What the clock raises once it is broken."""


class BreakableClock(ManualClock):
    """A clock that can be made to raise, as a public seam into the runner's own task."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        """It can no longer say how long to wait: the claim's landing ends the runner."""
        self.stopped = False
        """It can no longer tell the time: nothing can be written."""

    def now(self) -> int:
        if self.stopped:
            raise Broken("no time")
        return super().now()

    def seconds_until(self, instant: int) -> float | None:
        if self.broken:
            raise Broken("no duration")
        return super().seconds_until(instant)


async def die(runner: Runner, clock: BreakableClock) -> None:
    """Break the clock and let a claim that leaves a delayed job meet it."""
    await runner.task(name="delayed")(sleepless).options(delay=60).enqueue()
    clock.broken = True
    for callback in list(clock._callbacks):
        callback()
    await until(lambda: not runner.healthy)


@pytest.fixture
def breakable() -> BreakableClock:
    return BreakableClock()


async def test_leaving_the_block_raises_what_the_runner_died_of(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    before = census(tmp_path)
    runner = Runner(tmp_path / "jobs.db", clock=breakable)

    @runner.task
    async def job() -> None: ...

    with pytest.raises(RunnerFailed, match="Broken") as caught:
        async with runner:
            await die(runner, breakable)

    assert isinstance(caught.value.__cause__, Broken)
    await nothing_left(before, tmp_path)


async def test_every_call_hears_that_the_runner_died(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=breakable)

    @runner.task
    async def job() -> None: ...

    await runner.start()
    new = job.job()
    handle = await job.options(delay=60).enqueue()
    waiting = [asyncio.create_task(handle.result()), asyncio.create_task(handle.wait())]
    await asyncio.sleep(0)
    await die(runner, breakable)

    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            *waiting,
            handle.result(),
            handle.job(),
            handle.cancel(),
            handle.retry(),
            runner.enqueue(new),
            runner.enqueue_many([new]),
            runner.registry.count(),
            runner.registry.list(),
            runner.registry.delete(handle.id),
            run_until_idle(runner),
            return_exceptions=True,
        )

    assert [type(answer) for answer in answers] == [RunnerFailed] * len(answers)
    with pytest.raises(RunnerFailed):
        runner.handle(handle.id)
    assert not runner.healthy
    with pytest.raises(RunnerFailed):
        await runner.stop()


async def test_calls_in_the_writers_hands_are_answered_when_it_dies(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=breakable)

    @runner.task
    async def job() -> None: ...

    await runner.start()
    news = [job.options(delay=60).job() for _ in range(20)]
    calls = [asyncio.create_task(runner.enqueue(new)) for new in news]
    await asyncio.sleep(0)
    breakable.broken = True

    async with asyncio.timeout(5):
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(answer, BaseException) or answer.id for answer in answers)
    with pytest.raises(RunnerFailed):
        await runner.stop()


async def test_running_jobs_are_stopped_when_the_runner_dies(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    before = census(tmp_path)
    runner = Runner(tmp_path / "jobs.db", clock=breakable)
    started, cleaned = asyncio.Event(), asyncio.Event()

    @runner.task(name="job")
    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    with pytest.raises(RunnerFailed):
        async with runner:
            await job.enqueue()
            await started.wait()
            await die(runner, breakable)

    assert cleaned.is_set()
    breakable.broken = False
    async with Runner(tmp_path / "jobs.db", queues=["none"]) as later:
        (row,) = (await later.registry.list(task="job")).jobs
        assert (row.state, row.attempt) == ("queued", 0)
    await nothing_left(before, tmp_path)


async def test_runner_can_be_started_again_after_it_died(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=breakable)

    @runner.task
    async def job() -> int:
        return 1

    with pytest.raises(RunnerFailed):
        async with runner:
            await die(runner, breakable)
    breakable.broken = False

    async with runner:
        assert await (await job.enqueue()) == 1


async def test_exception_in_the_block_is_kept_as_the_context_of_the_failure(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=breakable)
    runner.task(name="job")(sleepless)

    with pytest.raises(RunnerFailed) as caught:
        async with runner:
            await die(runner, breakable)
            raise ZeroDivisionError

    assert isinstance(caught.value.__context__, (Broken, ZeroDivisionError))


async def sleepless() -> None: ...


async def test_whole_program_ends_with_the_failure(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=breakable)
    runner.task(name="job")(sleepless)
    program = asyncio.create_task(runner.run())
    await until(lambda: runner.healthy)

    await die(runner, breakable)

    with pytest.raises(RunnerFailed):
        await asyncio.wait_for(program, 5)


async def test_clock_that_is_broken_at_the_start_fails_the_start(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    before = census(tmp_path)
    breakable.stopped = True
    runner = Runner(tmp_path / "jobs.db", clock=breakable)

    with pytest.raises((RunnerFailed, StoreError)):
        await runner.start()

    with pytest.raises(RunnerNotStarted):
        runner.handle("any")
    await nothing_left(before, tmp_path)


def as_directory(path: Path) -> None:
    path.mkdir()


def as_text(path: Path) -> None:
    path.write_text("This is no database, but it is long enough to look like one. " * 20)


def as_foreign(path: Path) -> None:
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.close()


def with_a_file_for_the_runners(path: Path) -> None:
    Path(f"{path}-runners").write_text("in the way")


def with_a_directory_for_the_turn(path: Path) -> None:
    Path(f"{path}-turn").mkdir()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (as_directory, StoreUnavailable),
        (as_text, StoreUnavailable),
        (as_foreign, ForeignDatabase),
        (with_a_file_for_the_runners, StoreUnavailable),
        (with_a_directory_for_the_turn, StoreUnavailable),
    ],
)
async def test_place_that_cannot_be_used_fails_the_start_and_is_left_as_it_was(
    tmp_path: Path, spoil: Callable[[Path], None], error: type[Exception]
) -> None:
    before = census(tmp_path)
    path = tmp_path / "jobs.db"
    spoil(path)
    content = path.read_bytes() if path.is_file() else None
    runner = Runner(path)

    for _ in range(2):
        with pytest.raises(error, match=r"jobs\.db"):
            await runner.start()

    if content is not None:
        assert path.read_bytes() == content
    await nothing_left(before, tmp_path)


async def test_missing_directory_fails_the_start_naming_it(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await Runner(tmp_path / "nowhere" / "jobs.db").start()


async def test_foreign_database_can_be_shared_when_asked_for(tmp_path: Path) -> None:
    as_foreign(tmp_path / "jobs.db")

    async with Runner(tmp_path / "jobs.db", shared=True) as runner:

        @runner.task
        async def job() -> int:
            return 1

        assert await (await job.enqueue()) == 1


async def test_error_of_the_start_is_no_group(tmp_path: Path) -> None:
    errors: list[Any] = []
    try:
        await Runner(tmp_path).start()
    except Exception as error:
        errors.append(error)

    assert [isinstance(error, ExceptionGroup) for error in errors] == [False]


async def test_running_jobs_are_stopped_when_the_runner_dies_during_its_stop(
    tmp_path: Path, breakable: BreakableClock
) -> None:
    for turns in range(4):
        before = census(tmp_path)
        breakable.broken = False
        runner = Runner(tmp_path / f"{turns}.db", clock=breakable, grace=0.1)
        cleaned = asyncio.Event()
        await runner.start()
        await runner.task(name="delayed")(sleepless).options(delay=60).enqueue()

        @runner.task(name="job")
        async def job(cleaned: asyncio.Event = cleaned) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.set()

        await job.enqueue()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while runner.tally.started == 0:
                await asyncio.sleep(0)
        breakable.broken = True
        runner.engine().dispatcher.wake()
        for _ in range(turns):
            await asyncio.sleep(0)

        with contextlib.suppress(RunnerFailed):  # or the stop was there first
            await asyncio.wait_for(runner.stop(), 5)

        assert cleaned.is_set()
        # What it could not write stays for whoever comes next, with its file, unlocked.
        breakable.broken = False
        async with Runner(tmp_path / f"{turns}.db", clock=breakable) as successor:
            assert await successor.registry.count(state="running") == 0
        await nothing_left(before, tmp_path)
