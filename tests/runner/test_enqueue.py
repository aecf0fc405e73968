"""Enqueueing: one, many, later, tagged, keyed, and repeated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    InvalidOption,
    KeyConflict,
    NewJob,
    Runner,
    RunnerClosed,
    RunnerNotStarted,
    Tasks,
    UnknownTask,
    WrongEventLoop,
    current_job,
)
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

tasks = Tasks()


@tasks.task(name="echo")
async def echo(value: int = 0) -> int:
    return value


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


async def test_enqueued_job_is_in_the_registry_when_enqueue_returns(runner: Runner) -> None:
    handle = await echo.options(delay=60).enqueue(3)

    job = await runner.registry.get(handle.id)

    assert (job.task, job.state, job.status, job.arguments) == (
        "echo",
        "queued",
        "scheduled",
        {"value": 3},
    )
    assert not handle.existing


async def test_new_job_is_stored_by_enqueue_alone(runner: Runner) -> None:
    job = echo.job(1)
    before = await runner.registry.count()

    handle = await runner.enqueue(job)

    assert before == 0
    assert handle.id == job.id
    assert await handle == 1


async def test_enqueueing_the_same_new_job_again_changes_nothing(runner: Runner) -> None:
    job = echo.job(1)
    first = await runner.enqueue(job)
    await first

    again = await runner.enqueue(job)

    assert again.existing
    assert (again.id, await again) == (first.id, 1)
    assert await runner.registry.count() == 1


async def test_the_same_new_job_twice_at_once_is_one_row(runner: Runner) -> None:
    job = echo.job(1)

    handles = await asyncio.gather(*(runner.enqueue(job) for _ in range(5)))

    assert [await handle for handle in handles] == [1] * 5
    assert await runner.registry.count() == 1


async def test_new_job_enqueued_again_after_its_deletion_runs_again(runner: Runner) -> None:
    job = echo.job(1)
    first = await runner.enqueue(job)
    await first
    await runner.registry.delete(job.id)

    second = await runner.enqueue(job)

    assert not second.existing
    assert await second == 1


async def test_many_jobs_are_enqueued_in_order_and_run(runner: Runner) -> None:
    handles = await runner.enqueue_many([echo.job(number) for number in range(50)])

    assert await asyncio.gather(*handles) == list(range(50))


@pytest.mark.parametrize("runner", [{"concurrency": 3}], indirect=True)
async def test_many_jobs_run_on_an_idle_runner_without_any_other_write(runner: Runner) -> None:
    await run_until_idle(runner)

    handles = await runner.enqueue_many(echo.job(number) for number in range(20))
    await run_until_idle(runner)

    assert await runner.registry.count(state="completed") == 20
    assert len(handles) == 20


async def test_ten_thousand_jobs_are_one_commit(runner: Runner) -> None:
    jobs = [echo.options(delay=60).job(number) for number in range(10_000)]
    await run_until_idle(runner)
    before = runner.engine().commit.flushes

    await runner.enqueue_many(jobs)

    assert await runner.registry.count() == 10_000
    assert runner.engine().commit.flushes - before <= 2  # the bulk itself, and a look for work


async def test_more_than_ten_thousand_jobs_in_one_call_are_refused(runner: Runner) -> None:
    jobs = [echo.job()] * 10_001

    with pytest.raises(InvalidOption, match="10001"):
        await runner.enqueue_many(jobs)

    assert await runner.registry.count() == 0


async def test_enqueue_many_of_nothing_is_nothing(runner: Runner) -> None:
    assert await runner.enqueue_many([]) == []


async def test_enqueue_many_stores_none_when_one_key_conflicts(runner: Runner) -> None:
    await echo.options(key="k").enqueue(1)
    jobs = [echo.job(5), echo.options(key="k").job(2), echo.job(6)]

    with pytest.raises(KeyConflict) as caught:
        await runner.enqueue_many(jobs)

    assert caught.value.job_id
    assert await runner.registry.count() == 1


async def test_enqueue_many_stores_none_when_one_job_is_of_no_task(runner: Runner) -> None:
    stranger = Tasks().task(name="stranger")(echo.function)

    with pytest.raises(UnknownTask, match="stranger"):
        await runner.enqueue_many([echo.job(1), stranger.job(2)])

    assert await runner.registry.count() == 0


async def test_enqueue_many_takes_one_new_job_twice_as_one(runner: Runner) -> None:
    job = echo.job(4)

    first, second = await runner.enqueue_many([job, job])

    assert (first.id, second.id) == (job.id, job.id)
    assert [await first, await second] == [4, 4]
    assert await runner.registry.count() == 1


@pytest.mark.parametrize("jobs", [None, 5, echo.job(1), [echo], ["id"], [None]])
async def test_enqueue_many_of_anything_else_is_refused(runner: Runner, jobs: Any) -> None:
    with pytest.raises(InvalidOption, match=r"job\("):
        await runner.enqueue_many(jobs)


@pytest.mark.parametrize("job", [None, "id", echo, echo.function])
async def test_enqueue_of_anything_else_is_refused(runner: Runner, job: Any) -> None:
    with pytest.raises(InvalidOption, match=r"job\("):
        await runner.enqueue(job)


async def test_delayed_job_waits_for_its_time(runner: Runner, clock: ManualClock) -> None:
    handle = await echo.options(delay=timedelta(minutes=1)).enqueue(1)

    clock.advance(59.999_999)
    await run_until_idle(runner)
    early = (await handle.job()).status
    clock.advance(0.000_001)
    await run_until_idle(runner)

    assert (early, (await handle.job()).status) == ("scheduled", "completed")


async def test_job_for_an_instant_waits_for_it(runner: Runner, clock: ManualClock) -> None:
    zone = timezone(timedelta(hours=2))
    at = (clock.datetime() + timedelta(hours=1)).astimezone(zone)
    handle = await echo.options(at=at).enqueue(1)

    await run_until_idle(runner)
    early = await handle.job()
    clock.move_to(at)
    await run_until_idle(runner)

    assert (early.status, early.run_at) == ("scheduled", at)
    assert await handle == 1


async def test_job_for_a_past_instant_runs_at_once(runner: Runner, clock: ManualClock) -> None:
    handle = await echo.options(at=clock.datetime() - timedelta(days=400)).enqueue(1)

    assert await handle == 1


async def test_delay_counts_from_acceptance_not_from_when_the_job_was_made(
    runner: Runner, clock: ManualClock
) -> None:
    job = echo.options(delay=10).job(1)
    clock.advance(60)

    handle = await runner.enqueue(job)

    assert (await handle.job()).run_at == clock.datetime() + timedelta(seconds=10)


@pytest.mark.parametrize("runner", [{"concurrency": 1}], indirect=True)
async def test_larger_priorities_start_sooner(runner: Runner) -> None:
    order: list[int] = []

    @runner.task
    async def note(priority: int) -> None:
        order.append(priority)

    priorities = [0, -100, 100, 5, -1, 0]
    await runner.enqueue_many([note.options(priority=p).job(p) for p in priorities])
    await run_until_idle(runner)

    assert order == [100, 5, 0, 0, -1, -100]


async def test_options_of_one_job_replace_those_of_its_task(runner: Runner) -> None:
    @runner.task(queue="slow", priority=7, max_crashes=9)
    async def job() -> None: ...

    plain = await (await job.options(delay=1).enqueue()).job()
    other = await (
        await job.options(delay=1, queue="fast", priority=-7, on_crash="fail").enqueue()
    ).job()

    assert (plain.queue, plain.priority, plain.max_crashes) == ("slow", 7, 9)
    assert (other.queue, other.priority, other.max_crashes) == ("fast", -7, 1)


async def test_tags_and_meta_are_kept_with_the_job(runner: Runner) -> None:
    meta = {"user": 7, "nested": {"list": [1, None, "é"]}}

    handle = await echo.options(tags=["a", "b", "a"], meta=meta).enqueue()

    job = await handle.job()
    assert (job.tags, job.meta) == (("a", "b"), meta)


async def test_trigger_is_api_unless_given(runner: Runner) -> None:
    plain = await echo.enqueue()
    named = await echo.options(trigger="webhook 17").enqueue()

    assert (await plain.job()).trigger == "api"
    assert (await named.job()).trigger == "webhook 17"


async def test_trigger_of_a_job_enqueued_inside_a_job_names_its_parent(runner: Runner) -> None:
    @runner.task
    async def parent() -> str:
        return (await echo.enqueue()).id

    handle = await parent.enqueue()
    child = await runner.registry.get(await handle)

    assert child.trigger == f"job:{handle.id}"


async def test_same_key_with_the_same_arguments_gives_the_existing_job(runner: Runner) -> None:
    first = await echo.options(key="order 1").enqueue(1)
    await first

    again = await echo.options(key="order 1").enqueue(1)

    assert (again.id, again.existing, await again) == (first.id, True, 1)
    assert await runner.registry.count() == 1


async def test_same_key_twice_in_one_flush_is_one_job(runner: Runner) -> None:
    keyed = echo.options(key="k")

    handles = await asyncio.gather(*(keyed.enqueue(1) for _ in range(4)))

    assert len({handle.id for handle in handles}) == 1
    assert [handle.existing for handle in handles].count(False) == 1


async def test_same_key_with_other_arguments_conflicts_and_names_the_job(runner: Runner) -> None:
    first = await echo.options(key="order 1").enqueue(1)

    with pytest.raises(KeyConflict, match=f"{first.id}, .* use another key, or that job") as caught:
        await echo.options(key="order 1").enqueue(2)

    assert caught.value.job_id == first.id
    assert await runner.registry.count() == 1


async def test_keys_of_different_tasks_do_not_meet(runner: Runner) -> None:
    @runner.task
    async def other(value: int) -> int:
        return -value

    one = await echo.options(key="k").enqueue(1)
    two = await other.options(key="k").enqueue(1)

    assert [await one, await two] == [1, -1]


async def test_key_is_free_again_when_its_job_is_deleted(runner: Runner) -> None:
    first = await echo.options(key="k").enqueue(1)
    await first
    await first._runner.registry.delete(first.id)

    second = await echo.options(key="k").enqueue(2)

    assert (second.existing, await second) == (False, 2)


async def test_key_of_unordered_arguments_is_the_same_in_any_order(runner: Runner) -> None:
    @runner.task
    async def sets(names: set[str], counts: dict[str, int]) -> int:
        return len(names)

    first = await sets.options(key="k").enqueue({"a", "b", "c"}, {"x": 1, "y": 2})
    again = await sets.options(key="k").enqueue({"c", "b", "a"}, {"y": 2, "x": 1})

    assert again.id == first.id


async def test_cancelled_enqueue_leaves_nothing_half_done(runner: Runner) -> None:
    job = echo.job(1)
    call = asyncio.ensure_future(runner.enqueue(job))
    await asyncio.sleep(0)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    handle = await runner.enqueue(job)

    assert await handle == 1
    assert await runner.registry.count() == 1
    assert await runner.registry.check() == []


async def test_enqueue_in_a_runner_of_another_task_is_refused(runner: Runner) -> None:
    stranger = Tasks().task(name="stranger")(echo.function)

    with pytest.raises(UnknownTask, match="include"):
        await runner.enqueue(stranger.job(1))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"delay": "1"}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": timedelta(days=-1)}, "delay"),
        ({"delay": timedelta(days=40_000)}, "delay"),
        ({"at": datetime(2030, 1, 1)}, "at"),
        ({"at": "2030-01-01"}, "at"),
        ({"at": 5}, "at"),
        ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "delay and at"),
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": ""}, "queue"),
        ({"key": ""}, "key"),
        ({"key": "x" * 1025}, "key"),
        ({"key": 5}, "key"),
        ({"key": "a\ud800"}, "key"),
        ({"tags": "a"}, "tags"),
        ({"tags": [5]}, "tags"),
        ({"tags": None}, "tags"),
        ({"tags": [str(n) for n in range(33)]}, "tags"),
        ({"meta": [1]}, "meta"),
        ({"meta": {1: 2}}, "meta"),
        ({"meta": {"a": float("nan")}}, "meta"),
        ({"meta": {"a": object()}}, "meta"),
        ({"meta": {"a": "\ud800"}}, "meta"),
        ({"meta": {"a": "x" * 70_000}}, "meta"),
        ({"trigger": ""}, "trigger"),
        ({"trigger": "x" * 256}, "trigger"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -5}, "timeout"),
        ({"retry": 3}, "retry"),
        ({"retry": lambda attempt, error: 1}, "retry"),
        ({"on_crash": ""}, "on_crash"),
        ({"max_crashes": 0}, "max_crashes"),
        ({"on_crash": "fail", "max_crashes": 3}, "max_crashes"),
    ],
)
def test_wrong_option_of_a_job_is_refused_when_it_is_given(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        echo.options(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 100},
        {"priority": -100},
        {"key": "x" * 1024},
        {"tags": [str(number) for number in range(32)]},
        {"tags": ["x" * 255]},
        {"delay": 100 * 365 * 86_400},
        {"delay": 0},
        {"meta": {}},
        {"max_crashes": 1000},
    ],
)
async def test_options_at_their_limits_are_stored(runner: Runner, options: dict[str, Any]) -> None:
    handle = await echo.options(**options).enqueue(1)

    job = await handle.job()

    assert job.priority == options.get("priority", 0)
    assert job.key == options.get("key")


async def test_enqueue_of_a_task_beside_its_arguments_says_what_it_takes(runner: Runner) -> None:
    with pytest.raises(InvalidOption, match=r"one job: pass task\.job\(\.\.\.\)"):
        await runner.enqueue(echo, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"needs what task\.job\(\.\.\.\) gives, got AsyncTask"):
        await runner.enqueue(echo)  # type: ignore[arg-type]


async def test_wrong_job_of_a_bulk_is_named_by_its_place(runner: Runner) -> None:
    @Tasks().task(name="stranger")
    async def stranger() -> None: ...

    with pytest.raises(InvalidOption, match=r"^jobs\[1\] .*got int"):
        await runner.enqueue_many([echo.job(1), 5])  # type: ignore[arg-type]
    with pytest.raises(UnknownTask, match=r"^jobs\[2\] .*'stranger'"):
        await runner.enqueue_many([echo.job(1), echo.job(2), stranger.job()])
    assert await runner.registry.count() == 0


async def test_job_in_a_thread_enqueues_through_the_runners_loop(runner: Runner) -> None:
    @runner.task
    def parent() -> int:
        enqueueing = asyncio.run_coroutine_threadsafe(echo.enqueue(6), runner.loop)
        handle = enqueueing.result()
        return asyncio.run_coroutine_threadsafe(handle.result(), runner.loop).result()

    handle = await parent.enqueue()

    assert await handle == 6
    page = await runner.registry.list(task=echo.name)
    assert [job.trigger for job in page.jobs] == [f"job:{handle.id}"]


async def test_enqueue_in_a_loop_of_a_thread_names_the_way_to_the_runners(runner: Runner) -> None:
    async def elsewhere() -> None:
        with pytest.raises(WrongEventLoop, match=r"run_coroutine_threadsafe\(.*runner\.loop\)"):
            await echo.enqueue(1)

    await asyncio.to_thread(asyncio.run, elsewhere())


def test_runner_without_a_loop_says_that_it_is_not_started() -> None:
    with pytest.raises(RunnerNotStarted):
        _ = Runner("never.db").loop


async def test_runner_that_was_never_started_takes_no_job(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "other.db")
    runner.include(tasks)

    with pytest.raises(RunnerNotStarted, match="async with runner"):
        await runner.enqueue(echo.job(1))
    with pytest.raises(RunnerNotStarted):
        await runner.enqueue_many([echo.job(1)])
    assert not (tmp_path / "other.db").exists()


async def test_runner_that_has_stopped_takes_no_job(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "other.db")
    runner.include(tasks)
    async with runner:
        pass

    with pytest.raises(RunnerClosed, match="stopped"):
        await runner.enqueue(echo.job(1))


async def test_enqueue_during_the_stop_is_either_stored_or_refused(tmp_path: Path) -> None:
    accepted: list[str] = []
    runner = Runner(tmp_path / "other.db", grace=0.1)
    runner.include(tasks)
    await runner.start()

    async def enqueue_until_refused() -> None:
        while True:
            accepted.append((await runner.enqueue(echo.options(delay=60).job(1))).id)

    enqueueing = asyncio.create_task(enqueue_until_refused())
    await until(lambda: accepted)
    await runner.stop()
    with pytest.raises(RunnerClosed):
        await asyncio.wait_for(enqueueing, 5)

    async with runner:
        assert await runner.registry.count() == len(accepted)


async def test_every_enqueue_inside_the_stop_window_is_answered(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "other.db", grace=0.1)
    runner.include(tasks)
    await runner.start()
    stopping = asyncio.create_task(runner.stop())
    calls: list[asyncio.Task[Any]] = []

    while not stopping.done():
        calls.append(asyncio.create_task(runner.enqueue(echo.options(delay=60).job(1))))
        await asyncio.sleep(0)
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)

    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, RunnerClosed) for answer in refused)
    async with runner:
        assert await runner.registry.count() == len(answers) - len(refused)


def test_repr_of_a_new_job_shows_no_argument() -> None:
    job: NewJob[int] = echo.options(key="k").job(987_654)

    assert "987654" not in repr(job)
    assert "987654" not in str(job)


async def test_job_enqueued_inside_a_job_carries_its_own_context(runner: Runner) -> None:
    @runner.task
    async def child() -> str:
        return current_job().trigger

    @runner.task
    async def parent() -> str:
        return await (await child.enqueue())

    handle = await parent.enqueue()

    assert await handle == f"job:{handle.id}"
