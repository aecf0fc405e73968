"""A FastAPI application that imports CSV files in the background.

Run it: ``uvicorn examples.fastapi_app:app --workers 4``, then
``curl -F file=@people.csv localhost:8000/imports`` and ``curl localhost:8000/imports/JOB``.

Each worker process embeds a runner, all on one file: a job that was accepted by one of them may run
in another, so what a job needs lies where all of them find it. Kill any of them at any moment: the
others go on with its imports, from the last batch that was committed.

There is no login: put these routes behind your own.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from uuid import uuid4

import aiosqlite
from fastapi import FastAPI, HTTPException, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncjobs import Fail, Job, Retry, Runner, current_job

DATA = Path(os.environ.get("APP_DATA", "app-data")).absolute()
UPLOADS = DATA / "uploads"
DATABASE = DATA / "app.db"
UPLOAD_BYTES_MAX = 20 * 1024 * 1024
BATCH_ROWS = 1000
COLUMNS = ("name", "email")
SCHEMA = """
CREATE TABLE IF NOT EXISTS imports (
  job TEXT PRIMARY KEY, done INTEGER NOT NULL, total INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS people (
  job TEXT, line INTEGER, name TEXT NOT NULL, email TEXT NOT NULL, PRIMARY KEY (job, line)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejected (
  job TEXT, line INTEGER, reason TEXT NOT NULL, PRIMARY KEY (job, line)) WITHOUT ROWID;
"""

UPLOADS.mkdir(parents=True, exist_ok=True)
# One import at a time in each process. A thread that parses holds the interpreter for up to 5 ms
# each time a request needs it; two would also take it from one another, and be felt.
runner = Runner(DATA / "jobs.db", threads=1)


@runner.resource
async def database() -> AsyncIterator[aiosqlite.Connection]:
    """The application's own tables, there before the first job; the routes read through this."""
    async with aiosqlite.connect(DATABASE, timeout=30) as connection:
        await connection.executescript(SCHEMA)
        yield connection


# The job

Row = dict[Any, Any]


@dataclass
class Imported:
    """What became of a file's rows."""

    rows: int
    rejected: int


@runner.task(name="import_people", retry=Retry(attempts=3))
def import_people(upload: str) -> Imported:
    """Import one uploaded file, in a thread. Run again after a crash, it goes on where it was."""
    job, path = current_job(), UPLOADS / f"{upload}.csv"
    total = sum(1 for _ in rows_of(path))  # a file that is no good fails here, nothing imported
    with contextlib.closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
        with connection:
            connection.execute("INSERT OR IGNORE INTO imports VALUES (?, 0, ?)", (job.id, total))
        found = connection.execute("SELECT done FROM imports WHERE job = ?", (job.id,))
        rows = islice(rows_of(path), found.fetchone()[0], None)
        while batch := list(islice(rows, BATCH_ROWS)):
            job.check_stop()  # cancelled, or the server shuts down: another run does the rest
            write(connection, job.id, batch)
        found = connection.execute("SELECT count(*) FROM rejected WHERE job = ?", (job.id,))
        return Imported(rows=total, rejected=found.fetchone()[0])


def write(connection: sqlite3.Connection, job_id: str, batch: list[tuple[int, Row]]) -> None:
    """One batch and the progress in one transaction: both are there after a crash, or neither.

    A run that was given up and wakes up late cannot write a row twice: its line is there already.
    """
    good: list[tuple[str, int, str, str]] = []
    bad: list[tuple[str, int, str]] = []
    for line, row in batch:
        problem = problem_with(row)
        if problem is None:
            good.append((job_id, line, row["name"], row["email"]))
        else:
            bad.append((job_id, line, problem))
    with connection:
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", good)
        connection.executemany("INSERT INTO rejected VALUES (?, ?, ?)", bad)
        connection.execute("UPDATE imports SET done = done + ? WHERE job = ?", (len(batch), job_id))


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """Every row with its line; ``Fail`` is raised for what makes the whole file useless."""
    with path.open("rb") as file:
        reader = csv.DictReader(text_of(file))
        try:
            columns = reader.fieldnames or ()
            if not columns:
                raise Fail(f"line 1: the file is empty; it begins with the columns {COLUMNS}")
            missing = [column for column in COLUMNS if column not in columns]
            if missing:
                raise Fail(f"line 1: there is no column {' and no column '.join(missing)}")
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise Fail(f"line {reader.reader.line_num}: {error}") from error


def text_of(file: BinaryIO) -> Iterator[str]:
    """Its lines, decoded one by one, so that a wrong one can be named."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise Fail(f"line {number}: this is not UTF-8") from error


def problem_with(row: Row) -> str | None:
    """Why a row is rejected; ``None`` if it is not."""
    if None in row or None in row.values():
        return "the number of fields is not that of the first line"
    if not row["name"].strip():
        return "there is no name"
    return None if "@" in row["email"] else "there is no @ in the email address"


# The routes

JobId = Annotated[str, InPath(pattern="^[0-9a-f-]{36}$")]
app = FastAPI(lifespan=runner.lifespan)


@app.post("/imports", status_code=202)
async def upload(file: UploadFile, response: Response) -> dict[str, str]:
    """Keep the file, accept the job: both are on disk when this answers."""
    name = uuid4().hex  # what the client calls its file is never used
    await asyncio.to_thread(save, file.file, UPLOADS / f"{name}.csv")
    handle = await import_people.options(trigger="upload").enqueue(name)
    response.headers["Location"] = f"/imports/{handle.id}"
    return {"job": handle.id}


def save(source: BinaryIO, path: Path) -> None:
    """Copy to ``path``, through to the disk."""
    with path.open("xb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())


async def import_job(job_id: JobId) -> Job:
    """The job of an import, or 404."""
    job = await runner.registry.find(job_id)
    if job is None or job.task != import_people.name:
        raise HTTPException(404, "there is no such import")
    return job


@app.get("/imports/{job_id}")
async def status(job_id: JobId) -> dict[str, Any]:
    """How far it is, and how it ended."""
    job = await import_job(job_id)
    progress = await database.get().execute_fetchall(
        "SELECT done, total FROM imports WHERE job = ?", (job_id,)
    )
    done, total = next(iter(progress), (0, None))
    return {
        "state": job.status,
        "done": done,
        "total": total,
        "error": None if job.error is None else job.error.message,
        "result": job.result,
        "rejected": f"/imports/{job_id}/rejected.csv" if job.state == "completed" else None,
    }


@app.get("/imports/{job_id}/rejected.csv")
async def rejected(job_id: JobId) -> StreamingResponse:
    """The rows that were not imported, as a file to download."""
    await import_job(job_id)
    return StreamingResponse(
        rejected_lines(job_id),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="rejected.csv"'},
    )


async def rejected_lines(job_id: str) -> AsyncIterator[str]:
    """A page at a time: a cursor left open for a slow client would keep the importers waiting."""
    yield "line,reason\r\n"
    page = "SELECT line, reason FROM rejected WHERE job = ? AND line > ? ORDER BY line LIMIT 1000"
    last = 0
    while rows := list(await database.get().execute_fetchall(page, (job_id, last))):
        yield "".join(f"{line},{reason}\r\n" for line, reason in rows)
        last = rows[-1][0]


@app.get("/health")
async def health(response: Response) -> dict[str, bool]:
    """For the load balancer: 503 while jobs cannot be accepted."""
    if not runner.healthy:
        response.status_code = 503
    return {"healthy": runner.healthy}


class LimitBody:
    """Refuses a body while it arrives, as soon as it is too long, whatever its headers say."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and count."""
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > UPLOAD_BYTES_MAX:
                raise HTTPException(413, f"at most {UPLOAD_BYTES_MAX} bytes")
            return message

        await self.app(scope, receive_some, send)


app.add_middleware(LimitBody)
