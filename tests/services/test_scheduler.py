"""The scheduler: several processes, stepped clocks, a database that fails, and long sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import At, Every, Runner, Task, current_job
from asyncjobs.clock import SystemClock
from asyncjobs.rules.schedule import check_plan, check_template, make_plan
from asyncjobs.services import scheduler
from asyncjobs.services.scheduler import Scheduler
from asyncjobs.store.group_commit import GroupCommit
from asyncjobs.store.schedules import Create, Declared
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock, run_until_idle
from tests.oracles import deadline
from tests.runner.support import until

HOUR = 3_600 * 1_000_000
MEMBERS = 3


class SteppedClock(SystemClock):
    """The machine's clock, as if somebody had set it."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> int:
        return super().now() + self.offset


def noting(runner: Runner, seen: list[datetime | None]) -> Task[Any, Any]:
    """A task whose jobs note their time."""

    @runner.task(name="note")
    async def note() -> None:
        seen.append(current_job().scheduled_for)

    return note


@contextlib.asynccontextmanager
async def together(
    folder: Path, clock: Any, seen: list[datetime | None], **options: Any
) -> AsyncIterator[list[Runner]]:
    """Several runners on one file, as so many processes, all with the same schedule."""
    async with contextlib.AsyncExitStack() as stack:
        runners = []
        for _ in range(MEMBERS):
            runner = Runner(folder / "jobs.db", clock=clock)
            runner.schedule("s", Every(60), noting(runner, seen).job(), **options)
            runners.append(await stack.enter_async_context(runner))
        yield runners


async def test_each_time_is_one_job_however_many_processes_tick(
    tmp_path: Path, clock: ManualClock
) -> None:
    seen: list[datetime | None] = []
    start = clock.datetime()
    async with deadline(20), together(tmp_path, clock, seen, overlap="allow") as runners:
        for _ in range(20):
            clock.advance(60)
            for runner in runners:
                await run_until_idle(runner)
        assert await runners[0].registry.check() == []
    assert seen == [start + timedelta(minutes=n) for n in range(1, 21)]


@pytest.mark.timed
async def test_process_hears_of_a_schedule_that_another_one_makes(tmp_path: Path) -> None:
    seen: list[datetime | None] = []
    first, second = Runner(tmp_path / "jobs.db"), Runner(tmp_path / "jobs.db")
    note = noting(first, seen)
    second.include(note)
    async with deadline(10), first, second.client():
        await until(lambda: second.engine().bell.others)
        soon = datetime.now(UTC) + timedelta(seconds=0.1)
        await second.schedules.create("s", At(soon), note.job())
        # Within far less than the look once a second: the doorbell told it.
        async with asyncio.timeout(0.9):
            await until(lambda: seen)
    assert seen == [soon]


async def test_step_of_the_clock_forward_fires_what_has_become_due(tmp_path: Path) -> None:
    clock = SteppedClock()
    seen: list[datetime | None] = []
    runner = Runner(tmp_path / "jobs.db", clock=clock)
    soon = datetime.now(UTC) + timedelta(hours=1)
    runner.schedule("s", At(soon), noting(runner, seen).job())
    async with deadline(10), runner:
        clock.offset = 2 * HOUR
        await until(lambda: seen)
    assert seen == [soon]


async def test_step_of_the_clock_back_and_forth_fires_no_time_early_or_twice(
    tmp_path: Path,
) -> None:
    clock = SteppedClock()
    seen: list[datetime | None] = []
    runner = Runner(tmp_path / "jobs.db", clock=clock)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    runner.schedule("s", At(soon), noting(runner, seen).job())
    async with deadline(10), runner:
        await until(lambda: runner.engine().scheduler._timer)
        timer = runner.engine().scheduler._timer
        clock.offset = -HOUR
        # The timer for the old time goes off, finds nothing, and must not be the last.
        await until(lambda: runner.engine().scheduler._timer is not timer)
        await run_until_idle(runner)
        assert seen == []
        clock.offset = 0
        await until(lambda: seen)
        clock.offset = -HOUR
        runner.engine().scheduler.look()
        clock.offset = 0
        await run_until_idle(runner)
        assert await runner.registry.check() == []
    assert seen == [soon]


async def test_process_that_was_taken_for_dead_goes_on_and_keeps_its_schedules(
    tmp_path: Path, clock: ManualClock
) -> None:
    seen: list[datetime | None] = []
    async with deadline(20), together(tmp_path, clock, seen) as runners:
        engine = runners[0].engine()
        former = engine.dispatcher.instance
        assert engine._instance is not None
        await engine._renew(engine._instance)
        assert engine.dispatcher.instance != former
        for runner in runners:
            await runner.engine()._tick()
        kept = await engine.store._reader.run(
            lambda c: c.execute("SELECT instance FROM asyncjobs_declarers").fetchall()
        )
        assert {instance for (instance,) in kept} == {
            runner.engine().dispatcher.instance for runner in runners
        }
        clock.advance(60)
        for runner in runners:
            await run_until_idle(runner)
        assert [shown.name for shown in await runners[0].registry.schedules()] == ["s"]
    assert len(seen) == 1


async def test_last_process_of_an_older_version_takes_its_schedules_along(
    tmp_path: Path, clock: ManualClock
) -> None:
    old, new = Runner(tmp_path / "jobs.db", clock=clock), Runner(tmp_path / "jobs.db", clock=clock)
    for runner, name in ((old, "old"), (new, "new")):
        runner.schedule(name, Every(60), noting(runner, []).job())
    async with deadline(10), new:
        async with old:
            await new.engine()._tick()
            names = [shown.name for shown in await new.registry.schedules()]
            assert names == ["new", "old"]
        await new.engine()._tick()
        assert [shown.name for shown in await new.registry.schedules()] == ["new"]


async def test_worker_without_schedules_leaves_those_of_a_program_that_is_started_anew(
    tmp_path: Path, clock: ManualClock
) -> None:
    worker = Runner(tmp_path / "jobs.db", clock=clock)
    program = Runner(tmp_path / "jobs.db", clock=clock)
    program.schedule("s", Every(60), noting(program, []).job())
    async with deadline(10), program:
        await worker.start()
        await worker.engine()._tick()
    await worker.engine()._tick()
    assert [shown.name for shown in await worker.registry.schedules()] == ["s"]
    await worker.stop()


async def test_schedule_that_is_not_understood_here_is_named_once(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[datetime | None] = []
    runner = Runner(tmp_path / "jobs.db", clock=clock)
    note = noting(runner, seen)
    async with deadline(10), runner:
        for name in ("broken", "whole"):
            await runner.schedules.create(name, Every(60), note.job(), overlap="allow")
        await runner.engine().store._writer.run(
            lambda c: c.execute(
                "UPDATE asyncjobs_schedules SET plan = replace(plan, 'every', 'moon') "
                "WHERE name = 'broken'"
            ).fetchall()
        )
        for _ in range(2):
            clock.advance(60)
            await run_until_idle(runner)
        await runner.schedules.delete("broken")
    assert len(seen) == 2
    assert caplog.text.count("schedule 'broken' cannot be understood here") == 1


# Alone, with a store but no runner around it


@contextlib.asynccontextmanager
async def bare(clock: Any) -> AsyncIterator[tuple[Scheduler, GroupCommit[Any], list[bool]]]:
    """A scheduler on a writer of its own, and what it has said of jobs."""
    store = SQLiteStore(":memory:", clock=clock)
    await store.open()
    commit: GroupCommit[Any] = GroupCommit(store)
    writer = asyncio.create_task(commit.run())
    said: list[bool] = []
    alone = Scheduler((), commit, clock, said.append)
    try:
        yield alone, commit, said
    finally:
        alone.stop()
        commit.close()
        await writer
        await store.close()


def daily() -> Declared:
    def note() -> None: ...

    template = check_template("s", Task(note, name="note").job())
    return Declared("s", make_plan(check_plan({"when": Every(86_400)})), template)


async def test_no_sleep_is_longer_than_ten_minutes() -> None:
    async with bare(SystemClock()) as (alone, commit, _):
        await commit.execute(Create(daily()))
        await alone.start("here", frozenset())
        await until(lambda: alone._timer is not None)
        assert alone._timer is not None
        loop = asyncio.get_running_loop()
        assert 0 < alone._timer.when() - loop.time() <= scheduler.LONGEST_SLEEP_SECONDS


async def test_looks_that_come_together_are_one(clock: ManualClock) -> None:
    async with bare(clock) as (alone, commit, _):
        await alone.start("here", frozenset())
        flushes = commit.flushes
        for _ in range(100):
            alone.look()
        await until(lambda: alone._ticking is None)
        assert commit.flushes <= flushes + 2


async def test_claim_is_asked_for_before_the_tick_and_others_are_told_after_it(
    clock: ManualClock,
) -> None:
    async with bare(clock) as (alone, commit, said):
        await commit.execute(Create(daily()))
        await alone.start("here", frozenset())
        await until(lambda: alone._ticking is None)
        assert said == []
        clock.advance(86_400)
        await until(lambda: alone._ticking is None)
        assert said == [False, True]


async def test_database_that_fails_is_asked_again(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.01)
    caplog.set_level(logging.WARNING, "asyncjobs")
    async with bare(clock) as (alone, commit, said):
        await commit.execute(Create(daily()))
        await alone.start("here", frozenset())
        await until(lambda: alone._ticking is None)
        store: Any = commit._store
        await store._writer.run(
            lambda c: c.execute("ALTER TABLE asyncjobs_schedules RENAME TO away").fetchall()
        )
        clock.advance(86_400)
        await until(lambda: "schedules are looked at again" in caplog.text)
        await store._writer.run(
            lambda c: c.execute("ALTER TABLE away RENAME TO asyncjobs_schedules").fetchall()
        )
        await until(lambda: True in said)


async def test_stopped_scheduler_looks_no_more(clock: ManualClock) -> None:
    async with bare(clock) as (alone, _, said):
        await alone.start("here", frozenset())
        alone.stop()
        await until(lambda: alone._ticking is None)
        alone.look()
        assert alone._ticking is None
        clock.advance(86_400)
        assert said == []
