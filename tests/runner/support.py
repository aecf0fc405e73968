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

PATIENCE_SECONDS = 30.0
"""How long a test waits for what must happen before it calls that a hang."""


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until ``condition`` holds, for what has no event to wait for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.001)


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
