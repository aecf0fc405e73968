"""What the registry says of jobs with a limit that are due later, and of those without room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs import JobHandle, Limit, Retry, Runner, Tasks, current_job
from asyncjobs.states import State
from asyncjobs.testing import ManualClock, run_until_idle

tasks = Tasks()


@tasks.task(name="free", retry=Retry(attempts=2, base=60, jitter=False))
async def free(tenant: str) -> int:
    return answered()


@tasks.task(
    name="keyed",
    limit=Limit(key="tenant", running=2),
    retry=Retry(attempts=2, base=60, jitter=False),
)
async def keyed(tenant: str) -> int:
    return answered()


@tasks.task(
    name="lined up",
    limit=Limit(key="tenant", ordered=True),
    retry=Retry(attempts=2, base=60, jitter=False),
)
async def lined_up(tenant: str) -> int:
    return answered()


def answered() -> int:
    if current_job().attempt == 1:
        raise ConnectionError("no answer")
    return current_job().attempt


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Runner]:
    runner = Runner(str(tmp_path / "jobs.db"), clock=clock)
    runner.include(tasks)
    async with runner:
        yield runner


async def shown(runner: Runner, handle: JobHandle[Any]) -> tuple[str, str | None, str]:
    """Its status and reason, and the code of what explains it."""
    job = await handle.job()
    return job.status, job.reason, (await runner.registry.explain(handle.id)).code


async def ids(runner: Runner, status: str) -> set[str]:
    found = {job.id for job in (await runner.registry.list(state=status)).jobs}
    assert await runner.registry.count(state=status) == len(found)
    return found


@pytest.mark.parametrize("task", [free, keyed, lined_up])
async def test_job_that_is_due_later_is_scheduled_with_a_limit_or_without(
    runner: Runner, clock: ManualClock, task: Any
) -> None:
    handle = await task.options(delay=3_600).enqueue("a")
    await run_until_idle(runner)
    assert await shown(runner, handle) == ("scheduled", None, "scheduled")
    assert await ids(runner, "scheduled") == {handle.id}
    assert await ids(runner, "blocked") == set()
    (queue,) = await runner.registry.queues()
    assert (queue.scheduled, queue.retrying, queue.counts[State.BLOCKED]) == (1, 0, 0)
    clock.advance(3_660)
    await run_until_idle(runner)
    clock.advance(60)
    assert await handle == 2
    assert await runner.registry.check() == []


@pytest.mark.parametrize("task", [free, keyed, lined_up])
async def test_job_that_waits_for_its_next_attempt_is_retrying_and_says_why(
    runner: Runner, clock: ManualClock, task: Any
) -> None:
    handle = await task.enqueue("a")
    await run_until_idle(runner)
    assert await shown(runner, handle) == ("retrying", "error", "retrying")
    explained = await runner.registry.explain(handle.id)
    assert explained.sentence.startswith("It has run before (error), and is due again at ")
    assert await ids(runner, "retrying") == {handle.id}
    assert await ids(runner, "scheduled") == set()
    (queue,) = await runner.registry.queues()
    assert (queue.scheduled, queue.retrying, queue.counts[State.BLOCKED]) == (0, 1, 0)
    clock.advance(60)
    assert await handle == 2
    kinds = [event.kind async for event in handle.events()]
    assert kinds == ["enqueued", "claimed", "retrying", "claimed", "completed"]


async def test_dead_letters_that_are_retried_at_a_rate_are_scheduled(
    runner: Runner, clock: ManualClock
) -> None:
    once = keyed.options(retry=Retry(attempts=1))
    handles = [await once.enqueue("a") for _ in range(10)]
    for handle in handles:
        await handle.wait()
    await runner.registry.retry_all(dry_run=False, rate=1, task="keyed")
    states = [(await handle.job()).status for handle in handles]
    assert states.count("scheduled") == 9
    assert len(await ids(runner, "scheduled")) == 9
    assert await ids(runner, "blocked") == set()


async def test_due_job_is_blocked_while_its_key_has_no_room_and_says_by_what(
    runner: Runner, clock: ManualClock
) -> None:
    full = Limit(key="tenant", running=0)
    now = await keyed.options(limit=full).enqueue("a")
    later = await keyed.options(limit=full, delay=60).enqueue("a")
    await run_until_idle(runner)
    assert await shown(runner, now) == ("blocked", "limit", "key_limit")
    assert await shown(runner, later) == ("scheduled", None, "scheduled")
    clock.advance(60)
    await run_until_idle(runner)
    assert await shown(runner, later) == ("blocked", "limit", "key_limit")
    assert await ids(runner, "blocked") == {now.id, later.id}


async def test_delayed_job_behind_others_of_an_ordered_key_waits_for_them_whatever_its_time(
    runner: Runner, clock: ManualClock
) -> None:
    head = await lined_up.options(delay=60).enqueue("a")
    behind = await lined_up.options(at=clock.datetime() + timedelta(hours=1)).enqueue("a")
    await run_until_idle(runner)
    assert await shown(runner, head) == ("scheduled", None, "scheduled")
    assert await shown(runner, behind) == ("blocked", "limit", "ordered")
    await head.cancel()
    assert await shown(runner, behind) == ("scheduled", None, "scheduled")
