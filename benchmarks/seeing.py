"""What it costs to be watched: the journal, progress, log lines, and how soon events are heard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from asyncjobs import Runner, current_job
from asyncjobs.store.sqlite.transaction import Transaction

from . import floor, throughput
from .harness import Bar, Options, Row, child_command, interleave, median, percentile

TITLE = "progress, logs, events and the journal"
PRODUCERS = 1_000
LINES = 500
"""Lines of one job that is measured: as many as are kept, so that none is dropped."""
ENDED = ["completed"]


class Journal:
    """CPU of the writer's thread that goes into the journal, by Python's part and SQLite's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Time what notes events and what writes them, but not the counters beside them."""
        note, finish, write = Transaction.note, Transaction.finish, Transaction.write_rows

        def timed(sign: int, call: Callable[..., Any], *given: Any) -> Any:
            begun = time.thread_time()
            try:
                return call(*given)
            finally:
                self.seconds += sign * (time.thread_time() - begun)

        def write_rows(tx: Transaction, statement: str, *values: Any) -> Any:
            if statement == "add_counts":
                return timed(-1, write, tx, statement, *values)
            return write(tx, statement, *values)

        Transaction.note = partial_method(timed, note)  # type: ignore[method-assign]
        Transaction.finish = partial_method(timed, finish)  # type: ignore[method-assign]
        Transaction.write_rows = write_rows  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            Transaction.note, Transaction.finish = note, finish  # type: ignore[method-assign]
            Transaction.write_rows = write  # type: ignore[method-assign]


def partial_method(timed: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` as a method that is timed."""
    return lambda tx, *given: timed(1, call, tx, *given)


async def journal_share(folder: Path, jobs: int) -> float:
    """Per cent of a no-op job's CPU that goes into the journal."""
    journal = Journal()
    with journal.watched():
        sample = await throughput.busy(folder, jobs=jobs, slots=PRODUCERS)
    # What is warmed up before the sample is journalled too: this says rather too much.
    return 100 * journal.seconds / (sample.cpu_us * jobs / 1e6)


async def say(folder: Path, calls: int) -> tuple[float, float, float]:
    """Microseconds of a call of ``progress`` that writes nothing, of a line kept, of one not."""
    runner = Runner(folder / "engine.db")
    log = logging.getLogger("benchmarks.seeing")
    log.setLevel(logging.INFO)
    log.propagate = True

    def each(call: Callable[[int], object], count: int) -> float:
        begun = time.perf_counter()
        for number in range(count):
            call(number)
        return (time.perf_counter() - begun) / count * 1e6

    @runner.task(name="progress")
    async def progress() -> float:
        job = current_job()
        job.progress(0)
        return each(lambda done: job.progress(done, calls), calls) - each(lambda _: None, calls)

    @runner.task(name="kept")
    async def kept() -> float:
        return each(lambda number: log.info("line %d", number), LINES)

    @runner.task(name="passed", log_level="ERROR")
    async def passed() -> float:
        return each(lambda number: log.info("line %d", number), LINES)

    async with runner:
        return (
            await (await progress.enqueue()),
            await (await kept.enqueue()),
            await (await passed.enqueue()),
        )


async def hear(folder: Path, jobs: int) -> list[float]:
    """Seconds from a job's end in its awaiter to its event in a listener of the same process."""
    runner = Runner(folder / "engine.db")
    task = runner.task(floor.no_op)
    delays = []
    async with runner:
        events = runner.events(kinds=ENDED)
        for _ in range(jobs):
            hearing = asyncio.ensure_future(anext(events))
            await (await task.enqueue())
            ended = time.perf_counter()
            await hearing
            delays.append(time.perf_counter() - ended)
    return delays


async def overhear(folder: Path, jobs: int) -> list[float]:
    """Seconds from the beginning of a commit in another process to its event in this one."""
    path = folder / "engine.db"
    runner = Runner(path)
    task = runner.task(name="no_op")(floor.no_op)
    delays = []
    async with runner.client():
        command = child_command("member", path, jobs, 1)
        member = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert member.stdin is not None
        assert member.stdout is not None
        if await member.stdout.readline() != b"ready\n":
            raise RuntimeError("a process of the benchmark has failed")
        events = runner.events(kinds=ENDED)
        hearing = asyncio.ensure_future(anext(events))
        await task.enqueue()
        await hearing  # from where it began, which the member's jobs might have overtaken
        hearing = asyncio.ensure_future(anext(events))
        member.stdin.write(b"go\n")
        for _ in range(jobs):
            event = await hearing
            delays.append(time.time() - event.at.timestamp())
            hearing = asyncio.ensure_future(anext(events))
        hearing.cancel()
        member.stdin.close()
        await member.wait()
    return delays


def run(options: Options) -> list[Row]:
    """Measure each in turn."""
    jobs = options.pick(smoke=1_000, quick=10_000, normal=30_000)
    calls = options.pick(smoke=1_000, quick=20_000, normal=100_000)
    trips = options.pick(smoke=20, quick=200, normal=1_000)
    (shares,) = interleave(options, partial(journal_share, jobs=jobs))
    (words,) = interleave(options, partial(say, calls=calls))
    near, far = interleave(options, partial(hear, jobs=trips), partial(overhear, jobs=trips))
    values, kept, passed = zip(*words, strict=True)
    return [
        Row(what="the journal's part of a no-op job's CPU, median of the runs",
            value=median(shares), unit="%", bar=Bar(3, of="value", least=False)),
        Row(what=f"a call of progress that writes nothing, best of {len(words)}",
            value=min(values), unit="µs", bar=Bar(1, of="value", least=False)),
        Row(what=f"a line that is kept, over one that is not, best of {len(words)}",
            value=min(kept) - min(passed), unit="µs", bar=Bar(10, of="value", least=False)),
        *heard("an event in the same process", near, 20),
        *heard("an event in another process", far, 100),
    ]  # fmt: skip


def heard(what: str, runs: list[list[float]], limit: float) -> list[Row]:
    """How late an event is heard, the best run of each figure."""
    bars = {50: None, 99: Bar(limit, of="value", least=False)}
    return [
        Row(what=f"{what} is heard, p{percent}", unit="ms", bar=bar,
            value=min(percentile(run, percent) for run in runs) * 1e3)
        for percent, bar in bars.items()
    ]  # fmt: skip
