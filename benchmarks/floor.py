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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec

ROWS_PER_STATEMENT = 100

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


def insert_sql(rows: int) -> str:
    """The insert of ``rows`` rows in one statement."""
    values = ",".join(["(?, ?, 'queued', ?, ?)"] * rows)
    return f"INSERT INTO jobs (seq, task, state, run_at, arguments) VALUES {values}"


def prepare(connection: sqlite3.Connection) -> None:
    """Give ``connection`` the settings that the engine runs with at ``durability="full"``."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
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
        connection.execute(FINISH, (msgspec.json.encode(finished).decode(),))
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
        if callable(sql):
            return Fetched(sql(self, *parameters))
        return super().execute(sql, parameters)


class Fetched:
    """What ``execute_fetchall`` wants back: something with ``fetchall``."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class Floor:
    """A job runner without features."""

    def __init__(self, path: Path, tasks: dict[str, Callable[..., Awaitable[Any]]], slots: int):
        self._path = path
        self._tasks = tasks
        self._free = slots
        self._next_seq = 1
        self._inserts: list[tuple[int, str, int, str]] = []
        self._accepted: list[asyncio.Future[None]] = []
        self._finished: dict[int, str] = {}
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._wake = asyncio.Event()
        self._backlog = False

    async def __aenter__(self) -> Floor:
        self._db = await aiosqlite.connect(self._path, isolation_level=None, factory=OneHop)
        await self._db.execute_fetchall(prepare)  # type: ignore[arg-type]
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
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()
        self._results[seq] = result = loop.create_future()
        self._inserts.append(
            (seq, task, time.time_ns() // 1000, msgspec.json.encode(arguments).decode())
        )
        self._accepted.append(accepted)
        self._wake.set()
        await accepted
        return msgspec.json.decode(await result)

    async def _write(self) -> None:
        running: set[asyncio.Task[None]] = set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            inserts, self._inserts = self._inserts, []
            accepted, self._accepted = self._accepted, []
            finished, self._finished = self._finished, {}
            want = self._free if inserts or self._backlog else 0
            claimed = await self._db.execute_fetchall(
                write_batch,  # type: ignore[arg-type]
                (inserts, finished, want),
            )
            if want:
                self._backlog = len(claimed) == want
            for future in accepted:
                future.set_result(None)
            for seq, result in finished.items():
                self._results.pop(seq).set_result(result)
            self._free -= len(claimed)
            for seq, task, arguments in claimed:
                job = asyncio.create_task(self._run(seq, task, arguments))
                running.add(job)
                job.add_done_callback(running.discard)

    async def _run(self, seq: int, task: str, arguments: str) -> None:
        value = await self._tasks[task](*msgspec.json.decode(arguments))
        self._finished[seq] = msgspec.json.encode(value).decode()
        self._free += 1
        self._wake.set()
