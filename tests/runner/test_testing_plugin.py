"""The pytest plugin: its fixtures, its clock, and its use from an application's own tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import InvalidOption, Retry, Runner, RunnerClosed, RunnerNotStarted, Snooze
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until


async def test_clock_stands_still_until_it_is_moved(clock: ManualClock) -> None:
    before = clock.datetime()

    clock.advance(timedelta(hours=1))
    after = clock.datetime()
    clock.move_to(before)

    assert after - before == timedelta(hours=1)
    assert clock.datetime() == before


@pytest.mark.parametrize("seconds", [-1, "5", float("nan")])
def test_clock_is_advanced_by_durations_only(seconds: Any) -> None:
    with pytest.raises(InvalidOption, match="seconds"):
        ManualClock().advance(seconds)


def test_clock_may_start_anywhere_that_has_a_time_zone() -> None:
    start = datetime(1999, 12, 31, tzinfo=UTC)

    assert ManualClock(start).datetime() == start
    with pytest.raises(InvalidOption, match="start"):
        ManualClock(datetime(1999, 12, 31))


async def test_a_year_of_delays_retries_and_snoozes_takes_no_time(
    runner: Runner, clock: ManualClock
) -> None:
    runs: list[datetime] = []
    day = 86_400

    @runner.task(retry=Retry(attempts=2, base=100 * day, cap=100 * day, jitter=False))
    async def job() -> str:
        runs.append(clock.datetime())
        if len(runs) == 1:
            raise ValueError
        if len(runs) == 2:
            raise Snooze(100 * day)
        return "done"

    handle = await job.options(delay=100 * day).enqueue()
    start = clock.datetime()
    for _ in range(3):
        await run_until_idle(runner)
        clock.advance(timedelta(days=100))

    assert await handle == "done"
    assert [(at - start).days for at in runs] == [100, 200, 300]


async def test_idle_waits_for_jobs_that_jobs_enqueue(runner: Runner) -> None:
    done: list[int] = []

    @runner.task
    async def chain(left: int) -> None:
        done.append(left)
        if left:
            await chain.enqueue(left - 1)

    await chain.enqueue(20)
    await run_until_idle(runner)

    assert done == list(range(20, -1, -1))


async def test_idle_waits_for_threads(runner: Runner) -> None:
    @runner.task
    def job() -> int:
        return 1

    handles = [await job.enqueue() for _ in range(10)]
    await run_until_idle(runner)

    assert {(await handle.job()).state for handle in handles} == {"completed"}


async def test_idle_returns_at_once_when_there_is_nothing_to_do(runner: Runner) -> None:
    await run_until_idle(runner)
    async with asyncio.timeout(5):
        await run_until_idle(runner)


async def test_idle_sees_what_a_move_of_the_clock_makes_due(
    runner: Runner, clock: ManualClock
) -> None:
    ran: list[int] = []

    @runner.task
    async def job(number: int) -> None:
        ran.append(number)

    for number in range(50):
        await job.options(delay=number + 1).enqueue(number)
    for number in range(50):
        other = asyncio.create_task(job.options(delay=10_000).enqueue(-1))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        clock.advance(1)
        await run_until_idle(runner)
        await other
        assert len(ran) == number + 1


async def test_idle_hears_that_the_runner_stopped(tmp_path: Path, clock: ManualClock) -> None:
    runner = Runner(tmp_path / "other.db", clock=clock, grace=0)

    @runner.task
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RunnerNotStarted):
        await run_until_idle(runner)
    async with runner:
        await forever.enqueue()
        await until(lambda: runner.tally.started == 1)
        waiting = asyncio.create_task(run_until_idle(runner))
        await asyncio.sleep(0)

    with pytest.raises(RunnerClosed):
        await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("runner", [{"concurrency": 7, "queues": ["only"]}], indirect=True)
async def test_fixture_takes_options_of_the_runner(runner: Runner) -> None:
    assert runner._settings.concurrency == 7
    assert runner._settings.queues == ("only",)


CONFTEST = """
    pytest_plugins = ["asyncjobs.testing"]
    """
APP = """
    from asyncjobs import Tasks
    tasks = Tasks()
    sent = []

    @tasks.task
    async def send(user: int) -> str:
        sent.append(user)
        return f"sent to {user}"
    """
TESTS = """
    import pytest
    from asyncjobs.testing import run_until_idle
    from app import send, sent, tasks

    @pytest.mark.asyncio
    async def test_mail_is_sent_an_hour_later(runner, clock):
        runner.include(tasks)
        handle = await send.options(delay=3600).enqueue(7)
        await run_until_idle(runner)
        assert sent == []
        clock.advance(3600)
        await run_until_idle(runner)
        assert sent == [7]
        assert await handle == "sent to 7"

    @pytest.mark.asyncio
    async def test_each_test_has_a_database_of_its_own(runner):
        assert await runner.registry.count() == 0
    """


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_application_uses_the_plugin_in_its_own_tests(tmp_path: Path, mode: str) -> None:
    for name, text in (("conftest", CONFTEST), ("app", APP), ("test_app", TESTS)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "pytest_asyncio.plugin"],
        cwd=tmp_path,
        # What else is installed here takes longer to load than these tests.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_program_without_pytest_has_the_clock_and_may_wait_until_idle() -> None:
    printed = run_without("pytest", """
        import asyncio
        from asyncjobs import Runner
        from asyncjobs.testing import ManualClock, run_until_idle

        async def main():
            async with Runner(":memory:", clock=ManualClock()) as runner:
                await run_until_idle(runner)

        asyncio.run(main())
        print("idle")
        """)  # fmt: skip
    assert printed == "idle\n"


def test_fixtures_say_which_package_they_need() -> None:
    printed = run_without("pytest_asyncio", """
        import asyncjobs
        try:
            import asyncjobs.fixtures
        except asyncjobs.MissingExtra as error:
            print(error)
        """)  # fmt: skip
    assert printed == (
        "the fixtures of asyncjobs.testing need pytest_asyncio: pip install pytest pytest-asyncio\n"
    )


def run_without(package: str, program: str) -> str:
    """What a program prints where the package is not installed."""
    missing = f"import sys; sys.modules[{package!r}] = None\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", missing + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
