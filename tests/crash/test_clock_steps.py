"""Clocks that are stepped, both ways: no job starts early, and none is left lying."""

from __future__ import annotations

import asyncio
from pathlib import Path

from asyncjobs import Runner
from asyncjobs.clock import SystemClock
from asyncjobs.testing import ManualClock, run_until_idle
from tests.oracles import deadline, nothing_left

HOUR = 3_600 * 1_000_000


class SteppedClock(SystemClock):
    """The machine's clock, as if somebody had set it."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> int:
        return super().now() + self.offset


async def test_a_step_forward_starts_what_has_become_due(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with (
        deadline(10),
        nothing_left(tmp_path / "jobs.db"),
        Runner(tmp_path / "jobs.db", clock=clock) as runner,
    ):

        @runner.task
        async def job() -> str:
            return "ran"

        handle = await job.options(delay=3_600).enqueue()
        clock.offset = 2 * HOUR
        assert await handle == "ran"
        assert await runner.registry.check() == []


async def test_a_step_back_starts_nothing_early_and_the_way_forth_strands_nothing(
    tmp_path: Path,
) -> None:
    clock = SteppedClock()
    started: list[int] = []
    async with (
        deadline(10),
        nothing_left(tmp_path / "jobs.db"),
        Runner(tmp_path / "jobs.db", clock=clock) as runner,
    ):

        @runner.task
        async def job() -> None:
            started.append(clock.now())

        handle = await job.options(delay=0.2).enqueue()
        due = (await handle.job()).run_at
        clock.offset = -HOUR
        # The timer for the old time goes off, finds nothing, and must not be the last.
        loop = asyncio.get_running_loop()
        passed = asyncio.Event()
        loop.call_later(0.4, passed.set)
        await passed.wait()
        assert started == []
        clock.offset = 0
        await handle
        assert started[0] >= due.timestamp() * 1e6
        assert await runner.registry.check() == []


async def test_the_manual_clock_may_be_moved_both_ways(runner: Runner, clock: ManualClock) -> None:
    ran = []

    @runner.task
    async def job() -> None:
        ran.append(clock.now())

    now = clock.now()
    await job.options(delay=10).enqueue()
    clock.move_to(now - HOUR)
    await run_until_idle(runner)
    assert ran == []
    clock.move_to(now + 9_999_999)
    await run_until_idle(runner)
    assert ran == []
    clock.move_to(now + 10_000_000)
    await run_until_idle(runner)
    assert ran == [now + 10_000_000]
    assert await runner.registry.check() == []
