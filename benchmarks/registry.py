"""The registry among a million jobs: every filter, counts, and what long work costs others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from msgspec.structs import replace

from asyncjobs import JobFilter, NewJob, Runner, ScanRequired, State, Tasks
from asyncjobs.clock import MICROSECONDS
from asyncjobs.records import Claimed, ErrorRecord, Transition
from asyncjobs.services.instance import LEASE_SECONDS, Instance
from asyncjobs.states import Event
from asyncjobs.store.base import Claim, Insert, Report
from asyncjobs.store.sqlite.store import SQLiteStore

from .floor import no_op
from .harness import Bar, Options, Row, median, percentile

TITLE = "the registry among a million jobs, first page of 100, through runner.registry"
CHUNK = 10_000
TASKS = [f"task-{number}" for number in range(20)]
QUEUES = ["mail", "images", "reports", "sync", "default"]
PRIORITIES = [0, 0, 0, 5]
STATES = [*State, "scheduled", "retrying"]
DAY = 86_400
SEED = 7

# Of a hundred jobs of each chunk. The rest completes.
FAILED, CANCELLED, RETRYING, SCHEDULED = 10, 3, 2, 20
# Of all, at the end, so that no earlier claim takes them.
QUEUED, BLOCKED, RUNNING = 0.04, 0.01, 0.001

PAGE_BAR = Bar(10, of="value", least=False)
OTHER_BAR = Bar(200, of="value", least=False)


class Builder:
    """A database with jobs in every state, made as a runner makes it."""

    def __init__(self, store: SQLiteStore, instance: str) -> None:
        self._store = store
        self._instance = instance
        self._random = Random(SEED)
        self._tasks = Tasks()
        self._made = {name: self._tasks.task(name=name)(_work) for name in [*TASKS, "rare"]}
        self._number = 0

    def jobs(self, count: int, **options: Any) -> list[NewJob[None]]:
        """So many new jobs."""
        return [self._job(**options) for _ in range(count)]

    def _job(self, **options: Any) -> NewJob[None]:
        self._number += 1
        number, random = self._number, self._random
        task = self._made["rare" if number % 2_000 == 0 else random.choice(TASKS)]
        return task.options(
            queue=random.choice(QUEUES),
            priority=random.choice(PRIORITIES),
            tags=[f"customer-{number % 5_000}"] + ["monthly"] * (number % 10 == 0),
            key=f"key-{number}" if number % 20 == 0 else None,
            trigger="schedule:nightly" if number % 10 == 3 else "api",
            **options,
        ).job(number % 100_000, {"city": random.choice(["Berlin", "Lagos", "Lima"])})

    async def chunk(self, count: int) -> None:
        """Jobs of which most have ended."""
        later = count * SCHEDULED // 100
        await self._store.write([Insert(self.jobs(count - later))])
        await self._store.write([Insert(self.jobs(later, delay=DAY))])
        while claimed := await self._claim(CHUNK):
            await self._store.write([Report(self._instance, [self._end(run) for run in claimed])])

    async def last(self, total: int) -> None:
        """Jobs that run, wait, or are of a task that nobody has."""
        strangers = self._tasks.task(name="strange")(no_op)
        for start in range(0, int(total * BLOCKED), CHUNK):
            many = min(CHUNK, int(total * BLOCKED) - start)
            await self._store.write([Insert([strangers.job() for _ in range(many)])])
        await self._claim(1)
        for start in range(0, int(total * QUEUED), CHUNK):
            many = min(CHUNK, int(total * QUEUED) - start)
            await self._store.write([Insert(self.jobs(many))])
        await self._claim(int(total * RUNNING))

    async def _claim(self, room: int) -> Sequence[Claimed]:
        executors = dict.fromkeys([*TASKS, "rare"], "coroutine")
        wanted = Claim(self._instance, executors, {"coroutine": room})
        ((claimed, *_),) = await self._store.write([wanted])
        jobs: Sequence[Claimed] = claimed
        return jobs

    def _end(self, run: Claimed) -> Transition:
        now = self._store.now()
        ends = Transition(run.seq, run.claim, run.queue, run.task, Event.COMPLETED, now)
        chance = self._random.randrange(100 - SCHEDULED)
        error = ErrorRecord("app.Refused", f"customer {run.seq % 5_000} refused", "Traceback")
        if chance < FAILED:
            return replace(ends, event=Event.FAILED, reason="error", error=error)
        if chance < FAILED + CANCELLED:
            return replace(ends, event=Event.CANCELLED, reason="user")
        if chance < FAILED + CANCELLED + RETRYING:
            due = now + DAY * MICROSECONDS
            return replace(ends, event=Event.RETRYING, reason="error", error=error, run_at=due)
        return replace(ends, result="1")


async def _work(user_id: int, address: dict[str, str]) -> None: ...


async def build(path: Path, jobs: int, instance: str) -> None:
    """Make the database, through the store."""
    store = SQLiteStore(str(path), durability="normal")
    await store.open()
    try:
        builder = Builder(store, instance)
        rest = int(jobs * (1 - QUEUED - BLOCKED))
        for start in range(0, rest, CHUNK):
            await builder.chunk(min(CHUNK, rest - start))
        await builder.last(jobs)
    finally:
        await store.close()


def single_filters(middle: datetime) -> dict[str, JobFilter]:
    """One filter at a time, common and rare values."""
    hour = timedelta(hours=1)
    return {
        **{f"state={state}": JobFilter(state=state) for state in STATES},
        "task, of 1 in 20": {"task": TASKS[3]},
        "task, of 1 in 2,000": {"task": "rare"},
        "queue": {"queue": "mail"},
        "tag, of 1 in 10": {"tag": "monthly"},
        "tag, of 1 in 5,000": {"tag": "customer-77"},
        "key": {"key": "key-2000"},
        "trigger=api": {"trigger": "api"},
        "trigger, of 1 in 10": {"trigger": "schedule:nightly"},
        "created_after": {"created_after": middle - hour},
        "created_before": {"created_before": middle},
    }


def combinations(middle: datetime) -> dict[str, JobFilter]:
    """What is asked for together, also what no index serves."""
    return {
        "task and state": {"task": TASKS[3], "state": "failed"},
        "rare task and state": {"task": "rare", "state": "failed"},
        "queue and several states": {"queue": "mail", "state": ["queued", "running", "failed"]},
        "task and a tag of few": {"task": TASKS[3], "tag": "customer-77"},
        "two tags": {"tags_all": ["monthly", "customer-70"]},
        "any of two tags": {"tags_any": ["monthly", "customer-77"]},
        "state and creation": {"state": "cancelled", "created_before": middle},
        "state and error": {"state": "failed", "error": "customer 4321 refused"},
        "task and arguments": {"task": TASKS[3], "arguments": {"user_id": 4_321}},
        "tag and arguments": {"tag": "customer-77", "arguments": {"address.city": "Lima"}},
        "state and arguments, none passes": {"state": "completed", "arguments": {"user_id": -1}},
        "queue and error, none passes": {"queue": "mail", "error": "no such error"},
    }


async def seconds_of(call: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """How long each of some calls takes; one that is refused counts as well."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        with suppress(ScanRequired):
            await call()
        seconds.append(time.perf_counter() - began)
    return seconds


class Neighbour:
    """Somebody who enqueues one job after the other, and notes how long each takes."""

    def __init__(self, runner: Runner) -> None:
        self._task = runner.task(name="neighbour", queue="neighbour")(no_op)

    @asynccontextmanager
    async def beside(self, seconds: list[float]) -> AsyncIterator[None]:
        """Enqueue as long as the block runs."""
        done = asyncio.Event()

        async def enqueue() -> None:
            while not done.is_set():
                began = time.perf_counter()
                await self._task.enqueue()
                seconds.append(time.perf_counter() - began)

        enqueuing = asyncio.create_task(enqueue())
        try:
            yield
        finally:
            done.set()
            await enqueuing


def p99_row(what: str, seconds: Sequence[float], bar: Bar | None = None, **more: Any) -> Row:
    """A row of milliseconds."""
    return Row(what=what, value=percentile(seconds, 99) * 1e3, unit="ms", bar=bar, **more)


async def reading(runner: Runner, middle: datetime, rounds: int, times: int) -> list[Row]:
    """Pages and counts, each the best of some rounds: noise only ever makes one slower."""
    registry = runner.registry
    asked: dict[str, Callable[[], Awaitable[object]]] = {}
    for name, what in single_filters(middle).items():
        asked[name] = partial(registry.list, **what)
    for state in STATES:
        asked[f"count of {state}"] = partial(registry.count, state=state)
    asked["queues()"] = registry.queues
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in asked.items():
            found = percentile(await seconds_of(call, times), 99)
            best[name] = min(best.get(name, found), found)
    rows = [Row(what=f"{name}, p99, best of {rounds}", value=seconds * 1e3, unit="ms",
                bar=None if name == "queues()" else PAGE_BAR)
            for name, seconds in best.items()]  # fmt: skip
    for name, what in combinations(middle).items():
        found_all = await seconds_of(partial(registry.list, **what), rounds)
        refused = "" if await passes(runner, what) else ": refused"
        rows.append(Row(what=f"{name}{refused}, median", value=median(found_all) * 1e3, unit="ms",
                        bar=OTHER_BAR))  # fmt: skip
    (seconds,) = await seconds_of(partial(registry.list, error="no such error", scan=True), 1)
    rows.append(Row(what="error alone, scan=True", value=seconds * 1e3, unit="ms"))
    return rows


async def passes(runner: Runner, what: JobFilter) -> bool:
    """Whether it is within the budget."""
    try:
        await runner.registry.list(**what)
    except ScanRequired:
        return False
    return True


async def beside_others(runner: Runner, folder: Path) -> list[Row]:
    """What long work costs somebody who enqueues meanwhile."""
    registry, neighbour = runner.registry, Neighbour(runner)
    alone: list[float] = []
    async with neighbour.beside(alone):
        await asyncio.sleep(3)
    rows = [p99_row("enqueue alone, p99", alone)]

    async def measure(what: str, work: Awaitable[object]) -> None:
        seconds: list[float] = []
        began = time.perf_counter()
        async with neighbour.beside(seconds):
            await work
        took = time.perf_counter() - began
        rows.append(p99_row(f"enqueue beside {what}, p99", seconds,
                            floor=percentile(alone, 99) * 1e3))  # fmt: skip
        rows.append(Row(what=f"{what} took", value=took, unit="s"))

    await measure("a scan", registry.list(error="no such error", scan=True))
    await measure("backup()", registry.backup(folder / "backup.db"))
    waiting: JobFilter = {"tag": "monthly", "state": ["queued", "scheduled"]}
    matched = (await registry.cancel_all(**waiting)).matched
    await measure(f"cancelling {matched:,}", registry.cancel_all(dry_run=False, **waiting))
    ended: JobFilter = {"tag": "monthly", "state": "cancelled"}
    matched = (await registry.delete_all(**ended)).matched
    await measure(f"deleting {matched:,}", registry.delete_all(dry_run=False, **ended))
    return rows


async def measure_all(folder: Path, options: Options, jobs: int, times: int) -> list[Row]:
    """Build, then ask."""
    path = folder / "many.db"
    instance = Instance(str(path), LEASE_SECONDS)  # so that nobody takes its running jobs over
    instance.start(lambda: None)
    try:
        began = time.perf_counter()
        start = datetime.now(UTC)
        await build(path, jobs, instance.id)
        built = time.perf_counter() - began
        middle = start + (datetime.now(UTC) - start) / 2
        async with Runner(path, queues=["neighbour"]) as runner:
            rows = await reading(runner, middle, options.runs, times)
            rows += await beside_others(runner, folder)
    finally:
        instance.stop()
    return [*rows, Row(what="building it (durability='normal')", value=jobs / built, unit="jobs/s")]


def run(options: Options) -> list[Row]:
    """One database, and every question to it many times."""
    jobs = options.pick(smoke=5_000, quick=100_000, normal=1_000_000)
    times = options.pick(smoke=2, quick=20, normal=30)
    with options.folder() as folder:
        return asyncio.run(measure_all(Path(folder), options, jobs, times))
