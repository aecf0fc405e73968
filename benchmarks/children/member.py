"""One of several processes on one file: ``member PATH JOBS PRODUCERS``.

Says ``ready`` once its runner has started and waits for a line. With JOBS it then lets its own
producers run so many no-op jobs, each awaited, and says ``done``; without, it serves until its
input ends.
"""

from __future__ import annotations

import asyncio
import sys

from asyncjobs import Runner

from ..floor import no_op
from ..throughput import produce

NAP_SECONDS = 0.05


def member(path: str) -> Runner:
    """A runner with the two tasks of the benchmark."""
    runner = Runner(path)
    runner.task(name="no_op")(no_op)

    @runner.task(name="nap")
    async def nap() -> None:
        await asyncio.sleep(NAP_SECONDS)

    return runner


def say(word: str) -> None:
    """Tell the parent."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main(path: str, jobs: int, producers: int) -> None:
    """Serve, or produce."""
    runner = member(path)
    async with runner:
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        if jobs:
            await produce(runner.tasks["no_op"], jobs, producers)
            say("done")
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
