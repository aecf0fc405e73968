"""Handles: results, the table of errors, waiting, and being rebuilt."""

from __future__ import annotations

import asyncio
import copy
import pickle
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from asyncjobs import Cancel as CancelJob
from asyncjobs import (
    Fail,
    IllegalMove,
    InvalidOption,
    JobCancelled,
    JobCrashed,
    JobError,
    JobExpired,
    JobFailed,
    JobTimedOut,
    KeyConflict,
    ResultGone,
    Runner,
    RunnerClosed,
    Tasks,
    UnknownJob,
)
from asyncjobs.records import Outcome
from asyncjobs.running.mailbox import SWEEP_AT
from asyncjobs.states import State
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

tasks = Tasks()


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


class Parcel(msgspec.Struct):
    id: UUID
    price: Decimal
    sent: datetime
    colour: Colour
    where: Point
    body: bytes
    names: set[str]


@tasks.task
async def double(number: int) -> int:
    return number * 2


@tasks.task
async def listing() -> list[int]:
    return [1, 2, 3]


@tasks.task
async def boom(text: str) -> None:
    raise ValueError(text)


@tasks.task
async def echo(parcel: Parcel) -> Parcel:
    return parcel


@tasks.task
async def give_up(reason: str) -> None:
    raise Fail(reason)


@tasks.task
async def back_out(reason: str) -> None:
    raise CancelJob(reason)


@tasks.task(timeout=0.01)
async def too_slow() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


async def test_rich_values_come_back_as_themselves(runner: Runner, clock: ManualClock) -> None:
    parcel = Parcel(
        UUID(int=7), Decimal("1.10"), clock.datetime(), Colour.RED, Point(1, 2), b"\x00\xff", {"a"}
    )

    assert await (await echo.enqueue(parcel)) == parcel


async def test_result_is_a_fresh_copy_for_every_await(runner: Runner) -> None:
    handle = await listing.enqueue()

    first = await handle
    first.append(4)

    assert await handle == [1, 2, 3]
    assert await handle is not await handle


async def test_none_is_a_result(runner: Runner) -> None:
    @runner.task
    async def nothing() -> None: ...

    value: object = await (await nothing.enqueue())  # type: ignore[func-returns-value] # asked on purpose
    assert value is None


async def test_many_awaiters_of_one_job_each_get_the_result(runner: Runner) -> None:
    gate = asyncio.Event()

    @runner.task
    async def gated() -> list[int]:
        await gate.wait()
        return [1]

    handle = await gated.enqueue()
    waiting = [asyncio.create_task(handle.result()) for _ in range(1_000)]
    rebuilt = [asyncio.create_task(runner.handle(handle.id).result()) for _ in range(10)]
    await asyncio.sleep(0)
    gate.set()

    results = await asyncio.gather(*waiting, *rebuilt)
    assert results == [[1]] * 1_010
    assert len({id(result) for result in results}) == 1_010


async def test_cancelling_the_awaiter_leaves_the_job_alone(runner: Runner) -> None:
    gate = asyncio.Event()

    @runner.task
    async def gated() -> int:
        await gate.wait()
        return 5

    handle = await gated.enqueue()
    waiting = [asyncio.ensure_future(handle.result()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])
    gate.set()

    assert waiting[1].cancelled()
    assert [await waiting[0], await waiting[2], await handle] == [5, 5, 5]


async def test_result_with_a_timeout_raises_and_the_job_goes_on(runner: Runner) -> None:
    gate = asyncio.Event()

    @runner.task
    async def gated() -> int:
        await gate.wait()
        return 5

    handle = await gated.enqueue()
    with pytest.raises(TimeoutError, match=rf"job {handle.id} is not finished after 0\.01 s"):
        await handle.result(timeout=0.01)
    gate.set()

    assert await handle.result(timeout=5) == 5


async def test_wait_with_a_timeout_raises_and_the_job_goes_on(runner: Runner) -> None:
    handle = await double.options(delay=60).enqueue(1)

    with pytest.raises(TimeoutError, match=f"job {handle.id} is not finished after 0 s"):
        await handle.wait(timeout=0)

    assert (await handle.job()).status == "scheduled"


@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), True])
async def test_wrong_timeout_of_a_wait_is_refused(runner: Runner, timeout: Any) -> None:
    handle = await double.enqueue(1)

    with pytest.raises(InvalidOption, match="timeout"):
        await handle.result(timeout=timeout)
    with pytest.raises(InvalidOption, match="timeout"):
        await handle.wait(timeout=timeout)


async def test_timeout_of_a_wait_may_be_a_timedelta(runner: Runner) -> None:
    handle = await double.enqueue(1)

    assert await handle.result(timeout=timedelta(seconds=5)) == 2


async def test_wait_gives_a_snapshot_and_does_not_raise(runner: Runner) -> None:
    handle = await boom.enqueue("why")

    job = await handle.wait()

    assert (job.state, job.reason, job.finished) == ("failed", "error", True)
    assert job.error is not None
    assert (job.error.type, job.error.message) == ("ValueError", "why")


async def test_wait_for_a_completed_job_shows_its_result(runner: Runner) -> None:
    job = await (await double.enqueue(2)).wait()

    assert (job.state, job.result, job.attempt) == ("completed", 4, 1)
    assert job.duration is not None


async def test_failed_job_raises_job_failed_with_its_data_and_cause(runner: Runner) -> None:
    handle = await boom.enqueue("why")

    with pytest.raises(JobFailed, match="ValueError: why") as caught:
        await handle

    error = caught.value
    assert (error.job_id, error.reason) == (handle.id, "error")
    assert (error.error_type, error.error_message) == ("ValueError", "why")
    assert error.traceback is not None
    assert "raise ValueError(text)" in error.traceback
    assert isinstance(error.__cause__, ValueError)
    assert type(error) is JobFailed


async def test_timed_out_job_raises_job_timed_out(runner: Runner) -> None:
    with pytest.raises(JobTimedOut, match=r"timeout of 0\.01 s") as caught:
        await (await too_slow.enqueue())

    assert (caught.value.reason, caught.value.error_type) == ("timeout", "asyncjobs.JobTimedOut")
    assert isinstance(caught.value, JobFailed)


async def test_job_that_says_fail_raises_job_failed_with_its_reason(runner: Runner) -> None:
    with pytest.raises(JobFailed, match="unreadable") as caught:
        await (await give_up.enqueue("unreadable"))

    assert (caught.value.reason, caught.value.error_message) == ("fail", "unreadable")


async def test_job_that_cancels_itself_raises_job_cancelled_with_its_reason(runner: Runner) -> None:
    with pytest.raises(JobCancelled, match="no longer wanted") as caught:
        await (await back_out.enqueue("no longer wanted"))

    assert caught.value.reason == "no longer wanted"


async def test_each_awaiter_gets_an_exception_of_its_own(runner: Runner) -> None:
    handle = await boom.enqueue("why")

    first, second = await asyncio.gather(handle.result(), handle.result(), return_exceptions=True)

    assert isinstance(first, JobFailed)
    assert isinstance(second, JobFailed)
    assert first is not second


async def test_deleted_job_raises_result_gone(runner: Runner) -> None:
    handle = await double.enqueue(1)
    await handle
    await runner.registry.delete(handle.id)

    with pytest.raises(ResultGone, match="deleted"):
        await handle
    with pytest.raises(ResultGone):
        await runner.handle(handle.id)
    with pytest.raises(ResultGone):
        await handle.job()
    with pytest.raises(ResultGone):
        await handle.wait()


async def test_awaiter_of_a_job_that_is_deleted_hears_of_it(runner: Runner) -> None:
    handle = await double.options(delay=60).enqueue(1)
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)

    await runner.registry.delete(handle.id)

    with pytest.raises(ResultGone):
        await asyncio.wait_for(waiting, 5)


async def test_handle_of_an_unknown_id_raises_result_gone(runner: Runner) -> None:
    with pytest.raises(ResultGone, match="never enqueued here"):
        await runner.handle("no-such-job")
    with pytest.raises(UnknownJob):
        await runner.handle("no-such-job").cancel()
    with pytest.raises(UnknownJob):
        await runner.handle("no-such-job").retry()


@pytest.mark.parametrize("job_id", [None, 5, "", b"id", "a\x00"])
async def test_handle_of_what_is_no_id_is_refused(runner: Runner, job_id: Any) -> None:
    with pytest.raises(InvalidOption, match="job_id"):
        runner.handle(job_id)


async def test_handle_that_was_dropped_can_be_rebuilt_before_the_end(runner: Runner) -> None:
    gate = asyncio.Event()

    @runner.task
    async def gated() -> int:
        await gate.wait()
        return 5

    job_id = (await gated.enqueue()).id
    waiting = asyncio.create_task(runner.handle(job_id).result())
    await asyncio.sleep(0)
    gate.set()

    assert await waiting == 5


async def test_handle_rebuilt_after_the_end_is_typed_by_its_task(
    runner: Runner, clock: ManualClock
) -> None:
    parcel = Parcel(UUID(int=1), Decimal(1), clock.datetime(), Colour.RED, Point(0, 0), b"", set())
    job_id = (await echo.enqueue(parcel)).id
    await run_until_idle(runner)

    assert await runner.handle(job_id) == parcel
    assert await echo.handle(job_id) == parcel


async def test_handles_resolve_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    async def outcomes_of(ids: list[str]) -> list[Any]:
        async with Runner(tmp_path / "other.db", clock=clock) as runner:
            runner.include(tasks)
            handles = [runner.handle(job_id) for job_id in ids]
            return await asyncio.gather(*handles_to_results(handles), return_exceptions=True)

    def handles_to_results(handles: list[Any]) -> list[Any]:
        return [handle.result() for handle in handles]

    async with Runner(tmp_path / "other.db", clock=clock) as runner:
        runner.include(tasks)
        enqueued = [
            await runner.enqueue(job)
            for job in (double.job(4), boom.job("why"), back_out.job("no"), too_slow.job())
        ]
        here = await asyncio.gather(*handles_to_results(enqueued), return_exceptions=True)
    there = await outcomes_of([handle.id for handle in enqueued])

    assert here[0] == there[0] == 8
    for before, after in zip(here[1:], there[1:], strict=True):
        assert type(after) is type(before)
        assert isinstance(after, JobError)
        assert vars(after) == vars(before)
        assert str(after) == str(before)
        assert after.__cause__ is None


async def test_job_enqueued_before_a_restart_runs_after_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with Runner(tmp_path / "other.db", clock=clock) as runner:
        runner.include(tasks)
        handle = await runner.enqueue(double.options(delay=60).job(4))
    clock.advance(60)

    async with Runner(tmp_path / "other.db", clock=clock) as runner:
        runner.include(tasks)
        result = await runner.handle(handle.id)

    assert result == 8


async def test_handle_outlives_a_restart_of_its_runner(tmp_path: Path, clock: ManualClock) -> None:
    runner = Runner(tmp_path / "other.db", clock=clock)
    runner.include(tasks)
    async with runner:
        handle = await runner.enqueue(double.options(delay=60).job(4))
    clock.advance(60)

    async with runner:
        async with asyncio.timeout(5):
            awaited = await handle
            result = await handle.result()

    assert (awaited, result) == (8, 8)


async def test_handle_knows_its_result_after_the_runner_has_stopped(tmp_path: Path) -> None:
    async with Runner(tmp_path / "other.db") as runner:
        runner.include(tasks)
        handle = await runner.enqueue(double.job(4))
        unknown = await runner.enqueue(double.options(delay=60).job(4))
        await handle

    assert await handle == 8
    with pytest.raises(RunnerClosed):
        await unknown
    with pytest.raises(RunnerClosed):
        await handle.job()


async def test_awaiter_hears_when_the_runner_stops_first(tmp_path: Path) -> None:
    async with Runner(tmp_path / "other.db") as runner:
        runner.include(tasks)
        handle = await runner.enqueue(double.options(delay=60).job(4))
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)

    with pytest.raises(RunnerClosed, match="safe on disk"):
        await waiting


async def test_retried_job_runs_again_and_its_handle_waits_anew(runner: Runner) -> None:
    ran: list[int] = []

    @runner.task
    async def second_time_lucky() -> int:
        ran.append(1)
        if len(ran) == 1:
            raise ValueError("not yet")
        return len(ran)

    handle = await second_time_lucky.enqueue()
    with pytest.raises(JobFailed):
        await handle

    await handle.retry()

    assert await handle == 2
    assert (await handle.job()).attempt == 1


async def test_retry_of_a_completed_job_replaces_its_result(runner: Runner) -> None:
    results = iter([1, 2])

    @runner.task
    async def counting() -> int:
        return next(results)

    handle = await counting.enqueue()
    first = await handle
    await runner.handle(handle.id).retry()

    assert (first, await handle) == (1, 2)
    assert await runner.registry.check() == []


async def test_retry_of_an_unfinished_job_is_refused_naming_its_state(runner: Runner) -> None:
    handle = await double.options(delay=60).enqueue(1)

    with pytest.raises(IllegalMove, match="queued"):
        await handle.retry()


@pytest.mark.parametrize(
    "kind", [JobError, JobFailed, JobTimedOut, JobCrashed, JobCancelled, JobExpired, ResultGone]
)
def test_job_errors_keep_their_data_when_copied_and_pickled(kind: type[JobError]) -> None:
    error = kind("message", job_id="id", reason="why", error_type="T", error_message="m")

    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert str(twin) == "message"
        assert vars(twin) == vars(error)


def test_key_conflict_keeps_its_data_when_copied_and_pickled() -> None:
    error = KeyConflict("message", job_id="id")

    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(twin), twin.job_id) == ("message", "id")


async def test_handle_shows_no_result_in_its_repr(runner: Runner) -> None:
    handle = await double.enqueue(123_456)
    await handle

    assert repr(handle) == f"<JobHandle {handle.id}>"


async def test_result_that_no_longer_fits_the_annotation_comes_back_plain(
    tmp_path: Path, runner: Runner
) -> None:
    async def number() -> int:
        return 5

    async def text() -> str:
        return ""

    async with Runner(tmp_path / "other.db") as first:
        handle = await first.enqueue(first.task(name="job")(number).job())
        await handle
    async with Runner(tmp_path / "other.db") as second:
        second.task(name="job")(text)

        assert await second.handle(handle.id) == 5


async def test_result_of_a_task_that_is_gone_comes_back_plain(tmp_path: Path) -> None:
    async with Runner(tmp_path / "other.db") as first:
        first.include(tasks)
        job_id = (await first.enqueue(double.job(4))).id
        await first.handle(job_id)
    async with Runner(tmp_path / "other.db") as second:
        assert await second.handle(job_id) == 8


async def test_handles_that_are_gone_leave_nothing_behind(runner: Runner) -> None:
    for _ in range(3):
        handles = [await double.enqueue(number) for number in range(2 * SWEEP_AT)]
        await asyncio.gather(*(handle.result() for handle in handles))
        del handles

    await double.enqueue(1)
    assert len(runner.engine().mailboxes._boxes) <= 2 * SWEEP_AT + 1


async def test_awaiter_gets_the_outcome_although_the_job_is_retried_before_its_turn(
    runner: Runner,
) -> None:
    handle = await double.options(delay=60).enqueue(1)
    waiting = asyncio.ensure_future(handle.result())
    boxes = runner.engine().mailboxes
    await until(lambda: boxes.awaited() == [handle.id])

    boxes.deliver(handle.id, Outcome(double.name, State.COMPLETED, None, "2"))
    boxes.forget(handle.id)

    assert await waiting == 2
