"""How long one job takes from the call of ``enqueue`` to its result, with nothing else to do."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from asyncjobs import Runner

from . import floor
from .harness import Bar, Options, Row, interleave, percentile

TITLE = "enqueue to result, one job after the other, durability='full'"
BARS = {50: Bar(2, least=False), 99: Bar(5, least=False)}


async def trips(folder: Path, jobs: int) -> list[float]:
    """Seconds of each of ``jobs`` round trips of the engine."""
    runner = Runner(folder / "engine.db")
    task = runner.task(floor.no_op)
    async with runner:
        for _ in range(50):
            await (await task.enqueue())
        seconds = []
        for _ in range(jobs):
            began = time.perf_counter()
            handle = await task.enqueue()
            await handle
            seconds.append(time.perf_counter() - began)
        return seconds


def run(options: Options) -> list[Row]:
    """Measure engine and floor in turn."""
    jobs = options.pick(smoke=50, quick=500, normal=2_000)
    engines, floors = interleave(
        options, partial(trips, jobs=jobs), partial(floor.trips, jobs=jobs)
    )
    return [
        Row(what=f"round trip, p{percent}, best of {len(engines)}",
            value=min(percentile(run, percent) for run in engines) * 1e6, unit="µs",
            floor=min(percentile(run, percent) for run in floors) * 1e6, bar=bar)
        for percent, bar in BARS.items()
    ]  # fmt: skip
