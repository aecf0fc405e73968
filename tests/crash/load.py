"""The tasks of the crash tests, and a host program that keeps them busy until it is killed.

``load DATABASE LEDGERS SEED [PROCESSES]`` prints "ready" and never ends by itself. Every
job returns its claim number and writes its start and end to the effect ledger.
"""

from __future__ import annotations

import asyncio
import faulthandler
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asyncjobs import AsyncJobsError, Retry, Runner, Snooze, Task, current_job
from tests.oracles import AckLedger, EffectLedger

from . import burning

HANG_SECONDS = 60.0
UNLIMITED_CRASHES = 1_000


class Load:
    """A runner with the tasks, and the ledgers they write."""

    def __init__(self, database: Path, ledgers: Path, **options: object) -> None:
        self.acks = AckLedger(ledgers / "acks")
        self.effects = EffectLedger(ledgers / "effects")
        self.runner = Runner(database, **{"concurrency": 24, "threads": 4, **options})  # type: ignore[arg-type]
        self.ledgers = ledgers
        self._add_tasks()
        if "processes" in options:
            self.runner.include(burning.tasks)

    def close(self) -> None:
        """Close the ledgers."""
        self.acks.close()
        self.effects.close()

    @contextmanager
    def _run(self) -> Iterator[int]:
        job = current_job()
        self.effects.start(job.id, job.fence)
        try:
            yield job.fence[1]
        finally:
            self.effects.end(job.id, job.fence)

    def _add_tasks(self) -> None:
        task = self.runner.task

        @task(name="quick", max_crashes=UNLIMITED_CRASHES)
        async def quick() -> int:
            with self._run() as claim:
                return claim

        @task(name="slow", max_crashes=UNLIMITED_CRASHES)
        async def slow(seconds: float) -> int:
            with self._run() as claim:
                await asyncio.sleep(seconds)
                return claim

        @task(name="threaded", max_crashes=UNLIMITED_CRASHES)
        def threaded(seconds: float) -> int:
            with self._run() as claim:
                time.sleep(seconds)
                return claim

        @task(name="flaky", retry=Retry(attempts=3, base=0.01), max_crashes=UNLIMITED_CRASHES)
        async def flaky() -> int:
            with self._run() as claim:
                if current_job().attempt < 3:
                    raise ConnectionError("not yet")
                return claim

        @task(name="snoozing", max_crashes=UNLIMITED_CRASHES)
        async def snoozing() -> int:
            with self._run() as claim:
                if claim < 3:
                    raise Snooze(0.01)
                return claim

        @task(name="parent", max_crashes=UNLIMITED_CRASHES)
        async def parent() -> int:
            with self._run() as claim:
                children = [await quick.enqueue() for _ in range(3)]
                for child in children:
                    self.acks.ack("job", child.id)
                for child in children:
                    await child
                return claim

        self.quick, self.slow, self.threaded = quick, slow, threaded
        self.flaky, self.snoozing, self.parent = flaky, snoozing, parent

    # Producers, until the end of the process

    async def produce(self, chance: random.Random) -> None:
        """Enqueue one by one, of all kinds; await, cancel and retry some."""
        while True:
            choices: list[tuple[Task[..., int], tuple[Any, ...]]] = [
                (self.quick, ()), (self.quick, ()), (self.flaky, ()), (self.snoozing, ()),
                (self.parent, ()), (self.slow, (chance.random() / 20,)),
                (self.threaded, (chance.random() / 100,)),
            ]  # fmt: skip
            task, arguments = chance.choice(choices)
            delay = chance.choice([None, None, None, chance.random() / 10])
            handle = await task.options(delay=delay, priority=chance.randrange(3)).enqueue(
                *arguments
            )
            self.acks.ack("job", handle.id)
            match chance.randrange(5):
                case 0:
                    if await handle.cancel("by the load") == "cancelled":
                        self.acks.ack("cancelled", handle.id)
                case 1:
                    job = await handle.wait()
                    if chance.random() < 0.3:
                        self.acks.ack("retry-asked", job.id)
                        await handle.retry()
                        self.acks.ack("retried", job.id)
                case 2:
                    try:
                        self.acks.ack("result", handle.id, await handle)
                    except AsyncJobsError as error:
                        self.acks.ack("error", handle.id, type(error).__name__)

    async def produce_bulks(self, chance: random.Random) -> None:
        """Enqueue many at a time, waiting for the last so that the backlog stays small."""
        while True:
            jobs = [self.quick.job() for _ in range(chance.randrange(1, 60))]
            handles = await self.runner.enqueue_many(jobs)
            for handle in handles:
                self.acks.ack("job", handle.id)
            await handles[-1].wait()

    async def produce_burning(self, chance: random.Random) -> None:
        """Enqueue jobs for workers, some at a time, and cancel one now and then."""
        while True:
            handles = []
            for _ in range(4):
                task = chance.choice(burning.TASKS)
                # Some go on for as long as it takes others to take their host for dead.
                seconds = chance.random() ** 3
                handles.append(await task.enqueue(str(self.ledgers), seconds))
                self.acks.ack("job", handles[-1].id)
            if chance.randrange(3) == 0:
                await handles[chance.randrange(4)].cancel("by the load")
            for handle in handles:
                await handle.wait()


async def main(database: Path, ledgers: Path, seed: int, processes: int) -> None:
    """Run the load for ever."""
    load = Load(database, ledgers, **({"processes": processes} if processes else {}))
    chance = random.Random(seed)
    async with load.runner:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(load.produce(random.Random(chance.random())))
            group.create_task(load.produce_bulks(random.Random(chance.random())))
            for _ in range(processes):
                group.create_task(load.produce_burning(random.Random(chance.random())))


if __name__ == "__main__":
    # A host may be left alive for many kills, and each takes seconds on a busy machine.
    faulthandler.dump_traceback_later(5 * HANG_SECONDS, exit=True)
    database, ledgers, seed, *processes = sys.argv[1:]
    asyncio.run(main(Path(database), Path(ledgers), int(seed), int(*processes)))
