"""Listings: every filter alone and in pairs, in pages; and counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncjobs.clock import new_id, to_instant
from asyncjobs.errors import InvalidOption
from asyncjobs.records import Job
from asyncjobs.states import FINISHED, Event
from asyncjobs.store.base import Filter, Store

from .kit import SECOND, Desk

SEED = 20_260_101
JOBS = 120

STATES = ["blocked", "queued", "running", "completed", "failed", "cancelled"]
CHOICES: dict[str, list[Any]] = {
    "state": [*STATES, "scheduled", "retrying"],
    "task": ["add", "mul", "strange", "none"],
    "queue": ["default", "mail", "none"],
    "tag": ["red", "blue", "none"],
    "key": ["k1", "k2", "none"],
    "trigger": ["api", "cron", "none"],
    "created_after": [30, 60, 200],
    "created_before": [0, 30, 90],
}


@pytest_asyncio.fixture
async def filled(desk: Desk) -> Desk:
    """A hundred and twenty jobs in every state, made over two minutes; the seed is fixed."""
    random = Random(SEED)
    print("seed", SEED)
    for number in range(JOBS):
        desk.clock.advance(1)
        await desk.add(
            # Made at times that are not the order of acceptance, as by several processes.
            id=new_id(desk.clock.now() - random.randrange(5) * SECOND),
            task=random.choice(["add", "mul", "read", "strange"]),
            queue=random.choice(["default", "mail"]),
            tags=tuple(random.sample(["red", "blue", "green"], random.randrange(3))),
            key=f"k{number}" if random.random() < 0.3 else None,
            trigger=random.choice(["api", "api", "cron"]),
            delay=random.choice([None, None, None, 3_600 * SECOND]),
        )
        if number % 10 == 9:
            for run in (await desk.claim()).jobs:
                event = random.choice([*Event.__members__.values()])
                if event in (Event.COMPLETED, Event.FAILED, Event.RETRYING, Event.SNOOZED):
                    due: dict[str, Any] = {"run_at": desk.clock.now() + 3_600 * SECOND}
                    more = due if event in (Event.RETRYING, Event.SNOOZED) else {}
                    await desk.end(run, event, **more)
                elif event is Event.CANCELLED:
                    await desk.end(run, event, reason="user")
    return desk


async def everything(store: Store) -> list[Job]:
    """All jobs, newest first by acceptance, read one by one."""
    page = await store.list(Filter(), limit=1_000, cursor=None)
    jobs = [await store.get(job.id) for job in page.jobs]
    return [job for job in jobs if job is not None]


def as_filter(what: dict[str, Any], start: Any) -> Filter:
    instants = {name: to_instant(start + timedelta(seconds=value), name)
                for name, value in what.items() if name.startswith("created")}  # fmt: skip
    return Filter(**{**what, **instants})


def expected(jobs: list[Job], what: dict[str, Any], start: Any) -> list[str]:
    """The same in Python, the slow and plain way."""
    passes: dict[str, Callable[[Job, Any], bool]] = {
        "state": lambda job, value: (
            value == job.state
            or (value == "retrying" and job.status == value)
            or (
                value == "scheduled"
                and (job.state, job.attempt) == ("queued", 0)
                and job.status == value
            )
        ),
        "task": lambda job, value: job.task == value,
        "queue": lambda job, value: job.queue == value,
        "tag": lambda job, value: value in job.tags,
        "key": lambda job, value: job.key == value,
        "trigger": lambda job, value: job.trigger == value,
        "created_after": lambda job, value: _made(job) >= start + timedelta(seconds=value),
        "created_before": lambda job, value: _made(job) < start + timedelta(seconds=value),
    }
    chosen = [job for job in jobs if all(passes[name](job, value) for name, value in what.items())]
    ranged = "created_after" in what or "created_before" in what
    if "key" in what or "tag" in what:
        pass
    elif ranged:
        chosen.sort(key=lambda job: job.id, reverse=True)
    elif what.get("state") in FINISHED:
        chosen.sort(key=lambda job: (job.finished_at, job.seq), reverse=True)
    return [job.id for job in chosen]


def _made(job: Job) -> Any:
    from asyncjobs.clock import instant_of_id, to_datetime

    return to_datetime(instant_of_id(job.id))


async def all_pages(store: Store, what: Filter, limit: int) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.list(what, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        assert page.cursor is None or len(page.jobs) == limit
        ids += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return ids


async def test_every_state_is_among_the_jobs_that_are_listed(filled: Desk) -> None:
    for state in STATES:
        assert await filled.listed(state=state) != []
    assert await filled.listed(state="retrying") != []
    assert await filled.listed(state="scheduled") != []


async def test_no_filter_lists_everything_newest_first(filled: Desk) -> None:
    jobs = await everything(filled.store)
    assert len(jobs) == JOBS
    assert [job.seq for job in jobs] == sorted((job.seq for job in jobs), reverse=True)


@pytest.mark.parametrize("name", CHOICES)
async def test_each_filter_alone(filled: Desk, name: str) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    jobs = await everything(filled.store)
    for value in CHOICES[name]:
        what = as_filter({name: value}, start)
        assert await all_pages(filled.store, what, 1_000) == expected(jobs, {name: value}, start)
        assert await all_pages(filled.store, what, 7) == expected(jobs, {name: value}, start)


async def test_every_pair_of_filters(filled: Desk) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    jobs = await everything(filled.store)
    for one, other in itertools.combinations(CHOICES, 2):
        for values in itertools.product(CHOICES[one], CHOICES[other]):
            given_ = dict(zip((one, other), values, strict=True))
            what = as_filter(given_, start)
            assert await all_pages(filled.store, what, 1_000) == expected(jobs, given_, start)


@settings(
    max_examples=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_pages_put_together_are_the_whole_listing(filled: Desk, data: Any) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    names = data.draw(st.sets(st.sampled_from(sorted(CHOICES)), max_size=3))
    given_ = {name: data.draw(st.sampled_from(CHOICES[name])) for name in sorted(names)}
    what = as_filter(given_, start)
    whole = await all_pages(filled.store, what, 1_000)
    assert await all_pages(filled.store, what, data.draw(st.integers(1, 30))) == whole
    assert whole == expected(await everything(filled.store), given_, start)
    assert await filled.store.count_derived(what, most=1_000) == len(whole)


async def test_jobs_that_come_between_two_pages_do_not_disturb_them(desk: Desk) -> None:
    old = [await desk.add() for _ in range(4)]
    page = await desk.store.list(Filter(), limit=2, cursor=None)
    await desk.add()
    rest = await desk.store.list(Filter(), limit=9, cursor=page.cursor)
    assert [job.id for job in page.jobs + rest.jobs] == old[::-1]


async def test_last_page_that_is_just_full_has_no_cursor(desk: Desk) -> None:
    await desk.insert(desk.job(), desk.job())
    page = await desk.store.list(Filter(), limit=2, cursor=None)
    assert (len(page.jobs), page.cursor) == (2, None)


async def test_jobs_that_ended_at_the_same_instant_are_paged_without_loss(desk: Desk) -> None:
    await desk.insert(*[desk.job() for _ in range(10)])
    await desk.report(*[desk.move(run) for run in (await desk.claim()).jobs])
    pages = await all_pages(desk.store, Filter(state="completed"), 3)
    assert len(set(pages)) == 10


async def test_same_key_of_two_tasks_lists_both(desk: Desk) -> None:
    one = await desk.add(key="k")
    two = await desk.add(key="k", task="mul")
    assert await desk.listed(key="k") == [two, one]
    assert await desk.listed(key="k", task="add") == [one]


async def test_listing_leaves_out_what_is_long(desk: Desk) -> None:
    long = await desk.add(arguments=f'{{"text":"{"x" * 9_000}"}}')
    run = (await desk.claim()).jobs[0]
    await desk.end(run, Event.FAILED)
    (job,) = (await desk.store.list(Filter(), limit=1, cursor=None)).jobs
    assert (job.id, job.arguments) == (long, None)
    assert job.error is not None
    assert (job.error.message, job.error.traceback) == ("no", "")


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense!",
        "",
        "ü",
        "\ud800",
        "e30",  # {}
        "W10",  # []
        "WzFd",  # [1]
        "WyJzZXEiXQ",  # ["seq"]
        "WyJzZXEiLCAiYSJd",  # ["seq", "a"]
        "WyJpZCIsICJhIl0",  # ["id", "a"]: of another listing
        "WyJzZXEiLCAtOTIyMzM3MjAzNjg1NDc3NTgwOV0",  # ["seq", -(2**63) - 1]
        "WyJzZXEiLCAxODQ0Njc0NDA3MzcwOTU1MTYxNV0",  # ["seq", 2**64 - 1]
    ],
)
async def test_cursor_that_was_not_given_out_is_refused(desk: Desk, cursor: str) -> None:
    await desk.add()
    with pytest.raises(InvalidOption, match="cursor"):
        await desk.listed(cursor=cursor)


async def test_counts_by_state_queue_and_task_agree_with_the_listing(filled: Desk) -> None:
    for state in [None, *STATES]:
        for queue in [None, "default", "mail", "none"]:
            for task in [None, "add", "none"]:
                listed = await filled.listed(state=state, queue=queue, task=task)
                assert await filled.count(state, queue, task) == len(listed)


@pytest.mark.parametrize(("most", "counted"), [(1, 1), (2, 2), (3, 3), (4, 3)])
async def test_derived_count_stops_at_its_most(desk: Desk, most: int, counted: int) -> None:
    await desk.insert(*[desk.job(delay=SECOND) for _ in range(3)])
    assert await desk.store.count_derived(Filter(state="scheduled"), most=most) == counted


async def test_other_connections_see_nothing_of_ours_as_foreign_twice(desk: Desk) -> None:
    await desk.store.changed_elsewhere()
    assert await desk.store.changed_elsewhere() is False
