"""Leaving the block: what is drained, what is released, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncjobs import (
    InvalidOption,
    Job,
    Runner,
    RunnerAlreadyStarted,
    RunnerClosed,
    RunnerNotStarted,
    Tasks,
)

from .support import census, nothing_left, until


async def jobs_after(path: Path) -> list[Job]:
    """What the registry holds once a next runner, which takes no job, has opened the file."""
    async with Runner(path, queues=["none"]) as runner:
        assert await runner.registry.check() == []
        return [job async for job in runner.registry.iterate()]


def runner_threads() -> list[str]:
    """Threads of the library that run now, but for the one that waits for the process's end."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("asyncjobs") and name != "asyncjobs-exit"]


async def test_running_jobs_get_their_grace(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Runner(tmp_path / "jobs.db", grace=5) as runner:

        @runner.task
        async def gated() -> str:
            await gate.wait()
            return "done"

        handle = await gated.enqueue()
        asyncio.get_running_loop().call_later(0.02, gate.set)

    assert await handle == "done"


async def test_stop_is_quick_when_nothing_runs(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db", grace=30)
    await runner.start()

    async with asyncio.timeout(10):
        await runner.stop()


async def test_job_enqueued_by_a_job_during_the_grace_is_stored(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Runner(tmp_path / "jobs.db", grace=5) as runner:

        @runner.task
        async def child() -> None: ...

        @runner.task
        async def parent() -> str:
            await gate.wait()
            return (await child.enqueue()).id

        handle = await parent.enqueue()
        asyncio.get_running_loop().call_later(0.02, gate.set)

    child_id = await handle
    states = {job.id: (job.state, job.attempt) for job in await jobs_after(tmp_path / "jobs.db")}
    assert states[child_id] == ("queued", 0)


async def test_jobs_past_their_grace_are_released_without_a_charge(tmp_path: Path) -> None:
    cancelled: list[str] = []
    async with Runner(tmp_path / "jobs.db", grace=0.01) as runner:

        @runner.task
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("told")
                raise

        @runner.task
        async def angry() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise RuntimeError("do not disturb") from None

        await forever.enqueue()
        await angry.enqueue()
        await until(lambda: runner.tally.started == 2)
        await asyncio.sleep(0)

    jobs = await jobs_after(tmp_path / "jobs.db")
    assert cancelled == ["told"]
    assert [(job.state, job.attempt, job.crashes, job.reason) for job in jobs] == [
        ("queued", 0, 0, "shutdown")
    ] * 2


async def test_job_whose_claim_is_under_way_at_the_stop_is_released(tmp_path: Path) -> None:
    before = census(tmp_path)
    ran: list[int] = []
    runner = Runner(tmp_path / "jobs.db", grace=0)

    @runner.task
    async def forever() -> None:
        ran.append(1)
        await asyncio.Event().wait()

    for turns in range(12):
        await runner.start()
        calls = asyncio.create_task(forever.enqueue())
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.stop()
        await asyncio.wait([calls])

    jobs = await jobs_after(tmp_path / "jobs.db")
    assert all((job.state, job.attempt, job.crashes) == ("queued", 0, 0) for job in jobs)
    del calls
    await nothing_left(before, tmp_path)


async def test_delayed_jobs_keep_no_timer_and_wait_for_the_next_start(tmp_path: Path) -> None:
    before = census(tmp_path)
    async with Runner(tmp_path / "jobs.db") as runner:

        @runner.task
        async def job() -> None: ...

        await job.options(delay=3600).enqueue()

    await nothing_left(before, tmp_path)
    assert [job.status for job in await jobs_after(tmp_path / "jobs.db")] == ["scheduled"]


async def test_awaiter_outside_hears_that_the_runner_stopped(tmp_path: Path) -> None:
    async with Runner(tmp_path / "jobs.db", grace=0) as runner:

        @runner.task
        async def forever() -> None:
            await asyncio.Event().wait()

        handle = await forever.enqueue()
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)

    with pytest.raises(RunnerClosed):
        await waiting


async def test_children_and_parents_that_wait_for_them_are_released(tmp_path: Path) -> None:
    before = census(tmp_path)
    async with Runner(tmp_path / "jobs.db", grace=0.01, concurrency=2) as runner:

        @runner.task
        async def child() -> None:
            await asyncio.Event().wait()

        @runner.task
        async def parent() -> None:
            await asyncio.gather(*[(await child.enqueue()).result() for _ in range(5)])

        await parent.enqueue()
        await parent.enqueue()
        await until(lambda: runner.tally.started >= 4)

    await nothing_left(before, tmp_path)
    jobs = await jobs_after(tmp_path / "jobs.db")
    assert {(job.state, job.attempt, job.crashes) for job in jobs} == {("queued", 0, 0)}


async def test_everything_is_gone_after_a_busy_stop(tmp_path: Path) -> None:
    before = census(tmp_path)
    async with Runner(tmp_path / "jobs.db", grace=0.02, threads=4) as runner:

        @runner.task(timeout=0.05)
        async def slow() -> None:
            await asyncio.Event().wait()

        @runner.task
        def thread() -> None:
            time.sleep(0.01)

        @runner.task
        async def quick() -> None: ...

        await runner.enqueue_many([slow.job() for _ in range(20)])
        await runner.enqueue_many([thread.job() for _ in range(20)])
        await runner.enqueue_many([quick.job() for _ in range(200)])
        await quick.options(delay=60).enqueue()

    await nothing_left(before, tmp_path)
    assert {job.state for job in await jobs_after(tmp_path / "jobs.db")} <= {
        "queued",
        "completed",
        "failed",
    }


@pytest.mark.timed
async def test_job_that_swallows_cancellation_is_named_and_cannot_hang_the_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = asyncio.Event()
    runner = Runner(tmp_path / "jobs.db", grace=0.05)

    @runner.task(name="deaf")
    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    await runner.start()
    handle = await deaf.enqueue()
    await until(lambda: runner.tally.started == 1)
    begun = time.monotonic()
    await runner.stop()
    took = time.monotonic() - begun
    release.set()

    assert took < 0.05 + 2
    named = [r.getMessage() for r in caplog.records if handle.id in r.getMessage()]
    assert any("'deaf'" in message and "did not stop" in message for message in named)


@pytest.mark.timed
async def test_blocking_thread_cannot_hang_the_stop_and_is_not_started_twice(
    tmp_path: Path,
) -> None:
    release = threading.Event()
    before = census(tmp_path)
    runner = Runner(tmp_path / "jobs.db", grace=0.05)

    @runner.task(name="blocks")
    def blocks() -> None:
        release.wait(10)

    await runner.start()
    await blocks.enqueue()
    await until(lambda: runner.tally.started == 1)
    begun = time.monotonic()
    await runner.stop()
    took = time.monotonic() - begun
    (meanwhile,) = await jobs_after(tmp_path / "jobs.db")
    release.set()

    assert took < 0.05 + 2
    assert (meanwhile.state, meanwhile.claim) == ("running", 1)
    await until(lambda: not runner_threads())
    (job,) = await jobs_after(tmp_path / "jobs.db")
    assert (job.state, job.reason, job.attempt, job.crashes) == ("queued", "shutdown", 0, 0)
    await nothing_left(before, tmp_path)


async def test_thread_whose_outcome_was_decided_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    release = threading.Event()
    runner = Runner(tmp_path / "jobs.db", grace=5)

    @runner.task(timeout=0.01)
    def blocks() -> None:
        release.wait(10)

    await runner.start()
    handle = await blocks.enqueue()
    await handle.wait()
    begun = time.monotonic()
    await runner.stop()
    took = time.monotonic() - begun
    release.set()

    assert took < 4, "it has waited for the thread"
    assert list((tmp_path / "jobs.db-runners").iterdir()) == []


async def test_exception_in_the_block_goes_on_after_the_stop(tmp_path: Path) -> None:
    before = census(tmp_path)

    with pytest.raises(ZeroDivisionError):
        async with Runner(tmp_path / "jobs.db"):
            raise ZeroDivisionError

    await nothing_left(before, tmp_path)


async def embed(path: Path, gate: asyncio.Event, began: asyncio.Event) -> None:
    """An application that waits inside the block for ever, with a job that waits for the gate."""
    async with Runner(path, grace=2) as runner:

        @runner.task
        async def gated() -> None:
            await gate.wait()

        await gated.enqueue()
        await until(lambda: runner.tally.started == 1)
        began.set()
        await asyncio.Event().wait()


async def cancel_once(app: asyncio.Task[None]) -> None:
    app.cancel()


async def cancel_twice(app: asyncio.Task[None]) -> None:
    app.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    app.cancel()


@pytest.mark.parametrize("cancel", [cancel_once, cancel_twice])
async def test_cancelled_block_still_drains(
    tmp_path: Path, cancel: Callable[[asyncio.Task[None]], Awaitable[None]]
) -> None:
    before = census(tmp_path)
    gate, began = asyncio.Event(), asyncio.Event()
    app = asyncio.create_task(embed(tmp_path / "jobs.db", gate, began))
    await began.wait()

    await cancel(app)
    asyncio.get_running_loop().call_later(0.02, gate.set)
    with pytest.raises(asyncio.CancelledError):
        await app

    (job,) = await jobs_after(tmp_path / "jobs.db")
    assert job.state == "completed"
    del app
    await nothing_left(before, tmp_path)


async def test_block_in_a_cancelled_anyio_scope_still_drains(tmp_path: Path) -> None:
    before = census(tmp_path)
    gate, began = asyncio.Event(), asyncio.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(embed, tmp_path / "jobs.db", gate, began)
        await began.wait()
        asyncio.get_running_loop().call_later(0.02, gate.set)
        group.cancel_scope.cancel()

    (job,) = await jobs_after(tmp_path / "jobs.db")
    assert job.state == "completed"
    await nothing_left(before, tmp_path)


async def test_cancelled_start_leaves_nothing_behind(tmp_path: Path) -> None:
    before = census(tmp_path)

    for turns in range(15):
        runner = Runner(tmp_path / "jobs.db")
        starting = asyncio.create_task(runner.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await runner.stop()
        with pytest.raises(RunnerNotStarted):
            runner.handle("any")

    del starting
    await nothing_left(before, tmp_path)


async def test_start_and_stop_may_be_called_in_different_tasks(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    await asyncio.create_task(runner.start())
    await asyncio.create_task(runner.stop())


async def test_stop_of_a_runner_that_is_not_started_is_nothing(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    await runner.stop()
    async with runner:
        pass
    await runner.stop()


async def test_two_stops_at_once_both_wait_for_the_end(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    await runner.start()

    await asyncio.gather(runner.stop(), runner.stop())

    assert not runner.healthy


async def test_second_start_of_a_running_runner_is_refused(tmp_path: Path) -> None:
    async with Runner(tmp_path / "jobs.db") as runner:
        with pytest.raises(RunnerAlreadyStarted, match="started already"):
            await runner.start()

        assert runner.healthy


async def test_runner_can_be_started_again_after_its_stop(tmp_path: Path) -> None:
    before = census(tmp_path)
    runner = Runner(tmp_path / "jobs.db")

    @runner.task
    async def echo(number: int) -> int:
        return number

    results = []
    for number in range(5):
        async with runner:
            results.append(await (await echo.enqueue(number)))

    assert results == list(range(5))
    await nothing_left(before, tmp_path)


def test_runner_can_be_used_in_one_event_loop_after_another(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.task
    async def echo(number: int) -> int:
        return number

    async def once(number: int) -> int:
        async with runner:
            return await (await echo.enqueue(number))

    assert [asyncio.run(once(number)) for number in range(3)] == [0, 1, 2]


async def test_making_a_runner_opens_nothing(tmp_path: Path) -> None:
    Runner(tmp_path / "jobs.db")

    assert list(tmp_path.iterdir()) == []


async def test_runner_says_whether_it_is_healthy(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    before = runner.healthy
    async with runner:
        inside = runner.healthy

    assert (before, inside, runner.healthy) == (False, True, False)


async def test_tasks_of_a_library_need_no_runner_to_be_made(tmp_path: Path) -> None:
    library = Tasks()

    @library.task
    async def job() -> int:
        return 1

    async with Runner(tmp_path / "jobs.db") as runner:
        runner.include(library)
        assert await (await job.enqueue()) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 100_001}, "concurrency"),
        ({"concurrency": "5"}, "concurrency"),
        ({"threads": 0}, "threads"),
        ({"queues": []}, "queues"),
        ({"queues": "mail"}, "queues"),
        ({"queues": [5]}, "queues"),
        ({"queues": 5}, "queues"),
        ({"durability": "fast"}, "durability"),
        ({"durability": None}, "durability"),
        ({"shared": "no"}, "shared"),
        ({"grace": -1}, "grace"),
        ({"grace": None}, "grace"),
        ({"keep_completed": -1}, "keep_completed"),
        ({"keep_failed": "7"}, "keep_failed"),
        ({"keep_cancelled": float("nan")}, "keep_cancelled"),
        ({"keep_journal": -1}, "keep_journal"),
        ({"lease_seconds": 0}, "lease_seconds"),
        ({"clock": 5}, "clock"),
        ({"random": 5}, "random"),
        ({"worker": 4}, "Runner has no option 'worker'; it has concurrency, threads,"),
    ],
)
def test_wrong_option_of_a_runner_is_refused_when_it_is_given(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        Runner(tmp_path / "jobs.db", **options)


@pytest.mark.parametrize("url", [None, 5, b"jobs.db", "", "sqlite://", "mysql://host/db", "a\x00b"])
def test_wrong_place_of_a_runner_is_refused_when_it_is_given(url: Any) -> None:
    with pytest.raises(InvalidOption, match="database"):
        Runner(url)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("file:jobs.db?mode=ro", "file: URI"),
        ("sqlite:///file:jobs.db", "file: URI"),
        ("somedir/", "is a directory; give the path of a file in it"),
        ("sqlite:///somedir/", "is a directory; give the path of a file in it"),
    ],
)
def test_place_that_would_make_an_odd_file_is_refused(url: str, what: str) -> None:
    with pytest.raises(InvalidOption, match=f"{re.escape(url)}.*{what}"):
        Runner(url)


def test_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InvalidOption) as caught:
        Runner("mysql://me:hunter2@host/db")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "sqlite:///"])
async def test_place_may_be_a_path_or_a_url(tmp_path: Path, prefix: str) -> None:
    async with Runner(f"{prefix}{tmp_path}/jobs.db"):
        pass

    assert (tmp_path / "jobs.db").exists()


async def test_relative_path_resolves_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner("jobs.db")
    monkeypatch.chdir(tmp_path)

    async with runner:
        pass

    assert (tmp_path / "jobs.db").exists()


async def test_runner_in_memory_runs_jobs_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Runner(":memory:") as runner:

        @runner.task
        async def echo(number: int) -> int:
            return number

        assert await (await echo.enqueue(5)) == 5
    assert list(tmp_path.iterdir()) == []
