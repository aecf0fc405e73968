"""``complete_in``: effect and completion in one transaction of the application."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import pytest_asyncio

from asyncjobs import (
    FenceLost,
    InvalidResult,
    JobFailed,
    Retry,
    Runner,
    Snooze,
    UnfitConnection,
    current_job,
)
from asyncjobs.store.base import Rescue

from .support import until

Effect = Callable[..., Awaitable[None]]


class Shop:
    """A runner, and the application's own table in its file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = folder / "jobs.db"
        self.runner = Runner(self.path, grace=0.2)
        self.kind = kind
        self.committed = asyncio.Event()
        self.go_on = asyncio.Event()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection of the application, of one kind or the other."""
        if self.kind == "aiosqlite":
            async with aiosqlite.connect(self.path) as connection:
                yield connection
        else:
            with contextlib.closing(sqlite3.connect(self.path)) as plain:
                yield plain

    async def count(self, result: int) -> None:
        """What jobs do: the effect, and with it the completion."""
        async with self.connection() as connection, self.runner.transaction(connection) as tx:
            done = tx.execute("UPDATE counter SET n = n + 1")
            if self.kind == "aiosqlite":
                await done
            await current_job().complete_in(tx, result)
        self.committed.set()

    @property
    def counted(self) -> int:
        """How often the effect has happened."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            counted: int = connection.execute("SELECT n FROM counter").fetchone()[0]
            return counted


@pytest_asyncio.fixture(params=["aiosqlite", "sqlite3"])
async def shop(request: Any, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path, request.param)
    async with shop.runner:
        with contextlib.closing(sqlite3.connect(shop.path)) as connection:
            connection.execute("CREATE TABLE counter (n)")
            connection.execute("INSERT INTO counter VALUES (0)")
            connection.commit()
        yield shop
        if shop.runner.healthy:
            assert await shop.runner.registry.check() == []


def late_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of code that ended otherwise after its completion."""
    return [r.getMessage() for r in caplog.records if "that is disregarded" in r.getMessage()]


async def test_effect_and_completion_are_committed_together(shop: Shop) -> None:
    @shop.runner.task
    async def job(n: int) -> int:
        await shop.count(n * 2)
        assert shop.counted == 1
        return n * 2

    handle = await job.enqueue(4)

    assert await handle == 8
    assert (await handle.job()).result == 8
    assert shop.runner.tally.lost_reports == 0


async def test_the_stored_result_counts_and_not_what_the_code_returns(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.runner.task
    async def job() -> int | None:
        await shop.count(1)
        return 2

    handle = await job.enqueue()

    assert await handle == 1
    assert await shop.runner.handle(handle.id) == 1
    assert late_warnings(caplog) == []


@pytest.mark.parametrize("late", [ValueError("too late"), Snooze(60), SystemExit(1)])
async def test_what_the_code_raises_after_the_commit_is_logged_and_disregarded(
    shop: Shop, caplog: pytest.LogCaptureFixture, late: BaseException
) -> None:
    @shop.runner.task(retry=Retry(attempts=3))
    async def job() -> int:
        await shop.count(7)
        raise late

    handle = await job.enqueue()

    assert await handle == 7
    assert (await handle.job()).state == "completed"
    (attempt,) = await shop.runner.registry.attempts(handle.id)
    assert (attempt.event, attempt.error) == ("completed", None)
    (line,) = late_warnings(caplog)
    assert handle.id in line
    assert "retrying" not in caplog.text
    assert shop.counted == 1


async def test_after_a_rollback_the_usual_outcome_applies(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.runner.task(retry=Retry(attempts=2, base=0.0))
    async def job() -> int:
        async with shop.connection() as connection, shop.runner.transaction(connection) as tx:
            done = tx.execute("UPDATE counter SET n = n + 1")
            if shop.kind == "aiosqlite":
                await done
            await current_job().complete_in(tx, 1)
            raise ConnectionError("rolled back")

    handle = await job.enqueue()

    with pytest.raises(JobFailed, match="rolled back"):
        await handle
    assert (await handle.job()).attempt == 2
    assert shop.counted == 0
    assert late_warnings(caplog) == []
    assert "attempt 1: retrying after" in caplog.text


async def test_after_a_rollback_what_the_code_returns_counts(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> int:
        with contextlib.suppress(KeyError):
            async with shop.connection() as connection, shop.runner.transaction(connection) as tx:
                await current_job().complete_in(tx, 1)
                raise KeyError
        return 2

    assert await (await job.enqueue()) == 2


async def test_a_result_that_does_not_fit_is_refused_and_nothing_is_written(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> int:
        wrong: Any = "no number"
        async with shop.connection() as connection, shop.runner.transaction(connection) as tx:
            with pytest.raises(InvalidResult):
                await current_job().complete_in(tx, wrong)
        return 3

    assert await (await job.enqueue()) == 3


async def test_a_connection_in_no_transaction_is_refused(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> str:
        async with shop.connection() as connection:
            with pytest.raises(UnfitConnection) as caught:
                await current_job().complete_in(connection, "x")
        return caught.value.reason

    assert await (await job.enqueue()) == "no_transaction"


async def test_a_run_completes_once(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> int:
        async with shop.connection() as connection, shop.runner.transaction(connection) as tx:
            await current_job().complete_in(tx, 1)
            with pytest.raises(FenceLost, match="has ended already"):
                await current_job().complete_in(tx, 2)
        return 2

    assert await (await job.enqueue()) == 1


async def test_a_rescued_run_cannot_complete_and_its_effect_is_rolled_back(shop: Shop) -> None:
    lost = asyncio.Event()

    @shop.runner.task
    async def job() -> int:
        if current_job().fence[1] == 1:
            shop.committed.set()
            await shop.go_on.wait()
            try:
                await shop.count(1)
            except FenceLost:
                lost.set()
                raise
        return 2

    handle = await job.enqueue()
    await shop.committed.wait()
    engine = shop.runner.engine()
    await engine.commit.alone(Rescue(engine.dispatcher.instance, "taken for dead"))
    shop.go_on.set()
    await lost.wait()
    await until(lambda: shop.runner.tally.lost_reports == 1)
    engine.dispatcher.wake()

    assert await handle == 2
    assert shop.counted == 0


async def test_a_job_retried_by_hand_after_its_commit_runs_anew_and_the_former_run_is_stopped(
    shop: Shop,
) -> None:
    stopped = asyncio.Event()

    @shop.runner.task
    async def job() -> int:
        number = current_job().fence[1]
        await shop.count(number)
        if number == 1:
            try:
                await shop.go_on.wait()
            except asyncio.CancelledError:
                stopped.set()
                raise
        return number

    handle = await job.enqueue()
    await shop.committed.wait()
    assert (await shop.runner.handle(handle.id).job()).result == 1
    await handle.retry()

    assert await handle == 3  # the retry by hand has a claim number of its own
    await stopped.wait()
    await until(lambda: shop.runner.tally.late_values == 1)
    assert shop.counted == 2
    assert (await handle.job()).result == 3


async def test_a_cancellation_between_commit_and_return_comes_too_late(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> int:
        await shop.count(1)
        await shop.go_on.wait()
        return 2

    handle = await job.enqueue()
    await shop.committed.wait()
    assert await handle.cancel() == "finished"
    shop.go_on.set()
    assert await handle == 1


async def test_a_cancellation_before_the_commit_rolls_the_effect_back(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> int:
        async with shop.connection() as connection, shop.runner.transaction(connection) as tx:
            done = tx.execute("UPDATE counter SET n = n + 1")
            if shop.kind == "aiosqlite":
                await done
            await current_job().complete_in(tx, 1)
            shop.committed.set()
            await shop.go_on.wait()
        return 1

    handle = await job.enqueue()
    await shop.committed.wait()
    cancelling = asyncio.create_task(handle.cancel())  # waits for the lock of that very job
    shop.runner.engine().dispatcher.cancel((await handle.job()).seq, "user")
    assert await cancelling in ("requested", "cancelled")
    assert (await handle.wait()).state == "cancelled"
    assert shop.counted == 0


async def test_a_stop_between_commit_and_return_gives_the_stored_result(shop: Shop) -> None:
    @shop.runner.task
    async def job() -> int:
        await shop.count(5)
        await shop.go_on.wait()
        return 6

    handle = await job.enqueue()
    waiting = asyncio.create_task(handle.result())
    await shop.committed.wait()
    await shop.runner.stop()
    assert await waiting == 5
    async with shop.runner:
        assert await shop.runner.handle(handle.id) == 5
    assert shop.counted == 1


async def test_a_timeout_between_commit_and_return_comes_too_late(shop: Shop) -> None:
    @shop.runner.task(timeout=0.3)
    async def job() -> int:
        await shop.count(5)
        await shop.go_on.wait()
        return 6

    assert await (await job.enqueue()) == 5


async def test_a_handle_in_another_process_gets_the_stored_result(shop: Shop) -> None:
    @shop.runner.task(name="counting")
    async def job() -> int | None:
        await shop.count(5)
        return 6

    client = Runner(shop.path)
    client.task(name="counting")(job.function)
    async with client.client():
        await until(lambda: client.engine().bell.others and shop.runner.engine().bell.others)
        handle = await client.enqueue(job.job())
        assert await handle == 5


# In threads


async def test_a_thread_completes_with_a_connection_of_its_own(shop: Shop) -> None:
    @shop.runner.task
    def job() -> int:
        with contextlib.closing(sqlite3.connect(shop.path)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE counter SET n = n + 1")
            current_job().complete_in_thread(connection, 1)
        return 2

    assert await (await job.enqueue()) == 1
    assert shop.counted == 1


async def test_an_async_job_in_a_thread_completes_in_a_loop_of_its_own(shop: Shop) -> None:
    @shop.runner.task(executor="thread")
    async def job() -> int:
        async with shop.connection() as connection:
            done = connection.execute("BEGIN IMMEDIATE")
            if shop.kind == "aiosqlite":
                await done
            await current_job().complete_in(connection, 1)
            committed = connection.commit()
            if shop.kind == "aiosqlite":
                await committed
        return 2

    assert await (await job.enqueue()) == 1


async def test_a_thread_whose_time_is_up_can_no_longer_complete(shop: Shop) -> None:
    release, told = threading.Event(), threading.Event()

    @shop.runner.task(timeout=0.1)
    def job() -> int:
        release.wait(10)
        with contextlib.closing(sqlite3.connect(shop.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(FenceLost, match="its time was up"):
                current_job().complete_in_thread(connection, 1)
            connection.rollback()
        told.set()
        return 1

    handle = await job.enqueue()
    with pytest.raises(JobFailed):
        await handle
    release.set()
    await until(told.is_set)
    await until(lambda: shop.runner.tally.late_values == 1)


async def test_a_thread_that_completed_in_time_is_completed_however_long_it_runs_on(
    shop: Shop,
) -> None:
    release = threading.Event()

    @shop.runner.task(timeout=0.3)
    def job() -> int:
        with contextlib.closing(sqlite3.connect(shop.path)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            current_job().complete_in_thread(connection, 1)
        release.wait(10)
        return 2

    handle = await job.enqueue()
    assert await handle == 1
    release.set()
    await until(lambda: shop.runner.tally.late_values == 1)
    assert (await handle.job()).result == 1


async def test_a_thread_cannot_use_a_connection_of_another(shop: Shop) -> None:
    with contextlib.closing(sqlite3.connect(shop.path)) as connection:
        connection.execute("BEGIN IMMEDIATE")

        @shop.runner.task
        def job() -> str:
            with pytest.raises(UnfitConnection) as caught:
                current_job().complete_in_thread(connection, "x")
            return caught.value.reason

        new = job.job()
        connection.rollback()
        assert await (await shop.runner.enqueue(new)) == "other_thread"
