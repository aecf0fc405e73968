"""Every way in which a worker may end, at every point of its life, beside jobs that run on."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asyncjobs import JobHandle, Runner
from asyncjobs.running.executors.process import pool
from tests.oracles import EffectLedger, deadline, seed_of

from . import dying_tasks as d
from .support import pids_at, worker_pids, workers

PHASES = (
    "before ready", "setting up", "idle", "receiving", "running", "encoding", "answering",
    "recycling",
)  # fmt: skip
CUT_OFF = r"(was killed, since it had closed|was cut off: the job closed) its connection"
CRASHES = {
    "exit": r"exited with code 3",
    "kill": r"was killed( by signal 9 \(SIGKILL\)|, since it had closed its connection)",
    "segfault": r"was killed by signal 11 \(SIGSEGV\)",
    "memory": r"exited with code 1",
    "close": CUT_OFF,
    "hang up": CUT_OFF,
    "garbage": r"was killed, since it sent garbage",
    "unserialisable": r"exited with code 1",
    "hang": r"never",
}


class Outcome(NamedTuple):
    """What the struck job comes to."""

    state: str
    reason: str | None = None
    text: str = ""
    """A pattern that its error matches."""
    said_last: bool = True
    """Whether it was struck while it had a job to say something in."""
    only_perhaps: bool = False
    """Whether the worker may have been seen to end before it could get the job."""


COMPLETED = Outcome("completed")
CANCELLED = Outcome("cancelled", "user")


def outcome_of(executor: str, phase: str, how: str) -> Outcome:
    """The recorded outcome of a job whose worker is struck so."""
    crash = Outcome("failed", "crash", CRASHES[how])
    match phase, how:
        case ("recycling", _):
            return COMPLETED
        case (_, "hang"):
            return CANCELLED  # by us: else it would wait for its timeout
        case ("before ready", "hang up" | "garbage") if executor == "warm":
            return crash._replace(said_last=False)  # who knows whether it has read its job?
        case ("idle", "close"):
            # Found out by its next job, unless it ends at once: it depends on what it waits in.
            return crash._replace(said_last=False, only_perhaps=True)
        case ("before ready" | "idle", _):
            return COMPLETED  # it runs in another worker
        case ("setting up", "close"):
            return crash._replace(text=f"{CUT_OFF}|exited with code 1")  # of its event loop
        case ("answering", _):
            return crash
        case ("setting up", "memory"):
            return Outcome("failed", "error", "MemoryError")
        case (_, "memory"):
            return Outcome("failed", "memory_limit", "memory_limit of 536870912 bytes")
        case ("encoding", "unserialisable"):
            return Outcome("failed", "invalid_result", "returned a lock")
        case ("setting up", "unserialisable"):
            return Outcome("failed", "error", "Unspeakable")
        case (_, "unserialisable"):
            return Outcome("failed", "error", "<its __str__ raised>")
    return crash


class Stage:
    """A running pool, seen from outside, with workers that can be struck."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self._runner = runner
        self._folder = folder
        self._pipe = folder / "pipe"
        os.mkfifo(self._pipe)
        self._gate = os.open(self._pipe, os.O_RDWR)

    def close(self) -> None:
        os.close(self._gate)

    # Bystanders

    async def bystanders(self) -> list[JobHandle[Any]]:
        """Start jobs in two other workers."""
        running = self._folder / "running"
        running.unlink(missing_ok=True)
        tasks = [d.by_name["warm bystander"], d.by_name["lone bystander"]]
        jobs = [await task.enqueue(str(self._pipe), "running") for task in tasks]
        await pids_at(running, len(jobs))
        return jobs

    async def let_go(self, bystanders: list[JobHandle[Any]]) -> None:
        """They end as if nothing had been."""
        os.write(self._gate, b"x" * len(bystanders))
        for handle in bystanders:
            assert await handle == 1
            job = await handle.job()
            assert (job.state, job.attempt, job.crashes) == ("completed", 1, 0)

    # Workers

    def _all_settled(self) -> bool:
        path = self._folder / d.BORN
        born = set(map(int, path.read_text().split())) if path.exists() else set()
        return all(w.pid in born and not w.leaving for w in self._runner.registry.workers())

    async def settle(self) -> None:
        """Wait until all workers are ready, and none is leaving."""
        while not self._all_settled():
            await asyncio.sleep(0.001)

    async def goes_on(self, executor: str) -> int:
        """Have a job run; the worker that did."""
        return int(await (await d.by_name[executor].enqueue("", "", d.Parcel(""))))

    async def _next(self, executor: str) -> int:
        """The idle worker that gets the next job."""
        pid = await self.goes_on(executor)
        await self.settle()
        if executor == "alone":
            await self._spare()
            (pid,) = self._idle_alone()
        return pid

    async def _spare(self) -> None:
        """Wait for the worker of the next isolated job: it is made a bit after the one before."""
        while not self._idle_alone():
            await asyncio.sleep(0.001)
        await self.settle()

    def _idle_alone(self) -> list[int]:
        return [
            info.pid
            for info in self._runner.registry.workers()
            if (info.executor, info.state) == ("isolated", "idle") and info.pid is not None
        ]

    async def _gone(self) -> None:
        """Wait until the pool has noticed that the struck worker is no more."""
        (pid,) = await pids_at(self._folder / d.STRUCK)
        while pid in worker_pids(self._runner):
            await asyncio.sleep(0.001)

    # Strikes

    async def strike(self, executor: str, phase: str, how: str) -> JobHandle[Any]:
        """Strike a worker; the job that it has, or that would have got it."""
        (self._folder / d.STRUCK).unlink(missing_ok=True)
        match phase:
            case "idle":
                await self._strike_idle(executor, how)
            case "before ready" | "setting up":
                await self._strike_young(executor, phase, how)
        parcel = d.Parcel(how if phase == "receiving" else "")
        handle = await d.by_name[executor].enqueue(phase, how, parcel)
        if how == "hang" and phase != "recycling":
            await pids_at(self._folder / d.STRUCK)
            await handle.cancel()
        return handle

    async def _strike_idle(self, executor: str, how: str) -> None:
        pid = await self._next(executor)
        (self._folder / "idle").write_text(how)
        os.kill(pid, signal.SIGUSR2)
        if how in ("close", "hang"):  # it looks as before
            await pids_at(self._folder / d.STRUCK)
        else:
            await self._gone()

    async def _strike_young(self, executor: str, phase: str, how: str) -> None:
        self._runner.engine().workers.pool.look()  # those that are idle go: the next one is new
        await self.settle()
        if (executor, phase) == ("alone", "before ready"):
            await self._spare()  # else the worker that is struck might have the job already
        (self._folder / phase).write_text(how)
        if (executor, phase) == ("alone", "before ready"):
            await self.goes_on(executor)  # it has a successor, which is struck before it has a job
            if how != "hang":
                await self._gone()


async def check(runner: Runner, handle: JobHandle[Any], expected: Outcome, how: str) -> None:
    """The job has the outcome, and what is known of it."""
    job = await handle.wait()
    if expected.only_perhaps and job.state == "completed":
        expected = COMPLETED
    assert (job.state, job.reason, job.claim) == (expected.state, expected.reason, 1)
    assert job.crashes == (expected.reason == "crash")
    (attempt,) = await runner.registry.attempts(handle.id)
    said = "" if attempt.error is None else f"{attempt.error.type}: {attempt.error.message}"
    assert re.search(expected.text, said), said
    if expected.reason == "crash" and expected.said_last:
        assert f"last words of {how}" in attempt.output
        assert ("exited with code 1" in said) == ("Traceback" in attempt.output)


def check_runs(folder: Path) -> None:
    """No job has begun more than once."""
    effects = EffectLedger(folder / "effects")
    effects.close()
    assert [runs for runs in effects.runs().values() if len(runs) != 1] == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers find their fate, which is quick here."""
    monkeypatch.setenv(d.FOLDER, str(tmp_path))
    monkeypatch.setattr(pool, "TERMINATE_SECONDS", 0.05)
    monkeypatch.setattr(pool, "UNEXPLAINED_SECONDS", 0.1)
    monkeypatch.setattr(pool, "LEAVE_SECONDS", 0.2)
    monkeypatch.setattr(pool, "IDLE_SECONDS", -1.0)
    monkeypatch.setattr(pool, "SAMPLE_SECONDS", 3600.0)
    return tmp_path


@pytest.mark.parametrize("rounds", [1, pytest.param(14, marks=pytest.mark.proof)])
@pytest.mark.parametrize("phase", PHASES)
async def test_death_is_the_outcome_of_one_job_and_touches_no_other(
    folder: Path, phase: str, rounds: int
) -> None:
    pairs = [(executor, how) for executor in ("warm", "alone") for how in CRASHES] * rounds
    random.Random(seed_of("deaths")).shuffle(pairs)
    max_jobs = 1 if phase == "recycling" else None
    async with (
        deadline(60 * rounds),
        workers(folder, d.tasks, processes=2, processes_min=0, max_jobs=max_jobs) as runner,
    ):
        stage = Stage(runner, folder)
        for executor, how in pairs:
            print(f"{executor}, {phase}, {how}")
            others = await stage.bystanders()
            struck = await stage.strike(executor, phase, how)
            await check(runner, struck, outcome_of(executor, phase, how), how)
            await stage.goes_on(executor)
            await stage.let_go(others)
        await stage.settle()
        assert await runner.registry.check() == []
        stage.close()
    check_runs(folder)
