"""What the runner's tests share: waiting for a condition, and the census after a stop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asyncjobs import Runner
from asyncjobs.store.sqlite.transaction import STATEMENTS

PATIENCE_SECONDS = 30.0
"""How long a test waits for what must happen before it calls that a hang."""


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until ``condition`` holds, for what has no event to wait for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.001)


async def assert_nothing_spins(runner: Runner) -> None:
    """One look for jobs asks the database for one claim, and no other one follows from it.

    For a runner on the manual clock, where nothing but the jobs themselves can make it look.
    """
    claims: list[str] = []
    writer = runner.engine().store._writer

    def note(statement: str) -> None:
        if statement == STATEMENTS["unstarted"]:  # what every claim asks first
            claims.append(statement)

    await until(lambda: runner.engine().commit.quiet)
    await writer.run(lambda connection: connection.set_trace_callback(note))
    runner.engine().dispatcher.wake()
    await until(lambda: claims and runner.engine().commit.quiet)
    for _ in range(100):  # what was put off comes in one of the next passes
        await asyncio.sleep(0)
    await until(lambda: runner.engine().commit.quiet)
    await writer.run(lambda connection: connection.set_trace_callback(None))
    assert len(claims) == 1


class Census(NamedTuple):
    """What is alive in this process, and which lock files are on disk."""

    tasks: frozenset[str]
    threads: frozenset[str]
    descriptors: frozenset[str]
    locks: frozenset[str]


def census(folder: Path) -> Census:
    """Count everything that a stopped runner must not leave behind."""
    tasks = frozenset(task.get_name() for task in asyncio.all_tasks())
    threads = frozenset(
        thread.name for thread in threading.enumerate() if thread.name != "asyncjobs-exit"
    )
    locks = frozenset(str(path) for path in folder.glob("*-runners/*"))
    return Census(tasks, threads, frozenset(_descriptors(folder)), locks)


def _descriptors(folder: Path) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


async def nothing_left(before: Census, folder: Path) -> None:
    """Wait for threads that are about to end: nothing more is there than before."""
    deadline = time.monotonic() + 2.0
    while any((left := _more(census(folder), before)).values()):
        assert time.monotonic() < deadline, f"left behind: {left}"
        await asyncio.sleep(0.002)


def _more(now: Census, before: Census) -> dict[str, frozenset[str]]:
    # Not equality: what an earlier test left on its way out may be gone by now.
    return {kind: getattr(now, kind) - getattr(before, kind) for kind in Census._fields}


def run_script(script: Path, *arguments: str, timeout: float = 20.0) -> str:
    """Run a program to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=script.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
