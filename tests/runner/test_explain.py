"""Why a job is not running, in one sentence and a code."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    Cancel,
    Explanation,
    JobExpired,
    JobHandle,
    Limit,
    Rate,
    Retry,
    Runner,
    Tasks,
    UnknownJob,
    Window,
)
from asyncjobs.rules.explaining import AHEAD_MAX, REASONS
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

tasks = Tasks()
gates: list[asyncio.Event] = []


@tasks.task(name="good")
async def good(value: int = 0) -> int:
    return value


@tasks.task(name="gated")
async def gated() -> None:
    await gates[0].wait()


@tasks.task(name="failing", retry=Retry(attempts=2, base=60, jitter=False))
async def failing() -> None:
    raise ValueError("canary-1177")


@tasks.task(name="given up")
async def given_up() -> None:
    raise Cancel("no such user")


@tasks.task(name="keyed", limit=Limit(key="tenant", running=1))
async def keyed(tenant: str) -> None:
    await gates[0].wait()


@tasks.task(name="paced", limit=Limit(key="tenant", rate=Rate(1, per=60)))
async def paced(tenant: str) -> None: ...


@tasks.task(name="lined up", limit=Limit(key="tenant", ordered=True, after_failure="stop"))
async def lined_up(tenant: str) -> None:
    await gates[0].wait()
    raise ValueError(tenant)


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    gates[:] = [asyncio.Event()]
    runner.include(tasks)


async def why(runner: Runner, handle: JobHandle[Any]) -> Explanation:
    return await runner.registry.explain(handle.id)


async def test_unknown_job_cannot_be_explained(runner: Runner) -> None:
    with pytest.raises(UnknownJob):
        await runner.registry.explain("nobody")


async def test_finished_job_says_how_it_ended(runner: Runner) -> None:
    done = await good.enqueue()
    await done
    cancelled = await given_up.enqueue()
    await cancelled.wait()

    found = await why(runner, done)
    assert found.code == "completed"
    assert str(found) == "It completed after attempt 1 at 2030-01-01 00:00:00+00:00."
    found = await why(runner, cancelled)
    assert (found.code, found.data["attempt"]) == ("cancelled", 1)
    assert "no such user" in found.sentence


async def test_job_that_is_due_later_says_when(runner: Runner, clock: ManualClock) -> None:
    found = await why(runner, await good.options(delay=60).enqueue())

    assert (found.code, found.data["at"]) == ("scheduled", clock.datetime() + timedelta(seconds=60))
    assert found.sentence == "It is due later, at 2030-01-01 00:01:00+00:00."


async def test_job_outside_its_window_says_when_that_opens(
    runner: Runner, clock: ManualClock
) -> None:
    at_eight = good.options(window=Window("08:00", "18:00", tz="UTC"))
    clock.advance(7 * 3_600)
    for handle in (
        await at_eight.enqueue(),
        await keyed.options(window=Window("08:00", "18:00")).enqueue("t"),
    ):
        found = await why(runner, handle)
        assert (found.code, found.data["at"]) == ("window", clock.datetime() + timedelta(hours=1))
        assert found.sentence == (
            "Its window is closed until 2030-01-01 08:00:00+00:00. "
            "It may start: From 08:00 to 18:00 (UTC)."
        )
    for expires, hopeless in ((3_600, True), (3_601, False)):
        found = await why(
            runner, await good.options(window=Window("08:00", "18:00"), expires=expires).enqueue()
        )
        assert (" It expires before that, at " in found.sentence) is hopeless
    later = await good.options(window=Window("08:00", "18:00"), delay=2 * 3_600).enqueue()
    assert (await why(runner, later)).code == "scheduled"
    await runner.registry.pause_queue("default")
    clock.advance(3 * 3_600)
    assert (await why(runner, later)).code == "paused"


async def test_job_that_failed_says_when_it_is_tried_again(runner: Runner) -> None:
    handle = await failing.enqueue()
    await run_until_idle(runner)

    found = await why(runner, handle)

    assert found.code == "retrying"
    assert found.sentence == (
        "It has run before (error), and is due again at 2030-01-01 00:01:00+00:00."
    )
    assert "canary" not in repr(found)


async def test_running_job_says_since_when_and_whether_it_is_to_stop(runner: Runner) -> None:
    handle = await gated.enqueue()
    await until(lambda: runner.tally.started)

    found = await why(runner, handle)

    assert found.code == "running"
    assert found.sentence == "It is running, attempt 1, since 2030-01-01 00:00:00+00:00."
    gates[0].set()
    await handle


@pytest.mark.parametrize("runner", [{"concurrency": 1}], indirect=True)
async def test_job_behind_full_slots_says_so_and_counts_those_before_it(runner: Runner) -> None:
    first = await gated.enqueue()
    await until(lambda: runner.tally.started)
    handles = await runner.enqueue_many([good.job(n) for n in range(3)])
    urgent = await good.options(priority=5).enqueue()
    await good.options(priority=5, delay=60).enqueue()  # not due, so not before anybody

    found = await why(runner, handles[2])

    assert (found.code, found.data["executor"], found.data["slots"]) == ("no_room", "coroutine", 1)
    assert found.sentence == "All 1 slots for coroutine jobs are taken, behind 3 others."
    assert (await why(runner, urgent)).data["ahead"] == 0
    gates[0].set()
    await asyncio.gather(first, *handles, urgent)


async def test_those_before_it_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "many.db")
    runner.include(tasks)
    async with runner.client():
        jobs = [good.job(n) for n in range(AHEAD_MAX + 5)]
        handles = await runner.enqueue_many(jobs)
        last = await why(runner, handles[-1])
        hundredth = (await runner.registry.explain(handles[99].id)).data
    assert last.code == "no_instance"
    assert hundredth == {"queue": "default"}
    async with Runner(tmp_path / "many.db", queues=["other"]) as blind:
        found = await blind.registry.explain(handles[-1].id)
        job = await blind.registry.get(handles[-1].id)
        around = await blind.engine().store.surroundings(job, most=AHEAD_MAX)
    assert found.code == "no_instance"
    assert (str(around.ahead), around.ahead and around.ahead.exact) == ("1,000+", False)


async def test_those_before_it_in_the_line_of_its_key_are_counted_up_to_the_same_limit(
    runner: Runner,
) -> None:
    jobs = [keyed.job("a") for _ in range(AHEAD_MAX + 3)]
    handles = await runner.enqueue_many(jobs)
    found = [(await why(runner, handles[n])).sentence for n in (-2, -1)]
    gates[0].set()

    assert [sentence.partition(", behind ")[2] for sentence in found] == [
        "1,000 others.",
        "1,000+ others.",
    ]


async def test_only_live_runners_that_take_the_queue_count(runner: Runner, tmp_path: Path) -> None:
    async with Runner(tmp_path / "jobs.db", clock=runner.clock, queues=["mail"]) as mail:
        mail.include(tasks)
        await runner.stop()
        handle = await mail.enqueue(good.job())
        found = await mail.registry.explain(handle.id)
    assert found.code == "no_instance"
    assert found.sentence == "No runner process that takes jobs of queue 'default' is alive."


async def test_job_of_an_unknown_task_names_the_task(runner: Runner, tmp_path: Path) -> None:
    client = Runner(tmp_path / "jobs.db", clock=runner.clock)

    @client.task(name="elsewhere")
    async def elsewhere() -> None: ...

    async with client.client():
        handle = await elsewhere.enqueue()
        await until_blocked(runner, handle.id)
        found = await runner.registry.explain(handle.id)
        assert found.code == "unknown_task"
        assert found.data == {"task": "elsewhere", "known_here": False}
        assert found.sentence.startswith(
            "The runner that met it has no task 'elsewhere'; it waits for one that has: include"
        )


async def until_blocked(runner: Runner, job_id: str) -> None:
    while (await runner.registry.get(job_id)).state != "blocked":
        await run_until_idle(runner)


async def test_running_job_of_a_dead_process_is_said_to_be_abandoned(
    runner: Runner, tmp_path: Path
) -> None:
    handle = await gated.enqueue()
    await until(lambda: runner.tally.started)
    (alive,) = await runner.registry.instances()
    client = Runner(tmp_path / "jobs.db")
    async with client.client():
        assert (await client.registry.explain(handle.id)).code == "running"
        gates[0].set()
        await handle
        # As a kill leaves it: the row says running, and nobody holds the lock.
        connection = sqlite3.connect(tmp_path / "jobs.db")
        with connection:
            connection.execute(
                "UPDATE asyncjobs_jobs SET state = 'running', finished_at = NULL, instance = 'dead'"
            )
        connection.close()
        found = await client.registry.explain(handle.id)
    assert found.code == "abandoned"
    assert "(dead) is gone" in found.sentence
    assert alive.id not in found.sentence


async def test_job_that_expires_says_so_before_and_after_it_is_cancelled(
    runner: Runner, clock: ManualClock, tmp_path: Path
) -> None:
    await runner.stop()
    async with Runner(tmp_path / "jobs.db", clock=clock).client() as client:
        client.include(tasks)
        handle = await client.enqueue(good.options(expires=5).job())
        clock.advance(6)
        found = await client.registry.explain(handle.id)
        assert found.code == "expired"
        assert found.sentence.startswith("It expired at 2030-01-01 00:00:05+00:00; it is never")
        async with Runner(tmp_path / "jobs.db", clock=clock) as other:
            with pytest.raises(JobExpired):
                await other.handle(handle.id)
        found = await client.registry.explain(handle.id)
    assert found.code == "expired"
    assert "nobody had started it when it expired" in found.sentence


async def test_job_of_a_paused_queue_says_how_to_go_on(runner: Runner) -> None:
    await runner.registry.pause_queue("mail")
    found = await why(runner, await good.options(queue="mail").enqueue())
    assert found.code == "paused"
    assert found.sentence == (
        "Queue 'mail' is paused; registry.resume_queue('mail') lets its jobs start."
    )


async def test_job_of_a_full_queue_names_those_that_fill_it(runner: Runner) -> None:
    await runner.registry.set_queue("default", running=1)
    first = await gated.enqueue()
    await until(lambda: runner.tally.started)
    await good.enqueue()
    found = await why(runner, await good.enqueue())
    assert (found.code, found.data["holders"]) == ("queue_limit", (first.id,))
    assert found.sentence == (
        f"Queue 'default' may run 1 at once, and has job {first.id}, behind 1 other."
    )
    gates[0].set()


async def test_job_of_a_queue_whose_rate_is_used_up_says_until_when(
    runner: Runner, clock: ManualClock
) -> None:
    await runner.registry.set_queue("default", rate=Rate(1, per=60))
    await (await good.enqueue())
    found = await why(runner, await good.enqueue())
    assert (found.code, found.data["at"]) == ("queue_rate", clock.datetime() + timedelta(minutes=1))
    assert found.sentence == (
        "The rate of queue 'default' lets the next job start at 2030-01-01 00:01:00+00:00."
    )


async def test_job_behind_its_limit_names_those_that_hold_its_key(runner: Runner) -> None:
    first = await keyed.enqueue("canary-1178")
    await keyed.enqueue("canary-1178")
    found = await why(runner, await keyed.enqueue("canary-1178"))
    assert (found.code, found.data["holders"]) == ("key_limit", (first.id,))
    assert found.sentence == (
        f"Its key of the limit 'keyed' may run 1 at once, and has job {first.id}, behind 1 other."
    )
    assert "canary" not in repr(found)
    gates[0].set()


async def test_limit_of_none_says_so(runner: Runner) -> None:
    handle = await keyed.options(limit=Limit(running=0)).enqueue("a")
    found = await why(runner, handle)
    assert found.sentence == (
        "Its key of the limit 'keyed' is paused by running=0, which its task's Limit says."
    )


async def test_job_of_a_queue_that_may_run_none_says_how_to_go_on(runner: Runner) -> None:
    await runner.registry.set_queue("default", running=0)
    handle = await good.enqueue()
    found = await why(runner, handle)
    assert found.code == "queue_limit"
    assert found.sentence == (
        "Queue 'default' is paused by running=0; registry.set_queue('default', running=None) lets "
        "its jobs start."
    )
    await runner.registry.set_queue("default", running=None)
    assert await handle == 0


async def test_job_of_a_key_whose_rate_is_used_up_says_until_when(runner: Runner) -> None:
    await (await paced.enqueue("a"))
    found = await why(runner, await paced.enqueue("a"))
    assert found.code == "key_rate"
    assert found.sentence == (
        "Its key of the limit 'paced' lets the next job start at 2030-01-01 00:01:00+00:00."
    )


async def test_job_of_an_ordered_key_names_the_one_before_it_and_the_one_that_stopped_it(
    runner: Runner,
) -> None:
    first, second = [await lined_up.enqueue("a") for _ in range(2)]
    found = await why(runner, second)
    assert found.code == "ordered"
    assert found.sentence == (
        f"Its key of the limit 'lined up' runs in order: it comes after job {first.id}."
    )
    gates[0].set()
    await first.wait()
    found = await why(runner, second)
    assert (found.code, found.data["stopped_by"]) == ("key_stopped", first.id)
    assert f"since job {first.id} failed; retry or delete that one" in found.sentence


async def test_dead_letter_that_is_retried_later_holds_its_ordered_key_and_both_say_so(
    runner: Runner, clock: ManualClock
) -> None:
    gates[0].set()
    goes_on = lined_up.options(limit=Limit(key="tenant", ordered=True))
    dead = []
    for _ in range(2):
        dead.append(await goes_on.enqueue("a"))
        await dead[-1].wait()
        clock.advance(1)  # they come back in the order of their ids, which hold the time
    await runner.registry.retry_all(dry_run=False, rate=1 / 60, task="lined up")
    await runner.handle(dead[0].id).wait()
    head, behind = dead[1], await goes_on.enqueue("a")
    due_at = clock.datetime() + timedelta(minutes=1)
    found = await why(runner, head)
    assert (found.code, found.data["at"], found.data["limit"]) == ("retrying", due_at, "lined up")
    assert found.sentence == (
        "It has run before, and is due again at 2030-01-01 00:01:02+00:00; as the head of "
        "its key of the limit 'lined up' it holds that until then."
    )
    found = await why(runner, behind)
    assert (found.code, found.data["holds_until"]) == ("ordered", due_at)
    assert found.sentence == (
        f"Its key of the limit 'lined up' runs in order: it comes after job {head.id}, which is "
        "due at 2030-01-01 00:01:02+00:00."
    )
    clock.advance(60)
    await behind.wait()


async def test_reason_that_is_put_in_is_asked_before_the_later_ones(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await good.options(delay=60).enqueue()
    paused = Explanation(code="paused", sentence="The queue is paused.")
    monkeypatch.setattr("asyncjobs.rules.explaining.REASONS", [lambda facts: paused, *REASONS])

    assert await runner.registry.explain(handle.id) == paused
