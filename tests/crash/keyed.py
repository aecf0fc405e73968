"""A host program that runs limited jobs until it is killed: ``keyed DATABASE LEDGERS SEED``."""

from __future__ import annotations

import asyncio
import faulthandler
import random
import sys
from pathlib import Path

from asyncjobs import Limit, Runner, current_job
from tests.oracles import EffectLedger

HANG_SECONDS = 300.0
UNLIMITED_CRASHES = 1_000
KEY_CAP = 2
QUEUE_CAP = 5
LONGEST_SECONDS = 0.004


class Keyed:
    """A runner with limited tasks, and the ledger they write."""

    def __init__(self, database: Path, ledgers: Path, seed: int = 0) -> None:
        self.effects = EffectLedger(ledgers / "effects")
        self.runner = Runner(database, concurrency=20)
        chance = random.Random(seed)

        async def work() -> None:
            job = current_job()
            self.effects.start(job.id, job.fence)
            await asyncio.sleep(chance.random() * LONGEST_SECONDS)
            self.effects.end(job.id, job.fence)

        task = self.runner.task

        @task(name="keyed", max_crashes=UNLIMITED_CRASHES, limit=Limit(key="key", running=KEY_CAP))
        async def keyed(key: int) -> None:
            await work()

        @task(name="ordered", max_crashes=UNLIMITED_CRASHES, limit=Limit(key="key", ordered=True))
        async def ordered(key: int) -> None:
            await work()

        @task(name="narrow", queue="narrow", max_crashes=UNLIMITED_CRASHES)
        async def narrow() -> None:
            await work()

        self.keyed, self.ordered, self.narrow = keyed, ordered, narrow


async def main(database: Path, ledgers: Path, seed: int) -> None:
    """Run jobs for ever."""
    async with Keyed(database, ledgers, seed).runner:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
