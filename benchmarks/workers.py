"""Jobs in subprocesses: what the way there and back costs, and whether workers stay fit."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

from asyncjobs import Runner, Task

from . import burning
from .harness import Bar, Options, Row, interleave, median, percentile

TITLE = "process and isolated executors, durability='full'"
JOB_SECONDS = 0.005
MEGABYTE = 1024 * 1024
MAX_RSS = 100 * MEGABYTE
LIFE_JOBS = 80
"""How many jobs that leak a megabyte make a worker that large."""
POOL_MODULES = "asyncjobs.running.executors.process"
COMPARED_RUNS = 7


def a_runner(folder: Path, **options: Any) -> Runner:
    """A runner with the tasks of ``burning``."""
    runner = Runner(folder / "engine.db", **{"processes": 2, "processes_min": 2, **options})
    runner.include(burning.tasks)
    return runner


# Round trips


async def trips(folder: Path, jobs: int) -> dict[str, list[float]]:
    """Seconds from enqueue to result, in turn in the event loop, in a worker, and alone."""
    tasks: list[Task[[], int]] = [burning.here, burning.warm, burning.alone]
    seconds: dict[str, list[float]] = {task.executor: [] for task in tasks}
    async with a_runner(folder):
        for number in range(jobs + 20):
            for task in tasks:
                began = time.perf_counter()
                await (await task.enqueue())
                if number >= 20:
                    seconds[task.executor].append(time.perf_counter() - began)
    return seconds


def trip_rows(options: Options) -> list[Row]:
    """Overheads over a coroutine; medians of the runs, since noise may meet either of the two."""
    jobs = options.pick(smoke=5, quick=200, normal=1_000)
    (runs,) = interleave(options, partial(trips, jobs=jobs))
    forks = sorted(bare_fork() for _ in range(jobs))

    def over(executor: str, percent: float) -> float:
        return median(percentile(run[executor], percent) - percentile(run["coroutine"], 50)
                      for run in runs)  # fmt: skip

    return [
        Row(what="warm round trip over a coroutine's, p50", value=over("process", 50) * 1e3,
            unit="ms", bar=Bar(0.3, of="value", least=False)),
        Row(what="isolated over a coroutine, p50", value=over("isolated", 50) * 1e3, unit="ms",
            bar=Bar(2, of="value", least=False)),
        Row(what="isolated over a coroutine's p50, p99", value=over("isolated", 99) * 1e3,
            unit="ms", bar=Bar(10, of="value", least=False)),
        Row(what="beside it: a bare fork of this process, until it has ended, p50",
            value=percentile(forks, 50) * 1e3, unit="ms"),
    ]  # fmt: skip


def bare_fork() -> float:
    """Seconds for a process that does nothing: what a fresh one costs at least."""
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return time.perf_counter() - began


# CPU-bound work on two workers


async def by_engine(folder: Path, jobs: int, rounds: int) -> float:
    """Seconds for jobs that are stored, run and reported."""
    runner = a_runner(folder)
    async with runner:
        await (await burning.burn_warm.enqueue(1))
        began = time.perf_counter()
        handles = await runner.enqueue_many([burning.burn_warm.job(rounds) for _ in range(jobs)])
        for handle in handles:
            await handle
        return time.perf_counter() - began


async def by_pool(folder: Path, jobs: int, rounds: int) -> float:
    """Seconds for calls through the standard library's pool."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, burning.burn, 1) for _ in range(2)))
        began = time.perf_counter()
        await asyncio.gather(
            *(loop.run_in_executor(pool, burning.burn, rounds) for _ in range(jobs))
        )
        return time.perf_counter() - began


async def by_hand(folder: Path, jobs: int, rounds: int) -> float:
    """Seconds for two bare processes that do half of it each."""
    began = time.perf_counter()
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            for _ in range(jobs // 2):
                burning.burn(rounds)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        await asyncio.to_thread(os.waitpid, pid, 0)
    return time.perf_counter() - began


def cpu_rows(options: Options) -> list[Row]:
    """The medians of interleaved runs."""
    jobs = options.pick(smoke=20, quick=400, normal=2_000)
    rounds = burning.rounds_for(JOB_SECONDS)
    runs = options.pick(smoke=1, quick=3, normal=COMPARED_RUNS)
    engine, pool, bare = interleave(
        options,
        *(partial(case, jobs=jobs, rounds=rounds) for case in (by_engine, by_pool, by_hand)),
        runs=runs,
    )
    rate = jobs / median(engine)
    bar = Bar(0.95)
    what = f"{jobs} jobs of 5 ms CPU on two workers, against"
    return [
        Row(what=f"{what} two bare processes", value=rate, unit="jobs/s",
            floor=jobs / median(bare), bar=bar),
        Row(what=f"{what} ProcessPoolExecutor", value=rate, unit="jobs/s",
            floor=jobs / median(pool), bar=bar),
    ]  # fmt: skip


# Workers that live long


async def long_life(folder: Path, jobs: int) -> tuple[float, float, int]:
    """Rates of the first and of the last tenth of one worker's jobs, and how its memory grew."""
    runner = a_runner(folder, processes=1, processes_min=1)
    rates, sizes = [], []
    tenth = jobs // 10
    async with runner:
        await (await burning.burn_warm.enqueue(1))
        for _ in range(10):
            began = time.perf_counter()
            handles = await runner.enqueue_many(
                [burning.burn_warm.job(2_000) for _ in range(tenth)]
            )
            for handle in handles:
                await handle
            rates.append(tenth / (time.perf_counter() - began))
            (info,) = runner.registry.workers()
            sizes.append(info.rss)
    return rates[0], rates[-1], sizes[-1] - sizes[0]


async def leaking(
    folder: Path, jobs: int, rounds: int, *, task: Task[[int], int], max_rss: int | None
) -> tuple[float, int]:
    """Jobs a second, and the most memory that a worker had after a job or at a sample."""
    runner = a_runner(folder, max_rss=max_rss)
    largest = 0
    async with runner:
        await (await burning.burn_warm.enqueue(1))
        began = time.perf_counter()
        handles = await runner.enqueue_many([task.job(rounds) for _ in range(jobs)])
        for handle in handles:
            await handle
            for info in runner.registry.workers():
                if info.leaving is None:
                    largest = max(largest, info.rss)
        return jobs / (time.perf_counter() - began), largest


async def leaking_by_hand(folder: Path, jobs: int, rounds: int, *, task: Task[[int], int]) -> float:
    """Jobs a second of two bare processes at a time, each replaced after ``LIFE_JOBS``."""
    began = time.perf_counter()
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            live_in_turn(jobs // 2, partial(task.function, rounds))
        pids.append(pid)
    for pid in pids:
        await asyncio.to_thread(os.waitpid, pid, 0)
    return jobs / (time.perf_counter() - began)


def live_in_turn(jobs: int, work: Callable[[], object]) -> NoReturn:
    """One process after the other: the next begins while the memory of the former is freed."""
    pids = []
    for first in range(0, jobs, LIFE_JOBS):
        hearing, saying = os.pipe()
        pid = os.fork()
        if pid == 0:
            for _ in range(first, min(first + LIFE_JOBS, jobs)):
                work()
            os.write(saying, b"x")
            os._exit(0)
        pids.append(pid)
        os.read(hearing, 1)
        os.close(hearing)
        os.close(saying)
    for pid in pids:
        os.waitpid(pid, 0)
    os._exit(0)


async def recycles(folder: Path, jobs: int) -> int:
    """Descriptors, processes and files that are left after so many workers."""
    runner = a_runner(folder, processes_min=0)

    def there() -> int:
        children = Path("/proc/self/task").glob("*/children")
        pids = [pid for path in children for pid in path.read_text().split()]
        grandchildren = [
            child
            for pid in pids
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
        return (
            len(os.listdir("/proc/self/fd")) + len(pids) + len(grandchildren)
            + len(os.listdir(folder))
        )  # fmt: skip

    async with runner:
        await (await burning.alone.enqueue())
        before = await settled(runner, there)
        for start in range(0, jobs, 1_000):
            some = [burning.alone.job() for _ in range(min(1_000, jobs - start))]
            for handle in await runner.enqueue_many(some):
                await handle
        return await settled(runner, there) - before


async def settled(runner: Runner, count: Callable[[], int]) -> int:
    """What there is once those have left that are to leave."""
    while any(info.leaving for info in runner.registry.workers()):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)
    return count()


def life_rows(options: Options) -> list[Row]:
    """What becomes of workers and of the pool in the long run."""
    long = options.pick(smoke=50, quick=2_000, normal=10_000)
    leaks = options.pick(smoke=20, quick=400, normal=1_000)
    many = options.pick(smoke=20, quick=1_000, normal=10_000)
    runs = options.pick(smoke=1, quick=3, normal=5)
    rounds = burning.rounds_for(JOB_SECONDS)
    (lives,) = interleave(options, partial(long_life, jobs=long), runs=runs)
    leak, tight = burning.burn_and_leak, burning.burn_warm
    held, free, none = interleave(
        options,
        *(
            partial(leaking, jobs=leaks, rounds=rounds, task=task, max_rss=max_rss)
            for task, max_rss in ((leak, MAX_RSS), (leak, None), (tight, None))
        ),
        runs=runs,
    )
    bare_leak, bare_none = interleave(
        options,
        *(partial(leaking_by_hand, jobs=leaks, rounds=rounds, task=task) for task in (leak, tight)),
        runs=runs,
    )
    rate = median(rate for rate, _ in held)
    ((left,),) = interleave(options, partial(recycles, jobs=many), runs=1)
    return [
        Row(what=f"one worker: the last tenth of {long:,} jobs against the first",
            value=median(last for _, last, _ in lives), unit="jobs/s",
            floor=median(first for first, _, _ in lives), bar=Bar(0.98)),
        Row(what="one worker: its memory meanwhile", unit="MB",
            value=max(grown for _, _, grown in lives) / MEGABYTE,
            bar=Bar(1, of="value", least=False)),
        Row(what="a leak of 1 MB a job with max_rss=100 MB, against none",
            value=rate, unit="jobs/s", floor=median(rate for rate, _ in none), bar=Bar(0.9)),
        Row(what="the same, against that leak without max_rss",
            value=rate, unit="jobs/s", floor=median(rate for rate, _ in free), bar=Bar(0.9)),
        Row(what="beside it: two bare processes that leak and are replaced, against no leak",
            value=median(bare_leak), unit="jobs/s", floor=median(bare_none)),
        Row(what="the largest worker kept meanwhile", unit="MB",
            value=max(largest for _, largest in held) / MEGABYTE,
            bar=Bar(MAX_RSS / MEGABYTE, of="value", least=False)),
        Row(what=f"left behind by {many:,} isolated jobs", value=left, unit="things",
            bar=Bar(0, of="value", least=False)),
    ]  # fmt: skip


# The event loop


@contextmanager
def slowest_callback(found: list[float]) -> Any:
    """The CPU seconds of each callback of the pool's own, while the block runs."""
    handle: Any = asyncio.Handle
    run = handle._run

    def timed_run(self: Any) -> None:
        module = getattr(self._callback, "__module__", None)
        began = time.thread_time()
        run(self)
        if str(module).startswith(POOL_MODULES):
            found.append(time.thread_time() - began)

    handle._run = timed_run
    try:
        yield
    finally:
        handle._run = run


def loop_rows(options: Options) -> list[Row]:
    """How long the pool holds the event loop at most, starts and stops included."""
    found: list[float] = []
    jobs = options.pick(smoke=20, quick=200, normal=1_000)

    async def busy(folder: Path) -> None:
        async with a_runner(folder, max_jobs=10) as runner:
            both = [task.job() for task in (burning.warm, burning.alone) for _ in range(jobs)]
            for handle in await runner.enqueue_many(both):
                await handle

    with slowest_callback(found):
        interleave(options, busy, runs=1)
    return [
        Row(what=f"the slowest of the pool's {len(found):,} callbacks", value=max(found) * 1e3,
            unit="ms", bar=Bar(20, of="value", least=False))
    ]  # fmt: skip


def run(options: Options) -> list[Row]:
    """All of it, one part after the other."""
    return [
        *trip_rows(options), *cpu_rows(options), *life_rows(options), *loop_rows(options)
    ]  # fmt: skip
