"""Runs jobs that do not end, says so, and waits to be killed: ``recovery PATH JOBS``."""

from __future__ import annotations

import asyncio
import sys

from asyncjobs import Runner


async def main(path: str, jobs: int) -> None:
    """Say ``ready`` once every job runs."""
    runner = Runner(path, concurrency=jobs)
    running = 0

    @runner.task(name="stuck", max_crashes=1_000)
    async def stuck() -> None:
        nonlocal running
        running += 1
        if running == jobs:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        await asyncio.Event().wait()

    async with runner:
        await runner.enqueue_many(stuck.job() for _ in range(jobs))
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
