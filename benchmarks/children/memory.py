"""Runs jobs and reports its own memory: ``memory PATH COUNT...``, or ``memory --bare``.

Bare: the interpreter and the packages that asyncjobs needs, imported and nothing more.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
from importlib import import_module

import msgspec

DEPENDENCIES = ("asyncio", "sqlite3", "anyio", "aiosqlite", "msgspec")
PRODUCERS = 1_000


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) * 1024


def peak() -> int:
    """The most it ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


async def run_jobs(path: str, counts: list[int]) -> dict[int, int]:
    """Memory after each count of awaited no-op jobs."""
    from asyncjobs import Runner

    runner = Runner(path)

    @runner.task(name="no_op")
    async def no_op() -> None:
        pass

    async def producer(jobs: int) -> None:
        for _ in range(jobs):
            await (await no_op.enqueue())

    held = {}
    done = 0
    async with runner:
        for count in counts:
            producers = min(PRODUCERS, count - done)
            share = (count - done) // producers
            await asyncio.gather(*(producer(share) for _ in range(producers)))
            done = count
            held[count] = resident()
    return held


def main() -> None:
    """Report as JSON."""
    for name in DEPENDENCIES:
        import_module(name)
    bare = resident()
    held = {}
    if sys.argv[1] != "--bare":
        held = asyncio.run(run_jobs(sys.argv[1], [int(count) for count in sys.argv[2:]]))
    found = {"bare": bare, "held": held, "peak": peak()}
    sys.stdout.write(msgspec.json.encode(found).decode())


main()
