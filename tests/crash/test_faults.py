"""The database fails, fills up, or is held by others: nothing accepted is lost or stranded."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncjobs import Runner, StoreBusy, StoreError, StoreFull, current_job
from asyncjobs.store import group_commit
from asyncjobs.testing import run_until_idle
from tests.oracles import deadline, nothing_left, seed_of, unfinished_ended

from .faulty import Faults, faults


def counting(runner: Runner) -> Counter[str]:
    """Give the runner a task ``job`` that counts its runs by job id."""
    runs: Counter[str] = Counter()

    @runner.task(name="job")
    async def job() -> None:
        runs[current_job().id] += 1

    return runs


@asynccontextmanager
async def running(database: Path) -> AsyncIterator[Runner]:
    """A runner that is done within a minute and leaves nothing behind."""
    async with deadline(60), nothing_left(database), Runner(database) as runner:
        yield runner


# A failing disk


def commit_of(statement: str, place: str) -> Callable[[str], str | None]:
    """Let the next commit fail that comes after such a statement, and no other's."""
    seen: list[str] = []
    left = [1]

    def decide(sql: str) -> str | None:
        if sql.startswith("BEGIN"):
            seen.clear()
        elif statement in sql:
            seen.append(sql)
        elif sql == "COMMIT" and seen and left:
            left.clear()
            return place
        return None

    return decide


@pytest.mark.parametrize("place", ["before", "after"])
async def test_an_enqueue_whose_commit_fails_raises_and_may_be_repeated(
    tmp_path: Path, place: str
) -> None:
    with faults() as some:
        async with running(tmp_path / "jobs.db") as runner:
            runs = counting(runner)
            new = runner.tasks["job"].job()
            some.decide = commit_of("INTO asyncjobs_jobs", place)
            with pytest.raises(StoreError, match="disk I/O error"):
                await runner.enqueue(new)
            await (await runner.enqueue(new))
            await run_until_idle(runner)
            assert runs == {new.id: 1}
            assert await runner.registry.count(state="completed") == 1
            assert await runner.registry.check() == []


@pytest.mark.parametrize("place", ["before", "after"])
async def test_an_outcome_whose_commit_fails_is_kept_and_written_once(
    tmp_path: Path, place: str
) -> None:
    with faults() as some:
        async with running(tmp_path / "jobs.db") as runner:

            @runner.task(name="job")
            async def job() -> int:
                some.decide = commit_of("SET state = 'completed'", place)
                return 7

            handle = await job.enqueue()
            assert await handle == 7
            assert some.injected == 1
            assert len(await runner.registry.attempts(handle.id)) == 1
            assert runner.tally.lost_reports == 0
            assert await runner.registry.check() == []


@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_claim_whose_commit_fails_strands_no_job(tmp_path: Path, place: str) -> None:
    with faults() as some:
        async with running(tmp_path / "jobs.db") as runner:
            runs = counting(runner)
            handle = await runner.tasks["job"].options(delay=0.05).enqueue()
            some.decide = commit_of("SET state = 'running'", place)
            await handle
            assert some.injected == 1
            job = await runner.registry.get(handle.id)
            assert (runs[handle.id], job.attempt, job.crashes) == (1, 1, 0)
            assert await runner.registry.check() == []


@pytest.mark.parametrize(
    ("statement", "share"), [("COMMIT", 0.25), ("BEGIN", 0.25), ("UPDATE", 0.2), ("INSERT", 0.15)]
)
async def test_a_disk_that_fails_at_random_loses_and_doubles_nothing(
    tmp_path: Path, statement: str, share: float
) -> None:
    chance = random.Random(seed_of(f"faults {statement}"))

    def decide(sql: str) -> str | None:
        if sql.startswith(statement) and chance.random() < share:
            return chance.choice(["before", "after"]) if sql == "COMMIT" else "before"
        return None

    with faults() as some:
        async with running(tmp_path / "jobs.db") as runner:
            runs = counting(runner)
            some.decide = decide

            async def produce() -> None:
                for _ in range(20):
                    new = runner.tasks["job"].job()
                    while True:
                        try:
                            handle = await runner.enqueue(new)
                        except StoreError:
                            continue
                        break
                    await handle

            await asyncio.gather(*(produce() for _ in range(10)))
            some.decide = None
            await unfinished_ended(runner)
            assert await runner.registry.count(state="completed") == 200
            assert await runner.registry.check() == []
    print(f"{some.injected} faults at {statement}")
    assert some.injected > 1
    assert set(runs.values()) == {1}
    assert len(runs) == 200


async def test_a_fault_during_the_recovery_from_a_fault_strands_nothing(tmp_path: Path) -> None:
    with faults() as some:
        async with running(tmp_path / "jobs.db") as runner:
            runs = counting(runner)
            places = iter(["after", "after", "before", "after", "before"])
            handle = await runner.tasks["job"].options(delay=0.05).enqueue()
            # The claim's commit is lost, then those of the writer's attempts to clean up.
            some.decide = lambda sql: next(places, None) if sql == "COMMIT" else None
            await handle
            assert some.injected == 5
            assert runs[handle.id] == 1
            assert await runner.registry.check() == []


# Somebody else holds the write lock


class LockHolder:
    """Another program that holds the write lock, until it is told to let go."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)

    def take(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def hold(runner: Runner, database: Path, seconds: float) -> LockHolder:
    """Take the lock now, and let go after ``seconds``."""
    holder = LockHolder(database)
    holder.take()
    asyncio.get_running_loop().call_later(seconds, holder.release)
    return holder


async def test_a_write_lock_held_for_a_second_makes_enqueues_wait(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    async with deadline(20), nothing_left(database), Runner(database) as runner:
        counting(runner)
        await hold(runner, database, 1.0)
        begun = asyncio.get_running_loop().time()
        handles = await asyncio.gather(*(runner.tasks["job"].enqueue() for _ in range(20)))
        assert asyncio.get_running_loop().time() - begun >= 0.9
        for handle in handles:
            await handle
        assert await runner.registry.check() == []


@pytest.mark.parametrize("seconds", [6, pytest.param(30, marks=pytest.mark.proof)])
async def test_a_write_lock_held_longer_fails_enqueues_after_five_seconds_and_keeps_outcomes(
    tmp_path: Path, seconds: float
) -> None:
    database = tmp_path / "jobs.db"
    async with deadline(seconds + 30), nothing_left(database), Runner(database) as runner:
        counting(runner)
        held = asyncio.Event()

        @runner.task(name="outlasting")
        async def outlasting() -> str:
            await held.wait()
            return "kept"

        outcome = await outlasting.enqueue()
        await run_until_started(runner, 1)
        holder = await hold(runner, database, seconds)
        held.set()
        begun = asyncio.get_running_loop().time()
        with pytest.raises(StoreBusy, match=r"waited 5 s.*own open write transaction"):
            await runner.tasks["job"].enqueue()
        waited = asyncio.get_running_loop().time() - begun
        assert 4.9 <= waited < 6.5
        assert not runner.healthy
        assert await outcome == "kept"
        assert asyncio.get_running_loop().time() - begun >= seconds - 0.5
        await (await runner.tasks["job"].enqueue())
        assert runner.healthy
        assert await runner.registry.check() == []
        del holder


async def test_a_start_under_a_held_write_lock_fails_as_busy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "BUSY_SECONDS", 0.4)
    database = tmp_path / "jobs.db"
    async with Runner(database):
        pass
    async with deadline(20), nothing_left(database):
        holder = LockHolder(database)
        holder.take()
        with pytest.raises(StoreBusy):
            await Runner(database).start()
        holder.release()
    async with deadline(20), nothing_left(database), Runner(database) as runner:
        assert await runner.registry.check() == []


async def run_until_started(runner: Runner, jobs: int) -> None:
    """Return once so many runs have begun."""
    while runner.tally.started < jobs:
        await runner.engine().commit.flushed()


# No room


async def test_a_full_database_refuses_enqueues_and_keeps_outcomes_until_there_is_room(
    tmp_path: Path,
) -> None:
    database = tmp_path / "jobs.db"
    with faults() as some:
        async with deadline(30), nothing_left(database), Runner(database) as runner:
            gate = asyncio.Event()

            @runner.task(name="large")
            async def large() -> str:
                await gate.wait()
                return "x" * 1_000_000

            @runner.task(name="store")
            async def store(text: str) -> None: ...

            outcome = await large.enqueue()
            await run_until_started(runner, 1)
            await limit(some, runner, pages=40)
            gate.set()
            with pytest.raises(StoreFull, match="make room"):
                for _ in range(100):
                    await store.enqueue("y" * 10_000)
            assert not runner.healthy
            assert (await runner.registry.get(outcome.id)).state == "running"
            started = runner.tally.started
            await limit(some, runner, pages=1_000_000)
            assert len(await outcome) == 1_000_000
            assert runner.tally.lost_reports == 0
            await (await store.enqueue("room"))
            assert runner.healthy
            assert runner.tally.started > started
            await unfinished_ended(runner)
            assert await runner.registry.check() == []


async def limit(some: Faults, runner: Runner, *, pages: int) -> None:
    """Let the database grow to so many pages more, on the writing connection itself."""
    done = threading.Event()

    def decide(sql: str) -> str | None:
        if sql.startswith("BEGIN IMMEDIATE") and not done.is_set():
            done.set()
            assert some.writer is not None
            (now,) = sqlite3.Connection.execute(some.writer, "PRAGMA page_count").fetchone()
            text = f"PRAGMA max_page_count = {now + pages}"
            sqlite3.Connection.execute(some.writer, text).fetchall()
        return None

    some.decide = decide
    runner.engine().commit.look()
    while not done.is_set():
        runner.engine().dispatcher.wake()
        await runner.engine().commit.flushed()
    some.decide = None
