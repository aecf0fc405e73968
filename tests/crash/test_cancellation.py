"""Random cancellations of every public await: nothing wedges, is lost, or doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    AsyncJobsError,
    Job,
    JobHandle,
    ResultGone,
    Retry,
    Runner,
    Snooze,
    current_job,
)
from asyncjobs.testing import run_until_idle
from tests.oracles import deadline, nothing_left, seed_of, unfinished_ended

PER_LIFE = 500
"""Cancellations before the runner is stopped and started again."""
AT_ONCE = 25
JOB_COUNT_KEPT = 200
MEAN_SECONDS = 0.005
"""Of the calls that are cut by time: about what a call takes under this load."""


class Fuzz:
    """Calls the public face at random, and cancels the calls at random points."""

    def __init__(self, database: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.runner = Runner(database, concurrency=20, threads=2, durability="normal", grace=5)
        self.sent: dict[str, int] = {}
        """Ids of jobs that were to be enqueued, whether or not the call came back."""
        self.acked: set[str] = set()
        self.runs: Counter[tuple[str, int]] = Counter()
        self.watchers: list[asyncio.Future[None]] = []
        self.deleting: set[str] = set()
        self.cancelled = self.done = 0
        self.refused: Counter[str] = Counter()
        task = self.runner.task

        @task(name="short")
        async def short() -> int:
            return self._run()

        @task(name="long")
        async def long() -> int:
            claim = self._run()
            await asyncio.sleep(0.003)
            return claim

        @task(name="threaded")
        def threaded() -> int:
            return self._run()

        @task(name="failing", retry=Retry(attempts=2, base=0.001))
        async def failing() -> int:
            self._run()
            raise ValueError("as ever")

        @task(name="snoozing")
        async def snoozing() -> int:
            claim = self._run()
            if claim == 1:
                raise Snooze(0.001)
            return claim

        self.tasks = [short, short, long, threaded, failing, snoozing]

    def _run(self) -> int:
        job = current_job()
        self.runs[job.id, job.fence[1]] += 1
        return job.fence[1]

    # The calls

    async def enqueue(self) -> None:
        job = self.chance.choice(self.tasks).job()
        self.sent[job.id] = 1
        handle = await self.runner.enqueue(job)
        self.acked.add(handle.id)
        if self.chance.randrange(4) == 0:
            self.watchers.append(asyncio.ensure_future(self.watch(handle)))

    async def watch(self, handle: JobHandle[Any]) -> None:
        """Wait for a job whatever others do to it; nobody cancels this."""
        try:
            await handle.wait()
        except ResultGone:
            assert handle.id in self.deleting

    async def enqueue_many(self) -> None:
        jobs = [self.chance.choice(self.tasks).job() for _ in range(self.chance.randrange(1, 20))]
        self.sent.update((job.id, 1) for job in jobs)
        for handle in await self.runner.enqueue_many(jobs):
            self.acked.add(handle.id)

    async def enqueue_again(self) -> None:
        job = self.tasks[0].options(key=f"key-{self.chance.randrange(50)}").job()
        handle = await self.runner.enqueue(job)
        self.acked.add(handle.id)

    async def await_result(self) -> None:
        await self.runner.handle(self.any_id())

    async def enqueue_and_await(self) -> None:
        handle = await self.chance.choice(self.tasks).enqueue()
        self.acked.add(handle.id)
        await handle

    async def wait(self) -> None:
        await self.runner.handle(self.any_id()).wait(timeout=10)

    async def read(self) -> None:
        registry = self.runner.registry
        job_id = self.any_id()
        match self.chance.randrange(5):
            case 0:
                await registry.get(job_id)
            case 1:
                await registry.list(state=self.chance.choice(["queued", "failed", "retrying"]))
            case 2:
                await registry.count(state="completed")
            case 3:
                await registry.attempts(job_id)
            case 4:
                await self.runner.handle(job_id).job()

    async def cancel(self) -> None:
        await self.runner.registry.cancel(self.any_id(), "fuzz")

    async def retry(self) -> None:
        await self.runner.handle(self.any_id()).retry()

    async def delete(self) -> None:
        job_id = self.any_id()
        self.deleting.add(job_id)
        await self.runner.registry.delete(job_id)

    async def enqueue_and_cancel(self) -> None:
        handle = await self.tasks[2].enqueue()
        self.acked.add(handle.id)
        await handle.cancel()
        await handle

    def any_id(self) -> str:
        ids = list(self.sent)[-JOB_COUNT_KEPT:]
        return self.chance.choice(ids) if ids else "none"

    # Cancelling them

    async def one(self) -> None:
        """One call, cancelled after a random number of passes of the loop, if it lasts so long."""
        call: Callable[[], Awaitable[None]] = self.chance.choice([
            self.enqueue, self.enqueue, self.enqueue_many, self.enqueue_again, self.await_result,
            self.enqueue_and_await, self.wait, self.read, self.cancel, self.retry, self.delete,
            self.enqueue_and_cancel,
        ])  # fmt: skip
        task = asyncio.ensure_future(call())
        if self.chance.randrange(2):
            for _ in range(int(self.chance.expovariate(1 / 4))):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.chance.expovariate(1 / MEAN_SECONDS))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.cancelled += 1
        except (AsyncJobsError, TimeoutError) as error:
            self.refused[type(error).__name__] += 1
        else:
            self.done += 1

    async def life(self, cancellations: int) -> None:
        """Start, cancel calls at random, stop; start and stop are cancelled too now and then."""
        goal = self.cancelled + cancellations
        while self.runner._engine is None:
            await self.cut(self.runner.start())

        async def caller() -> None:
            while self.cancelled < goal:
                await self.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(caller())
        # Nobody is left waiting for a job that has ended, and none that is due is left lying.
        await asyncio.gather(*self.watchers)
        self.watchers.clear()
        await unfinished_ended(self.runner)
        # Some calls meet the stop itself.
        late = [asyncio.ensure_future(self.one()) for _ in range(AT_ONCE)]
        while self.runner._engine is not None:
            await self.cut(self.runner.stop())
        await asyncio.gather(*late)
        await asyncio.gather(*self.watchers, return_exceptions=True)
        self.watchers.clear()

    async def cut(self, call: Awaitable[None]) -> None:
        """Await a start or a stop that is cancelled once in three times."""
        task = asyncio.ensure_future(call)
        if self.chance.randrange(3) == 0:
            await asyncio.sleep(self.chance.random() / 100)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.cancelled += 1

    async def ended(self) -> list[Job]:
        """Let everything finish; all jobs."""
        async with self.runner:
            await unfinished_ended(self.runner)
            await run_until_idle(self.runner)
            assert await self.runner.registry.check() == []
            return [job async for job in self.runner.registry.iterate()]


@pytest.mark.parametrize("cancellations", [5_000, pytest.param(200_000, marks=pytest.mark.proof)])
async def test_random_cancellations_of_public_awaits_wedge_lose_and_double_nothing(
    tmp_path: Path, cancellations: int
) -> None:
    database = tmp_path / "jobs.db"
    fuzz = Fuzz(database, seed_of("cancellation"))
    async with deadline(30 + cancellations / 50):
        while fuzz.cancelled < cancellations:
            async with nothing_left(database):
                await fuzz.life(PER_LIFE)
        jobs = await fuzz.ended()
    print(f"{fuzz.cancelled} cancelled, {fuzz.done} done, {len(jobs)} jobs, {fuzz.refused}")
    ids = Counter(job.id for job in jobs)
    assert fuzz.acked - fuzz.deleting <= ids.keys()
    assert max(ids.values()) == 1
    assert all(job.finished for job in jobs)
    assert max(fuzz.runs.values()) == 1
