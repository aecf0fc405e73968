"""A storm: thousands of short jobs of every kind, while workers and their server are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from random import Random

import pytest

from asyncjobs import Job, JobHandle, NewJob, Runner
from tests.oracles import AckLedger, EffectLedger, deadline, judge, seed_of

from . import storm_tasks as s
from .support import server_pid, worker_pids, workers

QUICK = ("print", "compute")
KINDS = (*QUICK, "raise", "flood", "progress", "long")


def some_jobs(random: Random, count: int) -> list[NewJob[int]]:
    """Mostly short ones, some of which end their worker."""
    jobs: list[NewJob[int]] = []
    for _ in range(count):
        match random.randrange(20):
            case 0:
                jobs.append(s.act_deadly.job(random.choice(s.DEADLY)))
            case 1:
                jobs.append(s.act_alone.job("print"))
            case 2:
                jobs.append(s.ask_warm.job("print"))
            case 3 | 4:
                jobs.append(s.act_limited.job(random.choice(QUICK)))
            case _:
                kinds = KINDS if random.random() < 0.5 else QUICK
                jobs.append(s.act_warm.job(random.choice(kinds)))
    return jobs


class Storm:
    """What comes upon a runner from outside while its jobs run."""

    def __init__(self, runner: Runner, random: Random) -> None:
        self._runner = runner
        self._random = random
        self.charges = 0
        """How many jobs may have been running in workers that were killed."""

    async def blow(self, handles: list[JobHandle[int]]) -> None:
        """One disturbance after the other, until somebody ends it."""
        while True:
            await asyncio.sleep(self._random.random() * 0.05)
            match self._random.randrange(12):
                case 0 | 1 | 2:
                    self._kill_worker()
                case 3:
                    self._kill_server()
                case 4:
                    if self._random.random() < 0.3:
                        await self._runner.reload_workers()
                case _:
                    for handle in self._random.sample(handles, 5):
                        await handle.cancel()

    def _kill_worker(self) -> None:
        pids = worker_pids(self._runner)
        if pids:
            self._kill(self._random.choice(pids), charges=1)

    def _kill_server(self) -> None:
        pids = worker_pids(self._runner)
        if pids and self._random.random() < 0.3:
            with contextlib.suppress(OSError):  # the worker has ended meanwhile
                self._kill(server_pid(self._runner), charges=len(pids))

    def _kill(self, pid: int, *, charges: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.charges += charges


@pytest.mark.parametrize("jobs", [300, pytest.param(10_000, marks=pytest.mark.proof)])
async def test_storm_of_short_jobs_loses_doubles_and_mixes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    random = Random(seed_of("storm"))
    monkeypatch.setenv(s.FOLDER, str(tmp_path))
    acks = AckLedger(tmp_path / "acks")
    effects = EffectLedger(tmp_path / "effects")
    options = {"max_jobs": random.choice([None, 7, 100])}
    print(options)
    async with deadline(20 + jobs / 20), workers(tmp_path, s.tasks, grace=5.0, **options) as runner:
        handles = await runner.enqueue_many(some_jobs(random, jobs))
        for handle in handles:
            acks.ack("job", handle.id)
        storm = Storm(runner, random)
        blowing = asyncio.create_task(storm.blow(handles))
        ended = [await handle.wait() for handle in handles]
        blowing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await blowing
        outputs = {
            job.id: [attempt.output for attempt in await runner.registry.attempts(job.id)]
            for job in ended
        }

    verdict = judge(tmp_path / "jobs.db", acks, effects)
    print(verdict)
    assert verdict.clean, (verdict.lost, verdict.double, verdict.stale, verdict.illegal)
    mixed = {job: said for job, said in outputs.items() if not all(_own(job, one) for one in said)}
    assert not mixed
    assert not [job for job in ended if _unjust(job)]
    deadly = sum(job.task == "deadly" for job in ended)
    assert verdict.crashes <= storm.charges + deadly
    acks.close()
    effects.close()


def _own(job: str, output: str | None) -> bool:
    """Whether nothing of another job stands in it."""
    lines = (output or "").split("\n")
    return all(line in (job, "") or not line.strip("x") for line in lines)


def _unjust(job: Job) -> bool:
    """Whether it failed for what another one did, or we."""
    kind = "" if job.error is None else job.error.type
    of_its_own = job.task == "deadly" or kind == "ValueError"
    of_its_child = job.task == "asking" and kind == "asyncjobs.JobCancelled"
    return job.state == "failed" and not (of_its_own or of_its_child)
