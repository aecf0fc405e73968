"""The command line among a million jobs, and what its looks cost an application beside it."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from asyncjobs import Runner
from asyncjobs.services.instance import LEASE_SECONDS, Instance

from .harness import Bar, Options, Row, percentile
from .registry import Neighbour, build, p99_row

TITLE = "the command line as processes of their own, and an application that enqueues beside them"
LS_BAR = Bar(0.5, of="value", least=False)
BESIDE_BAR = Bar(1.1, least=False)

COMMANDS = {
    "ls": ["ls"],
    "ls --state failed --task task-3": ["ls", "--state", "failed", "--task", "task-3"],
    "ls --count": ["ls", "--count"],
    "--help, which opens nothing": ["--help"],
}

# A twentieth of a second's wait, and its looks: 13 % of a core beside 1,700 jobs a second.
AS_TAIL = """
import time
while True:
    end = time.perf_counter() + 0.0065
    while time.perf_counter() < end:
        pass
    time.sleep(0.0435)
"""


def command(path: Path, *words: str) -> list[str]:
    """A call of the command line."""
    return [sys.executable, "-m", "asyncjobs", "--db", str(path), *words]


def whole_processes(path: Path, rounds: int) -> list[Row]:
    """From the start of a process to its end, in turn, the best of some rounds; and its CPU."""
    wall, cpu = dict.fromkeys(COMMANDS, math.inf), dict.fromkeys(COMMANDS, math.inf)
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            began, used = time.perf_counter(), _cpu_of_children()
            subprocess.run(command(path, *words), capture_output=True, check=True)
            wall[name] = min(wall[name], time.perf_counter() - began)
            cpu[name] = min(cpu[name], _cpu_of_children() - used)
    return [
        Row(what=f"{name}, {what}, best of {rounds}", value=best[name], unit="s", bar=bar)
        for name, words in COMMANDS.items()
        for what, best, bar in (
            ("whole process", wall, LS_BAR if words[0] == "ls" else None),
            ("its CPU", cpu, None),
        )
    ]


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """Nobody beside it."""
    yield


@asynccontextmanager
async def going_on(*words: str) -> AsyncIterator[None]:
    """A program that goes on as long as the block runs.

    Nothing of it falls to the process that is measured: neither its output nor its children.
    """
    program = await asyncio.create_subprocess_exec(
        *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        await program.wait()


def in_a_loop(path: Path, *words: str) -> AbstractAsyncContextManager[None]:
    """One call after the other, as somebody's shell makes them."""
    return going_on("/bin/sh", "-c", 'while :; do "$@"; done', "sh", *command(path, *words))


def tail(path: Path) -> AbstractAsyncContextManager[None]:
    """One that follows the events."""
    return going_on(*command(path, "tail", "--json", "--since", "1s"))


@asynccontextmanager
async def both(path: Path) -> AsyncIterator[None]:
    """Somebody follows the events, and somebody lists jobs again and again."""
    async with tail(path), in_a_loop(path, "ls"):
        yield


@asynccontextmanager
async def as_much(path: Path) -> AsyncIterator[None]:
    """The processor time of both, spent without a look at the database."""
    async with going_on(sys.executable, "-c", AS_TAIL), in_a_loop(path, "--help"):
        yield


async def beside(path: Path, rounds: int, seconds: float) -> list[Row]:
    """What an enqueue takes, in turn alone and beside each."""
    cases: Mapping[str, Callable[[], AbstractAsyncContextManager[None]]] = {
        "alone": nothing,
        "beside tail": lambda: tail(path),
        "beside ls in a loop": lambda: in_a_loop(path, "ls"),
        "beside tail and ls in a loop": lambda: both(path),
        "beside as much that opens nothing": lambda: as_much(path),
    }
    best: dict[str, float] = {}
    async with Runner(path, queues=["neighbour"]) as runner:
        neighbour = Neighbour(runner)
        for _ in range(rounds):
            for name, company in cases.items():
                took: list[float] = []
                async with company(), neighbour.beside(took):
                    await asyncio.sleep(seconds)
                best[name] = min(percentile(took, 99), best.get(name, math.inf))
    alone, together = best["alone"] * 1e3, best["beside tail and ls in a loop"]
    *looks, as_busy = (name for name in cases if name != "alone")
    return [
        p99_row(f"enqueue alone, p99, best of {rounds}", [best["alone"]]),
        *(p99_row(f"enqueue {name}, p99", [best[name]], BESIDE_BAR, floor=alone) for name in looks),
        p99_row(f"enqueue {as_busy}, p99", [best[as_busy]], floor=alone),
        # Three busy processes on two cores wait for each other, whatever they do.
        p99_row("tail and ls against as much that opens nothing", [together],
                BESIDE_BAR, floor=best[as_busy] * 1e3),
    ]  # fmt: skip


async def measure_all(folder: Path, jobs: int, rounds: int, seconds: float) -> list[Row]:
    """Build, then call."""
    path = folder / "many.db"
    instance = Instance(str(path), LEASE_SECONDS)  # so that nobody takes its running jobs over
    instance.start(lambda: None)
    try:
        await build(path, jobs, instance.id)
        rows = whole_processes(path, rounds)
        return rows + await beside(path, rounds, seconds)
    finally:
        instance.stop()


def run(options: Options) -> list[Row]:
    """One database, and each case many times."""
    jobs = options.pick(smoke=2_000, quick=100_000, normal=1_000_000)
    seconds = options.pick(smoke=0.3, quick=1.0, normal=2.0)
    with options.folder() as folder:
        return asyncio.run(measure_all(Path(folder), jobs, options.runs, seconds))
