"""The registry: finding, counting, and doing something about jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs import Count, IllegalMove, InvalidOption, NewJob, Runner, Tasks, UnknownJob
from asyncjobs.testing import ManualClock, run_until_idle

tasks = Tasks()


@tasks.task(name="good", queue="a")
async def good(number: int = 0) -> int:
    return number


@tasks.task(name="bad", queue="b")
async def bad() -> None:
    raise ValueError("no")


@tasks.task(name="again", queue="b", retry=lambda attempt, error: 3600)
async def again() -> None:
    raise ValueError("later")


@tasks.task(name="held", queue="a")
async def held() -> None:
    await asyncio.Event().wait()


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Runner]:
    """One that does not wait for the held job at its end."""
    async with Runner(tmp_path / "jobs.db", clock=clock, grace=0) as runner:
        yield runner


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    runner.include(tasks)


async def one_of_each(runner: Runner) -> dict[str, str]:
    """A job in every state that is shown; its id by the state."""
    jobs: dict[str, NewJob[Any]] = {
        "completed": good.options(tags=["t"], key="k", trigger="hook").job(1),
        "failed": bad.options(tags=["t"]).job(),
        "retrying": again.job(),
        "running": held.job(),
        "scheduled": good.options(delay=3600, tags=["t"]).job(2),
        "cancelled": good.options(delay=3600).job(3),
    }
    for job in jobs.values():
        await runner.enqueue(job)
    await runner.registry.cancel(jobs["cancelled"].id)
    while (
        await runner.registry.count(state="running") != 1
        or await runner.registry.count(state="failed") != 1
        or await runner.registry.count(state="completed") != 1
        or await runner.registry.count(state="retrying") != 1
    ):
        await asyncio.sleep(0)
    return {state: job.id for state, job in jobs.items()}


@pytest.mark.parametrize(
    "state", ["completed", "failed", "retrying", "running", "scheduled", "cancelled"]
)
async def test_jobs_are_listed_and_counted_by_state(runner: Runner, state: str) -> None:
    ids = await one_of_each(runner)

    page = await runner.registry.list(state=state)

    assert [job.id for job in page.jobs] == [ids[state]]
    assert [job.status for job in page.jobs] == [state]
    assert page.cursor is None
    assert await runner.registry.count(state=state) == 1


async def test_queued_covers_the_derived_states(runner: Runner) -> None:
    ids = await one_of_each(runner)

    page = await runner.registry.list(state="queued")

    assert {job.id for job in page.jobs} == {ids["retrying"], ids["scheduled"]}
    assert await runner.registry.count(state="queued") == 2


@pytest.mark.parametrize(
    ("filters", "states"),
    [
        ({"task": "good"}, {"completed", "scheduled", "cancelled"}),
        ({"queue": "b"}, {"failed", "retrying"}),
        ({"tag": "t"}, {"completed", "failed", "scheduled"}),
        ({"key": "k"}, {"completed"}),
        ({"trigger": "hook"}, {"completed"}),
        ({"tag": "t", "state": "failed"}, {"failed"}),
        ({"tag": "t", "key": "k"}, {"completed"}),
        ({"tag": "other"}, set()),
        ({"task": "good", "queue": "b"}, set()),
        ({"trigger": "api", "queue": "a"}, {"running", "scheduled", "cancelled"}),
    ],
)
async def test_conditions_all_hold(
    runner: Runner, filters: dict[str, Any], states: set[str]
) -> None:
    ids = await one_of_each(runner)

    page = await runner.registry.list(**filters)
    iterated = [job async for job in runner.registry.iterate(**filters)]

    assert {job.id for job in page.jobs} == {ids[state] for state in states}
    assert [job.id for job in iterated] == [job.id for job in page.jobs]


async def test_created_bounds_are_inclusive_and_exclusive(
    runner: Runner, clock: ManualClock
) -> None:
    start = clock.datetime()
    ids = []
    for _ in range(3):
        ids.append((await good.options(delay=9999).enqueue()).id)
        clock.advance(1)
    second = start + timedelta(seconds=1)

    after = await runner.registry.list(created_after=second)
    before = await runner.registry.list(created_before=second)
    between = await runner.registry.list(
        created_after=second, created_before=second + timedelta(seconds=1)
    )

    assert [job.id for job in after.jobs] == [ids[2], ids[1]]
    assert [job.id for job in before.jobs] == [ids[0]]
    assert [job.id for job in between.jobs] == [ids[1]]
    assert between.jobs[0].created_at == second


async def test_listings_are_newest_first(runner: Runner) -> None:
    handles = [await good.options(delay=60).enqueue(number) for number in range(5)]

    page = await runner.registry.list()

    assert [job.id for job in page.jobs] == [handle.id for handle in reversed(handles)]


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"state": "completed"},
        {"state": "queued"},
        {"tag": "t"},
        {"queue": "a"},
        {"created_after": datetime(2000, 1, 1, tzinfo=UTC)},
    ],
)
async def test_pages_follow_each_other_without_gap_or_repeat(
    runner: Runner, filters: dict[str, Any]
) -> None:
    delay = 60 if filters.get("state") == "queued" else 0
    await runner.enqueue_many([good.options(tags=["t"], delay=delay).job(n) for n in range(25)])
    await run_until_idle(runner)
    whole = await runner.registry.list(**filters)

    seen, cursor, pages = [], None, 0
    while True:
        page = await runner.registry.list(**filters, limit=10, cursor=cursor)
        seen += [job.id for job in page.jobs]
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break

    assert (len(set(seen)), pages) == (25, 3)
    assert seen == [job.id for job in whole.jobs]


async def test_iterate_crosses_pages(runner: Runner) -> None:
    await runner.enqueue_many([good.options(delay=60).job(number) for number in range(1_001)])

    found = [job async for job in runner.registry.iterate(queue="a")]

    assert len({job.id for job in found}) == 1_001


async def test_job_is_shown_whole(runner: Runner, clock: ManualClock) -> None:
    handle = await good.options(tags=["x"], meta={"a": 1}, key="k", priority=5).enqueue(7)
    await handle

    job = await runner.registry.get(handle.id)

    now = clock.datetime()
    assert (job.arguments, job.result, job.meta, job.tags) == ({"number": 7}, 7, {"a": 1}, ("x",))
    assert (job.created_at, job.run_at, job.started_at, job.finished_at) == (now, now, now, now)
    assert (job.key, job.priority, job.queue, job.claim) == ("k", 5, "a", 1)
    assert job.instance
    assert "7" not in repr(job).replace(job.id, "")


async def test_long_arguments_are_left_out_of_listings_only(runner: Runner) -> None:
    @runner.task
    async def long(text: str) -> None: ...

    handle = await long.options(delay=60).enqueue("x" * 9_000)
    (listed,) = (await runner.registry.list()).jobs

    assert listed.arguments is None
    assert (await handle.job()).arguments == {"text": "x" * 9_000}


async def test_counts_by_task_queue_and_state_agree_with_the_listing(runner: Runner) -> None:
    await one_of_each(runner)
    count = runner.registry.count

    counts = [
        await count(),
        await count(task="good"),
        await count(queue="b"),
        await count(queue="a", state="cancelled"),
        await count(task="good", queue="b"),
        await count(task="good", state="scheduled"),
    ]

    assert counts == [6, 3, 2, 1, 0, 1]
    assert all(isinstance(number, Count) and number.exact for number in counts)


def test_count_says_when_it_is_not_exact() -> None:
    assert str(Count(10_000, exact=False)) == "10,000+"
    assert str(Count(1_234)) == "1,234"
    assert Count(5) + 1 == 6


async def test_job_that_moves_while_several_states_are_counted_is_counted_once(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await good.options(delay=60).enqueue()
    await handle.cancel()
    store = runner.engine().store
    count = store.count

    async def count_then_a_move(*args: Any, **options: Any) -> int:
        counted = await count(*args, **options)
        if (await handle.job()).state == "cancelled":
            await handle.retry()
        return counted

    monkeypatch.setattr(store, "count", count_then_a_move)
    states = ["cancelled", "completed", "queued", "running"]

    assert await runner.registry.count(state=states) == 1


async def test_derived_state_is_counted_up_to_ten_thousand(runner: Runner) -> None:
    later = good.options(delay=3600)
    await runner.enqueue_many([later.job(1) for _ in range(10_000)])
    exact = await runner.registry.count(state="scheduled")
    await later.enqueue(1)

    more = await runner.registry.count(state="scheduled")

    assert (str(exact), exact.exact) == ("10,000", True)
    assert (str(more), more.exact) == ("10,000+", False)
    assert await runner.registry.count(state="queued") == 10_001


async def test_attempts_of_an_unknown_job_say_so(runner: Runner) -> None:
    with pytest.raises(UnknownJob):
        await runner.registry.attempts("no-such-job")


async def test_attempts_of_a_job_that_never_ran_are_none(runner: Runner) -> None:
    handle = await good.options(delay=60).enqueue()

    assert await runner.registry.attempts(handle.id) == []


async def test_attempts_show_the_run_that_is_under_way(runner: Runner) -> None:
    ids = await one_of_each(runner)

    (run,) = await runner.registry.attempts(ids["running"])

    assert (run.event, run.number, run.finished_at) == (None, 1, None)


async def test_check_finds_nothing_wrong(runner: Runner) -> None:
    await one_of_each(runner)

    assert await runner.registry.check() == []


async def test_retry_by_hand_starts_from_the_first_attempt(runner: Runner) -> None:
    handle = await bad.enqueue()
    await handle.wait()
    await runner.registry.retry(handle.id)
    await run_until_idle(runner)

    job = await handle.job()
    runs = await runner.registry.attempts(handle.id)
    assert (job.state, job.attempt) == ("failed", 1)
    assert [run.number for run in runs] == [1, 1]
    assert runs[0].claim < runs[1].claim == job.claim


@pytest.mark.parametrize("state", ["running", "scheduled", "retrying"])
async def test_unfinished_job_cannot_be_retried(runner: Runner, state: str) -> None:
    ids = await one_of_each(runner)

    with pytest.raises(IllegalMove, match="only finished jobs can be retried: cancel it first"):
        await runner.registry.retry(ids[state])


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "scheduled", "retrying"])
async def test_job_that_does_not_run_can_be_deleted(runner: Runner, state: str) -> None:
    ids = await one_of_each(runner)

    await runner.registry.delete(ids[state])

    with pytest.raises(UnknownJob):
        await runner.registry.get(ids[state])
    assert await runner.registry.count() == 5
    assert await runner.registry.check() == []


async def test_running_job_cannot_be_deleted(runner: Runner) -> None:
    ids = await one_of_each(runner)

    with pytest.raises(IllegalMove, match="running"):
        await runner.registry.delete(ids["running"])


@pytest.mark.parametrize("verb", ["get", "cancel", "retry", "delete", "attempts"])
async def test_unknown_job_is_named(runner: Runner, verb: str) -> None:
    with pytest.raises(UnknownJob, match="no-such-job") as caught:
        await getattr(runner.registry, verb)("no-such-job")

    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("verb", ["get", "find", "cancel", "retry", "delete", "attempts"])
@pytest.mark.parametrize("job_id", [None, 5, "", "a\x00", "\ud800", b"x", ["x"]])
async def test_what_is_no_id_is_refused(runner: Runner, verb: str, job_id: Any) -> None:
    with pytest.raises(InvalidOption, match="job_id"):
        await getattr(runner.registry, verb)(job_id)


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"state": "done"}, "state"),
        ({"state": 5}, "state"),
        ({"state": ""}, "state"),
        ({"task": 5}, "task"),
        ({"task": ""}, "task"),
        ({"queue": "a\x00"}, "queue"),
        ({"tag": ["t"]}, "tag"),
        ({"key": "\ud800"}, "key"),
        ({"trigger": b"x"}, "trigger"),
        ({"created_after": datetime(2030, 1, 1)}, "created_after"),
        ({"created_before": "2030-01-01"}, "created_before"),
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"limit": True}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": 5}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "WyJzZXEiLDFdxxx"}, "cursor"),
        ({"cursor": "WyJzZXEiLDk5OTk5OTk5OTk5OTk5OTk5OTk5OTld"}, "cursor"),
        ({"cursor": "WyJzZXEiLHRydWVd"}, "cursor"),
    ],
)
async def test_wrong_condition_is_refused_naming_it(
    runner: Runner, filters: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        await runner.registry.list(**filters)


async def test_cursor_of_another_listing_is_refused(runner: Runner) -> None:
    await runner.enqueue_many([good.job(number) for number in range(3)])
    await run_until_idle(runner)
    cursor = (await runner.registry.list(limit=1)).cursor

    with pytest.raises(InvalidOption, match="another filter"):
        await runner.registry.list(state="completed", limit=1, cursor=cursor)


@pytest.mark.parametrize("filters", [{"state": "done"}, {"task": 5}, {"queue": ""}])
async def test_wrong_condition_of_a_count_is_refused(
    runner: Runner, filters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOption, match=next(iter(filters))):
        await runner.registry.count(**filters)


@pytest.mark.parametrize(
    "bound", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
async def test_bounds_at_the_ends_of_time_are_taken(runner: Runner, bound: datetime) -> None:
    await good.options(delay=60).enqueue()
    everything = bound.year == 1

    after = await runner.registry.list(created_after=bound)
    before = await runner.registry.list(created_before=bound)

    assert (len(after.jobs), len(before.jobs)) == ((1, 0) if everything else (0, 1))


async def test_job_of_a_task_that_nobody_knows_is_set_aside_and_taken_up_again(
    runner: Runner,
) -> None:
    library = Tasks()
    stranger = library.task(name="stranger")(good.function)
    async with Runner(runner._settings.path, queues=["none"], clock=runner.clock) as other:
        other.include(library)
        handle = await other.enqueue(stranger.job(5))
    await (await good.enqueue(1))
    parked = await runner.registry.get(handle.id)

    runner.include(library)

    assert (parked.state, parked.reason) == ("blocked", "unknown_task")
    assert await runner.handle(handle.id) == 5
