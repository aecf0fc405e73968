"""Callbacks: what follows an outcome is a job of its own, enqueued in the outcome's commit."""

from __future__ import annotations

import asyncio
import sqlite3
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from asyncjobs import (
    Fail,
    InvalidOption,
    JobOutcome,
    Retry,
    Runner,
    State,
    Task,
    Tasks,
    current_job,
)
from asyncjobs.rules.callbacks import RESULT_MAX
from asyncjobs.store.base import Rescue
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

tasks = Tasks()
heard: list[tuple[str, JobOutcome]] = []


@pytest.fixture(autouse=True)
def _deaf_before() -> None:
    heard.clear()


@tasks.task(name="done", queue="after", priority=3)
async def done(outcome: JobOutcome) -> None:
    heard.append(("done", outcome))


@tasks.task(name="broken")
def broken(outcome: JobOutcome, *, note: str = "") -> None:
    heard.append(("broken", outcome))


@tasks.task(name="work", on_complete=done, on_failure=broken)
async def work(number: int) -> int:
    if number < 0:
        raise Fail("negative")
    return 2 * number


@pytest.fixture
def runner(runner: Runner) -> Runner:
    runner.include(tasks)
    return runner


async def following(runner: Runner, job_id: str) -> list[str]:
    """What followed a job, by task."""
    page = await runner.registry.list(trigger=f"job:{job_id}")
    return [job.task for job in page.jobs]


async def test_completion_is_followed_by_a_job_with_the_outcome(runner: Runner) -> None:
    handle = await work.enqueue(21)
    assert await handle == 42
    await run_until_idle(runner)
    assert heard == [
        ("done", JobOutcome(job_id=handle.id, task="work", state=State.COMPLETED, result=42))
    ]
    (job,) = (await runner.registry.list(task="done")).jobs
    assert (job.trigger, job.queue, job.priority) == (f"job:{handle.id}", "after", 3)


async def test_failure_is_followed_by_a_job_with_the_error(runner: Runner) -> None:
    handle = await work.enqueue(-1)
    await handle.wait()
    await run_until_idle(runner)
    ((name, outcome),) = heard
    assert (name, outcome.state, outcome.reason, outcome.result) == (
        "broken",
        "failed",
        "fail",
        None,
    )
    assert outcome.error is not None
    assert outcome.error.message == "negative"
    assert "Fail: negative" in outcome.error.traceback


async def test_both_are_in_one_transaction(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db", queues=["default"])
    runner.include(tasks)
    async with runner:
        await (await work.enqueue(1))
    connection = sqlite3.connect(tmp_path / "jobs.db")
    rows = connection.execute("SELECT kind, jobs FROM asyncjobs_journal ORDER BY position")
    assert rows.fetchall() == [
        ("enqueued", "[1,0]"), ("claimed", "[1,1]"), ("completed", "[1,1]"), ("enqueued", "[2,0]")
    ]  # fmt: skip
    # The second row of the journal's last transaction bears the same instant to the microsecond.
    instants = "SELECT count(DISTINCT at) FROM asyncjobs_journal WHERE position > 2"
    assert connection.execute(instants).fetchone() == (1,)
    connection.close()


async def test_retries_are_followed_by_nothing_until_the_last(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(name="flaky", retry=Retry(attempts=3, base=1, jitter=False), on_failure=broken)
    async def flaky() -> None:
        raise ConnectionError

    handle = await flaky.enqueue()
    for attempt in range(3):
        await run_until_idle(runner)
        assert len(heard) == (attempt == 2)
        clock.advance(10)
    assert heard[0][1].job_id == handle.id
    assert heard[0][1].reason == "retries_exhausted"


async def test_timeouts_and_cancellations_have_not_completed(runner: Runner) -> None:
    begun = asyncio.Event()

    @runner.task(name="hang", timeout=0.05, on_complete=done, on_failure=broken)
    async def hang() -> None:
        await asyncio.Event().wait()

    @runner.task(name="long", on_complete=done, on_failure=broken)
    async def long() -> None:
        begun.set()
        await asyncio.Event().wait()

    late = await hang.enqueue()
    await late.wait()
    waiting = await long.options(delay=60).enqueue()
    assert await waiting.cancel("not needed") == "cancelled"
    running = await long.enqueue()
    await begun.wait()
    assert await running.cancel("stop it") == "requested"
    await running.wait()
    await run_until_idle(runner)
    assert [(name, o.job_id, o.state, o.reason) for name, o in heard] == [
        ("broken", late.id, "failed", "timeout"),
        ("broken", waiting.id, "cancelled", "not needed"),
        ("broken", running.id, "cancelled", "stop it"),
    ]


async def test_bulk_cancellation_is_followed_job_by_job(runner: Runner) -> None:
    handles = [await work.options(delay=60).enqueue(number) for number in range(5)]
    await runner.registry.cancel_all(task="work", dry_run=False)
    await run_until_idle(runner)
    assert {outcome.job_id for _, outcome in heard} == {handle.id for handle in handles}
    assert len(heard) == 5


async def test_crash_that_ends_a_job_is_followed_in_the_rescue(runner: Runner) -> None:
    @runner.task(name="stuck", on_crash="fail", on_failure=broken)
    async def stuck() -> None:
        await asyncio.Event().wait()

    handle = await stuck.enqueue()
    engine = runner.engine()
    await until(engine.dispatcher.held)
    rescued = await engine.commit.alone(Rescue(engine.dispatcher.instance, "its process died"))
    assert rescued.jobs == 1
    engine.dispatcher.disown_all()
    await run_until_idle(runner)
    ((name, outcome),) = heard
    assert (name, outcome.job_id, outcome.state, outcome.reason) == (
        "broken", handle.id, "failed", "crash"
    )  # fmt: skip
    assert outcome.error is not None
    assert outcome.error.type == "asyncjobs.JobCrashed"


async def test_completion_in_the_application_s_transaction_is_followed_from_its_commit(
    tmp_path: Path,
) -> None:
    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)

    @runner.task(name="exact", on_complete=done)
    def exact() -> None:
        connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        for end in ("ROLLBACK", "COMMIT"):
            connection.execute("BEGIN IMMEDIATE")
            current_job().complete_in_thread(connection, None)
            connection.execute(end)
        connection.close()

    async with runner:
        handle = await exact.enqueue()
        await handle
        await run_until_idle(runner)
        assert [outcome.job_id for _, outcome in heard] == [handle.id]
        assert await following(runner, handle.id) == ["done"]
        assert await runner.registry.check() == []


async def test_callbacks_of_one_call_take_the_place_of_the_task_s(runner: Runner) -> None:
    @runner.task(name="other")
    async def other(outcome: dict[str, Any]) -> None:
        heard.append(("other", outcome))  # type: ignore[arg-type]

    good = await work.options(on_complete=other, tags=["t"]).enqueue(1)
    bad = await work.options(on_complete=other).enqueue(-1)
    await good
    await bad.wait()
    await run_until_idle(runner)
    assert await following(runner, good.id) == ["other"]
    assert await following(runner, bad.id) == ["broken"], "the task's own stays"
    plain: Any = next(outcome for name, outcome in heard if name == "other")
    assert plain == {
        "job_id": good.id, "task": "work", "state": "completed", "reason": None, "result": 2,
        "result_left_out": False, "error": None,
    }  # fmt: skip


async def test_callbacks_have_callbacks_of_their_own(runner: Runner) -> None:
    @runner.task(name="third")
    async def third(outcome: JobOutcome) -> str:
        return outcome.task

    @runner.task(name="second", on_complete=third)
    async def second(outcome: JobOutcome) -> str:
        return outcome.task

    @runner.task(name="first", on_complete=second)
    async def first() -> None: ...

    handle = await first.enqueue()
    await handle
    await run_until_idle(runner)
    (two,) = (await runner.registry.list(task="second")).jobs
    (three,) = (await runner.registry.list(task="third")).jobs
    assert (two.trigger, three.trigger) == (f"job:{handle.id}", f"job:{two.id}")
    assert (await runner.registry.get(three.id)).result == "second"


def chain(length: int, *options: str) -> Task[Any, Any]:
    """The first of so many tasks, each followed by the next."""
    some = Tasks()
    task = None
    for number in range(length):
        following: dict[str, Any] = dict.fromkeys(options, task)
        task = some.task(name=f"step {number}", **following)(lambda outcome: None)
    assert task is not None
    return task


def test_long_chain_takes_little_more_than_its_steps() -> None:
    lengths = [len(chain(length, "on_complete").job(None).options or "") for length in (10, 20, 30)]
    assert lengths[2] - lengths[1] == pytest.approx(lengths[1] - lengths[0], abs=10)
    assert lengths[2] < 3_000


def test_callbacks_that_multiply_are_refused_before_they_fill_the_row() -> None:
    with pytest.raises(InvalidOption, match="at most 65536: enqueue later steps"):
        chain(12, "on_complete", "on_failure")
    assert len(chain(8, "on_complete", "on_failure").job(None).options or "") < 65_536


async def test_each_life_has_its_own_end(runner: Runner) -> None:
    handle = await work.enqueue(1)
    await handle
    await run_until_idle(runner)
    await handle.retry()
    await handle
    await run_until_idle(runner)
    assert [name for name, _ in heard] == ["done", "done"]


async def test_context_goes_on_into_what_follows(tmp_path: Path) -> None:
    request: ContextVar[str] = ContextVar("request")
    runner = Runner(tmp_path / "jobs.db", carry=[request])
    seen: list[str] = []

    @runner.task(name="after")
    async def after(outcome: JobOutcome) -> None:
        seen.append(request.get())

    @runner.task(name="before", on_complete=after)
    async def before() -> None: ...

    async with runner:
        request.set("r-1")
        await (await before.enqueue())
        await run_until_idle(runner)
    assert seen == ["r-1"]


@pytest.mark.parametrize("more", [0, 1])
async def test_large_result_is_left_out(runner: Runner, more: int) -> None:
    @runner.task(name="large", on_complete=done)
    async def large() -> str:
        return "x" * (RESULT_MAX - 2 + more)

    await (await large.enqueue())
    await run_until_idle(runner)
    ((_, outcome),) = heard
    assert outcome.result_left_out == bool(more)
    assert len(outcome.result or "") == (0 if more else RESULT_MAX - 2)


@pytest.mark.parametrize("options", ["{", "[]", '{"on_complete":7,"timeout":"long"}'])
async def test_options_that_nobody_can_read_end_neither_the_runner_nor_its_rescue(
    runner: Runner, caplog: pytest.LogCaptureFixture, options: str
) -> None:
    gate = asyncio.Event()

    @runner.task(name="alone")
    async def alone() -> int:
        await gate.wait()
        return 1

    some = [replace(alone.job(), options=options, max_crashes=1) for _ in range(2)]
    handles = [await runner.enqueue(odd) for odd in some]
    engine = runner.engine()
    await until(lambda: len(engine.dispatcher.held()) == 2)
    assert caplog.text.count("options stored with job") == 2
    await engine.commit.alone(Rescue(engine.dispatcher.instance, "its process died"))
    assert {(await handle.wait()).reason for handle in handles} == {"crash"}
    engine.dispatcher.disown_all()
    gate.set()
    assert await (await runner.enqueue(replace(alone.job(), options=options))) == 1


async def test_deleted_job_has_no_outcome(runner: Runner) -> None:
    handle = await work.options(delay=60).enqueue(1)
    await runner.registry.delete(handle.id)
    await run_until_idle(runner)
    assert heard == []


async def test_job_without_callbacks_stores_nothing_for_them() -> None:
    assert (
        done.options(priority=1).job(JobOutcome(job_id="a", task="b", state=State.FAILED)).options
        is None
    )


def no_argument() -> None: ...
def two_arguments(outcome: JobOutcome, other: int) -> None: ...
def only_variable(*outcomes: JobOutcome) -> None: ...


@pytest.mark.parametrize("option", ["on_complete", "on_failure"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (print, "must be a task, got builtin_function_or_method"),
        ("work", "must be a task, got str"),
        (no_argument, "must take one argument, the JobOutcome; it needs none"),
        (two_arguments, "it needs 'outcome', 'other'"),
        (only_variable, "it needs none"),
    ],
)
def test_what_cannot_follow_is_refused(option: str, given: Any, message: str) -> None:
    some = Tasks()
    callback = some.task(given) if getattr(given, "__module__", "") == __name__ else given
    with pytest.raises(InvalidOption, match=f"{option}.*{message}"):
        some.task(name="one", **{option: callback})(lambda: None)
    with pytest.raises(InvalidOption, match=f"{option}.*{message}"):
        work.options(**{option: callback})
