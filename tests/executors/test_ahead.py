"""Jobs are claimed ahead of free workers while they are short, and only then."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import JobHandle, Runner
from asyncjobs.running.executors.process.ahead import (
    DEPTH_MAX,
    HEAR_SECONDS,
    LONG_SECONDS,
    SHORT_SECONDS,
    Ahead,
)
from asyncjobs.testing import run_until_idle

from . import worker_tasks as w
from .support import PATIENCE_SECONDS, following, pids_at, server_pid, until, worker_pids, workers
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


def test_short_jobs_widen_the_room_and_long_ones_narrow_it_again() -> None:
    room = Room()
    ahead = Ahead(2, room.widen)

    assert after(room, ahead, SHORT_SECONDS * 2, 100) == 2
    assert after(room, ahead, 0.005, 100) in range(2 + 2 * 5, 2 + 2 * 11)  # for 0.05 s at most
    assert after(room, ahead, SHORT_SECONDS * 2, 100) == 2 + 2 * 1
    assert after(room, ahead, LONG_SECONDS * 2, 100) == 2
    assert after(room, ahead, 0.0, 200) == 2 + 2 * DEPTH_MAX
    ahead.stop()
    ahead.stop()
    assert room.slots == 2


def test_worker_with_much_to_do_is_heard_when_half_of_it_should_be_done() -> None:
    ahead = Ahead(2, Room().widen)
    after(Room(), ahead, 0.001, 200)

    assert ahead.hear_in(10) == pytest.approx(0.005, rel=0.01)
    assert ahead.hear_in(1_000) == HEAR_SECONDS


async def test_many_short_jobs_run_no_more_at_once_than_there_are_processes(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=2) as runner:
        handles = await runner.enqueue_many([w.mirror.job(Point(1, n)) for n in range(400)])
        assert [await handle for handle in handles] == [Point(n, 1) for n in range(400)]
        assert len([info for info in runner.registry.workers() if not info.leaving]) == 2


@pytest.mark.usefixtures("_quick")
async def test_job_that_was_claimed_ahead_of_a_long_one_is_given_back_and_not_charged(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=1):
        await become_quick()
        long = await w.leave_when_told.enqueue(str(tmp_path / "long"))
        await pids_at(tmp_path / "long")
        behind = await w.who_am_i.enqueue()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await behind.job()).reason != "no_worker":
                await asyncio.sleep(0.005)

        assert (await behind.job()).state == "queued"
        await long.cancel()
        assert await long == "left: user"
        seen = await behind
        assert (seen["attempt"], seen["claim"]) == (1, 2)


@pytest.mark.usefixtures("_quick")
async def test_children_run_although_jobs_are_claimed_ahead(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        await become_quick()
        parents = [await w.parent.enqueue(2) for _ in range(3)]
        for parent in parents:
            assert len(await asyncio.wait_for(parent.result(), 20)) == 3
        await run_until_idle(runner)


@pytest.mark.usefixtures("_patient")
async def test_job_that_waits_for_a_worker_can_be_cancelled(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        await become_quick()
        long = await w.leave_when_told.enqueue(str(tmp_path / "long"))
        await pids_at(tmp_path / "long")
        behind = await w.who_am_i.enqueue()
        await until(lambda: following(runner, long) == 1)
        await behind.cancel()
        assert (await behind.wait()).state == "cancelled"
        await long.cancel()
        await long


# Jobs that follow another one in a worker


async def become_quick() -> None:
    """Have a job run that tells that jobs are short: several are given to a worker at once then."""
    await (await w.mirror.enqueue(Point(1, 1)))


@asynccontextmanager
async def followed_job(
    folder: Path, **options: Any
) -> AsyncIterator[tuple[Runner, Path, JobHandle[Any], list[JobHandle[Any]]]]:
    """A job that waits for a word at a pipe, and three that are to follow it in its worker."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    async with workers(folder, processes=1, **options) as runner:
        await become_quick()
        first, *others = await runner.enqueue_many(
            [w.wait_for_word.job(str(pipe)), *(w.who_am_i.job() for _ in range(3))]
        )
        await until(lambda: following(runner, first) == 3)
        yield runner, pipe, first, others


def set_timers_on(seconds: float) -> None:
    """Bring the timers of the running event loop nearer, as if so much time had gone by."""
    loop: Any = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds


@pytest.mark.parametrize("whose", ["worker", "server"])
@pytest.mark.usefixtures("_patient")
async def test_jobs_that_follow_one_that_dies_run_elsewhere_and_are_not_charged(
    tmp_path: Path, whose: str
) -> None:
    async with followed_job(tmp_path) as (runner, pipe, first, others):
        if whose == "worker":
            pipe.write_text("die\n")
        else:
            os.kill(server_pid(runner), signal.SIGKILL)

        assert (await first.wait()).reason == "crash"
        assert [(await other)["claim"] for other in others] == [1, 1, 1]
        assert [(await other.job()).crashes for other in others] == [0, 0, 0]


@pytest.mark.usefixtures("_patient")
async def test_job_that_follows_another_can_be_cancelled_alone(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as (_, pipe, first, others):
        await others[1].cancel()

        assert (await others[1].wait()).state == "cancelled"
        assert (await first.job()).state == "running"
        pipe.write_text("go on\n")
        assert await first == "go on"
        assert [(await other)["attempt"] for other in (others[0], others[2])] == [1, 1]


@pytest.mark.usefixtures("_patient")
async def test_time_limit_of_a_job_that_follows_another_runs_from_its_own_begin(
    tmp_path: Path,
) -> None:
    async with followed_job(tmp_path) as (runner, pipe, first, _):
        limited = await w.who_am_i.options(timeout=20).enqueue()
        await until(lambda: following(runner, first) == 4)
        set_timers_on(30)  # longer than it may take
        for _ in range(3):  # the passes of the loop in which a timer that is over fires
            await asyncio.sleep(0)
        pipe.write_text("end\n")

        assert await first == "end"
        assert (await limited)["id"] == limited.id


@pytest.mark.usefixtures("_patient")
async def test_stop_gives_back_what_follows_and_it_runs_at_the_next_start(tmp_path: Path) -> None:
    async with followed_job(tmp_path) as (_, _, first, others):
        ids = [handle.id for handle in (first, *others)]
    (tmp_path / "pipe").unlink()
    (tmp_path / "pipe").write_text("end\n")
    async with workers(tmp_path, processes=1) as runner:
        jobs = [await runner.handle(job_id).wait() for job_id in ids]

    assert [(job.state, job.attempt, job.crashes) for job in jobs] == [("completed", 1, 0)] * 4


@pytest.mark.usefixtures("_quick")
async def test_output_of_jobs_that_follow_each_other_is_each_ones_own(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        await become_quick()
        jobs = [w.print_number.job(number) for number in range(300)]
        jobs[150] = w.write_much.job(1)
        handles = await runner.enqueue_many(jobs)
        for handle in handles:
            await handle
        said = [(await runner.registry.attempts(handle.id))[0].output for handle in handles]

    assert said.pop(150)[-10:] == "x\nthe end\n"
    assert said == [f"{number}\n" for number in range(300) if number != 150]


async def test_job_that_is_cancelled_as_it_begins_is_asked_to_stop_and_not_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "waiting"
    async with workers(tmp_path, processes=1) as runner:
        await (await w.mirror.enqueue(Point(1, 2)))
        before = worker_pids(runner)
        for _ in range(30):
            for task in (w.wait_forever, w.wait_forever_async):
                handle = await task.enqueue(str(path))
                await handle.cancel()
                assert (await handle.wait()).state == "cancelled"

        assert worker_pids(runner) == before
