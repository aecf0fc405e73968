"""Writing in the application's own transactions: what must hold, and what is never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import pytest_asyncio

from asyncjobs.errors import InvalidOption, StoreBusy, StoreError, UnfitConnection
from asyncjobs.records import Accepted
from asyncjobs.states import Event
from asyncjobs.store.base import Insert, Report
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import Desk, new_job

Connect = Callable[..., Awaitable[Any]]


async def plain(connection: Any, sql: str) -> list[Any]:
    """Run a statement on a connection of either kind; its rows."""
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(sql).fetchall()
    return list(await connection.execute_fetchall(sql))


async def close(connection: Any) -> None:
    """Close a connection of either kind."""
    if isinstance(connection, sqlite3.Connection):
        connection.close()
    else:
        await connection.close()


@pytest_asyncio.fixture(params=["aiosqlite", "sqlite3"])
async def connect(request: Any, tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens connections of each kind as an application would; closes them all at the end."""
    opened: list[Any] = []

    async def open_one(file: str | Path = "jobs.db", **options: Any) -> Any:
        path = file if file == ":memory:" else tmp_path / file
        if request.param == "sqlite3":
            opened.append(sqlite3.connect(path, **options))
        else:
            opened.append(await aiosqlite.connect(path, **options))
        return opened[-1]

    yield open_one
    for connection in opened:
        await close(connection)


@pytest.fixture
def file_desk(file_store: SQLiteStore, clock: ManualClock) -> Desk:
    return Desk(file_store, clock)


async def refused(store: SQLiteStore, connection: Any, clock: ManualClock) -> UnfitConnection:
    """What the store says to an insert in this connection's transaction."""
    with pytest.raises(UnfitConnection) as caught:
        await store.write_in(connection, [Insert([new_job(clock)])])
    return caught.value


# All or nothing, with the application's transaction


async def test_jobs_are_there_for_others_only_after_the_commit(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    await plain(connection, "BEGIN")
    job = file_desk.job(key="k", tags=("a", "b"), meta='{"m":1}')

    answers = await file_desk.store.write_in(connection, [Insert([job])])
    before = await file_desk.store.get(job.id)
    await plain(connection, "COMMIT")

    assert (answers, before) == ([[None]], None)
    there = await file_desk.get(job.id)
    assert (there.state, there.key, there.tags, there.meta) == ("queued", "k", ("a", "b"), {"m": 1})
    assert await file_desk.count("queued") == 1
    assert await file_desk.store.check() == []


async def test_rolled_back_jobs_leave_no_trace(file_desk: Desk, connect: Connect) -> None:
    connection = await connect()
    await plain(connection, "BEGIN")
    await file_desk.store.write_in(connection, [Insert([file_desk.job(key="k", tags=("a",))])])
    await plain(connection, "ROLLBACK")

    tables = ("jobs", "payloads", "keys", "tags", "journal")
    rows = [(await plain(connection, f"SELECT count(*) FROM asyncjobs_{t}"))[0][0] for t in tables]
    assert rows == [0] * 5
    assert await file_desk.count() == 0
    run = await file_desk.start(key="k")
    assert (run.seq, await file_desk.store.check()) == (1, [])


async def test_a_repeated_id_is_answered_and_the_transaction_goes_on(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    await plain(connection, "CREATE TABLE own (n)")
    job = file_desk.job(key="k")
    await file_desk.insert(job)
    await plain(connection, "BEGIN")
    await plain(connection, "INSERT INTO own VALUES (1)")

    other = file_desk.job(key="k", arguments="{}")
    answers = await file_desk.store.write_in(connection, [Insert([job, job]), Insert([other])])
    await plain(connection, "COMMIT")

    there = Accepted(job.id, conflict=False)
    assert answers == [[there, there], [Accepted(job.id, conflict=True)]]
    assert await plain(connection, "SELECT n FROM own") == [(1,)]
    assert await file_desk.store.check() == []


async def test_an_error_of_ours_undoes_our_part_alone(file_desk: Desk, connect: Connect) -> None:
    connection = await connect()
    await plain(connection, "CREATE TABLE own (n)")
    await plain(connection, "BEGIN")
    await plain(connection, "INSERT INTO own VALUES (1)")
    jobs = [file_desk.job(), file_desk.job(arguments='{"left":"\ud800"}')]

    with pytest.raises(StoreError, match="refused the value: UnicodeEncodeError"):
        await file_desk.store.write_in(connection, [Insert(jobs)])
    await plain(connection, "COMMIT")

    assert await plain(connection, "SELECT n FROM own") == [(1,)]
    assert await file_desk.count() == 0
    assert await file_desk.store.check() == []


async def test_factories_of_the_application_are_left_as_they_were(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()

    def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    connection.row_factory, connection.text_factory = as_dict, bytes
    await plain(connection, "BEGIN")
    await file_desk.store.write_in(connection, [Insert([file_desk.job(key="k")])])
    await file_desk.store.write_in(connection, [Insert([file_desk.job(key="k")])])
    await plain(connection, "COMMIT")

    assert (connection.row_factory, connection.text_factory) == (as_dict, bytes)
    rows = await plain(connection, "SELECT key FROM asyncjobs_jobs")
    assert rows == [{"key": b"k"}]


async def test_a_completion_is_written_under_its_fence(file_desk: Desk, connect: Connect) -> None:
    run, late = await file_desk.start(), await file_desk.start()
    connection = await connect()
    await file_desk.rescue()
    (run,) = [job for job in (await file_desk.claim()).jobs if job.id == run.id]
    reports = [
        Report("here", [file_desk.move(job, Event.COMPLETED, result="1")]) for job in (run, late)
    ]

    await plain(connection, "BEGIN")
    answers = await file_desk.store.write_in(connection, [reports[0], reports[0], reports[1]])
    await plain(connection, "COMMIT")

    assert answers == [["done"], ["already"], ["lost"]]
    assert (await file_desk.get(run.id)).result == 1
    assert await file_desk.store.check() == []


async def test_a_deferred_transaction_that_has_read_nothing_waits_for_the_lock(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect(timeout=10)
    await plain(connection, "BEGIN")
    await file_desk.add()  # written after the BEGIN, before its first statement

    await file_desk.store.write_in(connection, [Insert([file_desk.job()])])
    await plain(connection, "COMMIT")

    assert await file_desk.count() == 2


async def test_a_transaction_that_has_read_what_is_outdated_is_told_to_begin_again(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    await plain(connection, "BEGIN")
    await plain(connection, "SELECT count(*) FROM asyncjobs_jobs")
    await file_desk.add()

    with pytest.raises(StoreBusy, match=r"roll the transaction back.*runner\.transaction"):
        await file_desk.store.write_in(connection, [Insert([file_desk.job()])])


# What is refused


async def test_what_is_no_connection_is_refused_by_its_type(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    for nothing in ("jobs.db", object(), None):
        with pytest.raises(InvalidOption, match=f"got {type(nothing).__name__}"):
            await file_store.write_in(nothing, [Insert([new_job(clock)])])
        with pytest.raises(InvalidOption, match=r"must be a sqlite3\.Connection"):
            file_store.write_here(nothing, [Insert([new_job(clock)])])


async def test_a_connection_on_another_file_is_refused(
    file_store: SQLiteStore, clock: ManualClock, connect: Connect
) -> None:
    for file in ("other.db", ":memory:"):
        connection = await connect(file)
        await plain(connection, "BEGIN")
        error = await refused(file_store, connection, clock)
        assert error.reason == "other_file"
        assert file_store.path in str(error)


async def test_our_file_attached_to_another_is_refused(
    file_store: SQLiteStore, clock: ManualClock, connect: Connect
) -> None:
    connection = await connect("other.db")
    await plain(connection, f"ATTACH '{file_store.path}' AS jobs")
    await plain(connection, "BEGIN")

    error = await refused(file_store, connection, clock)

    assert error.reason == "other_file"
    assert "attached" in str(error)


async def test_our_file_under_another_name_is_the_same_file(
    file_desk: Desk, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    connection = await connect(Path("link") / "jobs.db")
    await plain(connection, "BEGIN")
    await file_desk.store.write_in(connection, [Insert([file_desk.job()])])
    await plain(connection, "COMMIT")
    assert await file_desk.count() == 1


async def test_jobs_in_memory_can_be_joined_by_nobody(clock: ManualClock, connect: Connect) -> None:
    store = SQLiteStore(":memory:", clock=clock)
    await store.open()
    error = await refused(store, await connect(":memory:"), clock)
    await store.close()
    assert error.reason == "other_file"


@pytest.mark.parametrize(
    ("level", "durability", "fits"),
    [("OFF", "normal", False), ("NORMAL", "normal", True), ("FULL", "normal", True),
     ("NORMAL", "full", False), ("FULL", "full", True), ("EXTRA", "full", True)],
)  # fmt: skip
async def test_a_connection_must_be_as_durable_as_the_runner(
    tmp_path: Path, clock: ManualClock, connect: Connect, level: str, durability: str, fits: bool
) -> None:
    store = SQLiteStore(str(tmp_path / "jobs.db"), durability=durability, clock=clock)
    await store.open()
    connection = await connect()
    await plain(connection, f"PRAGMA synchronous = {level}")
    await plain(connection, "BEGIN")
    if fits:
        await store.write_in(connection, [Insert([new_job(clock)])])
        await plain(connection, "COMMIT")
    else:
        error = await refused(store, connection, clock)
        assert error.reason == "durability"
        assert f"PRAGMA synchronous = {durability.upper()}" in str(error)
    await store.close()


async def test_a_closed_connection_is_refused(
    file_store: SQLiteStore, clock: ManualClock, connect: Connect
) -> None:
    connection = await connect()
    await close(connection)
    assert (await refused(file_store, connection, clock)).reason == "closed"


async def test_a_connection_that_was_never_opened_is_refused(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    connection = aiosqlite.connect(file_store.path)
    assert (await refused(file_store, connection, clock)).reason == "closed"


async def test_a_connection_of_another_thread_is_refused(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    made: list[sqlite3.Connection] = []
    done = threading.Event()

    def make() -> None:
        made.append(sqlite3.connect(file_store.path))
        made[0].execute("BEGIN")
        ready.set()
        done.wait(10)
        made[0].close()

    ready = threading.Event()
    thread = threading.Thread(target=make)
    thread.start()
    ready.wait(10)
    error = await refused(file_store, made[0], clock)
    done.set()
    thread.join()
    assert error.reason == "other_thread"


async def test_a_connection_in_no_transaction_is_told_of_the_runners(
    file_store: SQLiteStore, clock: ManualClock, connect: Connect
) -> None:
    error = await refused(file_store, await connect(), clock)
    assert error.reason == "no_transaction"
    assert "runner.transaction(connection)" in str(error)


async def test_a_transaction_older_than_the_tables_is_refused(
    tmp_path: Path, clock: ManualClock, connect: Connect
) -> None:
    connection = await connect()
    await plain(connection, "PRAGMA journal_mode = WAL")
    await plain(connection, "CREATE TABLE own (n)")
    await plain(connection, "BEGIN")
    await plain(connection, "SELECT * FROM own")
    store = SQLiteStore(str(tmp_path / "jobs.db"), shared=True, clock=clock)
    await store.open()

    error = await refused(store, connection, clock)

    await store.close()
    assert error.reason == "no_tables"


async def test_a_file_that_a_newer_release_has_migrated_is_refused(
    file_store: SQLiteStore, clock: ManualClock, connect: Connect
) -> None:
    connection = await connect(isolation_level=None)
    await plain(connection, "UPDATE asyncjobs_meta SET value = 99 WHERE name = 'schema_version'")
    await plain(connection, "BEGIN")

    error = await refused(file_store, connection, clock)
    assert error.reason == "schema"
    assert "99" in str(error)


async def test_an_aiosqlite_without_the_way_in_is_named(
    file_store: SQLiteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await aiosqlite.connect(file_store.path)
    await connection.execute("BEGIN")
    await file_store.write_in(connection, [Insert([new_job(clock)])])
    with monkeypatch.context() as patch:
        patch.delattr(aiosqlite.Connection, "_execute")
        with pytest.raises(StoreError, match="release of aiosqlite"):
            await file_store.write_in(connection, [Insert([new_job(clock)])])
    await connection.close()


# What the connection is left with


async def test_automatic_checkpoints_of_a_joined_connection_are_off(
    file_desk: Desk, connect: Connect
) -> None:
    joined, begun = await connect(), await connect()
    await plain(joined, "BEGIN")
    await file_desk.store.write_in(joined, [Insert([file_desk.job()])])
    await plain(joined, "COMMIT")
    async with file_desk.store.transaction(begun):
        pass
    for connection in (joined, begun):
        assert await plain(connection, "PRAGMA wal_autocheckpoint") == [(0,)]


async def test_beginning_leaves_the_busy_timeout_as_it_was(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect(timeout=1.5)
    async with file_desk.store.transaction(connection):
        pass
    assert await plain(connection, "PRAGMA busy_timeout") == [(1500,)]


async def test_asking_whether_a_transaction_has_ended_leaves_the_reader_a_reader(
    file_desk: Desk, file_store: SQLiteStore
) -> None:
    assert await file_store.settled(["never written"]) == {"never written"}
    reader = file_store._reader
    found = [
        await reader.run(lambda connection: connection.execute("PRAGMA query_only").fetchone()[0]),
        await reader.run(
            lambda connection: connection.execute("PRAGMA busy_timeout").fetchone()[0]
        ),
    ]
    assert found == [1, 250]


async def test_a_transaction_has_ended_when_it_is_committed_or_rolled_back(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    for end in ("COMMIT", "ROLLBACK"):
        await plain(connection, "BEGIN")
        job = file_desk.job()
        await file_desk.store.write_in(connection, [Insert([job])])
        assert await file_desk.store.settled([job.id]) == set()
        await plain(connection, end)
        assert await file_desk.store.settled([job.id]) == {job.id}


async def test_a_committed_job_is_settled_also_while_others_write(
    file_desk: Desk, connect: Connect
) -> None:
    connection, other = await connect(), await connect()
    await plain(connection, "BEGIN")
    job, gone = file_desk.job(), file_desk.job()
    await file_desk.store.write_in(connection, [Insert([job])])
    await plain(connection, "COMMIT")
    await plain(other, "BEGIN IMMEDIATE")
    assert await file_desk.store.settled([job.id, gone.id]) == {job.id}


# Beginning and ending


async def test_a_transaction_is_committed_at_the_end_of_its_block(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    async with file_desk.store.transaction(connection):
        await plain(connection, "CREATE TABLE own (n)")
        assert connection.in_transaction
    assert not connection.in_transaction
    assert await plain(await connect(), "SELECT * FROM own") == []


async def test_a_transaction_is_rolled_back_after_an_error(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    with pytest.raises(KeyError):
        async with file_desk.store.transaction(connection):
            await plain(connection, "CREATE TABLE own (n)")
            raise KeyError
    assert not connection.in_transaction
    assert await plain(connection, "SELECT name FROM sqlite_master WHERE name = 'own'") == []


async def test_a_block_that_ends_its_transaction_itself_is_left_in_peace(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    async with file_desk.store.transaction(connection):
        await plain(connection, "ROLLBACK")
    with pytest.raises(KeyError):
        async with file_desk.store.transaction(connection):
            await close(connection)
            raise KeyError


async def test_a_connection_closed_in_its_block_is_no_commit(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    with pytest.raises(UnfitConnection, match="closed"):
        async with file_desk.store.transaction(connection):
            await close(connection)


async def test_a_second_transaction_on_one_connection_is_refused(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    async with file_desk.store.transaction(connection):
        with pytest.raises(UnfitConnection) as caught:
            async with file_desk.store.transaction(connection):
                pass
        assert connection.in_transaction
    assert caught.value.reason == "in_transaction"


async def test_two_tasks_on_one_connection_do_not_share_a_transaction(
    file_desk: Desk, connect: Connect
) -> None:
    connection = await connect()
    inside, leave = asyncio.Event(), asyncio.Event()
    open_ones: list[str] = []

    async def hold(name: str) -> None:
        async with file_desk.store.transaction(connection):
            open_ones.append(name)
            inside.set()
            await leave.wait()
            assert open_ones == [name]
            open_ones.remove(name)

    first = asyncio.create_task(hold("first"))
    await inside.wait()
    second = asyncio.create_task(hold("second"))
    with pytest.raises(UnfitConnection, match="open already"):
        await second
    third = asyncio.create_task(hold("third"))
    leave.set()
    await first
    with contextlib.suppress(UnfitConnection):  # it asked while the first was open
        await third
    assert open_ones == []
    assert not connection.in_transaction


async def test_a_hundred_transactions_at_once_are_all_served_and_let_the_writer_by(
    file_desk: Desk, connect: Connect
) -> None:
    connections = [await connect() for _ in range(100)]
    served = 0
    flushed = [0]

    async def take(connection: Any) -> None:
        nonlocal served
        async with file_desk.store.transaction(connection):
            served += 1

    async def write() -> None:
        while served < len(connections):
            await file_desk.add()
            flushed.append(served)

    await asyncio.gather(write(), *map(take, connections))
    # Each lets the flush that is under way go first: nobody keeps the writer waiting.
    assert max(later - earlier for earlier, later in itertools.pairwise(flushed)) <= 10


async def test_beginning_waits_without_holding_up_the_loop(
    file_desk: Desk, connect: Connect
) -> None:
    other, connection = await connect(), await connect()
    await plain(other, "BEGIN IMMEDIATE")
    turns = 0

    async def begin() -> None:
        async with file_desk.store.transaction(connection):
            pass

    waiting = asyncio.create_task(begin())
    while turns < 1_000:  # the loop turns, and the transaction does not begin
        await asyncio.sleep(0)
        turns += 1
    assert not waiting.done()
    await plain(other, "COMMIT")
    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_cancelled_beginning_leaves_nothing_open(
    file_desk: Desk, connect: Connect, turns: int
) -> None:
    connection = await connect()

    async def hold() -> None:
        async with file_desk.store.transaction(connection):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not connection.in_transaction
    await file_desk.add()  # neither the turn nor the lock is held
