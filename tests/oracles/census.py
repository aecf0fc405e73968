"""What a stopped runner must not leave: tasks, threads, descriptors, lock files, children."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple

EXIT_GUARD = "asyncjobs-exit"
"""One daemon thread for the life of the process: it ends connections that somebody forgot."""


LAST_WORD_SECONDS = 1.0
"""Of a thread that has answered for the last time, as aiosqlite's does when it is closed: it has
nothing more to do, and may have had no turn yet to end."""


class Census(NamedTuple):
    """What is there now."""

    tasks: frozenset[int]
    threads: frozenset[int]
    descriptors: frozenset[str]
    children: frozenset[int]

    @classmethod
    def take(cls) -> Census:
        """Count; inside an event loop its tasks as well."""
        try:
            tasks = frozenset(id(task) for task in asyncio.all_tasks())
        except RuntimeError:
            tasks = frozenset()
        return cls(tasks, frozenset(_threads()), frozenset(_descriptors()), frozenset(_children()))


def _threads() -> Iterable[int]:
    # By object, not by identifier: those are given out again.
    return (id(thread) for thread in threading.enumerate() if thread.name != EXIT_GUARD)


def _descriptors() -> Iterable[str]:
    """Descriptors that lead to files and sockets, as "number target"; empty where no /proc is."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # the one that listed the folder
            yield f"{name} {os.readlink(folder / name)}"


def _children() -> Iterable[int]:
    return children_of(os.getpid())


def children_of(pid: int) -> Iterable[int]:
    """The children of a process."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, task.read_text().split())


def living_in(session: int) -> list[int]:
    """The processes of a session that run: of a fork server's, itself and its workers."""
    living = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                living.append(int(path.parent.name))
    return living


def assert_nothing_left(before: Census, database: Path | None = None) -> None:
    """Fail if anything is there that was not there ``before``.

    ``database``: its folder of instances must be empty as well.
    """
    gc.collect()
    for thread in threading.enumerate():
        if id(thread) not in before.threads and thread.name != EXIT_GUARD:
            thread.join(LAST_WORD_SECONDS)
    now = Census.take()
    new_threads = [t for t in threading.enumerate() if id(t) in now.threads - before.threads]
    new_tasks: list[asyncio.Task[object]] = []
    with contextlib.suppress(RuntimeError):
        new_tasks = [t for t in asyncio.all_tasks() if id(t) in now.tasks - before.tasks]
    assert not new_tasks, f"tasks left behind: {new_tasks}"
    assert not new_threads, f"threads left behind: {new_threads}"
    left = {entry for entry in now.descriptors - before.descriptors if "/fd" not in entry}
    assert not left, f"descriptors left behind: {sorted(left)}"
    assert now.children <= before.children, f"children left: {now.children - before.children}"
    if database is not None:
        folder = Path(f"{database}-runners")
        locks = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
        assert not locks, f"lock files left behind: {locks}"


@contextlib.asynccontextmanager
async def nothing_left(database: Path | None = None) -> AsyncIterator[None]:
    """The block leaves nothing behind."""
    before = Census.take()
    yield
    await asyncio.sleep(0)  # tasks that were cancelled last end in the next pass of the loop
    assert_nothing_left(before, database)
