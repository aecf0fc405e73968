"""Progress: what a job says of how far it is, on its handle, in the registry, and on disk."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    Fail,
    InvalidOption,
    JobFailed,
    JobTimedOut,
    Progress,
    Retry,
    Runner,
    current_job,
)
from asyncjobs.running.context import Run, current_run
from asyncjobs.store.group_commit import GroupCommit
from asyncjobs.testing import ManualClock, run_until_idle

from .support import PATIENCE_SECONDS, until


def said(progress: Progress | None) -> tuple[Any, Any, str | None] | None:
    return None if progress is None else (progress.done, progress.total, progress.note)


def journal_of(path: Path, kind: str) -> list[tuple[str, str | None]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT jobs, detail FROM asyncjobs_journal WHERE kind = ? ORDER BY position", (kind,)
    ).fetchall()
    connection.close()
    return rows


async def test_last_value_is_on_disk_when_the_job_has_ended(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task
    async def count(to: int) -> None:
        for number in range(1, to + 1):
            current_job().progress(number, to, f"page {number}")

    handle = await count.enqueue(10_000)
    await handle

    progress = await handle.progress()
    assert progress == Progress(done=10_000, total=10_000, note="page 10000", at=clock.datetime())
    assert (await runner.registry.get(handle.id)).progress == progress
    page = await runner.registry.list(task=count.name)
    assert page.jobs[0].progress == progress


async def test_job_that_said_nothing_has_no_progress(runner: Runner) -> None:
    @runner.task
    async def silent() -> None: ...

    handle = await silent.enqueue()
    await handle
    assert await handle.progress() is None


async def test_value_is_seen_while_the_job_runs(runner: Runner) -> None:
    gate = asyncio.Event()

    @runner.task
    async def wait() -> None:
        current_job().progress(1, 2)
        await gate.wait()

    handle = await wait.enqueue()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while said(await handle.progress()) != (1, 2, None):
            await asyncio.sleep(0)
    gate.set()
    await handle
    assert said(await handle.progress()) == (1, 2, None)


async def test_many_values_are_few_writes(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    execute = GroupCommit.execute

    def counting(commit: GroupCommit[Any], operation: Any) -> Any:
        nonlocal writes
        writes += type(operation).__name__ == "Annotate"
        return execute(commit, operation)

    monkeypatch.setattr(GroupCommit, "execute", counting)
    seconds = 0.7

    @runner.task
    async def count() -> int:
        number, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            number += 1
            current_job().progress(number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        return number

    begun = time.monotonic()
    handles = [await count.enqueue() for _ in range(20)]
    last = await asyncio.gather(*handles)
    elapsed = time.monotonic() - begun

    assert 2 <= writes <= elapsed * 5 + 1, "one statement for all jobs, five times a second"
    for handle, number in zip(handles, last, strict=True):
        assert said(await handle.progress()) == (number, None, None)


async def test_values_are_written_outside_of_the_context_of_the_job(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = asyncio.Event()
    contexts: list[Run | None] = []
    execute = GroupCommit.execute

    def looking(commit: GroupCommit[Any], operation: Any) -> Any:
        if type(operation).__name__ == "Annotate":
            contexts.append(current_run.get(None))
            written.set()
        return execute(commit, operation)

    monkeypatch.setattr(GroupCommit, "execute", looking)

    @runner.task
    async def say() -> None:
        current_job().progress(1)
        await written.wait()

    await (await say.enqueue())
    assert contexts == [None]


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_threads_may_say_how_far_they_are(runner: Runner, executor: str) -> None:
    def inner() -> None:
        for number in range(1_000):
            current_job().progress(number, 1_000)

    def sync_task() -> None:
        inner()

    async def async_task() -> None:
        await asyncio.gather(*[asyncio.to_thread(inner) for _ in range(4)])

    task = runner.task(sync_task if executor == "thread" else async_task)
    handle = await task.enqueue()
    await handle
    assert said(await handle.progress()) == (999, 1_000, None)


async def test_every_way_of_ending_keeps_the_last_value(runner: Runner) -> None:
    begun = asyncio.Event()

    @runner.task
    async def fails() -> None:
        current_job().progress(3, 4)
        raise Fail("no")

    @runner.task(timeout=0.05)
    async def late() -> None:
        current_job().progress(5, 6)
        await asyncio.Event().wait()

    @runner.task
    async def cancelled() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            current_job().progress(7, 8, "cut off")

    failed, timed_out = await fails.enqueue(), await late.enqueue()
    with pytest.raises(JobFailed):
        await failed
    with pytest.raises(JobTimedOut):
        await timed_out
    stopped = await cancelled.enqueue()
    await begun.wait()
    await stopped.cancel()
    await stopped.wait()

    assert said(await failed.progress()) == (3, 4, None)
    assert said(await timed_out.progress()) == (5, 6, None)
    assert said(await stopped.progress()) == (7, 8, "cut off")


async def test_next_attempt_takes_the_place_of_the_one_before(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(retry=Retry(attempts=2, base=1, jitter=False))
    async def twice() -> None:
        attempt = current_job().attempt
        current_job().progress(100 if attempt == 1 else 1, note=f"attempt {attempt}")
        if attempt == 1:
            raise ConnectionError

    handle = await twice.enqueue()
    await run_until_idle(runner)
    assert said(await handle.progress()) == (100, None, "attempt 1")
    clock.advance(1)
    await handle
    assert said(await handle.progress()) == (1, None, "attempt 2")


async def test_retry_by_hand_starts_without_progress(runner: Runner, clock: ManualClock) -> None:
    @runner.task
    async def first_only() -> None:
        if current_job().fence[1] == 1:
            current_job().progress(1)

    handle = await first_only.enqueue()
    await handle
    await handle.retry()
    await handle
    assert await handle.progress() is None


async def test_run_that_was_given_up_says_nothing_any_more(runner: Runner) -> None:
    gate, left = threading.Event(), threading.Event()

    @runner.task(timeout=0.05)
    def stuck() -> None:
        current_job().progress(1)
        gate.wait()
        current_job().progress(2)
        left.set()

    handle = await stuck.enqueue()
    with pytest.raises(JobTimedOut):
        await handle
    gate.set()
    await until(left.is_set)
    await until(lambda: runner.tally.late_values)
    assert said(await handle.progress()) == (1, None, None)
    assert await runner.registry.check() == []


async def test_progress_events_carry_their_values_and_come_before_the_outcome(
    tmp_path: Path, clock: ManualClock
) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=clock)

    @runner.task
    async def say() -> None:
        current_job().progress(0.5, 1.0, "half")

    async with runner:
        await (await say.enqueue())
        assert await runner.registry.check() == []
    ((jobs, detail),) = journal_of(tmp_path / "jobs.db", "progress")
    assert (jobs, detail) == ("[1,1]", '[[0.5,1.0,"half"]]')
    connection = sqlite3.connect(tmp_path / "jobs.db")
    kinds = connection.execute("SELECT kind FROM asyncjobs_journal ORDER BY position").fetchall()
    connection.close()
    assert [kind for (kind,) in kinds] == ["enqueued", "claimed", "progress", "completed"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"done": -1}, "done is out of range"),
        ({"done": 2**63}, "done is out of range"),
        ({"done": math.nan}, "done is out of range"),
        ({"done": math.inf}, "done is out of range"),
        ({"done": "1"}, "done must be a number, got str"),
        ({"done": True}, "done must be a number, got bool"),
        ({"done": 1, "total": -0.5}, "total is out of range"),
        ({"done": 1, "total": b"2"}, "total must be a number, got bytes"),
        ({"done": 1, "note": 3}, "note must be a str, got int"),
    ],
)
async def test_what_means_nothing_is_refused(
    runner: Runner, given: dict[str, Any], message: str
) -> None:
    @runner.task
    async def say() -> str:
        with pytest.raises(InvalidOption) as raised:
            current_job().progress(**given)
        return str(raised.value)

    handle = await say.enqueue()
    assert message in await handle
    assert await handle.progress() is None


@pytest.mark.parametrize(
    ("note", "stored"),
    [
        ("x" * 1_024, "x" * 1_024),
        ("x" * 1_025, "x" * 1_024),
        ("a\x00b\ud800c", "a\\x00b\\ud800c"),
        ("\u202e<b>\x1b[31m", "\u202e<b>\x1b[31m"),  # shown by others, who escape it
        ("", ""),
    ],
    ids=["longest", "too long", "nul and surrogate", "marks", "empty"],
)
async def test_any_note_can_be_stored(runner: Runner, note: str, stored: str) -> None:
    @runner.task
    async def say() -> None:
        current_job().progress(1, 1, note)

    handle = await say.enqueue()
    await handle
    assert said(await handle.progress()) == (1, 1, stored)


@pytest.mark.parametrize("number", [0, 2**63 - 1, 0.25, 1e300 / 1e300])
async def test_numbers_at_the_limits_come_back(runner: Runner, number: float) -> None:
    @runner.task
    async def say() -> None:
        current_job().progress(number, number)

    handle = await say.enqueue()
    await handle
    assert said(await handle.progress()) == (number, number, None)


@pytest.mark.timed
async def test_call_that_writes_nothing_costs_about_a_microsecond(runner: Runner) -> None:
    calls = 20_000

    @runner.task
    async def say() -> float:
        job = current_job()
        job.progress(0)

        def fastest(call: Any) -> float:
            best = math.inf
            for _ in range(9):
                begun = time.perf_counter()
                for number in range(calls):
                    call(number)
                best = min(best, time.perf_counter() - begun)
            return best / calls

        nothing = fastest(lambda number: None)
        return (fastest(lambda number: job.progress(number, calls)) - nothing) * 1e6

    microseconds = await (await say.enqueue())
    print(f"{microseconds:.2f} µs a call")
    assert microseconds < 2, "1 µs is the bar; twice that on a machine that does other things too"
