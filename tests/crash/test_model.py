"""The real store against a model of a few lines: states, fences, counts after every operation."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from asyncjobs.clock import new_id
from asyncjobs.records import Claimed, ErrorRecord, NewJob
from asyncjobs.rules.outcome import Cancelled, Happened, Raised, Released, Returned, Snoozed, decide
from asyncjobs.states import FINISHED, State
from asyncjobs.store.base import (
    Cancel,
    Claim,
    Delete,
    Disown,
    Insert,
    Prune,
    Report,
    Requeue,
    Rescue,
)
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

INSTANCES = ("a" * 16, "b" * 16)
TASKS = {"one": "coroutine", "two": "coroutine"}
SECOND = 1_000_000
ERROR = ErrorRecord("ValueError", "as ever", "trace")


@dataclass
class Known:
    """What the model knows of one job."""

    id: str
    task: str
    priority: int
    run_at: int
    key: str | None
    max_crashes: int
    order: int
    number: int
    state: str = "queued"
    claim: int = 0
    instance: str | None = None
    attempt: int = 0
    crashes: int = 0
    snoozes: int = 0
    finished_at: int | None = None
    cancel_asked: bool = False
    result: str | None = None


class StoreMachine(RuleBasedStateMachine):
    """Each rule does one write and says beforehand what must come of it."""

    loop: asyncio.AbstractEventLoop
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store = SQLiteStore(":memory:", clock=self.clock)
        self.run(self.store.open())
        self.jobs: dict[str, Known] = {}
        self.seqs: dict[int, str] = {}
        self.runs: list[tuple[str, Claimed]] = []
        """All runs ever claimed, so that late ones are reported too."""
        self.gone: list[str] = []
        self.accepted = 0
        self.own_steps = 0

    def run(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def write(self, operation: Any) -> Any:
        StoreMachine.steps += 1
        self.own_steps += 1
        (result,) = self.run(self.store.write([operation]))
        return result

    # Rules

    @rule(
        count=st.integers(1, 4),
        task=st.sampled_from(sorted(TASKS)),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([None, 0, 2 * SECOND]),
        key=st.sampled_from([None, None, "k1", "k2"]),
        number=st.integers(0, 1),
        max_crashes=st.integers(1, 2),
    )
    def insert(
        self, count: int, task: str, priority: int, delay: int | None, key: str | None,
        number: int, max_crashes: int,
    ) -> None:  # fmt: skip
        now = self.clock.now()
        arguments = f'{{"number":{number}}}'
        jobs: list[NewJob[None]] = [
            NewJob(
                id=new_id(now), task=task, arguments=arguments, queue="q", created_at=now,
                delay=delay, priority=priority, key=key, max_crashes=max_crashes,
            )
            for _ in range(count)
        ]  # fmt: skip
        answers = self.write(Insert(jobs))
        for job, answer in zip(jobs, answers, strict=True):
            there = next((k for k in self.jobs.values() if key and (k.key, k.task) == (key, task)),
                         None)  # fmt: skip
            if there is not None:
                assert answer is not None
                assert answer.job_id == there.id
                assert answer.conflict == (there.number != number)
                continue
            assert answer is None
            self.accepted += 1
            self.jobs[job.id] = Known(job.id, task, priority, now + (delay or 0), key, max_crashes,
                                      self.accepted, number)  # fmt: skip

    @rule(instance=st.sampled_from(INSTANCES), room=st.integers(1, 3), probation=st.booleans())
    def claim(self, instance: str, room: int, probation: bool) -> None:
        now = self.clock.now()
        due = [job for job in self.jobs.values() if job.state == "queued" and job.run_at <= now]
        due.sort(key=lambda job: (-job.priority, job.run_at, job.order))
        # At most one that another crash would end, and none if the instance has one already.
        on_probation = [
            job for job in due if job.crashes > 0 and job.crashes + 1 >= job.max_crashes
        ]
        excluded = on_probation[probation:]
        due = [job for job in due if job not in excluded]
        result = self.write(Claim(instance, TASKS, {"coroutine": room}, probation=probation))
        assert [job.id for job in result.jobs] == [job.id for job in due[:room]]
        for taken in result.jobs:
            job = self.jobs[taken.id]
            job.state, job.instance = "running", instance
            job.claim += 1
            job.attempt += 1
            assert (taken.claim, taken.attempt, taken.crashes) == (
                job.claim, job.attempt, job.crashes,
            )  # fmt: skip
            self.seqs[taken.seq] = taken.id
            self.runs.append((instance, taken))

    @rule(
        which=st.integers(0, 1_000),
        happened=st.sampled_from([
            Returned(None), Returned('"value"'), Raised(ERROR, None), Raised(ERROR, 1.0),
            Snoozed(1.0), Cancelled("user"), Released(),
        ]),
    )  # fmt: skip
    def report(self, which: int, happened: Happened) -> None:
        """Also twice, also of runs that were given up long ago."""
        if not self.runs:
            return
        recent = self.runs[-12:]
        instance, run = recent[which % len(recent)]
        now = self.clock.now()
        transition = decide(run, happened, now)
        (answer,) = self.write(Report(instance, [transition]))
        job = self.jobs.get(self.seqs[run.seq])
        fence = job is not None and (job.instance, job.claim) == (instance, run.claim)
        if job is None or not fence:
            assert answer == "lost"
            return
        if job.state != "running":
            assert answer == "already"
            return
        if job.cancel_asked and transition.state is State.QUEUED:
            assert answer == "cancelled"
            job.state, job.finished_at = "cancelled", now
            return
        assert answer == "done"
        job.state = transition.state.value
        job.attempt -= transition.uncharge
        job.snoozes += isinstance(happened, Snoozed)
        if transition.run_at is not None:
            job.run_at = transition.run_at
        if transition.state in FINISHED:
            job.finished_at = now
        job.result = transition.result

    @rule(which=st.integers(0, 1_000))
    def cancel(self, which: int) -> None:
        job_id = self.any_id(which)
        (answer,) = self.write(Cancel([job_id], "why"))
        job = self.jobs.get(job_id)
        if job is None:
            assert answer.outcome == "missing"
        elif job.state in ("queued", "blocked"):
            assert answer.outcome == "cancelled"
            job.state, job.finished_at = "cancelled", self.clock.now()
        elif job.state == "running":
            assert answer.outcome == "requested"
            job.cancel_asked = True
        else:
            assert answer.outcome == "finished"

    @rule(which=st.integers(0, 1_000))
    def requeue(self, which: int) -> None:
        job_id = self.any_id(which)
        (answer,) = self.write(Requeue([job_id]))
        job = self.jobs.get(job_id)
        if job is None:
            assert answer.outcome == "missing"
        elif job.state in FINISHED:
            assert answer.outcome == "requeued"
            job.state, job.run_at, job.finished_at = "queued", self.clock.now(), None
            job.claim += 1
            job.attempt = job.crashes = job.snoozes = 0
            job.cancel_asked, job.result = False, None
        else:
            assert answer.outcome == job.state

    @rule(which=st.integers(0, 1_000))
    def delete(self, which: int) -> None:
        job_id = self.any_id(which)
        (answer,) = self.write(Delete([job_id]))
        job = self.jobs.get(job_id)
        if job is None:
            assert answer.outcome == "missing"
        elif job.state == "running":
            assert answer.outcome == "running"
        else:
            assert answer.outcome == "deleted"
            self.forget(job)

    @rule(instance=st.sampled_from(INSTANCES), limit=st.integers(1, 3))
    def rescue(self, instance: str, limit: int) -> None:
        before = self.running_of(instance)
        rescued = self.write(Rescue(instance, "gone", limit))
        assert rescued.jobs == min(limit, len(before))
        # Which of them is the store's choice: ask for the rows, and judge each.
        for job in before:
            row = self.run(self.store.get(job.id))
            if row.state is State.RUNNING and row.claim == job.claim:
                continue
            rescued = rescued._replace(jobs=rescued.jobs - 1)
            job.claim += 1
            if job.cancel_asked:
                job.state, job.finished_at = "cancelled", self.clock.now()
                continue
            job.attempt -= 1
            job.crashes += 1
            if job.crashes >= job.max_crashes:
                job.state, job.finished_at = "failed", self.clock.now()
            else:
                job.state, job.run_at = "queued", self.clock.now()
        assert rescued.jobs == 0

    @rule(instance=st.sampled_from(INSTANCES), which=st.integers(0, 3))
    def disown(self, instance: str, which: int) -> None:
        """The instance holds all but one of what it is said to run."""
        running = self.running_of(instance)
        held = {seq for seq, job_id in self.seqs.items() if job_id in {j.id for j in running}}
        dropped = running[which % len(running)] if running else None
        if dropped is not None:
            held = {seq for seq in held if self.seqs[seq] != dropped.id}
        assert self.write(Disown(instance, frozenset(held))) == (dropped is not None)
        if dropped is not None:
            dropped.claim += 1
            dropped.state = "cancelled" if dropped.cancel_asked else "queued"
            if dropped.cancel_asked:
                dropped.finished_at = self.clock.now()
            else:
                dropped.attempt -= 1
                dropped.run_at = self.clock.now()

    @rule(age=st.integers(0, 5), limit=st.integers(1, 3))
    def prune(self, age: int, limit: int) -> None:
        before = self.clock.now() - age * SECOND
        operation = Prune({"completed": before}, journal_before=0, limit=limit)
        old = [job for job in self.jobs.values() if job.state == "completed"]
        old = sorted((job for job in old if (job.finished_at or 0) < before), key=lambda job:
                     job.finished_at or 0)  # fmt: skip
        pruned = self.write(operation)
        assert pruned == min(limit, len(old))
        for job in old:
            if self.run(self.store.get(job.id)) is None:
                pruned -= 1
                self.forget(job)
        assert pruned == 0

    @rule(seconds=st.sampled_from([1, 3]))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    # What the store holds

    @invariant()
    def one_row_agrees(self) -> None:
        """One job at a time, a different one each step; all of them at the end."""
        if self.jobs:
            ids = list(self.jobs)
            self.agrees(self.jobs[ids[self.own_steps % len(ids)]])

    def agrees(self, job: Known) -> None:
        row = self.run(self.store.get(job.id))
        assert row is not None
        assert (row.state, row.claim, row.attempt, row.crashes, row.snoozes, row.result) == (
            job.state, job.claim, job.attempt, job.crashes, job.snoozes,
            "value" if job.result else None,
        )  # fmt: skip
        if job.state == "running":
            assert row.instance == job.instance

    def teardown(self) -> None:
        for job in self.jobs.values():
            self.agrees(job)
        for state in State:
            expected = sum(job.state == state for job in self.jobs.values())
            assert self.run(self.store.count([state], queue=None, task=None)) == expected
        assert self.run(self.store.check()) == []
        self.run(self.store.close())

    # Choosing

    def any_id(self, which: int) -> str:
        ids = [*self.jobs, *self.gone[-1:]]
        return ids[which % len(ids)] if ids else "none"

    def running_of(self, instance: str) -> list[Known]:
        return [job for job in self.jobs.values()
                if job.state == "running" and job.instance == instance]  # fmt: skip

    def forget(self, job: Known) -> None:
        del self.jobs[job.id]
        self.gone.append(job.id)


STEPS_PER_EXAMPLE = 200
EXAMPLES = 25
"""At a time; with more, many steps would be done beyond what is asked for."""
# Against mutants it is enough that it fails.
PHASES = (Phase.generate, *(() if "ASYNCJOBS_NO_SHRINK" in os.environ else (Phase.shrink,)))


@pytest.mark.parametrize("steps", [20_000, pytest.param(2_000_000, marks=pytest.mark.proof)])
def test_the_store_does_what_the_model_says(steps: int) -> None:
    StoreMachine.loop = asyncio.new_event_loop()
    StoreMachine.steps = 0
    begun = time.monotonic()
    try:
        while StoreMachine.steps < steps:
            run_state_machine_as_test(
                StoreMachine,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS_PER_EXAMPLE,
                    deadline=None,
                    database=None,
                    print_blob=True,
                    phases=PHASES,
                    suppress_health_check=list(HealthCheck),
                ),
            )
    finally:
        StoreMachine.loop.close()
    print(f"{StoreMachine.steps} steps in {time.monotonic() - begun:.1f} s")
