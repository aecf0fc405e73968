"""How fast 10,000 jobs go in by one ``enqueue_many``, against sqlite3 inserting the same rows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from asyncjobs import NewJob, Runner, Task
from asyncjobs.clock import SystemClock
from asyncjobs.store.sqlite.connection import set_up
from asyncjobs.store.sqlite.store import SQLiteStore

from .harness import Bar, Options, Row, interleave

TITLE = "enqueue_many in one commit, against sqlite3 inserting the same rows into the same tables"
CALLS = 3

JOB_COLUMNS = (
    "seq, id, task, queue, priority, run_at, created_at, max_crashes, key, trigger, tags, options"
)
PAYLOAD_COLUMNS = "seq, arguments, meta"
ROWS_PER_STATEMENT = 100

Insert = Callable[[sqlite3.Connection, str, str, Sequence[tuple[Any, ...]]], None]


async def send(user_id: int, address: str) -> None:
    """A job with arguments, as jobs have."""


def make_jobs(task: Task[[int, str], None], jobs: int) -> list[NewJob[None]]:
    """Jobs with two arguments each."""
    return [task.job(number, f"user-{number}@example.org") for number in range(jobs)]


async def engine(folder: Path, jobs: int) -> tuple[float, float]:
    """Jobs a second of the call itself, and with making the jobs; the best of a few calls."""
    # A runner of another queue: what is inserted must not be run meanwhile.
    runner = Runner(folder / "engine.db", queues=["another"])
    task = runner.task(send)
    seconds, whole = [], []
    async with runner:
        await runner.enqueue_many(make_jobs(task, jobs))
        for _ in range(CALLS):
            began = time.perf_counter()
            made = make_jobs(task, jobs)
            ready = time.perf_counter()
            await runner.enqueue_many(made)
            ended = time.perf_counter()
            seconds.append(ended - ready)
            whole.append(ended - began)
    return jobs / min(seconds), jobs / min(whole)


async def raw(folder: Path, jobs: int, insert: Insert) -> tuple[float, float]:
    """Jobs a second of sqlite3 alone, the rows made beforehand; the best of a few commits."""
    path = str(folder / "raw.db")
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    task = Runner(path).task(send)
    seconds = []
    with closing(sqlite3.connect(path, isolation_level=None, cached_statements=512)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        set_up(connection, "full", writer=True)
        for call in range(CALLS + 1):
            job_rows, payload_rows = _rows(make_jobs(task, jobs), first=1 + call * jobs)
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            insert(connection, "asyncjobs_jobs", JOB_COLUMNS, job_rows)
            insert(connection, "asyncjobs_payloads", PAYLOAD_COLUMNS, payload_rows)
            connection.execute("COMMIT")
            seconds.append(time.perf_counter() - began)
    rate = jobs / min(seconds[1:])
    return rate, rate


def _rows(
    jobs: Sequence[NewJob[None]], *, first: int
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    now = SystemClock().now()
    job_rows = [
        (seq, job.id, job.task, job.queue, job.priority, now, job.created_at, job.max_crashes,
         job.key, job.trigger, None, job.options)
        for seq, job in enumerate(jobs, first)
    ]  # fmt: skip
    return job_rows, [(seq, job.arguments, job.meta) for seq, job in enumerate(jobs, first)]


def insert_many(
    connection: sqlite3.Connection, table: str, columns: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """``executemany``."""
    marks = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)


def insert_multi(
    connection: sqlite3.Connection, table: str, columns: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Statements of many rows each."""
    marks = f"({', '.join('?' * len(rows[0]))})"
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        some = rows[start : start + ROWS_PER_STATEMENT]
        values = ", ".join([marks] * len(some))
        connection.execute(
            f"INSERT INTO {table} ({columns}) VALUES {values}",
            [value for row in some for value in row],
        )


def run(options: Options) -> list[Row]:
    """Measure the engine and both ways of sqlite3 in turn."""
    jobs = options.pick(smoke=1_000, quick=10_000, normal=10_000)
    engines, *raws = interleave(
        options,
        partial(engine, jobs=jobs),
        partial(raw, jobs=jobs, insert=insert_many),
        partial(raw, jobs=jobs, insert=insert_multi),
    )
    call, whole = (max(column) for column in zip(*engines, strict=True))
    plain = max(rate for samples in raws for rate, _ in samples)
    return [
        Row(what=f"enqueue_many of {jobs:,} jobs, against raw sqlite3",
            value=call, unit="jobs/s", floor=plain, bar=Bar(0.4)),
        Row(what="with making and checking the jobs", value=whole, unit="jobs/s", floor=plain),
    ]  # fmt: skip
