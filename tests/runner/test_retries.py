"""What follows a failed attempt: policies, signals, and the rows that tell of it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from asyncjobs import (
    Cancel,
    Fail,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobSignal,
    Retry,
    RetryLater,
    Runner,
    Snooze,
    current_job,
)
from asyncjobs.testing import ManualClock, run_until_idle

STEADY = Retry(attempts=3, base=10, factor=2, jitter=False)


async def status_of(runner: Runner, job_id: str) -> tuple[str, int]:
    await run_until_idle(runner)
    job = await runner.registry.get(job_id)
    return job.status, job.attempt


async def test_failed_attempt_is_retried_after_the_policys_wait(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(retry=STEADY)
    async def fails() -> None:
        raise ValueError("no")

    handle = await fails.enqueue()
    seen = [await status_of(runner, handle.id)]
    for seconds in (9.999_999, 0.000_001, 19.999_999, 0.000_001):
        clock.advance(seconds)
        seen.append(await status_of(runner, handle.id))

    assert seen == [
        ("retrying", 1),
        ("retrying", 1),
        ("retrying", 2),
        ("retrying", 2),
        ("failed", 3),
    ]
    assert (await handle.job()).reason == "retries_exhausted"


async def test_default_policy_is_one_attempt(runner: Runner) -> None:
    @runner.task
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(JobFailed) as caught:
        await (await fails.enqueue())

    assert caught.value.reason == "error"


async def test_handle_waits_through_retries_for_the_outcome(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(retry=STEADY)
    async def third_time_lucky() -> int:
        if current_job().attempt < 3:
            raise ValueError("not yet")
        return current_job().attempt

    handle = await third_time_lucky.enqueue()
    for seconds in (10, 20):
        await run_until_idle(runner)
        clock.advance(seconds)

    assert await handle == 3


@pytest.mark.parametrize("runner", [{"random": Random(5)}], indirect=True)
async def test_jitter_comes_from_the_random_source_that_was_passed_in(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(retry=Retry(attempts=2, base=100))
    async def fails() -> None:
        raise ValueError("no")

    handle = await fails.enqueue()
    await run_until_idle(runner)
    job = await handle.job()

    assert job.run_at - clock.datetime() == timedelta(seconds=round(Random(5).uniform(0, 100), 6))


async def test_policy_by_exception_type_uses_the_closest_base_class(
    runner: Runner, clock: ManualClock
) -> None:
    policy = Retry(
        attempts=9,
        per_exception={
            OSError: Retry(attempts=2, base=7, jitter=False),
            ValueError: Retry(attempts=1),
        },
    )

    @runner.task(retry=policy)
    async def fails(kind: str) -> None:
        raise {"v": UnicodeError, "o": ConnectionError}[kind]("no")

    value, connection = await fails.enqueue("v"), await fails.enqueue("o")
    await run_until_idle(runner)

    assert (await value.job()).state == "failed"
    job = await connection.job()
    assert (job.status, job.run_at - clock.datetime()) == ("retrying", timedelta(seconds=7))


async def test_retry_function_decides_by_attempt_and_exception(
    runner: Runner, clock: ManualClock
) -> None:
    asked: list[tuple[int, str]] = []

    def policy(attempt: int, error: BaseException) -> timedelta | None:
        asked.append((attempt, str(error)))
        return timedelta(seconds=attempt) if attempt < 3 else None

    @runner.task(retry=policy)
    async def fails() -> None:
        raise ValueError("no")

    handle = await fails.enqueue()
    for seconds in (1, 2, 0):
        await run_until_idle(runner)
        clock.advance(seconds)

    assert asked == [(1, "no"), (2, "no"), (3, "no")]
    assert (await handle.job()).state == "failed"


def raises(attempt: int, error: BaseException) -> float:
    raise RuntimeError("the policy itself")


@pytest.mark.parametrize(
    "policy", [raises, lambda a, e: -1, lambda a, e: "5", lambda a, e: float("nan")]
)
async def test_retry_function_that_raises_or_answers_nonsense_ends_the_job(
    runner: Runner, policy: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    @runner.task(retry=policy)
    async def fails() -> None:
        raise ValueError("the job's own")

    handle = await fails.enqueue()
    with pytest.raises(JobFailed, match="the job's own"):
        await handle

    assert any("retry function" in r.getMessage() and handle.id in r.getMessage()
               for r in caplog.records)  # fmt: skip
    assert runner.healthy


async def test_policy_of_one_call_replaces_that_of_the_task(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task(retry=Retry(attempts=1))
    async def fails() -> None:
        raise ValueError("no")

    policy = Retry(attempts=2, base=timedelta(seconds=3), jitter=False)
    handle = await fails.options(retry=policy).enqueue()
    await run_until_idle(runner)

    job = await handle.job()
    assert (job.status, job.run_at - clock.datetime()) == ("retrying", timedelta(seconds=3))


async def test_retry_later_uses_up_an_attempt(runner: Runner, clock: ManualClock) -> None:
    @runner.task(retry=Retry(attempts=2))
    async def later() -> None:
        raise RetryLater(30, "rate limited")

    handle = await later.enqueue()
    first = await status_of(runner, handle.id)
    clock.advance(29)
    early = await status_of(runner, handle.id)
    clock.advance(1)
    second = await status_of(runner, handle.id)

    assert (first, early, second) == (("retrying", 1), ("retrying", 1), ("failed", 2))
    with pytest.raises(JobFailed, match="rate limited") as caught:
        await handle
    assert caught.value.reason == "retries_exhausted"


async def test_retry_later_without_an_attempt_left_fails_with_that_reason(runner: Runner) -> None:
    @runner.task
    async def later() -> None:
        raise RetryLater(30)

    with pytest.raises(JobFailed) as caught:
        await (await later.enqueue())

    assert caught.value.reason == "retries_exhausted"
    assert "no attempt is left: retry in 30 s" in str(caught.value)


@pytest.mark.parametrize("signal", [Snooze, RetryLater])
async def test_whole_key_without_a_limit_is_warned_of_once_a_task(
    runner: Runner, clock: ManualClock, caplog: pytest.LogCaptureFixture, signal: Any
) -> None:
    seen: set[str] = set()

    @runner.task(name="keyless", retry=Retry(attempts=2))
    async def keyless() -> int:
        if current_job().id not in seen:
            seen.add(current_job().id)
            raise signal(30, whole_key=True)
        return 1

    handles = [await keyless.enqueue() for _ in range(2)]
    await run_until_idle(runner)
    clock.advance(30)
    assert [await handle for handle in handles] == [1, 1]
    said = [record.getMessage() for record in caplog.records if "whole_key" in record.getMessage()]
    assert len(said) == 1
    assert "of task 'keyless' raised whole_key=True, but has no limit" in said[0]


async def test_snooze_uses_up_no_attempt_and_is_counted(runner: Runner, clock: ManualClock) -> None:
    runs: list[int] = []

    @runner.task
    async def sleepy() -> str:
        runs.append(current_job().attempt)
        if len(runs) < 4:
            raise Snooze(timedelta(minutes=1))
        return "awake"

    handle = await sleepy.enqueue()
    for _ in range(3):
        await run_until_idle(runner)
        clock.advance(59)
        assert await status_of(runner, handle.id) == ("scheduled", 0)
        clock.advance(1)
    await run_until_idle(runner)

    job = await handle.job()
    assert (job.state, job.attempt, job.snoozes, runs) == ("completed", 1, 3, [1, 1, 1, 1])
    assert await handle == "awake"


@pytest.mark.parametrize("signal", [Snooze(-1), RetryLater(-1)])
async def test_signal_with_a_wrong_delay_fails_the_job_naming_it(
    runner: Runner, signal: JobSignal
) -> None:
    @runner.task(retry=Retry(attempts=1))
    async def wrong() -> None:
        raise signal

    with pytest.raises(JobFailed, match=rf"{type(signal).__name__}\(delay\)"):
        await (await wrong.enqueue())


async def test_cancel_ends_the_job_as_cancelled(runner: Runner) -> None:
    @runner.task(retry=Retry(attempts=5))
    async def unwanted() -> None:
        raise Cancel("no longer wanted")

    handle = await unwanted.enqueue()
    with pytest.raises(JobCancelled):
        await handle

    job = await handle.job()
    assert (job.state, job.reason, job.attempt) == ("cancelled", "no longer wanted", 1)


@pytest.mark.parametrize("text", ["", "a\ud800b", "a\x00b", "x" * 100_000])
async def test_cancel_with_any_text_ends_the_job_as_cancelled(runner: Runner, text: str) -> None:
    @runner.task
    async def unwanted() -> None:
        raise Cancel(text)

    handle = await unwanted.enqueue()
    job = await handle.wait()

    assert job.state == "cancelled"
    assert job.reason is not None
    assert 0 < len(job.reason) <= 8192


async def test_fail_ends_the_job_without_further_attempts(runner: Runner) -> None:
    @runner.task(retry=Retry(attempts=5))
    async def hopeless() -> None:
        raise Fail("the file cannot be read")

    handle = await hopeless.enqueue()
    job = await handle.wait()

    assert (job.state, job.reason, job.attempt) == ("failed", "fail", 1)
    assert job.error is not None
    assert job.error.type == "asyncjobs.Fail"  # as one imports it
    assert job.error.message == "the file cannot be read"
    assert "asyncjobs.Fail: the file" in job.error.traceback


@pytest.mark.parametrize(
    ("signal", "state"),
    [(Fail("f"), "failed"), (Cancel("c"), "cancelled"), (Snooze(9), "queued")],
)
async def test_signals_work_in_threads(runner: Runner, signal: JobSignal, state: str) -> None:
    @runner.task
    def says() -> None:
        raise signal

    handle = await says.enqueue()
    await run_until_idle(runner)

    assert (await handle.job()).state == state


async def test_signal_of_the_users_own_kind_is_a_failure(runner: Runner) -> None:
    class Odd(JobSignal):
        pass

    @runner.task
    async def says() -> None:
        raise Odd("what now")

    with pytest.raises(JobFailed, match="what now"):
        await (await says.enqueue())


async def test_each_failed_attempt_is_a_row(runner: Runner, clock: ManualClock) -> None:
    @runner.task(retry=STEADY)
    async def fails() -> None:
        secret = "hunter2-in-a-local-variable"
        del secret
        raise ValueError(f"attempt {current_job().attempt}")

    handle = await fails.enqueue()
    for seconds in (10, 20, 0):
        await run_until_idle(runner)
        clock.advance(seconds)
    rows = await runner.registry.attempts(handle.id)

    assert [(row.number, row.event, row.reason) for row in rows] == [
        (1, "retrying", "error"),
        (2, "retrying", "error"),
        (3, "failed", "retries_exhausted"),
    ]
    starts = [(row.started_at - rows[0].started_at).total_seconds() for row in rows]
    assert starts == [0, 10, 30]
    for row in rows:
        assert row.error is not None
        assert (row.error.type, row.error.message) == ("ValueError", f"attempt {row.number}")
        assert row.finished_at == row.started_at
        assert row.instance == rows[0].instance != ""
    assert [row.claim for row in rows] == [1, 2, 3]


async def test_traceback_begins_in_the_jobs_code_and_holds_no_variable(runner: Runner) -> None:
    def inner(password: str) -> None:
        local = password * 2
        raise KeyError(len(local))

    @runner.task
    async def fails(password: str) -> None:
        try:
            inner(password)
        except KeyError as error:
            raise RuntimeError("outer") from error

    handle = await fails.enqueue("hunter2")
    (row,) = await runner.registry.attempts((await handle.wait()).id)

    assert row.error is not None
    text = row.error.traceback
    assert "asyncjobs/running" not in text
    assert "KeyError: 14" in text
    assert "direct cause" in text
    assert text.rstrip().endswith("RuntimeError: outer")
    assert "hunter2" not in text


async def test_traceback_of_a_thread_begins_in_the_jobs_code(runner: Runner) -> None:
    @runner.task
    def fails() -> None:
        raise ValueError("no")

    job = await (await fails.enqueue()).wait()

    assert job.error is not None
    assert job.error.traceback.count("File ") == 1


async def test_endless_traceback_and_message_are_cut(runner: Runner) -> None:
    @runner.task
    async def fails() -> None:
        raise ValueError("x" * 200_000)

    job = await (await fails.enqueue()).wait()

    assert job.error is not None
    assert len(job.error.traceback.encode()) <= 64 * 1024
    assert len(job.error.message) <= 8192
    assert "[... cut ...]" in job.error.message


async def test_completed_first_run_is_told_by_attempts_too(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task
    async def fine() -> None: ...

    handle = await fine.enqueue()
    await handle
    (row,) = await runner.registry.attempts(handle.id)

    assert (row.number, row.event, row.error) == (1, "completed", None)
    assert row.started_at == clock.datetime()


async def test_failed_attempt_is_one_log_record_with_job_and_task(
    runner: Runner, caplog: pytest.LogCaptureFixture, clock: ManualClock
) -> None:
    @runner.task(name="report", retry=Retry(attempts=2, base=1, jitter=False))
    async def fails() -> None:
        raise ValueError("line one\nline two \x1b[31m")

    with caplog.at_level(logging.INFO, "asyncjobs"):
        handle = await fails.enqueue()
        await run_until_idle(runner)
        clock.advance(1)
        await handle.wait()

    messages = [r.getMessage() for r in caplog.records if handle.id in r.getMessage()]
    assert len(messages) == 2
    assert all("'report'" in message and "ValueError" in message for message in messages)
    assert all("\n" not in message and "\x1b" not in message for message in messages)


class NeedsTwo(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.two = two


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BadRepr(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Surrogate(Exception):
    def __str__(self) -> str:
        return "a\ud800\x00b"


@pytest.mark.parametrize(
    "make",
    [
        lambda: NeedsTwo("a", "b"),
        BadText,
        lambda: BadRepr(BadRepr()),
        NoText,
        Surrogate,
        lambda: ExceptionGroup("several", [ValueError("a"), BadText()]),
        lambda: type("x" * 1000, (Exception,), {})("long name"),
        KeyError,
    ],
)
@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_odd_exception_is_recorded_as_well_as_can_be(
    runner: Runner, make: Callable[[], Exception], executor: str
) -> None:
    @runner.task(executor=executor)
    async def fails() -> None:
        raise make()

    handle = await fails.enqueue()
    with pytest.raises(JobFailed) as caught:
        await handle

    assert caught.value.error_type
    assert (await handle.job()).state == "failed"
    assert await runner.registry.check() == []


@pytest.mark.parametrize("signal", [RetryLater, Snooze])
@pytest.mark.parametrize("delay", ["5", True, datetime(2030, 1, 1, tzinfo=UTC), None])
def test_delay_that_is_no_duration_is_refused_where_it_is_given(signal: Any, delay: Any) -> None:
    with pytest.raises(InvalidOption, match=rf"{signal.__name__}\(delay\) must be seconds"):
        signal(delay)


@pytest.mark.parametrize("signal", [RetryLater, Snooze])
@pytest.mark.parametrize("given", ["yes", "no", 1, None])
def test_whole_key_that_is_no_flag_is_refused_where_it_is_given(signal: Any, given: Any) -> None:
    with pytest.raises(InvalidOption, match=rf"{signal.__name__}\(whole_key\) must be True or Fal"):
        signal(5, whole_key=given)


@pytest.mark.parametrize("signal", [RetryLater, Snooze])
def test_signal_says_its_delay_in_seconds_and_survives_a_process_pool(signal: Any) -> None:
    there_and_back = pickle.loads(pickle.dumps(signal(timedelta(minutes=1.5))))

    assert str(there_and_back).endswith(" 90 s")
    assert there_and_back.delay == timedelta(minutes=1.5)
    assert type(there_and_back) is signal
