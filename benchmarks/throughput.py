"""How many jobs a second the engine runs when everybody waits for their result.

In a pool as large as the producers are many, where jobs start as they come, and in the default pool
of 100, where nine in ten first wait in the queue.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from asyncjobs import Runner, Task

from . import floor
from .harness import Bar, Options, Row, Sample, best, interleave, median, timed

TITLE = "awaited no-op jobs, durability='full'"


async def produce(task: Task[[], None], jobs: int, producers: int) -> None:
    """Let all producers together run ``jobs`` jobs, each one after the other."""

    async def producer() -> None:
        for _ in range(jobs // producers):
            handle = await task.enqueue()
            await handle

    await asyncio.gather(*(producer() for _ in range(producers)))


async def busy(
    folder: Path, jobs: int, producers: int = floor.PRODUCERS, slots: int = floor.SLOTS
) -> Sample:
    """The engine under load."""
    runner = Runner(folder / "engine.db", concurrency=slots)
    task = runner.task(floor.no_op)
    async with runner:
        await produce(task, 2 * producers, producers)
        return await timed(jobs, produce(task, jobs, producers))


def run(options: Options) -> list[Row]:
    """Measure engine and floor in turn, both with the same pool."""
    return [*rows(options, floor.PRODUCERS), *rows(options, floor.SLOTS)]


def rows(options: Options, slots: int) -> list[Row]:
    """The rows of one size of the pool."""
    jobs = options.pick(smoke=1_000, quick=10_000, normal=30_000)
    engines, floors = interleave(
        options, partial(busy, jobs=jobs, slots=slots), partial(floor.busy, jobs=jobs, slots=slots)
    )
    engine, least = best(engines), best(floors)
    pairs = [own.rate / other.rate for own, other in zip(engines, floors, strict=True)]
    pool = f"pool of {slots:,}"
    return [
        Row(what=f"{floor.PRODUCERS:,} producers, {pool}, best of {len(engines)}",
            value=engine.rate, unit="jobs/s", floor=least.rate, bar=Bar(0.5)),
        Row(what=f"CPU a job, {pool}", value=engine.cpu_us, unit="µs", floor=least.cpu_us),
        Row(what="of it, the event loop's thread",
            value=engine.loop_us, unit="µs", floor=least.loop_us),
        Row(what="median of the runs' own ratios", value=median(pairs), unit="x"),
    ]  # fmt: skip
