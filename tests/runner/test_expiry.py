"""``expires=``: a job that is not started in time is cancelled, and says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import InvalidOption, JobExpired, JobOutcome, Runner, Tasks
from asyncjobs.testing import ManualClock, run_until_idle

tasks = Tasks()
ran: list[str] = []


@tasks.task(name="note")
async def note(outcome: JobOutcome) -> None:
    ran.append(f"{outcome.state} {outcome.reason}")


@tasks.task(name="fresh", expires=60, on_failure=note)
async def fresh(word: str = "fresh") -> None:
    ran.append(word)


@tasks.task(name="never")
async def never() -> None:
    ran.append("never")


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared.db"


def runner_on(path: Path, clock: ManualClock, **options: Any) -> Runner:
    runner = Runner(path, clock=clock, **options)
    runner.include(tasks)
    return runner


async def test_job_whose_deadline_is_past_is_accepted_and_cancelled_at_once(
    path: Path, clock: ManualClock
) -> None:
    async with runner_on(path, clock) as runner:
        handle = await never.options(expires=clock.datetime() - timedelta(seconds=1)).enqueue()
        await run_until_idle(runner)
        job = await handle.job()

    assert (job.state, job.reason, ran) == ("cancelled", "expired", [])


async def test_job_that_nobody_starts_in_time_is_cancelled_and_its_callback_follows(
    path: Path, clock: ManualClock
) -> None:
    async with runner_on(path, clock).client() as client:
        handle = await fresh.enqueue()
        job = await handle.job()
        assert job.expires_at == clock.datetime() + timedelta(seconds=60)
        clock.advance(60)
        await run_until_idle(client)  # a client runs nothing, but what is too late it ends
        with pytest.raises(JobExpired) as caught:
            await handle
        assert caught.value.reason == "expired"
        assert ran == []
    async with runner_on(path, clock) as runner:  # after a restart
        await run_until_idle(runner)
        assert ran == ["cancelled expired"]
        with pytest.raises(JobExpired):
            await runner.handle(handle.id)
        assert await runner.registry.check() == []


async def test_awaited_job_that_waits_for_a_slot_expires(path: Path, clock: ManualClock) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    runner = runner_on(path, clock, concurrency=1)

    @runner.task
    async def long() -> None:
        entered.set()
        await leave.wait()

    async with runner:
        first = await long.enqueue()
        await entered.wait()
        handle = await fresh.enqueue()
        awaited = asyncio.ensure_future(handle.result())
        clock.advance(61)
        with pytest.raises(JobExpired):  # by the look of every second: there is no slot to claim
            await awaited
        leave.set()
        await first


async def test_handle_in_another_process_hears_of_it(path: Path, clock: ManualClock) -> None:
    # Two runners on one file are two instances, as two processes are.
    async with runner_on(path, clock).client() as client:
        handle = await client.enqueue(never.options(expires=1).job())
        other = Runner(path, clock=clock)
        async with other.client():
            awaited = asyncio.ensure_future(other.handle(handle.id).result())
            clock.advance(1)
            await run_until_idle(client)
            with pytest.raises(JobExpired):
                await awaited
    assert ran == []


async def test_started_in_time_is_enough(path: Path, clock: ManualClock) -> None:
    async with runner_on(path, clock):
        handle = await fresh.options(expires=timedelta(seconds=1)).enqueue("in time")
        await handle
        assert (await handle.job()).reason is None
    assert ran == ["in time"]


async def test_instant_counts_in_any_zone(path: Path, clock: ManualClock) -> None:
    there = clock.datetime().astimezone(timezone(timedelta(hours=9))) + timedelta(seconds=5)
    async with runner_on(path, clock) as runner:
        handle = await never.options(expires=there, delay=4).enqueue()
        assert (await handle.job()).expires_at == there
        clock.move_to(there)
        await run_until_idle(runner)
        with pytest.raises(JobExpired):
            await handle


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expires": 0}, "expires=0 would cancel every job"),
        ({"expires": -1}, "expires=-1 is out of range"),
        ({"expires": "soon"}, "expires must be seconds"),
        ({"expires": True}, "expires must be seconds"),
        ({"expires": datetime(2040, 1, 1)}, "has no time zone"),
        ({"expires": 5, "delay": 5}, "expires and delay contradict"),
        ({"delay": 60}, "expires and delay contradict"),  # with the task's own
        (
            {"expires": datetime(2040, 1, 1, tzinfo=UTC), "at": datetime(2040, 1, 2, tzinfo=UTC)},
            "expires and at contradict",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_given(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidOption, match=words):
        fresh.options(**options)


@pytest.mark.parametrize("expires", [0, -5, "1", datetime(2040, 1, 1, tzinfo=UTC)])
def test_task_takes_a_time_from_enqueue_on(expires: Any) -> None:
    with pytest.raises(InvalidOption, match="expires"):
        Tasks().task(expires=expires)(print)
