"""Jobs are claimed ahead of free workers while they are short, and only then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asyncjobs.running.executors.process import pool
from asyncjobs.running.executors.process.ahead import LONG_SECONDS, SHORT_SECONDS, Ahead
from asyncjobs.testing import run_until_idle

from . import worker_tasks as w
from .support import pids_at, workers
from .worker_tasks import Point


class Room:
    slots = 2

    def widen(self, executor: str, slots: int) -> None:
        assert executor == "process"
        self.slots += slots


def after(room: Room, ahead: Ahead, seconds: float, jobs: int) -> int:
    for _ in range(jobs):
        ahead.took(seconds)
    return room.slots


def test_short_jobs_widen_the_room_once_and_long_ones_narrow_it_again() -> None:
    room = Room()
    ahead = Ahead(2, room.widen)

    assert after(room, ahead, SHORT_SECONDS * 2, 100) == 2
    assert after(room, ahead, 0.005, 100) == 4
    assert after(room, ahead, SHORT_SECONDS * 2, 100) == 4  # in between nothing changes
    assert after(room, ahead, LONG_SECONDS * 2, 100) == 2
    assert after(room, ahead, 0.005, 100) == 4
    ahead.stop()
    ahead.stop()
    assert room.slots == 2


async def test_many_short_jobs_run_no_more_at_once_than_there_are_processes(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=2) as runner:
        handles = await runner.enqueue_many([w.mirror.job(Point(1, n)) for n in range(400)])
        assert [await handle for handle in handles] == [Point(n, 1) for n in range(400)]
        assert len([info for info in runner.registry.workers() if not info.leaving]) == 2


async def test_job_that_was_claimed_ahead_of_a_long_one_is_given_back_and_not_charged(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=1) as runner:
        for handle in await runner.enqueue_many([w.mirror.job(Point(1, 1)) for _ in range(100)]):
            await handle
        long = await w.leave_when_told.enqueue(str(tmp_path / "long"))
        await pids_at(tmp_path / "long")
        behind = await w.who_am_i.enqueue()
        while (await behind.job()).reason != "no_worker":
            await asyncio.sleep(0.005)

        assert (await behind.job()).state == "queued"
        await long.cancel()
        assert await long == "left: user"
        seen = await behind
        assert (seen["attempt"], seen["claim"]) == (1, 2)


async def test_children_run_although_jobs_are_claimed_ahead(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        for handle in await runner.enqueue_many([w.mirror.job(Point(1, 1)) for _ in range(100)]):
            await handle
        parents = [await w.parent.enqueue(2) for _ in range(3)]
        for parent in parents:
            assert len(await asyncio.wait_for(parent.result(), 20)) == 3
        await run_until_idle(runner)


async def test_job_that_waits_for_a_worker_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "STALE_SECONDS", 60.0)
    async with workers(tmp_path, processes=1) as runner:
        for handle in await runner.enqueue_many([w.mirror.job(Point(1, 1)) for _ in range(100)]):
            await handle
        long = await w.leave_when_told.enqueue(str(tmp_path / "long"))
        await pids_at(tmp_path / "long")
        behind = await w.who_am_i.enqueue()
        while (await behind.job()).state != "running":
            await asyncio.sleep(0.005)
        await behind.cancel()
        assert (await behind.wait()).state == "cancelled"
        await long.cancel()
        await long
