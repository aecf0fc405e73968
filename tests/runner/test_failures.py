"""Dead letters: failed jobs by what they failed of, and trying them again."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    IllegalMove,
    InvalidArguments,
    InvalidOption,
    JobFailed,
    JobHandle,
    Retry,
    Runner,
    Tasks,
    UnknownJob,
    UnknownTask,
)
from asyncjobs.testing import ManualClock, run_until_idle

tasks = Tasks()


@tasks.task(name="divide")
async def divide(left: int, right: int = 0) -> int:
    return left // right


@tasks.task(name="parse", executor="thread")
def parse(text: str) -> Any:
    return json.loads(text)


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


async def failed(handle: JobHandle[Any]) -> str:
    with pytest.raises(JobFailed):
        await handle
    return handle.id


async def test_jobs_that_failed_alike_are_one_group_whatever_they_say(
    runner: Runner, clock: ManualClock
) -> None:
    began = clock.datetime()
    await failed(await parse.enqueue("{"))
    clock.advance(60)
    last = await failed(await parse.enqueue("[1,"))  # another message
    clock.advance(60)
    other = await failed(await divide.enqueue(1))

    groups = await runner.registry.failures()

    assert [group.job_id for group in groups] == [other, last]
    (_, group) = groups
    assert (group.task, group.error_type, group.jobs) == (
        "parse",
        "json.decoder.JSONDecodeError",
        2,
    )
    assert (group.first_at, group.last_at) == (began, began + timedelta(seconds=60))
    module, function, line = group.place.split(":")
    assert (module, function) == (__name__, "parse")
    assert int(line) == parse.function.__code__.co_firstlineno + 2
    assert "column" in group.message
    assert [one.job_id for one in await runner.registry.failures(limit=1)] == [other]
    assert (await runner.registry.get(last)).fingerprint == group.fingerprint
    assert await runner.registry.count(fingerprint=group.fingerprint) == 2
    page = await runner.registry.list(fingerprint=group.fingerprint, task="parse")
    assert page.jobs[0].id == last


async def test_only_the_last_attempt_makes_a_dead_letter(
    runner: Runner, clock: ManualClock
) -> None:
    handle = await divide.options(retry=Retry(attempts=2, jitter=False)).enqueue(1)
    await run_until_idle(runner)
    assert await runner.registry.failures() == []
    clock.advance(1)
    await failed(handle)
    assert [group.jobs for group in await runner.registry.failures()] == [1]


async def test_timeout_is_a_group_of_its_own(runner: Runner) -> None:
    import asyncio

    @runner.task(name="slow", timeout=0.01)
    async def slow() -> None:
        await asyncio.Event().wait()

    await failed(await slow.enqueue())
    (group,) = await runner.registry.failures()
    assert (group.error_type, group.place) == ("asyncjobs.JobTimedOut", "")


async def test_group_forgets_what_is_retried_or_deleted_but_not_since_when(
    runner: Runner, clock: ManualClock
) -> None:
    began = clock.datetime()
    first = await failed(await divide.enqueue(1))
    clock.advance(1)
    second = await failed(await divide.enqueue(2))
    await runner.registry.delete(second)
    (group,) = await runner.registry.failures()
    assert (group.jobs, group.job_id) == (1, first)
    await runner.registry.retry(first, arguments={"right": 1})
    assert await runner.registry.failures() == []
    await run_until_idle(runner)
    await failed(await divide.enqueue(3))
    (group,) = await runner.registry.failures()
    assert (group.jobs, group.first_at) == (1, began)
    assert await runner.registry.check() == []


async def test_groups_are_there_after_a_restart_and_in_another_process(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "shared.db"
    first = Runner(path, clock=clock)
    lonely = Tasks()

    @lonely.task(name="lonely")
    async def lonely_task() -> None:
        raise LookupError("no")

    first.include(lonely)
    async with first:
        job_id = await failed(await lonely_task.enqueue())
    async with Runner(path, clock=clock).client() as other:
        (group,) = await other.registry.failures()
        assert (group.job_id, group.message) == (job_id, "no")
        with pytest.raises(UnknownTask, match="'lonely'"):
            await other.registry.retry(job_id, arguments={})
        assert await other.registry.retry_one(group.fingerprint, actor="ops") == job_id
        assert (await other.registry.get(job_id)).state == "queued"


async def test_pruned_jobs_leave_their_group(tmp_path: Path, clock: ManualClock) -> None:
    runner = Runner(tmp_path / "short.db", clock=clock, keep_failed=0, keep_journal=0)
    runner.include(tasks)
    async with runner:
        job_id = await failed(await runner.enqueue(divide.job(1)))
        clock.advance(31 * 86_400)
        await runner.engine().pruner.prune()
        assert await runner.registry.find(job_id) is None
        assert await runner.registry.failures() == []
        assert await runner.registry.check() == []


# Trying again


async def test_one_of_a_group_is_tried_first_then_the_others_at_a_rate(
    runner: Runner, clock: ManualClock
) -> None:
    for number in range(7):
        await failed(await divide.enqueue(number))
    (group,) = await runner.registry.failures()
    again = await runner.registry.retry_one(group.fingerprint)
    await failed(runner.handle(again))

    result = await runner.registry.retry_all(dry_run=False, rate=2, fingerprint=group.fingerprint)

    assert result.changed == 7
    began = clock.now()
    due = sorted(
        [job.run_at async for job in runner.registry.iterate(state="scheduled")]
    )  # the first one is due at once
    half = timedelta(seconds=0.5)
    assert due == [clock.datetime() + half * number for number in range(1, 7)]
    clock.advance(1.2)
    await run_until_idle(runner)
    assert await runner.registry.count(state="failed") == 3
    assert clock.now() > began


async def test_slices_of_a_bulk_keep_the_rate(
    runner: Runner, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.services.by_hand.FIRST_SLICE_ROWS", 2)
    monkeypatch.setattr("asyncjobs.services.by_hand.SLICE_ROWS_MAX", 2)
    for number in range(5):
        await failed(await divide.enqueue(number))
    await runner.registry.retry_all(dry_run=False, rate=0.1, task="divide")
    due = sorted([job.run_at async for job in runner.registry.iterate(state="scheduled")])
    assert due == [clock.datetime() + timedelta(seconds=10) * number for number in range(1, 5)]


async def test_those_of_one_instant_are_retried_in_the_order_of_enqueue(
    runner: Runner, clock: ManualClock
) -> None:
    handles = await runner.enqueue_many([divide.job(number) for number in range(20)])
    for handle in handles:
        await failed(handle)
    await runner.registry.retry_all(dry_run=False, rate=1, task="divide")
    jobs = [await handle.job() for handle in handles]
    assert [job.run_at for job in jobs] == sorted(job.run_at for job in jobs)


async def test_edited_arguments_are_run_and_their_names_noted(runner: Runner) -> None:
    job_id = await failed(await divide.enqueue(84))
    await runner.registry.retry(job_id, arguments={"right": 2}, actor="ops")
    assert await runner.handle(job_id) == 42
    assert (await runner.registry.get(job_id)).arguments == {"left": 84, "right": 2}
    (entry,) = await runner.registry.audit()
    assert (entry.actor, entry.action) == ("ops", "retry")
    assert entry.what == {"id": job_id, "arguments": ["right"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"right": "hunter2"}, "argument 'right' of task 'divide': expected int"),
        ({"bottom": 1}, "has no argument 'bottom'"),
        ({"right": object()}, "argument 'right' of task 'divide'"),
        ({"left": None}, "argument 'left'"),
        ([1], "arguments must be a mapping"),
        ({1: 1}, "has no argument 1"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_and_nothing_is_changed(
    runner: Runner, arguments: Any, words: str
) -> None:
    job_id = await failed(await divide.enqueue(1))
    with pytest.raises(InvalidArguments, match=words) as caught:
        await runner.registry.retry(job_id, arguments=arguments)
    assert "hunter2" not in str(caught.value)
    assert (await runner.registry.get(job_id)).state == "failed"
    assert await runner.registry.audit() == []


async def test_edit_without_arguments_before_and_of_a_job_that_waits(runner: Runner) -> None:
    waiting = await divide.options(delay=9).enqueue(1)
    with pytest.raises(IllegalMove, match="queued"):
        await runner.registry.retry(waiting.id, arguments={"right": 1})
    assert (await waiting.job()).arguments == {"left": 1}


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True, "1", 1e-300, 10**7])
async def test_rate_that_makes_no_sense_is_refused(runner: Runner, rate: Any) -> None:
    with pytest.raises(InvalidOption, match="rate"):
        await runner.registry.retry_all(rate=rate)


@pytest.mark.parametrize("fingerprint", ["", "xyz", "0123456789ABCDEF", 7])
async def test_what_is_no_fingerprint_is_refused(runner: Runner, fingerprint: Any) -> None:
    with pytest.raises(InvalidOption, match="fingerprint"):
        await runner.registry.list(fingerprint=fingerprint)
    with pytest.raises(InvalidOption, match="fingerprint"):
        await runner.registry.retry_one(fingerprint)


async def test_unknown_fingerprint_is_named(runner: Runner) -> None:
    with pytest.raises(UnknownJob, match="0123456789abcdef"):
        await runner.registry.retry_one("0123456789abcdef")
    assert await runner.registry.count(fingerprint="0123456789abcdef") == 0
    with pytest.raises(InvalidOption, match="cannot change jobs that are failed"):
        await runner.registry.cancel_all(fingerprint="0123456789abcdef")
