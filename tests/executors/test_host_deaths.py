"""Workers never outlive their host, and no job runs again while its worker lives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from asyncjobs import Runner
from asyncjobs.locks import FileLock

from .hosts import start_host
from .support import gone, is_alive, pids_at, until

pytestmark = pytest.mark.timed

WITHIN_SECONDS = 2.0
ENDLESS = ("wait_forever", "wait_forever_async", "refuse", "hold_the_gil", "wait_alone")


def _children(pid: int) -> list[int]:
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in paths for child in path.read_text().split()]


async def test_workers_are_gone_soon_after_their_host_whatever_they_do(tmp_path: Path) -> None:
    host = start_host(tmp_path, *ENDLESS, "start_daemon")
    try:
        pids = [pid for name in ENDLESS for pid in await pids_at(tmp_path / name)]
        pids += await pids_at(tmp_path / "start_daemon", 3)
        pids += _children(host.pid)
    finally:
        host.kill()
        host.wait()
    assert len(set(pids)) == len(ENDLESS) + 4

    await gone(*pids, within=WITHIN_SECONDS)


async def test_child_that_the_application_has_forked_keeps_no_worker_alive(
    tmp_path: Path,
) -> None:
    host = start_host(tmp_path, "hold_the_gil", "fork")
    (worker,) = await pids_at(tmp_path / "hold_the_gil")
    (fork,) = await pids_at(tmp_path / "fork")
    host.kill()
    host.wait()
    try:
        await gone(worker, within=WITHIN_SECONDS)
        assert is_alive(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


async def test_lock_of_a_dead_host_is_free_only_when_its_workers_are_gone(tmp_path: Path) -> None:
    host = start_host(tmp_path, "hold_the_gil", "refuse")
    workers = await pids_at(tmp_path / "hold_the_gil") + await pids_at(tmp_path / "refuse")
    (server,) = _children(host.pid)
    (path,) = (tmp_path / "jobs.db-runners").glob("*.lock")
    os.kill(server, signal.SIGSTOP)
    host.kill()
    host.wait()

    lock = FileLock(str(path), create=False)
    try:
        assert not lock.try_acquire()
        assert is_alive(workers[0])
    finally:
        os.kill(server, signal.SIGCONT)
    deadline = time.monotonic() + WITHIN_SECONDS
    while not lock.try_acquire():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    assert not any(map(is_alive, workers))
    lock.close()


async def test_jobs_of_a_dead_host_are_rescued_as_crashes(tmp_path: Path) -> None:
    host = start_host(tmp_path, "wait_forever")
    (worker,) = await pids_at(tmp_path / "wait_forever")
    host.kill()
    host.wait()
    await gone(worker, within=WITHIN_SECONDS)

    async with Runner(tmp_path / "jobs.db") as runner:  # it does not have the task
        (job,) = (await runner.registry.list()).jobs
        deadline = time.monotonic() + WITHIN_SECONDS  # its fork server may be about to end
        while (job := await runner.registry.get(job.id)).state == "running":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
    assert (job.crashes, job.attempt) == (1, 0)


async def test_workers_of_a_stopped_host_end_before_it_is_taken_for_dead(tmp_path: Path) -> None:
    host = start_host(tmp_path, "hold_the_gil", lease=1.0)
    try:
        (worker,) = await pids_at(tmp_path / "hold_the_gil")
        host.send_signal(signal.SIGSTOP)
        async with Runner(tmp_path / "jobs.db", lease_seconds=1.0) as runner:
            deadline = time.monotonic() + 10
            while (await runner.registry.list()).jobs[0].crashes == 0:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.005)
            assert not is_alive(worker)
    finally:
        host.kill()
        host.wait()


async def test_workers_of_a_host_that_was_asleep_along_with_them_live_on(tmp_path: Path) -> None:
    lease = 0.5
    host = start_host(tmp_path, "refuse", lease=lease)
    try:
        (worker,) = await pids_at(tmp_path / "refuse")
        (server,) = _children(host.pid)
        (path,) = (tmp_path / "jobs.db-runners").glob("*.lock")
        os.kill(server, signal.SIGSTOP)
        host.send_signal(signal.SIGSTOP)
        stopped = path.stat().st_mtime
        while time.time() < stopped + 2 * lease:
            await asyncio.sleep(0.01)
        os.kill(server, signal.SIGCONT)  # which looks before its host can have done anything
        looks = _looks(server)
        await until(lambda: _looks(server) != looks, lambda: f"{looks} looks, and no more")
        host.send_signal(signal.SIGCONT)
        touched = stopped + 4 * lease
        await until(lambda: path.stat().st_mtime >= touched, lambda: path.stat().st_mtime)
        assert is_alive(worker)
    finally:
        host.kill()
        host.wait()


def _looks(pid: int) -> int:
    """How often a process has waited until now: once for each look."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_that_ends_the_host_ends_its_workers(tmp_path: Path, number: int) -> None:
    host = start_host(tmp_path, "refuse")
    (worker,) = await pids_at(tmp_path / "refuse")
    host.send_signal(number)
    host.wait(15)

    await gone(worker, within=WITHIN_SECONDS)
