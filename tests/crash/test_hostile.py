"""Hosts that behave badly around the runner, each as the smallest case that shows a fault."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asyncjobs import JobCancelled, Runner, current_job
from asyncjobs.testing import run_until_idle
from tests.crash.faulty import faults
from tests.oracles import deadline
from tests.runner.support import until


async def test_a_host_without_file_descriptors_does_not_end_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []
    list_folder = os.listdir

    def full(path: Any = ".") -> Any:
        if len(looks) < 1 and str(path).endswith("-runners"):
            looks.append(path)
            raise OSError(24, "Too many open files")
        return list_folder(path)

    async with deadline(10), Runner(tmp_path / "jobs.db") as runner:

        @runner.task
        async def one() -> int:
            return 1

        monkeypatch.setattr(os, "listdir", full)
        await until(lambda: looks)
        await asyncio.sleep(0.05)
        assert await (await one.enqueue()) == 1
        assert runner.healthy


async def test_a_stop_beside_a_restart_leaves_the_new_start_alone(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")

    @runner.task
    async def one() -> int:
        return 1

    async def restart() -> None:
        await runner.stop()
        await runner.start()

    async with deadline(10):
        await runner.start()
        await asyncio.gather(restart(), runner.stop())
        assert await (await one.enqueue()) == 1
        await runner.stop()


@dataclass
class Looked:
    """Arguments whose making looks at the world, which may have changed since the enqueue."""

    number: int
    broken: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.broken:
            raise KeyError("no such thing any more")


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_arguments_whose_own_code_raises_fail_the_job_and_free_its_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    runner = Runner(tmp_path / "jobs.db", concurrency=1, threads=1)

    @runner.task(executor=executor)
    async def job(looked: Looked) -> int:
        return looked.number

    async with deadline(10), runner:
        bad = await job.options(delay=0.2).enqueue(Looked(1))
        monkeypatch.setattr(Looked, "broken", True)
        assert (await bad.wait()).state == "failed"
        monkeypatch.setattr(Looked, "broken", False)
        assert await (await job.enqueue(Looked(2))) == 2


async def test_what_a_stopped_runner_left_running_is_rescued_by_one_that_lives(
    tmp_path: Path,
) -> None:
    release = threading.Event()
    stopped, alive = (Runner(tmp_path / "jobs.db", grace=0.05) for _ in range(2))

    def stuck() -> int:
        if current_job().fence[1] == 1:
            release.wait(20)
        return current_job().fence[1]

    for runner in (stopped, alive):
        runner.task(name="stuck")(stuck)
    async with deadline(15):
        await stopped.start()
        handle = await stopped.enqueue(stopped.tasks["stuck"].job())
        await until(lambda: stopped.tally.started == 1)
        await stopped.stop()
        async with alive:
            await asyncio.sleep(0.1)
            assert (await alive.handle(handle.id).job()).state == "running"
            release.set()
            assert await alive.handle(handle.id) > 1
            assert len(list((tmp_path / "jobs.db-runners").iterdir())) == 1


async def test_outcomes_that_a_stop_could_not_write_are_rescued_by_one_that_lives(
    tmp_path: Path,
) -> None:
    stopped, alive = (Runner(tmp_path / "jobs.db", grace=0.05) for _ in range(2))
    gate = asyncio.Event()

    async def gated() -> int:
        await gate.wait()
        return current_job().fence[1]

    for runner in (stopped, alive):
        runner.task(name="gated")(gated)
    async with deadline(15):
        await stopped.start()
        handle = await stopped.enqueue(stopped.tasks["gated"].job())
        await until(lambda: stopped.tally.started == 1)
        async with alive:
            other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            gate.set()
            unseen: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda *some: unseen.append(some))
            await stopped.stop()
            gc.collect()
            assert unseen == []  # such as the note of its end, which nobody waits for
            other.execute("ROLLBACK")
            other.close()
            assert await alive.handle(handle.id) > 1


async def test_a_claim_in_doubt_is_disowned_also_when_a_bulk_is_written_first(
    tmp_path: Path,
) -> None:
    with faults() as some:
        async with deadline(10), Runner(tmp_path / "jobs.db") as runner:

            @runner.task
            async def one(number: int) -> int:
                return number

            bulk: list[asyncio.Future[Any]] = []
            loop = asyncio.get_running_loop()
            claimed = False

            def enqueue_many() -> None:
                bulk.append(asyncio.ensure_future(runner.enqueue_many([one.job(2)])))

            def decide(sql: str) -> str | None:
                nonlocal claimed
                claimed = claimed or "SET state = 'running'" in sql
                if sql != "COMMIT" or not claimed or bulk:
                    return None
                loop.call_soon_threadsafe(enqueue_many)
                some.decide = None
                return "after"

            handle = await one.options(delay=0.05).enqueue(1)
            some.decide = decide
            assert await handle == 1
            (other,) = await bulk[0]
            assert await other == 2
            assert some.injected == 1


async def test_a_job_is_cancelled_that_runs_in_another_runner(tmp_path: Path) -> None:
    runner, other = Runner(tmp_path / "jobs.db"), Runner(tmp_path / "jobs.db", queues=["none"])

    @runner.task
    async def endless() -> None:
        await asyncio.Event().wait()

    async with deadline(10), runner, other:
        handle = await endless.enqueue()
        await until(lambda: runner.tally.started == 1)
        assert await other.handle(handle.id).cancel("enough") == "requested"
        with pytest.raises(JobCancelled, match="enough"):
            await handle


async def test_parents_and_children_that_crashed_together_run_to_their_end(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db", concurrency=2)
    alone: list[int] = []

    @runner.task
    async def child(number: int) -> int:
        return await body(number)

    @runner.task
    async def parent(number: int) -> int:
        await body(number)
        handle = await child.options(key=str(number)).enqueue(number)
        value = await handle
        return await body(value)

    async def body(number: int) -> int:
        alone.append(number)
        assert len(alone) == 1, "two that one more crash would end run at once"
        await asyncio.sleep(0.01)
        return alone.pop()

    async with deadline(15):
        async with runner:
            handles = []
            for number in range(4):
                later = child.options(key=str(number), delay=900)
                await later.enqueue(number)
                handles.append(await parent.options(delay=900, priority=1).enqueue(number))
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
            database.execute("UPDATE asyncjobs_jobs SET crashes = 2, run_at = 0")
            database.commit()
        async with runner:
            results = [await runner.handle(handle.id) for handle in handles]
            assert results == [0, 1, 2, 3]
            rooms = runner.engine().dispatcher._slots.room
            await run_until_idle(runner)
            assert rooms["coroutine"] == 2


async def test_a_claim_that_lands_in_a_stop_whose_database_is_locked_is_no_running_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(tmp_path / "jobs.db", grace=0.05)

    @runner.task
    async def one() -> int:
        return 1

    async with deadline(10):
        await runner.start()
        dispatcher, other = runner.engine().dispatcher, sqlite3.connect(tmp_path / "jobs.db")
        claimed = dispatcher.claimed

        def late(result: Any) -> None:
            if result.jobs:
                dispatcher.draining = True
                other.execute("BEGIN IMMEDIATE")
            claimed(result)

        dispatcher.claimed = late  # type: ignore[method-assign]
        handle = await one.enqueue()
        await runner.stop()
        other.close()
        assert "is left running" not in caplog.text
        async with runner:
            assert await runner.handle(handle.id) == 1
