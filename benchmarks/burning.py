"""Work for workers: tasks and functions that use the CPU, importable as they must be."""

from __future__ import annotations

import os
import time

from asyncjobs import Tasks

tasks = Tasks()
kept: list[bytes] = []


def burn(rounds: int) -> int:
    """So many rounds of work that no cache and no clock can shorten."""
    number = 1
    for _ in range(rounds):
        number = number * 1_103_515_245 + 12_345 & 0x7FFF_FFFF
    return number


def rounds_for(seconds: float) -> int:
    """How many rounds take about ``seconds`` of CPU here; the best of several tries."""
    rounds, best = 20_000, float("inf")
    for _ in range(15):
        began = time.process_time()
        burn(rounds)
        best = min(best, time.process_time() - began)
    return max(1, int(rounds * seconds / best))


@tasks.task(executor="process")
def burn_warm(rounds: int) -> int:
    """In a worker that serves many jobs."""
    return burn(rounds)


@tasks.task(executor="process")
def burn_and_leak(rounds: int) -> int:
    """The same, and a megabyte less memory after each."""
    kept.append(os.urandom(1024) * 1024)
    return burn(rounds)


@tasks.task
async def here() -> int:
    """In the event loop."""
    return 0


@tasks.task(executor="process")
def warm() -> int:
    """In a worker that serves many jobs."""
    return os.getpid()


@tasks.task(executor="isolated")
def alone() -> int:
    """In a process of its own."""
    return os.getpid()
