"""The least any Python program must do for the same durable work.

Three writes a job (insert, claim, finish) in the same batches, on the same kind
of file, with the same durability; every transaction is one hop to the
connection's thread; msgspec turns arguments and results into JSON; the job is a
bare coroutine call.  No ids, no retries, no contexts, no registry.  What the
engine costs on top of this is the price of its features.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import aiosqlite
import msgspec

from asyncjobs.store.sqlite.connection import CACHED_STATEMENTS, CHECKPOINT_PAGES

from .harness import Bar, Options, Row, Sample, best, interleave, percentile, timed

SLOTS = 100
"""The engine's default concurrency."""
PRODUCERS = 1_000

TITLE = "the least any Python program must do, against sqlite3 without asyncio"

ROWS_PER_STATEMENT = 100

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode

SCHEMA = """
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY, task TEXT NOT NULL, state TEXT NOT NULL,
  run_at INTEGER NOT NULL, arguments TEXT NOT NULL, result TEXT
);
CREATE INDEX claimable ON jobs (run_at, seq) WHERE state = 'queued';
"""
CLAIM = """
UPDATE jobs SET state = 'running' WHERE seq IN (
  SELECT seq FROM jobs INDEXED BY claimable
  WHERE state = 'queued' AND run_at <= ? ORDER BY run_at, seq LIMIT ?
) RETURNING seq, task, arguments
"""
FINISH = """
UPDATE jobs SET state = 'completed', result = f.value
FROM json_each(?) AS f WHERE jobs.seq = CAST(f.key AS INTEGER)
"""


@cache
def insert_sql(rows: int) -> str:
    """The insert of ``rows`` rows in one statement."""
    values = ",".join(["(?, ?, 'queued', ?, ?)"] * rows)
    return f"INSERT INTO jobs (seq, task, state, run_at, arguments) VALUES {values}"


def prepare(connection: sqlite3.Connection) -> None:
    """Give ``connection`` the settings that the engine runs with at ``durability="full"``."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.executescript(SCHEMA)


def write_batch(
    connection: sqlite3.Connection,
    inserts: list[tuple[int, str, int, str]],
    finished: dict[int, str],
    claim: int,
) -> list[tuple[int, str, str]]:
    """One transaction: the outcomes, the new jobs, the next claim."""
    connection.execute("BEGIN IMMEDIATE")
    if finished:
        connection.execute(FINISH, (to_json(finished).decode(),))
    for start in range(0, len(inserts), ROWS_PER_STATEMENT):
        rows = inserts[start : start + ROWS_PER_STATEMENT]
        connection.execute(insert_sql(len(rows)), [value for row in rows for value in row])
    claimed = []
    if claim:
        claimed = connection.execute(CLAIM, (time.time_ns() // 1000, claim)).fetchall()
    connection.execute("COMMIT")
    return claimed


class OneHop(sqlite3.Connection):
    """A connection whose ``execute`` also takes a callable, so a transaction is one hop."""

    def execute(self, sql: Any, parameters: Any = ()) -> Any:
        """Run a statement, or ``sql(connection, *parameters)``."""
        if callable(sql):
            return Fetched(sql(self, *parameters))
        return super().execute(sql, parameters)


class Fetched:
    """What ``execute_fetchall`` wants back: something with ``fetchall``."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        """What the callable returned."""
        return self._value


class Floor:
    """A job runner without features."""

    def __init__(
        self, path: Path, tasks: dict[str, Callable[..., Awaitable[Any]]], slots: int
    ) -> None:
        self._path = path
        self._tasks = tasks
        self._free = slots
        self._next_seq = 1
        self._inserts: list[tuple[int, str, int, str]] = []
        self._accepted: list[asyncio.Future[None]] = []
        self._finished: dict[int, str] = {}
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._backlog = False
        self.transactions = 0

    async def __aenter__(self) -> Self:
        self._db = await aiosqlite.connect(
            self._path,
            isolation_level=None,
            factory=OneHop,
            cached_statements=CACHED_STATEMENTS,
        )
        await self._db.execute_fetchall(prepare)
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        await self._db.close()

    async def run(self, task: str, *arguments: Any) -> Any:
        """Enqueue one job durably, then wait for its durable result."""
        seq = self._next_seq
        self._next_seq += 1
        accepted = self._loop.create_future()
        self._results[seq] = result = self._loop.create_future()
        self._inserts.append((seq, task, time.time_ns() // 1000, to_json(arguments).decode()))
        self._accepted.append(accepted)
        self._wake.set()
        await accepted
        return from_json(await result)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            inserts, self._inserts = self._inserts, []
            accepted, self._accepted = self._accepted, []
            finished, self._finished = self._finished, {}
            want = self._free if inserts or self._backlog else 0
            claimed: Any = await self._db.execute_fetchall(
                write_batch,
                (inserts, finished, want),
            )
            self.transactions += 1
            if want:
                self._backlog = len(claimed) == want
            elif inserts:
                self._backlog = True
            for future in accepted:
                future.set_result(None)
            for seq, result in finished.items():
                self._results.pop(seq).set_result(result)
            self._free -= len(claimed)
            for seq, task, arguments in claimed:
                # Named, because making up a name costs a fifth of the task.
                self._running[seq] = asyncio.Task(
                    self._run(seq, task, arguments), loop=self._loop, name=task
                )

    async def _run(self, seq: int, task: str, arguments: str) -> None:
        value = await self._tasks[task](*from_json(arguments))
        self._finished[seq] = to_json(value).decode()
        self._free += 1
        del self._running[seq]
        self._wake.set()


async def no_op() -> None:
    """The job that is nothing but what surrounds it."""


@asynccontextmanager
async def opened(folder: Path, slots: int = SLOTS) -> AsyncIterator[Floor]:
    """A floor on a fresh file that knows :func:`no_op`."""
    async with Floor(folder / "floor.db", {"no_op": no_op}, slots) as floor:
        yield floor


async def produce(floor: Floor, jobs: int) -> None:
    """Let all producers together run ``jobs`` jobs, each one after the other."""

    async def producer() -> None:
        for _ in range(jobs // PRODUCERS):
            await floor.run("no_op")

    await asyncio.gather(*(producer() for _ in range(PRODUCERS)))


async def busy(folder: Path, jobs: int, slots: int = SLOTS) -> Sample:
    """The floor under load."""
    async with opened(folder, slots) as floor:
        await produce(floor, 2 * PRODUCERS)
        return await timed(jobs, produce(floor, jobs))


async def batch_size(folder: Path, jobs: int) -> int:
    """How many jobs a transaction of the floor moves under that load."""
    async with opened(folder) as floor:
        await produce(floor, jobs)
        return round(jobs / floor.transactions)


async def trips(folder: Path, jobs: int) -> list[float]:
    """Seconds of each of ``jobs`` round trips, one after the other."""
    async with opened(folder) as floor:
        for _ in range(50):
            await floor.run("no_op")
        seconds = []
        for _ in range(jobs):
            began = time.perf_counter()
            await floor.run("no_op")
            seconds.append(time.perf_counter() - began)
        return seconds


async def raw_busy(folder: Path, jobs: int, batch: int) -> Sample:
    """The same three writes a job in a plain loop over sqlite3."""
    with closing(_raw(folder)) as connection:
        _raw_loop(connection, 2 * PRODUCERS, batch, first=1)
        wall, cpu = time.perf_counter(), time.process_time()
        _raw_loop(connection, jobs, batch, first=2 * PRODUCERS + 1)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return Sample(jobs / wall, cpu / jobs * 1e6, 0.0)


async def raw_trips(folder: Path, jobs: int) -> list[float]:
    """Seconds of the two transactions that a round trip takes, over sqlite3."""
    with closing(_raw(folder)) as connection:
        seconds = []
        for seq in range(1, jobs + 1):
            began = time.perf_counter()
            write_batch(connection, [(seq, "no_op", time.time_ns() // 1000, "[]")], {}, SLOTS)
            write_batch(connection, [], {seq: "null"}, 0)
            seconds.append(time.perf_counter() - began)
        return seconds


def _raw(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        folder / "raw.db", isolation_level=None, cached_statements=CACHED_STATEMENTS
    )
    prepare(connection)
    return connection


def _raw_loop(connection: sqlite3.Connection, jobs: int, batch: int, *, first: int) -> None:
    finished: dict[int, str] = {}
    for start in range(first, first + jobs, batch):
        now = time.time_ns() // 1000
        stop = min(start + batch, first + jobs)
        inserts = [(seq, "no_op", now, "[]") for seq in range(start, stop)]
        claimed = write_batch(connection, inserts, finished, batch)
        finished = {seq: "null" for seq, _, _ in claimed}
    write_batch(connection, [], finished, 0)


def run(options: Options) -> list[Row]:
    """Measure the floor against sqlite3."""
    jobs = options.pick(smoke=1_000, quick=10_000, normal=30_000)
    trip_jobs = options.pick(smoke=50, quick=500, normal=2_000)
    ((batch,),) = interleave(options, partial(batch_size, jobs=jobs), runs=1)
    busy_runs, raw_runs = interleave(
        options, partial(busy, jobs=jobs), partial(raw_busy, jobs=jobs, batch=batch)
    )
    floor, raw = best(busy_runs), best(raw_runs)
    own, plain = interleave(
        options, partial(trips, jobs=trip_jobs), partial(raw_trips, jobs=trip_jobs)
    )
    return [
        Row(what=f"awaited no-op jobs, {PRODUCERS:,} producers, against raw sqlite3",
            value=floor.rate, unit="jobs/s", floor=raw.rate, bar=Bar(0.4)),
        Row(what=f"CPU a job ({batch} jobs a transaction)",
            value=floor.cpu_us, unit="µs", floor=raw.cpu_us),
        Row(what="of it, the event loop's thread", value=floor.loop_us, unit="µs"),
        *(
            Row(what=f"round trip, p{percent}",
                value=min(percentile(run, percent) for run in own) * 1e6, unit="µs",
                floor=min(percentile(run, percent) for run in plain) * 1e6)
            for percent in (50, 99)
        ),
    ]  # fmt: skip
