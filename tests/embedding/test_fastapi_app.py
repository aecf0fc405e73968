"""The CSV application over real HTTP: in one process, in four, and with one of them killed."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from .servers import PATIENCE_SECONDS, Server, serving

ROWS = 10_000
REJECTED_EVERY = 5
PROBES = 150
PROBE_SECONDS = 0.02
HEALTH_P99_SECONDS = 0.05
ROUNDS = 6
"""How often the response times are measured until they are good."""


def people(rows: int = ROWS) -> bytes:
    lines = (
        f'"Ann, the {n}th",ann{n}{"" if n % REJECTED_EVERY == 0 else "@example.org"}\n'
        for n in range(rows)
    )
    return ("name,email\n" + "".join(lines)).encode()


class App(NamedTuple):
    """A running application and the folder of its files."""

    server: Server
    folder: Path

    def query(self, database: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
        path = self.folder / "app-data" / database
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def lines_of(self, job_id: str) -> list[int]:
        """The lines of a file that were imported or rejected."""
        lines = (
            "SELECT line FROM people WHERE job = ? "
            "UNION ALL SELECT line FROM rejected WHERE job = ? ORDER BY line"
        )
        return [line for (line,) in self.query("app.db", lines, job_id, job_id)]

    def live_runners(self) -> int:
        live = "SELECT count(*) FROM asyncjobs_instances WHERE ended_at IS NULL"
        return int(self.query("jobs.db", live)[0][0])


def running(folder: Path, port: int, *, workers: int) -> Iterator[App]:
    """The application for the tests of this file, and that it stops in order after them."""
    command = f"uvicorn examples.fastapi_app:app --port {port} --workers {workers} --no-access-log"
    with serving(folder, port, *command.split()) as server:
        app = App(server, folder)
        server.until(lambda: app.live_runners() == workers)
        yield app
        server.stop()


@pytest.fixture(scope="module")
def one(
    tmp_path_factory: pytest.TempPathFactory, unused_tcp_port_factory: Callable[[], int]
) -> Iterator[App]:
    yield from running(tmp_path_factory.mktemp("one"), unused_tcp_port_factory(), workers=1)


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory, unused_tcp_port_factory: Callable[[], int]
) -> Iterator[App]:
    yield from running(tmp_path_factory.mktemp("four"), unused_tcp_port_factory(), workers=4)


@pytest_asyncio.fixture
async def client(one: App) -> AsyncIterator[httpx.AsyncClient]:
    async with one.server.client() as client:
        yield client


async def upload(client: httpx.AsyncClient, content: bytes, name: str = "people.csv") -> str:
    answer = await client.post("/imports", files={"file": (name, content)})
    assert answer.status_code == 202, answer.text
    job_id = str(answer.json()["job"])
    assert answer.headers["location"] == f"/imports/{job_id}"
    return job_id


async def finished(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        status: dict[str, Any] = (await client.get(f"/imports/{job_id}")).json()
        if status["state"] in ("completed", "failed"):
            return status
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.05)


async def test_import_gives_its_result_and_the_rejected_rows(client: httpx.AsyncClient) -> None:
    job_id = await upload(client, people())
    status = await finished(client, job_id)

    assert status == {
        "state": "completed",
        "done": ROWS,
        "total": ROWS,
        "error": None,
        "result": {"rows": ROWS, "rejected": ROWS // REJECTED_EVERY},
        "rejected": f"/imports/{job_id}/rejected.csv",
    }
    download = await client.get(status["rejected"])
    assert download.headers["content-disposition"] == 'attachment; filename="rejected.csv"'
    lines = list(csv.reader(io.StringIO(download.text)))
    assert lines[:2] == [["line", "reason"], ["2", "there is no @ in the email address"]]
    assert [int(line) for line, _ in lines[1:]] == list(range(2, ROWS + 2, REJECTED_EVERY))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (
            b"name,email\nAnn,ann@example.org\nJos\xe9,jose@example.org\n",
            "line 3: this is not UTF-8",
        ),
        (b"name,phone\nAnn,5\n", "line 1: there is no column email"),
        (b"", "line 1: the file is empty"),
        (b"name,email\nAnn," + b"a" * 200_000, "line 2: field larger than field limit"),
        (bytes(200_000), "line 1: field larger than field limit"),
    ],
    ids=["not UTF-8", "missing column", "empty", "endless field", "no CSV at all"],
)
async def test_bad_file_is_a_recorded_failure_with_its_line(
    client: httpx.AsyncClient, one: App, content: bytes, error: str
) -> None:
    job_id = await upload(client, content)
    status = await finished(client, job_id)

    assert (status["state"], status["result"], status["rejected"]) == ("failed", None, None)
    assert status["error"].startswith(error)
    assert one.lines_of(job_id) == []


async def test_rows_are_rejected_one_by_one(client: httpx.AsyncClient) -> None:
    content = "\ufeffemail,name\na@b.c,Ann\n\n,Ben\nc@d.e, \na@b.c\na@b.c,Eve,5\nf@g.h,Fay\n"

    job_id = await upload(client, content.encode())
    assert (await finished(client, job_id))["result"] == {"rows": 6, "rejected": 4}

    answer = await client.get(f"/imports/{job_id}/rejected.csv")
    assert answer.text.splitlines() == [
        "line,reason",
        "4,there is no @ in the email address",
        "5,there is no name",
        "6,the number of fields is not that of the first line",
        "7,the number of fields is not that of the first line",
    ]


async def test_name_of_an_upload_leads_nowhere(client: httpx.AsyncClient, one: App) -> None:
    await finished(client, await upload(client, people(1), name="../../../escaped.csv"))

    names = [path.name for path in one.folder.parent.rglob("*.csv")]
    assert names
    assert "escaped.csv" not in names


async def test_upload_over_the_limit_is_refused_and_not_kept(
    client: httpx.AsyncClient, one: App
) -> None:
    before = list((one.folder / "app-data" / "uploads").iterdir())

    # The file alone would fit: only the last of its bytes, within the form, is one too many.
    answer = await client.post("/imports", files={"file": ("big.csv", bytes(20 * 1024 * 1024))})

    assert answer.status_code == 413, answer.text
    assert list((one.folder / "app-data" / "uploads").iterdir()) == before


@pytest.mark.parametrize("path", ["/imports/{}", "/imports/{}/rejected.csv"])
async def test_unknown_import_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    unknown = await client.get(path.format("0" * 36))
    nonsense = await client.get(path.format("%00"))
    assert (unknown.status_code, nonsense.status_code) == (404, 422)


# While imports run


@pytest.mark.timed
@pytest.mark.parametrize("processes", ["one", "four"])
async def test_health_answers_at_once_during_imports(
    processes: str, request: pytest.FixtureRequest
) -> None:
    app: App = request.getfixturevalue(processes)
    measured: list[float] = []

    while len(measured) < ROUNDS and min(measured, default=1.0) > HEALTH_P99_SECONDS:
        measured.append(await health_p99(app.server, imports=2))

    assert min(measured) <= HEALTH_P99_SECONDS, measured


async def health_p99(server: Server, *, imports: int) -> float:
    """Of requests sent at fixed times, whether or not the one before is answered, each measured
    from when it was due; meanwhile files of 10,000 rows are imported, so many at a time.
    """
    imported = 0

    async def keep_importing(client: httpx.AsyncClient) -> None:
        nonlocal imported
        while True:
            status = await finished(client, await upload(client, content))
            assert status["state"] == "completed"
            imported += 1

    async def probe(due: float) -> float:
        await asyncio.sleep(due - time.monotonic())
        answer = await prober.get("/health")
        assert answer.json() == {"healthy": True}
        return time.monotonic() - due

    content = people()
    async with server.client() as client, httpx.AsyncClient(base_url=server.url) as prober:
        importing = [asyncio.create_task(keep_importing(client)) for _ in range(imports)]
        begin = time.monotonic() + PROBE_SECONDS
        probes = (probe(begin + n * PROBE_SECONDS) for n in range(PROBES))
        times = sorted(await asyncio.gather(*probes))
        for task in importing:
            task.cancel()
        ended = await asyncio.gather(*importing, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    assert imported > 0
    return times[int(len(times) * 0.99)]


async def test_import_goes_on_in_another_process_when_its_own_is_killed(four: App) -> None:
    async with four.server.client() as client:
        job_id, done = await kill_its_process_half_way(client, four)
        status = await finished(client, job_id)

    assert 0 < done < ROWS
    assert status["state"] == "completed"
    assert status["result"] == {"rows": ROWS, "rejected": ROWS // REJECTED_EVERY}
    assert four.lines_of(job_id) == list(range(2, ROWS + 2))  # each once, none left out
    crashes = "SELECT crashes FROM asyncjobs_jobs WHERE id = ?"
    assert four.query("jobs.db", crashes, job_id) == [(1,)]


async def kill_its_process_half_way(client: httpx.AsyncClient, app: App) -> tuple[str, int]:
    """Import a file, and hold the lock that its next batch needs while its process is killed.

    The job's id, and how many rows were imported by then.
    """
    pid = "SELECT pid FROM asyncjobs_instances i JOIN asyncjobs_jobs j ON j.instance = i.id"
    path = app.folder / "app-data/app.db"
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as database:
        for _ in range(5):  # a file may be imported whole before we have the lock
            job_id = await upload(client, people())
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (done := lock_after_first_batch(database, job_id)):
                assert time.monotonic() < deadline, app.server.log()
            if done < ROWS:
                ((victim,),) = app.query("jobs.db", f"{pid} WHERE j.id = ?", job_id)
                os.kill(victim, signal.SIGKILL)
                return job_id, done
            database.execute("ROLLBACK")
    raise AssertionError("every import was faster than the test")


def lock_after_first_batch(database: sqlite3.Connection, job_id: str) -> int:
    """Take the write lock if a batch was imported: how many rows were, 0 without the lock."""
    done = "SELECT done FROM imports WHERE job = ? AND done > 0"
    try:
        if database.execute(done, (job_id,)).fetchone() is not None:
            database.execute("BEGIN IMMEDIATE")
            return int(database.execute(done, (job_id,)).fetchone()[0])
    except sqlite3.OperationalError:  # the importer has it
        pass
    return 0
