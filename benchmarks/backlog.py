"""What a million pending jobs cost those that run: draining, and the claim by itself."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from asyncjobs import NewJob, Runner, Task, Tasks
from asyncjobs.store.base import Claim, Insert
from asyncjobs.store.sqlite.store import SQLiteStore

from .floor import SLOTS, no_op
from .harness import Bar, Options, Row, Sample, best, interleave, percentile, timed

TITLE = "draining among pending jobs of 10 priorities, half of them due later and standing on top"
NAME = "no_op"
PRIORITIES = 10
DAY = 86_400
FEW = 1_000
CHUNK = 10_000
REFILL = 250
"""So many new jobs are enqueued whenever as many have run: the number that pends stays."""
CLAIMS_PER_RUN = 100


def pending(task: Task[[], None], jobs: int, *, due_only: bool = False) -> list[NewJob[None]]:
    """Jobs over ten priorities in turn; those of the upper five are due tomorrow."""
    due = PRIORITIES // 2
    levels = [
        task.options(priority=priority, delay=DAY if priority >= due else 0)
        for priority in range(due if due_only else PRIORITIES)
    ]
    return [level.job() for level in islice(cycle(levels), jobs)]


async def build(path: Path, jobs: int) -> None:
    """Make a database with ``jobs`` pending jobs."""
    task = Tasks().task(name=NAME)(no_op)
    store = SQLiteStore(str(path), durability="normal")
    await store.open()
    try:
        for start in range(0, jobs, CHUNK):
            await store.write([Insert(pending(task, min(CHUNK, jobs - start)))])
    finally:
        await store.close()


async def drain(path: Path, jobs: int) -> Sample:
    """Run ``jobs`` of the pending jobs, and enqueue as many new ones."""
    runner = Runner(path)
    ran = asyncio.Semaphore(0)

    @runner.task(name=NAME)
    async def count() -> None:
        ran.release()

    async def refill(times: int) -> None:
        for _ in range(times):
            for _ in range(REFILL):
                await ran.acquire()
            await runner.enqueue_many(pending(count, REFILL, due_only=True))

    async with runner:
        await refill(4)
        return await timed(jobs, refill(jobs // REFILL))


async def drain_many(_: Path, path: Path, jobs: int) -> Sample:
    """Drain the database that was built once."""
    return await drain(path, jobs)


async def drain_few(folder: Path, jobs: int) -> Sample:
    """Drain a database of a few pending jobs."""
    path = folder / "few.db"
    await build(path, FEW)
    return await drain(path, jobs)


async def claims(path: Path, times: int) -> list[float]:
    """Seconds of each claim of ``SLOTS`` jobs, from the call to the commit."""
    store = SQLiteStore(str(path))
    await store.open()
    claim = Claim("bench", {NAME: "coroutine"}, {"coroutine": SLOTS})
    seconds = []
    try:
        for _ in range(times):
            began = time.perf_counter()
            ((jobs, *_),) = await store.write([claim])
            seconds.append(time.perf_counter() - began)
            assert len(jobs) == SLOTS
    finally:
        await store.close()
    return seconds


def run(options: Options) -> list[Row]:
    """Build the backlog once, then measure beside it and beside a few jobs in turn."""
    many = options.pick(smoke=30_000, quick=100_000, normal=1_000_000)
    jobs = options.pick(smoke=500, quick=5_000, normal=20_000)
    with options.folder() as folder:
        path = Path(folder) / "many.db"
        began = time.perf_counter()
        asyncio.run(build(path, many))
        built = time.perf_counter() - began
        crowded, empty = map(
            best,
            interleave(
                options,
                partial(drain_many, path=path, jobs=jobs),
                partial(drain_few, jobs=jobs),
            ),
        )
        seconds = asyncio.run(claims(path, CLAIMS_PER_RUN * options.runs))
    return [
        Row(what=f"draining with {many:,} pending, against {FEW:,}",
            value=crowded.rate, unit="jobs/s", floor=empty.rate, bar=Bar(0.7)),
        Row(what="the same, CPU a job", value=crowded.cpu_us, unit="µs", floor=empty.cpu_us),
        Row(what=f"claim of {SLOTS} jobs, p50", value=percentile(seconds, 50) * 1e3, unit="ms"),
        Row(what=f"claim of {SLOTS} jobs, p99", value=percentile(seconds, 99) * 1e3, unit="ms",
            bar=Bar(15, of="value", least=False)),
        Row(what="the slowest claim: it copied the log back", value=max(seconds) * 1e3, unit="ms"),
        Row(what="building the backlog (durability='normal')", value=many / built, unit="jobs/s"),
    ]  # fmt: skip
