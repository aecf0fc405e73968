"""A limit that a new deployment changes or removes, while the jobs of the old one wait and run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from asyncjobs import Every, JobOutcome, Limit, Runner, Tasks, current_job
from asyncjobs.testing import ManualClock

from .support import until

tasks = Tasks()


class Desks:
    """Where jobs stand until they are let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: set[str] = set()
        self.passed: list[str] = []

    async def serve(self, word: str) -> str:
        self.inside.add(word)
        try:
            await self.open.wait()
            self.passed.append(word)
            return word
        finally:
            self.inside.discard(word)


async def serve(account: int, word: str) -> str:
    desks: Desks = current_job().state
    return await desks.serve(word)


def deployed(folder: Path, clock: ManualClock, limit: Limit | None) -> tuple[Runner, Desks]:
    desks = Desks()
    runner = Runner(folder / "jobs.db", clock=clock, grace=0, state=desks)
    runner.task(name="serve", limit=limit)(serve)
    return runner, desks


async def enqueue(runner: Runner, *words: str, account: int = 1) -> None:
    for word in words:
        await runner.tasks["serve"].enqueue(account, word)


async def test_new_deployment_orders_what_the_old_one_ran_side_by_side(
    tmp_path: Path, clock: ManualClock
) -> None:
    old, there = deployed(tmp_path, clock, Limit(key="account", running=2))
    new, here = deployed(tmp_path, clock, Limit(key="account", ordered=True))
    async with old:
        await enqueue(old, "1", "2", "3", "4")
        await until(lambda: there.inside == {"1", "2"})
        await new.start()
        await enqueue(new, "5")
        # Now it gives back what it runs.
    try:
        await enqueue(new, "other", account=2)
        await until(lambda: "other" in here.inside)
        await until(lambda: "1" in here.inside)
        assert here.inside == {"1", "other"}
        here.open.set()
        await until(lambda: "5" in here.passed)
        here.passed.remove("other")
        assert here.passed == ["1", "2", "3", "4", "5"]
        assert await new.registry.check() == []
    finally:
        await new.stop()


async def test_jobs_of_a_limit_that_was_removed_keep_it_and_new_ones_have_none(
    tmp_path: Path, clock: ManualClock
) -> None:
    old, _ = deployed(tmp_path, clock, Limit(key="account", running=1))
    new, here = deployed(tmp_path, clock, None)
    async with old:
        await enqueue(old, "1", "2")
    async with new:
        await enqueue(new, "3", "4")
        await until(lambda: here.inside == {"1", "3", "4"})
        here.open.set()
        await until(lambda: "2" in here.passed)
        assert await new.registry.check() == []


async def test_jobs_that_a_removed_limit_holds_go_on_with_the_next_job_that_says_so(
    tmp_path: Path, clock: ManualClock
) -> None:
    old, _ = deployed(tmp_path, clock, Limit(key="account", running=0))
    new, here = deployed(tmp_path, clock, None)
    async with old:
        await enqueue(old, "1", "2")
    async with new:
        await enqueue(new, "3")
        await until(lambda: here.inside == {"3"})
        limit = Limit(key="account", running=5)
        await new.tasks["serve"].options(limit=limit).enqueue(1, "4")
        await until(lambda: here.inside == {"1", "2", "3", "4"})


# Given with schedules and callbacks


@tasks.task(name="before")
async def before() -> None:
    pass


async def follow(outcome: JobOutcome) -> None:
    desks: Desks = current_job().state
    await desks.serve("followed")


def shared(folder: Path, clock: ManualClock, running: int) -> tuple[Runner, Desks]:
    """A deployment whose jobs share one key, with a task for callbacks."""
    limit = Limit(name="account", running=running)
    runner, desks = deployed(folder, clock, limit)
    runner.include(tasks)
    runner.task(name="follow", limit=limit)(follow)
    return runner, desks


async def running_of(runner: Runner, job_id: str) -> int | None:
    """How many jobs of its key may run at once."""
    standing = await runner.registry.limit_of(job_id)
    assert standing is not None
    return standing.running


async def until_made(runner: Runner, task: str) -> None:
    while not await runner.registry.count(task=task):
        await asyncio.sleep(0)


async def test_time_of_an_old_schedule_brings_no_old_limit_back(
    tmp_path: Path, clock: ManualClock
) -> None:
    old, _ = shared(tmp_path, clock, 5)
    async with old.client():
        followed = old.tasks["serve"].options(on_complete=old.tasks["follow"])
        job = followed.job(1, "scheduled")
        await old.schedules.create("hourly", Every(3600), job)
    new, here = shared(tmp_path, clock, 1)
    async with new:
        first = await new.tasks["serve"].enqueue(1, "1")
        await enqueue(new, "2", "3")
        await until(lambda: here.inside == {"1"})
        clock.advance(3600)
        while await new.registry.count(task="serve") < 4:
            await asyncio.sleep(0)
        await new.schedules.run_now("hourly")
        assert await running_of(new, first.id) == 1
        assert here.inside == {"1"}
        here.open.set()
        made = ["scheduled"] * 2 + ["followed"] * 2
        await until(lambda: here.passed == ["1", "2", "3", *made])
        assert await running_of(new, first.id) == 1
        assert await new.registry.check() == []


async def test_old_callback_brings_no_old_limit_back(tmp_path: Path, clock: ManualClock) -> None:
    old, _ = shared(tmp_path, clock, 5)
    async with old.client():
        await before.options(delay=60, on_complete=old.tasks["follow"]).enqueue()
    new, here = shared(tmp_path, clock, 1)
    async with new:
        first = await new.tasks["serve"].enqueue(1, "1")
        await enqueue(new, "2", "3")
        await until(lambda: here.inside == {"1"})
        clock.advance(60)
        await until_made(new, "follow")
        assert await running_of(new, first.id) == 1
        assert here.inside == {"1"}
        here.open.set()
        await until(lambda: here.passed == ["1", "2", "3", "followed"])


async def test_old_callback_has_its_limit_where_no_other_is_known(
    tmp_path: Path, clock: ManualClock
) -> None:
    old, here = shared(tmp_path, clock, 5)
    async with old:
        await before.options(on_complete=old.tasks["follow"]).enqueue()
        await until(lambda: here.inside == {"followed"})
        (job,) = (await old.registry.list(task="follow")).jobs
        assert await running_of(old, job.id) == 5


@pytest.mark.parametrize("given", ["callback", "schedule", "update", "declared"])
async def test_new_limit_holds_once_it_is_given_for_jobs_to_come(
    tmp_path: Path, clock: ManualClock, given: str
) -> None:
    old, _ = shared(tmp_path, clock, 1)
    new, here = shared(tmp_path, clock, 3)
    async with old.client():
        await enqueue(old, "1", "2", "3")
        if given == "update":
            await old.schedules.create("hourly", Every(3600), old.tasks["serve"].job(1, "later"))
    if given == "declared":
        new.schedule("hourly", Every(3600), new.tasks["serve"].job(1, "later"))
    async with new:
        job = new.tasks["serve"].job(1, "later")
        if given == "callback":
            await before.options(delay=60, on_complete=new.tasks["follow"]).enqueue()
        elif given == "schedule":
            await new.schedules.create("hourly", Every(3600), job)
        elif given == "update":
            await new.schedules.update("hourly", job=job)
        await until(lambda: here.inside == {"1", "2", "3"})
        assert await new.registry.check() == []
