"""A coroutine job that holds the event loop is named, with the place; others are not."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from asyncjobs import Runner

from .support import until

LIMIT = 0.05


def hold(seconds: float) -> None:
    """Hold the event loop: what the watchdog is to find."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def named(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "held the event loop" in line]


async def test_job_that_holds_the_loop_is_named_with_the_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Runner(tmp_path / "jobs.db", loop_block_seconds=LIMIT) as runner:

        @runner.task(name="heavy")
        async def heavy() -> None:
            hold(4 * LIMIT)
            await asyncio.Event().wait()

        handle = await heavy.enqueue()
        await until(lambda: named(caplog), lambda: caplog.text)
        await handle.cancel()
        await handle.wait()
        (attempt,) = await runner.registry.attempts(handle.id)
        assert attempt.loop_blocks == 1
    (line,) = named(caplog)
    assert f"job {handle.id} of task 'heavy'" in line
    assert f"hold ({__file__}:" in line
    assert line.index("hold (") < line.index("heavy (")
    assert "_execute" not in line


async def test_task_that_a_job_has_started_is_told_as_that_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Runner(tmp_path / "jobs.db", loop_block_seconds=LIMIT) as runner:

        async def child() -> None:
            hold(4 * LIMIT)

        @runner.task(name="parent")
        async def parent() -> None:
            await asyncio.create_task(child())
            await asyncio.sleep(LIMIT)

        await (await parent.enqueue())
    # CPython 3.11 does not tell a task's context: there it goes unnamed.
    assert [("'parent'" in line) for line in named(caplog)] == (
        [True] if sys.version_info >= (3, 12) else []
    )


async def test_quick_jobs_and_the_applications_own_code_are_not_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Runner(tmp_path / "jobs.db", loop_block_seconds=LIMIT) as runner:
        release = asyncio.Event()

        @runner.task
        async def waits() -> None:
            await release.wait()

        handle = await waits.enqueue()
        hold(4 * LIMIT)
        release.set()
        await handle
    assert named(caplog) == []


async def test_watchdog_sleeps_while_nothing_runs_and_ends_with_the_runner(tmp_path: Path) -> None:
    async with Runner(tmp_path / "jobs.db", loop_block_seconds=0.01) as runner:

        @runner.task
        async def nothing() -> None:
            pass

        assert "asyncjobs-watchdog" not in {thread.name for thread in threading.enumerate()}
        await (await nothing.enqueue())
        (watchdog,) = [t for t in threading.enumerate() if t.name == "asyncjobs-watchdog"]
        executor = runner.engine().dispatcher._executors["coroutine"]
        dog = executor._watchdog  # type: ignore[attr-defined]
        await until(lambda: not dog.awake, lambda: "it has not fallen asleep")
    assert not watchdog.is_alive()
