"""Listings: every filter alone and in pairs, in pages; and counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncjobs.clock import instant_of_id, new_id, to_datetime, to_instant
from asyncjobs.errors import InvalidOption
from asyncjobs.records import Job
from asyncjobs.states import FINISHED, Event
from asyncjobs.store.base import Filter, Order, Store
from asyncjobs.store.walks import WAITING

from .kit import SECOND, Desk

SEED = 20_260_101
JOBS = 120

STATES = ["blocked", "queued", "running", "completed", "failed", "cancelled"]
CHOICES: dict[str, list[Any]] = {
    "states": [
        *[(state,) for state in (*STATES, "scheduled", "retrying")],
        ("cancelled", "failed"),
        ("queued", "retrying", "scheduled"),
        ("blocked", "retrying", "scheduled"),
        ("completed", "running"),
    ],
    "task": ["add", "mul", "strange", "none"],
    "queue": ["default", "mail", "none"],
    "tags_all": [("red",), ("none",), ("blue", "red")],
    "tags_any": [("blue",), ("blue", "red"), ("green", "none")],
    "key": ["k1", "k2", "none"],
    "trigger": ["api", "cron", "none"],
    "error": ["no", "ValueErr", "NO"],
    "arguments": [(("left", 1),), (("left", 1), ("right.name", "x"))],
    "created_after": [30, 60, 200],
    "created_before": [0, 30, 90],
    "started_after": [60],
    "started_before": [60],
    "finished_after": [60],
    "finished_before": [60],
    "run_after": [90],
    "run_before": [30],
}
TIMES = [name for name in CHOICES if name.endswith(("_after", "_before"))]


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
            arguments=random.choice(['{"left":1,"right":{"name":"x"}}', '{"left":1}', "{}"]),
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


@pytest_asyncio.fixture
async def jobs(filled: Desk) -> list[Job]:
    """All of them, newest first by acceptance, read one by one."""
    page = await filled.store.list(Filter(), limit=1_000, cursor=None)
    return [await filled.get(job.id) for job in page.jobs]


def as_filter(what: dict[str, Any], start: datetime) -> Filter:
    instants = {name: to_instant(start + timedelta(seconds=value), name)
                for name, value in what.items() if name in TIMES}  # fmt: skip
    return Filter(**{**what, **instants})


def in_state(job: Job, state: str) -> bool:
    if state == "scheduled":
        return job.attempt == 0 and job.status == state
    return state in (job.state, job.status)


def at_path(job: Job, path: str) -> Any:
    value: Any = job.arguments
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def passes(job: Job, name: str, value: Any, start: datetime) -> bool:
    """One condition in Python, the slow and plain way."""
    if name in TIMES:
        column, _, side = name.rpartition("_")
        made = {"created": _made(job), "run": job.run_at}
        instant = made[column] if column in made else getattr(job, f"{column}_at")
        bound = start + timedelta(seconds=value)
        return instant is not None and (instant >= bound if side == "after" else instant < bound)
    match name:
        case "states":
            return any(in_state(job, state) for state in value)
        case "tags_all":
            return set(value) <= set(job.tags)
        case "tags_any":
            return bool(set(value) & set(job.tags))
        case "error":
            error = job.error
            return error is not None and (value in error.type or value in error.message)
        case "arguments":
            return all(at_path(job, path) == wanted for path, wanted in value)
    return bool(getattr(job, name) == value)


SORTED: dict[Order, tuple[Callable[[Job], Any], bool]] = {
    "newest": (lambda job: job.seq, True),
    "oldest": (lambda job: job.seq, False),
    "created": (lambda job: job.id, True),
    "run_at": (lambda job: (job.run_at, job.seq), False),
    "finished_at": (lambda job: (job.finished_at, job.seq), True),
}


def default_order(what: dict[str, Any]) -> Order:
    states = set(what.get("states", ()))
    if not states and {"finished_after", "finished_before"} & set(what):
        states = set(FINISHED)
    if {"key", "tags_all", "tags_any"} & set(what):
        return "newest"
    if {"created_after", "created_before"} & set(what):
        return "created"
    if states and states <= FINISHED:
        return "finished_at"
    if states and states != {"retrying"} and states <= WAITING:
        return "run_at"
    return "newest"


def expected(
    jobs: list[Job], what: dict[str, Any], start: datetime, order: Order | None = None
) -> list[str]:
    """The listing in Python."""
    chosen = [job for job in jobs if all(passes(job, *item, start) for item in what.items())]
    key, descending = SORTED[order or default_order(what)]
    return [job.id for job in sorted(chosen, key=key, reverse=descending)]


def _made(job: Job) -> datetime:
    return to_datetime(instant_of_id(job.id))


async def all_pages(
    store: Store, what: Filter, limit: int, order: Order | None = None
) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.list(what, order=order, limit=limit, cursor=cursor, scan=True)
        assert len(page.jobs) <= limit
        assert page.cursor is None or len(page.jobs) == limit
        ids += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return ids


async def test_every_state_is_among_the_jobs_that_are_listed(filled: Desk) -> None:
    for state in STATES:
        assert await filled.listed(states=(state,)) != []
    assert await filled.listed(states=("retrying",)) != []
    assert await filled.listed(states=("scheduled",)) != []


async def test_no_filter_lists_everything_newest_first(jobs: list[Job]) -> None:
    assert len(jobs) == JOBS
    assert [job.seq for job in jobs] == sorted((job.seq for job in jobs), reverse=True)


@pytest.mark.parametrize("name", CHOICES)
async def test_each_filter_alone(filled: Desk, jobs: list[Job], name: str) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    for value in CHOICES[name]:
        what = as_filter({name: value}, start)
        assert await all_pages(filled.store, what, 1_000) == expected(jobs, {name: value}, start)
        assert await all_pages(filled.store, what, 7) == expected(jobs, {name: value}, start)


# Both engines are asked with one statement: alone and by threes on both, in pairs on one.
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_every_pair_of_filters(filled: Desk, jobs: list[Job]) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
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
async def test_pages_put_together_are_the_whole_listing(
    filled: Desk, jobs: list[Job], data: Any
) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    names = data.draw(st.sets(st.sampled_from(sorted(CHOICES)), max_size=3))
    given_ = {name: data.draw(st.sampled_from(CHOICES[name])) for name in sorted(names)}
    what = as_filter(given_, start)
    whole = await all_pages(filled.store, what, 1_000)
    assert await all_pages(filled.store, what, data.draw(st.integers(1, 30))) == whole
    assert whole == expected(jobs, given_, start)
    assert await filled.store.count_rows(what, most=1_000, scan=True) == len(whole)


@pytest.mark.parametrize("order", ["newest", "oldest", "created", "run_at", "finished_at"])
async def test_every_order_holds_over_pages_on_every_walk(
    filled: Desk, jobs: list[Job], order: Order
) -> None:
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    states = {"run_at": ("blocked", "queued"), "finished_at": ("completed", "failed")}.get(order)
    wanted: dict[str, Any] = {} if states is None else {"states": states}
    for name in ("task", "queue", "tags_all", "tags_any", "trigger", "created_after", "error"):
        for value in CHOICES[name]:
            given_ = {**wanted, name: value}
            what = as_filter(given_, start)
            whole = expected(jobs, given_, start, order)
            assert await all_pages(filled.store, what, 1_000, order) == whole
            assert await all_pages(filled.store, what, 7, order) == whole


async def test_every_walk_that_may_be_chosen_finds_the_same(
    filled: Desk, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few rows the smallest index is sorted; with many the one in order is walked."""
    start = filled.clock.datetime() - timedelta(seconds=JOBS)
    monkeypatch.setattr("asyncjobs.store.walks.SMALL_ROWS", -1)
    for names in itertools.combinations(["states", "task", "queue", "created_after"], 2):
        for values in itertools.product(*[CHOICES[name] for name in names]):
            given_ = dict(zip(names, values, strict=True))
            whole = expected(jobs, given_, start)
            assert await all_pages(filled.store, as_filter(given_, start), 7) == whole


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
    pages = await all_pages(desk.store, Filter(states=("completed",)), 3)
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
                states = () if state is None else (state,)
                listed = await filled.listed(states=states, queue=queue, task=task)
                assert await filled.count(state, queue, task) == len(listed)


@pytest.mark.parametrize(("most", "counted"), [(1, 1), (2, 2), (3, 3), (4, 3)])
async def test_derived_count_stops_at_its_most(desk: Desk, most: int, counted: int) -> None:
    await desk.insert(*[desk.job(delay=SECOND) for _ in range(3)])
    assert await desk.store.count_rows(Filter(states=("scheduled",)), most=most) == counted


async def test_other_connections_see_nothing_of_ours_as_foreign_twice(desk: Desk) -> None:
    await desk.store.changed_elsewhere()
    assert await desk.store.changed_elsewhere() is False
