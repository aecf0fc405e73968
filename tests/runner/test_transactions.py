"""``tx=`` and ``runner.transaction``: jobs that exist if and only if the application commits."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import pytest_asyncio

from asyncjobs import (
    InvalidOption,
    KeyConflict,
    ResultGone,
    Runner,
    StoreBusy,
    Tasks,
    UnfitConnection,
    UnknownTask,
    WrongEventLoop,
)
from asyncjobs.store import group_commit
from asyncjobs.store.sqlite import joining
from asyncjobs.testing import run_until_idle

from .support import census, nothing_left, until

Connect = Callable[..., Awaitable[Any]]

PROMISED_SECONDS = 0.1
"""From the application's commit to the start of the job."""

tasks = Tasks()
started: dict[int, float] = {}


@tasks.task(name="echo")
async def echo(value: int = 0) -> int:
    started[value] = time.monotonic()
    return value


async def execute(connection: Any, sql: str) -> list[Any]:
    """Run a statement on a connection of either kind; its rows."""
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(sql).fetchall()
    return list(await connection.execute_fetchall(sql))


@pytest_asyncio.fixture(params=["aiosqlite", "sqlite3"])
async def connect(request: Any, tmp_path: Path) -> AsyncIterator[Connect]:
    """Opens connections of each kind as an application would; closes them all at the end."""
    opened: list[Any] = []

    async def open_one(**options: Any) -> Any:
        if request.param == "sqlite3":
            opened.append(sqlite3.connect(tmp_path / "jobs.db", **options))
        else:
            opened.append(await aiosqlite.connect(tmp_path / "jobs.db", **options))
        return opened[-1]

    yield open_one
    for connection in opened:
        if isinstance(connection, sqlite3.Connection):
            connection.close()
        else:
            await connection.close()


@pytest_asyncio.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Runner]:
    """One lone process on the machine's clock."""
    runner = Runner(tmp_path / "jobs.db", grace=1.0)
    runner.include(tasks)
    started.clear()
    async with runner:
        yield runner


def looking() -> bool:
    """Whether somebody still looks for the end of transactions."""
    return any(task.get_name() == "asyncjobs-joiner" for task in asyncio.all_tasks())


# Committed


async def test_a_job_is_stored_with_the_rows_of_the_application(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    await execute(connection, "CREATE TABLE orders (job)")

    async with alone.transaction(connection) as tx:
        handle = await alone.enqueue(echo.options(tags=["order"]).job(7), tx=tx)
        await execute(tx, f"INSERT INTO orders VALUES ('{handle.id}')")

    assert tx is connection
    assert await handle == 7
    assert await execute(connection, "SELECT job FROM orders") == [(handle.id,)]
    assert await alone.registry.check() == []


async def test_many_jobs_are_stored_in_one_transaction(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    async with alone.transaction(connection) as tx:
        handles = await alone.enqueue_many([echo.job(n) for n in range(500)], tx=tx)
        handles += await alone.enqueue_many([echo.job(n) for n in range(500, 1_000)], tx=tx)
        assert await alone.enqueue_many([], tx=tx) == []
    assert [await handle for handle in handles] == list(range(1_000))


@pytest.mark.timed
async def test_a_job_starts_soon_after_the_end_of_its_transaction(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    async with alone.transaction(connection) as tx:
        handle = await alone.enqueue(echo.job(1), tx=tx)
    committed = time.monotonic()
    await handle
    assert started[1] - committed <= PROMISED_SECONDS


@pytest.mark.timed
@pytest.mark.parametrize("open_seconds", [0.0, 0.2])
async def test_a_job_starts_soon_after_a_commit_that_nobody_tells_of(
    alone: Runner, connect: Connect, open_seconds: float
) -> None:
    connection = await connect()
    late = []
    for value in range(5):
        await execute(connection, "BEGIN IMMEDIATE")
        handle = await alone.enqueue(echo.job(value), tx=connection)
        await asyncio.sleep(open_seconds)  # how long it is open decides how often we look
        assert value not in started
        await execute(connection, "COMMIT")
        committed = time.monotonic()
        await until(partial(started.__contains__, value))
        late.append(started[value] - committed)
        assert await handle == value
    assert sorted(late)[2] <= PROMISED_SECONDS, late


async def test_nothing_looks_when_every_transaction_has_ended(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    for end in ("COMMIT", "ROLLBACK"):
        await execute(connection, "BEGIN")
        await alone.enqueue(echo.job(), tx=connection)
        assert looking()
        await execute(connection, end)
        await until(lambda: not looking())


async def test_an_implicit_transaction_can_be_joined(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    await execute(connection, "CREATE TABLE own (n)")
    await execute(connection, "INSERT INTO own VALUES (1)")  # sqlite3 begins one before it
    handle = await alone.enqueue(echo.job(3), tx=connection)
    await asyncio.sleep(0)
    if isinstance(connection, sqlite3.Connection):
        connection.commit()
    else:
        await connection.commit()
    assert await handle == 3


async def test_testing_sees_what_was_committed_just_now(runner: Runner, connect: Connect) -> None:
    runner.include(tasks)
    connection = await connect()
    await run_until_idle(runner)
    await execute(connection, "BEGIN")
    handle = await runner.enqueue(echo.job(1), tx=connection)
    await run_until_idle(runner)  # does not wait for a commit that may never come
    await execute(connection, "COMMIT")

    await run_until_idle(runner)

    assert (await handle.job()).state == "completed"


async def test_another_runner_takes_what_a_stopped_one_left_uncommitted(
    tmp_path: Path, connect: Connect
) -> None:
    before = census(tmp_path)
    first, second = (Runner(tmp_path / "jobs.db", grace=0.1) for _ in range(2))
    connection = await connect()
    for runner in (first, second):
        runner.include(tasks)
    async with first:
        await execute(connection, "BEGIN")
        handle = await first.enqueue(first.tasks["echo"].job(5), tx=connection)
    assert not looking()
    await execute(connection, "COMMIT")
    if isinstance(connection, sqlite3.Connection):
        connection.close()
    else:
        await connection.close()
    async with second:
        assert await second.handle(handle.id) == 5
    await nothing_left(before, tmp_path)


@pytest.mark.timed
async def test_a_client_enqueues_in_a_transaction_and_a_neighbour_runs_the_job_at_once(
    tmp_path: Path, connect: Connect
) -> None:
    client, worker = (Runner(tmp_path / "jobs.db", grace=0.1) for _ in range(2))
    worker.include(tasks)
    client.task(name="echo")(echo.function)
    async with client.client(), worker:
        await until(lambda: client.engine().bell.others)
        connection = await connect()
        async with client.transaction(connection) as tx:
            told = await client.enqueue(echo.job(1), tx=tx)
        ended = time.monotonic()
        assert await told == 1
        assert time.monotonic() - ended <= PROMISED_SECONDS
        await execute(connection, "BEGIN")
        bare = await client.enqueue(echo.job(2), tx=connection)
        await execute(connection, "COMMIT")
        assert await bare == 2


# Rolled back


async def test_rolled_back_means_never_existed(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    with pytest.raises(ZeroDivisionError):
        async with alone.transaction(connection) as tx:
            first = await alone.enqueue(echo.options(key="k").job(1), tx=tx)
            raise ZeroDivisionError

    for handle in (first, alone.handle(first.id)):
        with pytest.raises(ResultGone, match="rolled back"):
            await handle
    again = await alone.enqueue(echo.options(key="k").job(2))
    assert not again.existing
    assert await again == 2
    assert 1 not in started


async def test_a_rollback_that_nobody_tells_of_reaches_those_who_wait(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    await execute(connection, "BEGIN")
    handle = await alone.enqueue(echo.job(1), tx=connection)
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    await execute(connection, "ROLLBACK")
    with pytest.raises(ResultGone):
        await asyncio.wait_for(waiting, 5)


async def test_a_connection_that_the_application_drops_is_rolled_back(
    alone: Runner, tmp_path: Path
) -> None:
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.execute("BEGIN")
    handle = await alone.enqueue(echo.job(1), tx=connection)
    # Python 3.13 warns of it, to the application's developer.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        del connection  # nobody keeps it alive, and with it the write lock
        gc.collect()
    with pytest.raises(ResultGone):
        await handle.result(timeout=5)
    assert await (await echo.enqueue(2)) == 2


async def test_a_closed_connection_is_rolled_back(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    await execute(connection, "BEGIN")
    handle = await alone.enqueue(echo.job(1), tx=connection)
    if isinstance(connection, sqlite3.Connection):
        connection.close()
    else:
        await connection.close()
    with pytest.raises(ResultGone):
        await handle.result(timeout=5)


async def test_a_rollback_followed_at_once_by_another_transaction_is_seen(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    await execute(connection, "BEGIN")
    lost = await alone.enqueue(echo.job(1), tx=connection)
    await execute(connection, "ROLLBACK")
    await execute(connection, "BEGIN")  # always in a transaction, as with autocommit=False
    with pytest.raises(ResultGone):
        await lost.result(timeout=5)
    assert connection.in_transaction


async def test_what_a_savepoint_took_back_is_gone_and_the_rest_is_there(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    async with alone.transaction(connection) as tx:
        kept = await alone.enqueue(echo.job(1), tx=tx)
        await execute(tx, "SAVEPOINT mine")
        undone = await alone.enqueue(echo.job(2), tx=tx)
        await execute(tx, "ROLLBACK TO mine")
    assert await kept == 1
    with pytest.raises(ResultGone):
        await undone


async def test_a_rolled_back_job_can_be_enqueued_again(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    job = echo.job(4)
    await execute(connection, "BEGIN")
    first = await alone.enqueue(job, tx=connection)
    await execute(connection, "ROLLBACK")
    async with alone.transaction(connection) as tx:
        second = await alone.enqueue(job, tx=tx)
    assert not second.existing
    assert [await first, await second] == [4, 4]


async def test_a_cancelled_transaction_is_rolled_back(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    inside: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with alone.transaction(connection) as tx:
            inside.set_result(await alone.enqueue(echo.job(1), tx=tx))
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    handle = await inside
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ResultGone):
        await handle
    assert not connection.in_transaction


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_enqueue_is_part_of_the_transaction_or_not_but_never_lost(
    alone: Runner, connect: Connect, turns: int
) -> None:
    connection = await connect()
    await execute(connection, "BEGIN IMMEDIATE")
    job = echo.job(turns)
    task = asyncio.create_task(alone.enqueue(job, tx=connection))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    written = await execute(connection, "SELECT count(*) FROM asyncjobs_jobs")
    await execute(connection, "COMMIT")
    if written == [(1,)]:  # and started, although nobody holds a handle
        await until(lambda: turns in started)
    await until(lambda: not looking())
    assert await alone.registry.count() == written[0][0]


# Before the commit


async def test_a_handle_waits_for_the_commit(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    await execute(connection, "BEGIN")
    handle = await alone.enqueue(echo.job(1), tx=connection)
    other = alone.handle(handle.id)  # as by another request, which has only the id
    waiting = [asyncio.create_task(one.result()) for one in (handle, other)]
    resolver = alone.engine().resolver
    for _ in range(50):  # somebody else's writes make every awaited job be looked up
        resolver.refresh()
        await resolver.close()  # waits for the lookup
    assert not any(task.done() for task in waiting)
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.01)
    await execute(connection, "COMMIT")
    assert await asyncio.gather(*waiting) == [1, 1]


async def test_keys_and_ids_are_looked_for_in_the_transaction_itself(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    keyed = echo.options(key="k")
    job = keyed.job(1)
    async with alone.transaction(connection) as tx:
        first = await alone.enqueue(job, tx=tx)
        again = await alone.enqueue(job, tx=tx)
        same = await alone.enqueue(keyed.job(1), tx=tx)
        with pytest.raises(KeyConflict) as caught:
            await alone.enqueue(keyed.job(2), tx=tx)
        with pytest.raises(KeyConflict):
            await alone.enqueue_many([echo.job(3), keyed.job(2)], tx=tx)
    assert [first.existing, again.existing, same.existing] == [False, True, True]
    assert {again.id, same.id, caught.value.job_id} == {first.id}
    assert [await first, await again, await same] == [1, 1, 1]
    assert await alone.registry.count() == 1


async def test_an_enqueue_without_tx_inside_the_transaction_hears_that_it_waits_for_itself(
    alone: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "BUSY_SECONDS", 0.4)
    gate = asyncio.Event()

    @alone.task
    async def gated() -> int:
        await gate.wait()
        return 1

    running = await gated.enqueue()
    await until(lambda: alone.tally.started == 1)
    async with (
        aiosqlite.connect(tmp_path / "jobs.db") as connection,
        alone.transaction(connection) as tx,
    ):
        kept = await alone.enqueue(echo.job(1), tx=tx)
        gate.set()  # its outcome is kept until the lock is free
        begun = time.monotonic()
        with pytest.raises(StoreBusy, match=r"own open write transaction.*waits for itself"):
            await echo.enqueue(2)
        assert time.monotonic() - begun >= group_commit.BUSY_SECONDS
    assert await kept == 1
    assert await running == 1
    assert 2 not in started


async def test_a_transaction_inside_another_of_the_same_task_hears_that_it_waits_for_itself(
    alone: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "BUSY_SECONDS", 0.2)
    outer, inner = (sqlite3.connect(tmp_path / "jobs.db") for _ in range(2))
    async with alone.transaction(outer):
        with pytest.raises(StoreBusy, match="waits for itself"):
            async with alone.transaction(inner):
                pass
    async with alone.transaction(inner):
        pass
    outer.close()
    inner.close()


# What is refused


async def test_a_bare_connection_is_told_of_the_runners_transaction(
    alone: Runner, connect: Connect
) -> None:
    connection = await connect()
    with pytest.raises(UnfitConnection, match=r"runner\.transaction\(connection\)") as caught:
        await alone.enqueue(echo.job(), tx=connection)
    assert caught.value.reason == "no_transaction"
    assert not looking()


async def test_a_transaction_in_a_transaction_is_refused(alone: Runner, connect: Connect) -> None:
    connection = await connect()
    async with alone.transaction(connection) as tx:
        handle = await alone.enqueue(echo.job(1), tx=tx)
        waiting = asyncio.create_task(handle.result())
        with pytest.raises(UnfitConnection, match="open already"):
            async with alone.transaction(tx):
                pass
        await execute(tx, "SELECT 1")
        assert looking()  # the refusal says nothing of how the outer one ends
    assert await waiting == 1


async def test_what_is_no_connection_is_refused(alone: Runner) -> None:
    wrong: Any = "jobs.db"
    with pytest.raises(InvalidOption, match="got str"):
        await alone.enqueue(echo.job(), tx=wrong)
    with pytest.raises(InvalidOption, match="got str"):
        async with alone.transaction(wrong):
            pass


async def test_a_task_of_nobody_is_refused_before_anything_is_written(
    alone: Runner, connect: Connect
) -> None:
    @Tasks().task(name="stranger")
    async def stranger() -> None: ...

    connection = await connect()
    await execute(connection, "BEGIN")
    with pytest.raises(UnknownTask):
        await alone.enqueue_many([echo.job(), stranger.job()], tx=connection)
    assert await execute(connection, "SELECT count(*) FROM asyncjobs_jobs") == [(0,)]


async def test_another_event_loop_is_refused(alone: Runner, tmp_path: Path) -> None:
    async def elsewhere() -> None:
        async with aiosqlite.connect(tmp_path / "jobs.db") as connection:
            with pytest.raises(WrongEventLoop):
                async with alone.transaction(connection):
                    pass
            await connection.execute("BEGIN")
            with pytest.raises(WrongEventLoop):
                await alone.enqueue(echo.job(), tx=connection)

    await asyncio.to_thread(asyncio.run, elsewhere())


async def test_no_log_line_of_aiosqlite_holds_an_argument(
    alone: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @alone.task
    async def secret(word: str) -> str:
        return word

    caplog.set_level("DEBUG")
    async with (
        aiosqlite.connect(tmp_path / "jobs.db") as connection,
        alone.transaction(connection) as tx,
    ):
        await alone.enqueue(secret.job("canary-7f3a"), tx=tx)
    assert "executing" in caplog.text
    assert "canary-7f3a" not in caplog.text
