"""A host whose jobs have callbacks, to be killed: ``followed DATABASE SEED``. It prints "ready"."""

from __future__ import annotations

import asyncio
import faulthandler
import random
import sys
from pathlib import Path

from asyncjobs import Fail, JobOutcome, Runner

from .load import HANG_SECONDS


def runner_on(database: Path) -> Runner:
    """A runner with jobs that complete, fail or crash, and with what follows each."""
    runner = Runner(database, concurrency=40)

    @runner.task(name="good", max_crashes=1_000)
    async def good(outcome: JobOutcome) -> str:
        return outcome.job_id

    @runner.task(name="bad", max_crashes=1_000)
    async def bad(outcome: JobOutcome) -> str:
        return outcome.job_id

    @runner.task(name="work", max_crashes=2, on_complete=good, on_failure=bad)
    async def work(seconds: float, fails: bool) -> None:
        await asyncio.sleep(seconds)
        if fails:
            raise Fail("as told")

    return runner


async def main(database: Path, seed: int) -> None:
    """Enqueue for ever, and cancel some."""
    chance = random.Random(seed)
    runner = runner_on(database)
    work = runner.tasks["work"]
    async with runner:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            jobs = [work.job(chance.random() / 50, chance.random() < 0.3) for _ in range(20)]
            handles = await runner.enqueue_many(jobs)
            await chance.choice(handles).cancel("by chance")
            await handles[-1].wait()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
