"""What the tests of workers share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asyncjobs import JobHandle, Runner, Tasks
from asyncjobs.testing import ManualClock
from tests.oracles.census import nothing_left

from . import worker_tasks

PATIENCE_SECONDS = 30.0
"""How long a test waits for what must happen before it calls that a hang."""


@asynccontextmanager
async def workers(
    folder: Path, tasks: Tasks = worker_tasks.tasks, **options: Any
) -> AsyncIterator[Runner]:
    """A runner with these tasks, which leaves nothing behind."""
    database = folder / "jobs.db"
    options = {"processes": 2, "grace": 0.0, "clock": ManualClock(), **options}
    async with nothing_left(database):
        runner = Runner(database, **options)
        runner.include(tasks)
        async with runner:
            yield runner


async def until(
    condition: Callable[[], object], seen: Callable[[], object] = lambda: "it never came to that"
) -> None:
    """Let the event loop turn until ``condition`` holds; else fail with what is ``seen``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, seen()
        await asyncio.sleep(0)


async def pids_at(path: Path, count: int = 1) -> list[int]:
    """The processes that have said at ``path`` that they run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count and all(lines):
            return [int(line) for line in lines]
        assert time.monotonic() < deadline, f"{len(lines)} of {count} processes run"
        await asyncio.sleep(0.002)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def gone(*pids: int, within: float) -> None:
    """Wait until the processes have ended."""
    deadline = time.monotonic() + within
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"processes {alive} live on"
        await asyncio.sleep(0.002)


def worker_pids(runner: Runner) -> list[int]:
    """The workers there are."""
    return [info.pid for info in runner.registry.workers() if info.pid is not None]


def server_pid(runner: Runner) -> int:
    """The fork server: the parent of every worker."""
    stat = Path(f"/proc/{worker_pids(runner)[0]}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def following(runner: Runner, leader: JobHandle[Any]) -> int:
    """How many jobs have been sent to this one's worker behind it; -1 when it has no worker."""
    for info in runner.registry.workers():
        if info.job_id == leader.id:
            return info.following
    return -1
