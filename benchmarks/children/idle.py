"""Does nothing for a while and reports what that cost: ``idle engine|floor PATH SECONDS``."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec

SETTLING_SECONDS = 2.5
"""Past the first look at the neighbours, which asks the database once more."""


async def no_op() -> None:
    """The task that nobody enqueues."""


def subject(kind: str, path: Path) -> AbstractAsyncContextManager[Any]:
    """What idles."""
    if kind == "floor":
        from benchmarks.floor import SLOTS, Floor

        return Floor(path, {"no_op": no_op}, SLOTS)
    from asyncjobs import Runner

    runner = Runner(path)
    runner.task(no_op)
    return runner


def switches() -> dict[str, int]:
    """How often each thread went to sleep so far, where the system tells."""
    found = {}
    for status in Path("/proc/self/task").glob("*/status"):
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        found[status.parent.name] = int(lines["voluntary_ctxt_switches"])
    return found or {"all": resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw}


async def watch(kind: str, path: Path, seconds: float) -> dict[str, float]:
    """CPU seconds a minute, and wake-ups a second of the busiest thread and of all."""
    async with subject(kind, path):
        await asyncio.sleep(SETTLING_SECONDS)
        before, cpu = switches(), time.process_time()
        await asyncio.sleep(seconds)
        cpu, after = time.process_time() - cpu, switches()
    slept = [after[thread] - before.get(thread, 0) for thread in after]
    return {
        "cpu_a_minute": cpu / seconds * 60,
        # Less one: the watcher's own.
        "busiest": max(max(slept) - 1, 0) / seconds,
        "all": max(sum(slept) - 1, 0) / seconds,
    }


def main() -> None:
    """Report as JSON."""
    kind, path, seconds = sys.argv[1:]
    found = asyncio.run(watch(kind, Path(path), float(seconds)))
    sys.stdout.write(msgspec.json.encode(found).decode())


main()
