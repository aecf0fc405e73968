"""A limit that a new deployment changes or removes, while the jobs of the old one wait and run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from asyncjobs import Limit, Runner, current_job
from asyncjobs.testing import ManualClock

from .support import until


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
