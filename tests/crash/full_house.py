"""Hosts to be killed with their house full, or that kill themselves.

``full_house DATABASE JOBS`` enqueues JOBS jobs, prints "ready" once all run
at once, and waits. With "pill" in place of JOBS it runs what is there; a job "pill" kills it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from asyncjobs import Runner

BULK = 5_000


def house(
    database: Path, *, forever: bool, begun: Callable[[], None] = lambda: None, **options: object
) -> Runner:
    """A runner with a task that runs ``forever`` or returns at once, one that fails at its first
    crash, and one that kills its process."""
    runner = Runner(database, **options)  # type: ignore[arg-type]

    async def stay() -> None:
        begun()
        if forever:
            await asyncio.Event().wait()

    runner.task(name="stay")(stay)
    runner.task(name="once", on_crash="fail")(stay)

    @runner.task(name="pill")
    async def pill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return runner


async def fill(database: Path, jobs: int) -> None:
    """Run ``jobs`` jobs at once, a tenth of which may not be run again; then wait to be killed."""
    full = asyncio.Semaphore(0)
    runner = house(database, forever=True, begun=full.release, concurrency=jobs)
    async with runner:
        once, stay = runner.tasks["once"], runner.tasks["stay"]
        for start in range(0, jobs, BULK):
            await runner.enqueue_many(
                (stay if number % 10 else once).job()
                for number in range(start, min(start + BULK, jobs))
            )
        for _ in range(jobs):
            await full.acquire()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def take_pills(database: Path) -> None:
    """Run what is there until it kills us, five jobs at a time."""
    async with house(database, forever=False, concurrency=5):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(60, exit=True)
    if sys.argv[2] == "pill":
        asyncio.run(take_pills(Path(sys.argv[1])))
    else:
        asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2])))
