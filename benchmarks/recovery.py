"""How soon the next start has everything back that a killed process was running."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from functools import partial
from pathlib import Path

from asyncjobs import Runner

from .harness import Bar, Options, Row, child_command, interleave

TITLE = "SIGKILL of a host with running jobs, then the next start"


def kill_host(path: Path, jobs: int) -> None:
    """Leave ``jobs`` jobs behind, running in a process that is no more."""
    with subprocess.Popen(child_command("recovery", path, jobs), stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        ready = host.stdout.readline()
        host.kill()
    if ready != b"ready\n":
        raise RuntimeError("the host of the recovery benchmark did not get its jobs to run")


async def claimable(folder: Path, jobs: int) -> float:
    """Seconds from the start of a runner until every job can be claimed."""
    path = folder / "jobs.db"
    kill_host(path, jobs)
    # It takes jobs of another queue only, so that the others can be counted.
    runner = Runner(path, queues=["another"])
    began = time.perf_counter()
    await runner.start()
    seconds = time.perf_counter() - began
    queued = await runner.registry.count(state="queued")
    await runner.stop()
    if queued != jobs:
        raise RuntimeError(f"{queued} jobs are claimable, {jobs} were running")
    return seconds


async def running(folder: Path, jobs: int) -> float:
    """Seconds from the start of a runner until every job runs again."""
    path = folder / "jobs.db"
    kill_host(path, jobs)
    runner = Runner(path, concurrency=jobs)
    started = asyncio.Semaphore(0)

    @runner.task(name="stuck")
    async def stuck() -> None:
        started.release()

    began = time.perf_counter()
    async with runner:
        for _ in range(jobs):
            await started.acquire()
        return time.perf_counter() - began


def run(options: Options) -> list[Row]:
    """Kill a few hosts; the slowest recovery counts."""
    jobs = options.pick(smoke=500, quick=10_000, normal=10_000)
    runs = options.pick(smoke=1, quick=2, normal=5)
    logging.getLogger("asyncjobs").setLevel(logging.ERROR)
    claims, again = interleave(
        options, partial(claimable, jobs=jobs), partial(running, jobs=jobs), runs=runs
    )
    logging.getLogger("asyncjobs").setLevel(logging.NOTSET)
    return [
        Row(what=f"all {jobs:,} claimable after the start, slowest of {runs}",
            value=max(claims), unit="s", bar=Bar(1, of="value", least=False)),
        Row(what="all running again, slowest", value=max(again), unit="s"),
    ]  # fmt: skip
