"""What it costs that many wait: throughput with 2,000 awaiters against 100."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from asyncjobs import Runner

from . import floor, throughput
from .harness import Bar, Options, Row, Sample, best, interleave, timed

TITLE = "2,000 awaiters against 100 (in place of the floor)"
MANY = 2_000
FEW = 100
DAY = 86_400


async def beside(folder: Path, jobs: int, awaiters: int) -> Sample:
    """The load of ``FEW`` producers, while others, up to ``awaiters``, wait for jobs not due."""
    runner = Runner(folder / "engine.db")
    task = runner.task(floor.no_op)
    later = task.options(delay=DAY)
    async with runner:
        handles = await runner.enqueue_many(later.job() for _ in range(awaiters - FEW))
        waiting = [asyncio.ensure_future(handle.result()) for handle in handles]
        await throughput.produce(task, 2 * FEW, FEW)
        sample = await timed(jobs, throughput.produce(task, jobs, FEW))
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return sample


def run(options: Options) -> list[Row]:
    """Measure many and few in turn."""
    jobs = options.pick(smoke=2_000, quick=10_000, normal=30_000)
    busy, few, crowded, alone = map(
        best,
        interleave(
            options,
            partial(throughput.busy, jobs=jobs, producers=MANY, slots=MANY),
            partial(throughput.busy, jobs=jobs, producers=FEW, slots=MANY),
            partial(beside, jobs=jobs, awaiters=MANY),
            partial(beside, jobs=jobs, awaiters=FEW),
        ),
    )
    return [
        Row(what=f"{MANY:,} producers, each awaiting its job, against {FEW}",
            value=busy.rate, unit="jobs/s", floor=few.rate, bar=Bar(0.9)),
        Row(what=f"{FEW} producers beside {MANY - FEW:,} who wait for other jobs, against none",
            value=crowded.rate, unit="jobs/s", floor=alone.rate, bar=Bar(0.9)),
        Row(what="the same, CPU a job", value=crowded.cpu_us, unit="µs", floor=alone.cpu_us),
    ]  # fmt: skip
