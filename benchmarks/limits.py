"""What limits cost: jobs of 1,000 keys with a cap of two, against jobs without a limit."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from asyncjobs import Limit, Runner

from .harness import Bar, Options, Row, Sample, best, interleave, timed

TITLE = "jobs of 1,000 keys with a cap of two, against jobs without a limit"
KEYS = 1_000
CAP = 2
SLOTS = 1_000
CHUNK = 1_000


async def visit(key: int) -> None:
    """Do nothing."""


async def awaited(folder: Path, jobs: int, limit: Limit | None) -> Sample:
    """As many producers as keys, each awaiting its job."""
    runner = Runner(folder / "engine.db", concurrency=SLOTS)
    task = runner.task(name="visit", limit=limit)(visit)

    async def produce(key: int, share: int) -> None:
        for _ in range(share):
            await (await task.enqueue(key))

    async with runner:
        await asyncio.gather(*(produce(key, 1) for key in range(KEYS)))
        every = max(1, jobs // KEYS)
        work = asyncio.gather(*(produce(key, every) for key in range(KEYS)))
        return await timed(every * KEYS, _wait(work))


async def drained(folder: Path, jobs: int, limit: Limit | None) -> Sample:
    """Enqueued a thousand at a time, so that most of them wait for their key."""
    runner = Runner(folder / "engine.db", concurrency=SLOTS)
    task = runner.task(name="visit", limit=limit)(visit)

    async def all_of_them() -> None:
        handles = []
        for start in range(0, jobs, CHUNK):
            some = [task.job(number % KEYS) for number in range(start, start + CHUNK)]
            handles += await runner.enqueue_many(some)
        await asyncio.gather(*handles)

    async with runner:
        return await timed(jobs, all_of_them())


async def _wait(work: asyncio.Future[list[None]]) -> None:
    await work


def run(options: Options) -> list[Row]:
    """Measure limited and unlimited jobs in turn."""
    jobs = options.pick(smoke=1_000, quick=10_000, normal=30_000)
    limit = Limit(key="key", running=CAP)
    limited, plain, held, free = map(
        best,
        interleave(
            options,
            partial(awaited, jobs=jobs, limit=limit),
            partial(awaited, jobs=jobs, limit=None),
            partial(drained, jobs=jobs, limit=limit),
            partial(drained, jobs=jobs, limit=None),
        ),
    )
    return [
        Row(what=f"{KEYS:,} producers, each with a key of its own, against no limits",
            value=limited.rate, unit="jobs/s", floor=plain.rate, bar=Bar(0.4)),
        Row(what="the same, CPU a job", value=limited.cpu_us, unit="µs", floor=plain.cpu_us),
        Row(what=f"enqueued {CHUNK:,} at a time and drained, against no limits",
            value=held.rate, unit="jobs/s", floor=free.rate, bar=Bar(0.4)),
        Row(what="the same, CPU a job", value=held.cpu_us, unit="µs", floor=free.cpu_us),
    ]  # fmt: skip
