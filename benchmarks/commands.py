"""The command line among a million jobs, and what its looks cost an application beside it."""

from __future__ import annotations

import asyncio
import math
import resource
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
async def in_a_loop(path: Path, *words: str) -> AsyncIterator[None]:
    """One call after the other, as long as the block runs."""

    async def call() -> None:
        while True:
            calling = await asyncio.create_subprocess_exec(
                *command(path, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                await calling.wait()
            except asyncio.CancelledError:
                calling.kill()
                await calling.wait()
                raise

    calls = asyncio.create_task(call())
    try:
        yield
    finally:
        calls.cancel()
        await asyncio.wait([calls])


@asynccontextmanager
async def tail(path: Path) -> AsyncIterator[None]:
    """One that follows the events."""
    following = await asyncio.create_subprocess_exec(
        *command(path, "tail", "--json", "--since", "1s"), stdout=subprocess.PIPE
    )
    assert following.stdout is not None
    reading = asyncio.create_task(_read(following.stdout))
    try:
        yield
    finally:
        following.terminate()
        await following.wait()
        await reading


async def _read(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


@asynccontextmanager
async def both(path: Path) -> AsyncIterator[None]:
    """Somebody follows the events, and somebody lists jobs again and again."""
    async with tail(path), in_a_loop(path, "ls"):
        yield


async def beside(path: Path, rounds: int, seconds: float) -> list[Row]:
    """What an enqueue takes, in turn alone and beside each."""
    cases: Mapping[str, Callable[[], AbstractAsyncContextManager[None]]] = {
        "alone": nothing,
        "beside --help in a loop": lambda: in_a_loop(path, "--help"),
        "beside tail": lambda: tail(path),
        "beside ls in a loop": lambda: in_a_loop(path, "ls"),
        "beside tail and ls in a loop": lambda: both(path),
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
    all_of_it = "beside tail and ls in a loop"
    rows = [
        p99_row(f"enqueue {name}, p99, best of {rounds}", [best[name]],
                BESIDE_BAR if name == all_of_it else None,
                floor=None if name == "alone" else best["alone"] * 1e3)
        for name in cases
    ]  # fmt: skip
    # A process that starts again and again takes a core, whatever it does.
    busy = best["beside --help in a loop"] * 1e3
    return [*rows, p99_row("the last, against --help in a loop", [best[all_of_it]], floor=busy)]


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
