"""What unique jobs cost to enqueue, against jobs that may be there any number of times."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from asyncjobs import Runner, Unique

from .harness import Bar, Options, Row, Sample, best, interleave, timed

TITLE = "enqueue with unique=, against enqueue without"
PRODUCERS = 1_000
CHUNK = 1_000


async def sync(user_id: int, folder: str) -> None:
    """Do nothing."""


async def one_by_one(folder: Path, jobs: int, unique: Unique | None) -> Sample:
    """Many producers, each of which waits until its job is accepted; nothing runs meanwhile."""
    runner = Runner(folder / "engine.db")
    task = runner.task(name="sync", unique=unique)(sync)
    every = max(1, jobs // PRODUCERS)

    async def produce(first: int) -> None:
        for user_id in range(first, first + every):
            await task.enqueue(user_id, "inbox")

    async def all_of_them() -> None:
        await asyncio.gather(*(produce(number * every) for number in range(PRODUCERS)))

    async with runner.client():
        await task.enqueue(-1, "inbox")
        return await timed(every * PRODUCERS, all_of_them())


async def in_bulk(folder: Path, jobs: int, unique: Unique | None) -> Sample:
    """A thousand at a time."""
    runner = Runner(folder / "engine.db")
    task = runner.task(name="sync", unique=unique)(sync)

    async def all_of_them() -> None:
        for start in range(0, jobs, CHUNK):
            some = [task.job(user_id, "inbox") for user_id in range(start, start + CHUNK)]
            await runner.enqueue_many(some)

    async with runner.client():
        await task.enqueue(-1, "inbox")
        return await timed(jobs, all_of_them())


def run(options: Options) -> list[Row]:
    """Measure unique and plain jobs in turn."""
    jobs = options.pick(smoke=1_000, quick=5_000, normal=20_000)
    unique = Unique(by=("user_id",))
    one, plain, bulk, plain_bulk = map(
        best,
        interleave(
            options,
            partial(one_by_one, jobs=jobs, unique=unique),
            partial(one_by_one, jobs=jobs, unique=None),
            partial(in_bulk, jobs=jobs, unique=unique),
            partial(in_bulk, jobs=jobs, unique=None),
        ),
    )
    return [
        Row(what=f"{PRODUCERS:,} producers, each awaiting enqueue, against plain jobs",
            value=one.rate, unit="jobs/s", floor=plain.rate, bar=Bar(0.7)),
        Row(what="the same, CPU a job", value=one.cpu_us, unit="µs", floor=plain.cpu_us),
        Row(what=f"enqueue_many of {CHUNK:,}, against plain jobs",
            value=bulk.rate, unit="jobs/s", floor=plain_bulk.rate),
        Row(what="the same, CPU a job", value=bulk.cpu_us, unit="µs", floor=plain_bulk.cpu_us),
    ]  # fmt: skip
