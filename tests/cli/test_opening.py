"""Databases that are not there, not ours, not whole, not free: one line, and nothing made."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncjobs.errors import StoreBusy, StoreUnavailable
from asyncjobs.store.sqlite import looking
from asyncjobs.store.sqlite.looking import Onlooker
from asyncjobs.store.sqlite.migrate import migrate, migrations
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock
from tests.store.kit import Desk

from .kit import Shell, files_of, run

COMMANDS = [
    ["ls"],
    ["show", "0"],
    ["tail", "--no-follow"],
    ["tail", "0"],
    ["failures"],
    ["retry", "0"],
    ["cancel", "--state", "queued", "--yes"],
    ["delete", "0"],
    ["audit"],
]
NEWEST = migrations()[-1][0]


def missing(path: Path) -> str:
    return "there is no database"


def in_no_folder(path: Path) -> str:
    path.parent.rmdir()
    return "there is no database"


def below_a_file(path: Path) -> str:
    path.parent.rmdir()
    path.parent.write_text("")
    return "cannot be opened: Not a directory"


def directory(path: Path) -> str:
    path.mkdir()
    return "is a directory; give the path of the file in it"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "is no file"


def text(path: Path) -> str:
    path.write_text("Dear diary, " * 1_000)
    return "is not a SQLite database"


def nothing(path: Path) -> str:
    path.touch()
    return "is empty: no application has started a Runner on it yet"


def foreign(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    return "is a database of something else"


def of_version(path: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, 0, [step for step in migrations() if step[0] <= version])
        connection.execute("UPDATE asyncjobs_meta SET value = ? WHERE name = 'schema_version'",
                           (version,))  # fmt: skip


def older(path: Path) -> str:
    of_version(path, NEWEST - 1)
    return f"has schema version {NEWEST - 1}, this asyncjobs needs {NEWEST}; use the"


def newer(path: Path) -> str:
    of_version(path, NEWEST + 1)
    return f"has schema version {NEWEST + 1}, this asyncjobs knows {NEWEST}; use the"


def damaged(path: Path) -> str:
    of_version(path, NEWEST)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3_000)
    return "is damaged"


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) for words in COMMANDS])
@pytest.mark.parametrize(
    "make",
    [missing, in_no_folder, below_a_file, directory, pipe, text, nothing, foreign, older, newer,
     damaged],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_and_nothing_is_made(
    tmp_path: Path, make: Callable[[Path], str], words: list[str]
) -> None:
    path = tmp_path / "folder" / "jobs.db"
    path.parent.mkdir()
    complaint = make(path)
    before = files_of(tmp_path)

    refused = run("--db", path, *words)

    assert (refused.code, refused.out) == (3, "")
    assert complaint in refused.err
    assert str(path) in refused.err
    assert refused.err.count("\n") == 1
    assert files_of(tmp_path) == before


def test_a_database_that_is_kept_locked_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "BUSY_SECONDS", 0.01)
    path = tmp_path / "jobs.db"
    of_version(path, NEWEST)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE notes (text)")

        refused = run("--db", path, "ls")

    assert (refused.code, refused.out) == (3, "")
    assert "is locked: another program has kept everybody out for 0.01 s" in refused.err


SOMEBODY_ELSE = """
import contextlib, io, os, sys
from asyncjobs.__main__ import main
with contextlib.redirect_stdout(io.StringIO()):
    main(sys.argv[1:])  # so that all is imported: the interpreter may be in a private folder
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Be somebody who may not do everything; who is not root is that already."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """A folder that others can enter; the folders of tests are private."""
    with tempfile.TemporaryDirectory(prefix="asyncjobs-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        os.chmod(folder, 0o755)


def test_a_database_that_may_not_be_read_names_its_owner(public: Path) -> None:
    path = public / "jobs.db"
    of_version(path, NEWEST)
    path.chmod(0o600 if os.geteuid() == 0 else 0)
    before = files_of(public)

    with as_somebody_else():
        refused = run("--db", path, "ls")

    assert (refused.code, refused.out) == (3, "")
    assert f"{path} may not be read by this user; run this as the owner" in refused.err
    assert refused.err.count("\n") == 1
    assert files_of(public) == before


def test_where_nothing_can_be_written_a_database_at_rest_is_read(public: Path) -> None:
    path = public / "jobs.db"
    of_version(path, NEWEST)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o444)
    public.chmod(0o555)

    with as_somebody_else():
        counted = run("--db", path, "ls", "--count")

    assert (counted.code, counted.out, counted.err) == (0, "0\n", "")


async def test_others_that_may_read_the_files_see_what_a_live_application_commits(
    public: Path,
) -> None:
    clock = ManualClock()
    store = SQLiteStore(str(public / "jobs.db"), clock=clock)
    await store.open()
    try:
        for file in public.iterdir():
            file.chmod(0o644)
        await Desk(store, clock).add()
        # In a process of its own: SQLite shares what one process has open.
        counted = subprocess.run(
            [sys.executable, "-c", SOMEBODY_ELSE, "--db", store.path, "ls", "--count"],
            capture_output=True,
            text=True,
        )
    finally:
        await store.close()
    assert (counted.returncode, counted.stdout, counted.stderr) == (0, "1\n", "")


def test_where_nothing_can_be_written_a_log_without_its_index_is_not_read(public: Path) -> None:
    path = public / "jobs.db"
    of_version(path, NEWEST)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (text)")
        log = Path(f"{path}-wal").read_bytes()
    Path(f"{path}-wal").write_bytes(log)  # as after a copy of both files
    for file in public.iterdir():
        file.chmod(0o444)
    public.chmod(0o555)

    with as_somebody_else():
        refused = run("--db", path, "ls")

    assert (refused.code, refused.out) == (3, "")
    assert "has a -wal whose -shm this user cannot make or open" in refused.err


# What is looked at


async def test_a_look_beside_an_application_sees_the_last_commit(desk: Desk, shell: Shell) -> None:
    before = files_of(shell.database.parent)

    for count in range(1, 4):
        await desk.add()
        assert shell("ls", "--count").out == f"{count}\n"

    assert set(files_of(shell.database.parent)) == set(before)


async def test_looks_at_a_database_at_rest_leave_nothing_behind(desk: Desk, shell: Shell) -> None:
    job_id = await desk.add()
    await desk.store.close()
    before = files_of(shell.database.parent)
    times = os.stat(shell.database)

    for words in (["ls"], ["show", job_id], ["tail", "--no-follow"], ["doctor"], ["cancel", "zz"]):
        shell(*words)

    assert files_of(shell.database.parent) == before
    assert os.stat(shell.database).st_mtime_ns == times.st_mtime_ns


async def test_the_log_of_a_crash_is_read_and_left_where_it_is(desk: Desk, tmp_path: Path) -> None:
    await desk.add()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for ending in ("", "-wal"):
        content = Path(f"{tmp_path}/jobs.db{ending}").read_bytes()
        (crashed / f"jobs.db{ending}").write_bytes(content)

    assert run("--db", crashed / "jobs.db", "ls", "--count").out == "1\n"

    assert (crashed / "jobs.db-wal").stat().st_size > 0
    assert (crashed / "jobs.db").stat().st_size == (tmp_path / "jobs.db").stat().st_size


def test_a_database_that_wakes_up_during_a_look_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    of_version(path, NEWEST)
    onlooker, looks = Onlooker(str(path)), []

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:

        def look(connection: sqlite3.Connection) -> int:
            looks.append(connection)
            if len(looks) == 1:
                other.execute("PRAGMA journal_mode = WAL")
                other.execute("INSERT INTO asyncjobs_subscribers VALUES ('a', 1, 0, 0)")
                raise KeyError("half of one state and half of another")
            found = connection.execute("SELECT count(*) FROM asyncjobs_subscribers").fetchone()[0]
            return int(found)

        assert onlooker.look(look) == 1
        assert len(looks) == 2


def test_a_database_that_never_holds_still_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    of_version(path, NEWEST)
    times = iter(range(100))

    def look(connection: sqlite3.Connection) -> None:
        os.utime(path, ns=(0, next(times)))

    with pytest.raises(StoreBusy, match="opened and closed all the time"):
        Onlooker(str(path)).look(look)


def test_a_stamp_is_young_until_the_next_write_must_bear_another_time(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    of_version(path, NEWEST)
    onlooker = Onlooker(str(path))

    os.utime(path)
    assert onlooker.stamp().young
    os.utime(path, (1, 1))
    assert not onlooker.stamp().young


async def test_no_look_changes_anything(desk: Desk, shell: Shell) -> None:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM asyncjobs_jobs")

    await desk.add()
    with pytest.raises(StoreUnavailable):
        Onlooker(str(shell.database)).look(write)
    assert shell("ls", "--count", "--task", "add").out == "1\n"
