"""Workers are replaced in time, shrink when idle, and their health is shown."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncjobs import JobCancelled, Runner, WorkerInfo
from asyncjobs.running.executors.process import pool
from asyncjobs.running.executors.process.settings import NEAR
from tests.oracles.census import Census

from . import worker_tasks as w
from .support import gone, pids_at, server_pid, until, worker_pids, workers
from .worker_tasks import Point

MEGABYTE = 1024 * 1024


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples come as fast as a test wants to see them."""
    monkeypatch.setattr(pool, "SAMPLE_SECONDS", 0.01)


async def test_worker_is_replaced_after_its_number_of_jobs(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1, max_jobs=3):
        pids = [(await (await w.warm.enqueue("a")))[0] for _ in range(9)]

    assert len(set(pids)) == 3
    assert pids == sorted(pids, key=pids.index)  # each serves its three without a break


async def test_successor_is_there_before_the_last_job_ends(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1, max_jobs=1) as runner:
        handle = await w.leave_when_told.enqueue(str(tmp_path / "it"))
        await pids_at(tmp_path / "it")

        states = sorted(info.state for info in runner.registry.workers())
        assert states in (["busy", "idle"], ["busy", "starting"])
        await handle.cancel()
        assert await handle == "left: user"


async def test_worker_that_has_grown_too_large_is_replaced_and_the_pool_stays_small(
    tmp_path: Path,
) -> None:
    limit = 60 * MEGABYTE
    async with workers(tmp_path, processes=1, max_rss=limit) as runner:
        pids = []
        for _ in range(40):
            pids.append(await (await w.leak.enqueue(4)))
            living = [info for info in runner.registry.workers() if not info.leaving]
            assert all(info.rss <= limit for info in living)

    assert 2 <= len(set(pids)) < 20


async def test_successor_is_ready_before_its_worker_has_grown_too_large(tmp_path: Path) -> None:
    limit = 60 * MEGABYTE
    async with workers(tmp_path, processes=1, max_rss=limit) as runner:
        first = await (await w.leak.enqueue(1))
        while runner.registry.workers()[0].rss <= NEAR * limit:
            assert worker_pids(runner) == [first]
            await (await w.leak.enqueue(1))
        handle = await w.leave_when_told.enqueue(str(tmp_path / "it"))
        assert await pids_at(tmp_path / "it") == [first]
        (successor,) = await idle_pids(runner, 1)
        await handle.cancel()
        await handle

        # It may go on until it has crossed the limit, and then there is no third one.
        served = [await (await w.leak.enqueue(1)) for _ in range(10)]
        assert served == sorted(served, key=[first, successor].index)
        assert set(served) == {first, successor}
        assert successor in worker_pids(runner)


async def test_each_of_several_workers_that_have_grown_too_large_has_its_successor(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=2, max_rss=1) as runner:
        handles = [await w.leave_when_told.enqueue(str(tmp_path / f"{n}")) for n in range(4)]
        for n in range(2):
            await pids_at(tmp_path / f"{n}")
        runner.engine().workers.pool.look()
        successors = await idle_pids(runner, 2)
        for handle in handles[:2]:
            await handle.cancel()
            await handle
        pids = [(await pids_at(tmp_path / f"{n}"))[0] for n in (2, 3)]

        assert sorted(pids) == sorted(successors)
        for handle in handles[2:]:
            await handle.cancel()
            await handle


async def test_worker_that_may_have_to_go_and_its_successor_are_kept_no_longer_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers(tmp_path, processes=1, processes_min=0, max_jobs=1) as runner:
        handle = await w.leave_when_told.enqueue(str(tmp_path / "it"))
        await pids_at(tmp_path / "it")
        (successor,) = await idle_pids(runner, 1)
        monkeypatch.setattr(pool, "IDLE_SECONDS", -1.0)
        runner.engine().workers.pool.look()
        assert await idle_pids(runner, 1) == [successor]  # however long the job takes
        await handle.cancel()
        await handle
        runner.engine().workers.pool.look()

        await only_warm(runner.registry.workers)
        assert worker_pids(runner) == []


async def idle_pids(runner: Runner, count: int) -> list[int]:
    """Wait until so many workers are idle; their processes."""
    async with asyncio.timeout(10):
        while True:
            idle = [info.pid for info in runner.registry.workers() if info.state == "idle"]
            if len(idle) == count:
                return [pid for pid in idle if pid is not None]
            await asyncio.sleep(0)


@pytest.mark.usefixtures("_often")
async def test_worker_that_is_too_old_is_replaced_also_when_idle(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1, max_age=1) as runner:
        (await (await w.warm.enqueue("a")))
        (first,) = worker_pids(runner)
        await gone(first, within=5)
        assert (await (await w.warm.enqueue("a")))[0] != first
        (second,) = [info for info in runner.registry.workers() if not info.leaving]
        assert "max_age" in (second.replaced or "")


async def test_pool_grows_with_the_backlog_and_shrinks_when_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workers(tmp_path, processes=3, processes_min=1) as runner:
        handles = [await w.leave_when_told.enqueue(str(tmp_path / f"{n}")) for n in range(3)]
        pids = [(await pids_at(tmp_path / f"{n}"))[0] for n in range(3)]
        assert len(runner.registry.workers()) == 3
        for handle in handles:
            await handle.cancel()
            await handle
        assert len(runner.registry.workers()) == 3
        monkeypatch.setattr(pool, "IDLE_SECONDS", 0.0)
        runner.engine().workers.pool.look()
        await only_warm(runner.registry.workers)
        runner.engine().workers.pool.look()
        (last,) = runner.registry.workers()  # not below the fewest
        assert last.state == "idle"
        assert set(worker_pids(runner)) < set(pids)


async def test_health_of_workers_is_shown(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        await (await w.mirror.enqueue(Point(1, 2)))
        running = await w.leave_when_told.enqueue(str(tmp_path / "it"))
        (pid,) = await pids_at(tmp_path / "it")

        (info,) = runner.registry.workers()
        assert (info.pid, info.state, info.jobs) == (pid, "busy", 1)
        assert (info.job_id, info.task) == (running.id, w.leave_when_told.name)
        assert info.peak_rss >= MEGABYTE
        assert info.leaving is None
        await running.cancel()
        await running
        assert (await running.job()).state == "completed"


async def test_memory_and_cpu_of_each_run_are_stored_with_the_job(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        large = await w.leak.enqueue(40)
        await large
        await (await w.mirror.enqueue(Point(1, 2)))
        crashed = await w.die.enqueue("exit")
        await crashed.wait()

        (of_large,) = await runner.registry.attempts(large.id)
        (of_crash,) = await runner.registry.attempts(crashed.id)
    assert (of_large.peak_rss or 0) > 40 * MEGABYTE
    assert 0 < (of_large.cpu_seconds or 0) < 5
    assert of_crash.output == "last words of exit\n"


async def test_server_that_does_not_answer_is_replaced_and_the_stopped_job_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TERMINATE_SECONDS", 0.05)
    monkeypatch.setattr(pool, "UNHEARD_SECONDS", 0.05)
    async with workers(tmp_path, processes=1) as runner:
        handle = await w.refuse.enqueue(str(tmp_path / "it"))
        (pid,) = await pids_at(tmp_path / "it")
        server = server_pid(runner)
        os.kill(server, signal.SIGSTOP)
        await handle.cancel()

        with pytest.raises(JobCancelled):
            await asyncio.wait_for(handle.result(), 5)
        await gone(pid, server, within=10)
        assert await (await w.mirror.enqueue(Point(1, 2))) == Point(2, 1)
        assert runner.healthy


async def many_recycles(folder: Path, temporary: Path, jobs: int) -> None:
    async with workers(folder, processes=2, max_jobs=1) as runner:
        await (await w.alone.enqueue("a"))
        await (await w.warm.enqueue("a"))
        await only_warm(runner.registry.workers)
        before = Census.take()
        files = sorted(temporary.iterdir())
        for _ in range(jobs // 100):
            handles = await runner.enqueue_many(
                [task.job("a") for task in (w.alone, w.warm) for _ in range(50)]
            )
            for handle in handles:
                await handle
        await only_warm(runner.registry.workers)
        now = Census.take()
        # As many as before, and each the other's successor.
        assert len(now.descriptors) <= len(before.descriptors) + 2
        assert now.children == before.children
        server = server_pid(runner)
        left = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        assert len(left) == len(runner.registry.workers())
        assert sorted(temporary.iterdir()) == files


async def only_warm(listed: Callable[[], list[WorkerInfo]]) -> None:
    """Wait until all who leave have left."""
    await until(lambda: not any(info.leaving for info in listed()), listed)


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go meanwhile, of this process and of those that it starts."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


async def test_hundreds_of_recycles_leave_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    await many_recycles(tmp_path, temporary, 300)


@pytest.mark.proof
async def test_ten_thousand_recycles_leave_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    await many_recycles(tmp_path, temporary, 10_000)
