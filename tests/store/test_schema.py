"""The file: its schema and versions, its settings, and places where there is none to be had."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from asyncjobs.errors import ForeignDatabase, NewerSchema, SQLiteTooOld, StoreUnavailable
from asyncjobs.store.journal import Place
from asyncjobs.store.sqlite.connection import CHECKPOINT_PAGES, check_sqlite_version
from asyncjobs.store.sqlite.migrate import migrate, migrations, split_statements, version_of
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import Desk

NEXT = (
    migrations()[-1][0] + 1,
    "ALTER TABLE asyncjobs_jobs ADD COLUMN colour TEXT; -- a new column\n"
    "CREATE INDEX asyncjobs_colours ON asyncjobs_jobs (colour);\n"
    "UPDATE asyncjobs_jobs SET colour = 'red; or blue';\n",
)


def schema(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()


def empty() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


async def opened(path: Path, **options: Any) -> SQLiteStore:
    store = SQLiteStore(str(path), clock=ManualClock(), **options)
    await store.open()
    return store


async def with_one_job(path: Path) -> str:
    store = await opened(path)
    job_id = await Desk(store, ManualClock()).add()
    await store.close()
    return job_id


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def refused(path: Path, error: type[Exception], **options: Any) -> str:
    store = SQLiteStore(str(path), **options)
    with pytest.raises(error) as raised:
        await store.open()
    return str(raised.value)


# Versions


def test_fresh_equals_migrated_step_by_step() -> None:
    steps = [*migrations(), NEXT]
    at_once, by_step = empty(), empty()
    migrate(at_once, 0, steps)
    for count in range(1, len(steps) + 1):
        migrate(by_step, version_of(by_step) or 0, steps[:count])
        assert version_of(by_step) == steps[count - 1][0]
    assert schema(at_once) == schema(by_step)
    at_once.close()
    by_step.close()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_statements_are_split_as_sqlite_does() -> None:
    found = [statement.strip() for statement in split_statements(NEXT[1])]
    assert len(found) == 3
    assert found[2].endswith("'red; or blue';")


async def test_older_file_is_migrated_with_its_rows(tmp_path: Path) -> None:
    job_id = await with_one_job(tmp_path / "jobs.db")
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    version = version_of(connection)
    assert version == NEXT[0] - 1
    migrate(connection, version, [*migrations(), NEXT])
    rows = connection.execute("SELECT id, colour FROM asyncjobs_jobs").fetchall()
    assert rows == [(job_id, "red; or blue")]
    assert version_of(connection) == NEXT[0]
    connection.close()


async def test_file_of_the_first_version_is_opened_with_its_jobs(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    migrate(connection, 0, migrations()[:1])
    connection.executescript("""
        INSERT INTO asyncjobs_jobs (seq, id, task, queue, priority, run_at, created_at, trigger)
        VALUES (1, 'one', 'add', 'default', 0, 7, 5, 'api');
        INSERT INTO asyncjobs_counts VALUES ('default', 'add', 'queued', 1);
        UPDATE asyncjobs_counts SET jobs = 1 WHERE state = 'accepted';
        INSERT INTO asyncjobs_journal (at, kind, jobs) VALUES (5, 'enqueued', '[1,0]');
        DELETE FROM asyncjobs_journal;
        INSERT INTO asyncjobs_journal VALUES
          (9, 6, 'claimed', '[1,1]'), (10, 7, 'released', '[1,1]');
        UPDATE asyncjobs_jobs SET claim = 1;
    """)
    connection.close()
    store = await opened(tmp_path / "jobs.db")
    assert await store.audit(limit=1, before=None) == []
    assert await store.get("one") is not None
    assert await store.check() == []
    assert await store.journal_end() == (Place(11), 8), "what was pruned before it was counted"
    await store.close()


async def test_limited_jobs_that_were_blocked_until_they_are_due_are_queued(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    migrate(connection, 0, migrations()[:11])
    connection.executescript("""
        INSERT INTO asyncjobs_jobs
          (seq, id, run_at, attempt, claim, task, queue, state, reason, priority, created_at,
           trigger)
        VALUES (1, 'new', 9, 0, 0, 'add', 'default', 'blocked', 'limit', 0, 5, 'api'),
               (2, 'again', 9, 1, 1, 'add', 'default', 'blocked', 'limit', 0, 5, 'api'),
               (3, 'behind', 5, 0, 0, 'add', 'default', 'blocked', 'limit', 0, 5, 'api');
        INSERT INTO asyncjobs_attempts VALUES
          (2, 1, 1, 'retrying', 'timeout', 'one', 6, 7, 'Timeout', '', '', '');
        INSERT INTO asyncjobs_limits (id, name, key, running) VALUES (1, 'add', 'k', 0);
        INSERT INTO asyncjobs_limited VALUES
          (1, 1, 'later', 0, 9), (2, 1, 'later', 0, 9), (3, 1, 'ready', 0, 5);
        INSERT INTO asyncjobs_counts VALUES ('default', 'add', 'blocked', 3);
        UPDATE asyncjobs_counts SET jobs = 3 WHERE state = 'accepted';
        INSERT INTO asyncjobs_journal (at, kind, jobs) VALUES
          (5, 'enqueued', '[1,0,2,0,3,0]'), (6, 'claimed', '[2,1]'), (7, 'retrying', '[2,1]'),
          (7, 'held', '[1,0,2,1,3,0]');
    """)
    connection.close()
    store = await opened(tmp_path / "jobs.db")
    jobs = [await store.get(name) for name in ("new", "again", "behind")]
    assert [(job.state, job.reason) for job in jobs if job is not None] == [
        ("queued", None), ("queued", "timeout"), ("blocked", "limit"),
    ]  # fmt: skip
    assert await store.check() == []
    await store.close()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_migration_that_fails_midway_changes_nothing(tmp_path: Path, place: int) -> None:
    await with_one_job(tmp_path / "jobs.db")
    statements = list(split_statements(NEXT[1]))
    statements.insert(place, "INSERT INTO nowhere VALUES (1);")
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    before = schema(connection), list(connection.iterdump())
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(connection, 1, [*migrations(), (NEXT[0], "\n".join(statements))])
    assert not connection.in_transaction
    assert (schema(connection), list(connection.iterdump())) == before
    connection.close()


def test_file_of_the_newest_version_is_left_alone() -> None:
    connection = empty()
    migrate(connection, 0)
    changes = connection.total_changes
    migrate(connection, migrations()[-1][0])
    assert connection.total_changes == changes
    connection.close()


async def test_newer_file_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await with_one_job(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE asyncjobs_meta SET value = 99 WHERE name = 'schema_version'")
    connection.commit()
    connection.close()
    before = everything_in(tmp_path)
    message = await refused(path, NewerSchema)
    assert "schema version 99" in message
    assert "not changed" in message
    assert everything_in(tmp_path) == before


OPENER = """
import asyncio, sys
from asyncjobs.store.sqlite.store import SQLiteStore

async def main():
    for line in sys.stdin:
        store = SQLiteStore(line.strip())
        await store.open()
        print(await store.check(), flush=True)
        await store.close()

asyncio.run(main())
"""


def test_two_processes_may_open_a_fresh_file_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for number in range(20):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{tmp_path / f'{number}.db'}\n")
                process.stdin.flush()
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "[]\n"
    finally:
        for process in processes:
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0]


# Settings


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
async def test_settings_of_both_connections(
    tmp_path: Path, durability: str, synchronous: int
) -> None:
    store = await opened(tmp_path / "jobs.db", durability=durability)

    def settings(connection: sqlite3.Connection) -> dict[str, Any]:
        names = "journal_mode synchronous auto_vacuum query_only wal_autocheckpoint cell_size_check"
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names.split()}

    writer, reader = await store._writer.run(settings), await store._reader.run(settings)
    await store.close()
    both = {
        "journal_mode": "wal",
        "synchronous": synchronous,
        "auto_vacuum": 2,  # incremental
        "cell_size_check": 1,
    }
    assert writer == {**both, "query_only": 0, "wal_autocheckpoint": CHECKPOINT_PAGES}
    assert reader == {**both, "query_only": 1, "wal_autocheckpoint": 0}


async def test_settings_hold_when_the_file_is_opened_again(tmp_path: Path) -> None:
    await with_one_job(tmp_path / "jobs.db")
    store = await opened(tmp_path / "jobs.db")
    mode = await store._writer.run(lambda c: c.execute("PRAGMA auto_vacuum").fetchone()[0])
    await store.close()
    assert mode == 2


async def test_memory_is_one_connection(clock: ManualClock) -> None:
    store = SQLiteStore(":memory:", clock=clock)
    await store.open()
    assert store._reader is store._writer
    await store.close()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
async def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = await opened(tmp_path / "jobs.db")
        await Desk(store, ManualClock()).add()
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert set(modes) == {"jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-turn"}
    assert set(modes.values()) == {0o600}


async def test_mode_of_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await with_one_job(path)
    path.chmod(0o640)
    await (await opened(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_closed_store_leaves_one_file_and_the_turn(tmp_path: Path) -> None:
    await with_one_job(tmp_path / "jobs.db")
    assert sorted(everything_in(tmp_path)) == ["jobs.db", "jobs.db-turn"]


# Places


@pytest.mark.parametrize(
    "name", ["a b.db", "ü日本.db", "50%.db", "a?mode=ro.db", "#x.db", "file:x.db", "'q\".db", "-x"]
)
async def test_path_is_taken_as_it_is_written(tmp_path: Path, name: str) -> None:
    await with_one_job(tmp_path / name)
    assert sorted(everything_in(tmp_path)) == sorted([name, f"{name}-turn"])


async def test_symbolic_link_leads_to_one_and_the_same_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "jobs.db")  # there is no file yet
    link = await opened(tmp_path / "link.db")
    real = await opened(tmp_path / "real" / "jobs.db")
    job_id = await Desk(link, ManualClock()).add()
    assert await real.get(job_id) is not None
    await link.close()
    await real.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.db", "real"]
    assert sorted(everything_in(tmp_path / "real")) == ["jobs.db", "jobs.db-turn"]


async def test_directory_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory" in await refused(tmp_path, StoreUnavailable)


@pytest.mark.parametrize("place", ["missing/jobs.db", "file/jobs.db"])
async def test_place_that_cannot_hold_a_file_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    message = await refused(tmp_path / place, StoreUnavailable)
    assert "cannot create the database" in message


@pytest.mark.parametrize(
    "content", [b"no database\n", b"x" * 5_000, b"SQLite format 3\0" + b"y" * 600]
)
async def test_file_that_is_no_database_is_refused_and_untouched(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert "notes.txt" in await refused(path, StoreUnavailable)
    assert everything_in(tmp_path) == {"notes.txt": content}


async def test_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"")
    await with_one_job(tmp_path / "jobs.db")


def make_foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (name TEXT)")
    connection.execute("INSERT INTO users VALUES ('ada')")
    connection.commit()
    connection.close()


async def test_foreign_database_is_refused_and_untouched(tmp_path: Path) -> None:
    make_foreign(tmp_path / "app.db")
    before = everything_in(tmp_path)
    message = await refused(tmp_path / "app.db", ForeignDatabase)
    assert "shared=True" in message
    assert everything_in(tmp_path) == before


async def test_foreign_database_can_be_shared(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    make_foreign(path)
    for _ in range(2):
        store = await opened(path, shared=True)
        await Desk(store, ManualClock()).add()
        assert await store.check() == []
        await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM users").fetchall() == [("ada",)]
    assert connection.execute("SELECT count(*) FROM asyncjobs_jobs").fetchone() == (2,)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    connection.close()
    ours = re.compile(r"asyncjobs_|sqlite_(autoindex|sequence|stat)")
    assert [name for name in tables if not ours.match(name)] == ["users"]


@pytest.mark.parametrize("version", [(3, 34, 1), (3, 7, 17), (2, 8, 17)])
def test_old_sqlite_is_refused(version: tuple[int, int, int]) -> None:
    with pytest.raises(SQLiteTooOld, match=r"3\.35 or newer; this Python has \d+\.\d+\.\d+"):
        check_sqlite_version(version)


@pytest.mark.parametrize("version", [(3, 35, 0), (3, 40, 1), (4, 0, 0)])
def test_new_sqlite_is_taken(version: tuple[int, int, int]) -> None:
    check_sqlite_version(version)


async def test_store_that_could_not_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = {thread for thread in threading.enumerate() if not thread.daemon}
    make_foreign(tmp_path / "app.db")
    await refused(tmp_path / "app.db", ForeignDatabase)
    await refused(tmp_path, StoreUnavailable)
    left = {thread for thread in threading.enumerate() if not thread.daemon} - before
    for thread in left:
        thread.join(5)  # told to end, but not waited for
    assert not any(thread.is_alive() for thread in left)
