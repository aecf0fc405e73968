"""What four processes on one file do together, against one."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from asyncjobs.rules.limits import BULK_MAX

from .children.member import NAP_SECONDS, member
from .harness import Bar, Options, Row, child_command, interleave, percentile

TITLE = "four processes on one file, durability='full', against one"

PROCESSES = 4
PRODUCERS = 1_000
LOOK_SECONDS = 0.002
"""Between two looks at how many jobs have ended; a thousandth of what is measured."""


class Members:
    """Processes with a runner each, all started and waiting."""

    def __init__(self, path: Path, count: int, jobs: int) -> None:
        command = child_command("member", path, jobs // count, PRODUCERS // count)
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(count)
        ]
        self.all_say(b"ready\n")

    def all_say(self, word: bytes) -> None:
        """Wait until each has said it."""
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != word:
                raise RuntimeError("a process of the benchmark has failed")

    def go(self) -> None:
        """Let them begin."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def end(self) -> None:
        """Let them end."""
        for process in self._processes:
            process.communicate()


@contextmanager
def members(path: Path, count: int, jobs: int = 0) -> Iterator[Members]:
    """So many processes, ended with the block."""
    some = Members(path, count, jobs)
    try:
        yield some
    finally:
        some.end()


async def awaited(folder: Path, count: int, jobs: int) -> float:
    """Jobs a second when each process's producers await their jobs, all together."""
    with members(folder / "jobs.db", count, jobs) as some:
        began = time.perf_counter()
        some.go()
        some.all_say(b"done\n")
        return jobs / (time.perf_counter() - began)


async def drained(folder: Path, count: int, jobs: int, task: str) -> float:
    """Jobs a second of what stands in the file, enqueued at once by a client."""
    path = folder / "jobs.db"
    with members(path, count) as some:
        runner = member(str(path))
        some.go()
        async with runner.client() as client:
            await client.enqueue_many([runner.tasks[task].job() for _ in range(jobs)])
            began = time.perf_counter()  # none can have started before its commit
            # Awaiting the handles would load the client as much as a runner.
            while await client.registry.count(state="completed") < jobs:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
            return jobs / (time.perf_counter() - began)


async def crossing(folder: Path, jobs: int) -> list[float]:
    """Seconds from enqueue to result when a client's jobs run in another process."""
    path = folder / "jobs.db"
    with members(path, 1) as some:
        runner = member(str(path))
        some.go()
        async with runner.client():
            seconds = []
            for _ in range(jobs):
                began = time.perf_counter()
                await (await runner.tasks["no_op"].enqueue())
                seconds.append(time.perf_counter() - began)
            return seconds


def run(options: Options) -> list[Row]:
    """Measure one process and four in turn."""
    jobs = options.pick(smoke=1_000, quick=8_000, normal=20_000)
    bulk = min(jobs, BULK_MAX)
    naps = options.pick(smoke=200, quick=4_000, normal=8_000)
    trips = options.pick(smoke=20, quick=200, normal=1_000)
    runs = options.pick(smoke=1, quick=2, normal=5)
    four_nap, one_nap, four_drain, one_drain, four, one = interleave(
        options,
        *(partial(drained, count=count, jobs=naps, task="nap") for count in (PROCESSES, 1)),
        *(partial(drained, count=count, jobs=bulk, task="no_op") for count in (PROCESSES, 1)),
        *(partial(awaited, count=count, jobs=jobs) for count in (PROCESSES, 1)),
        runs=runs,
    )
    (crossed,) = interleave(options, partial(crossing, jobs=trips), runs=min(runs, 3))
    nap = f"{NAP_SECONDS * 1e3:.0f} ms"
    return [
        Row(what=f"jobs that sleep {nap}, four processes against one, best of {runs}",
            value=max(four_nap), unit="jobs/s", floor=max(one_nap), bar=Bar(3.5)),
        Row(what=f"no-op jobs awaited by {PRODUCERS:,} producers, four against one",
            value=max(four), unit="jobs/s", floor=max(one), bar=Bar(0.8)),
        Row(what="no-op jobs drained from the file, four against one",
            value=max(four_drain), unit="jobs/s", floor=max(one_drain), bar=Bar(0.8)),
        *(
            Row(what=f"enqueue to result when another process runs the job, p{percent}",
                value=min(percentile(run, percent) for run in crossed) * 1e3, unit="ms")
            for percent in (50, 99)
        ),
    ]  # fmt: skip
