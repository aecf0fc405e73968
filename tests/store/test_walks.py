"""The decision which way a listing goes, and the budget that bounds what it costs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from asyncjobs.errors import InvalidOption, ScanRequired
from asyncjobs.states import Event, State
from asyncjobs.store.base import BULK_CONDITIONS, Filter, Order
from asyncjobs.store.sqlite import listing
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.store.walks import (
    SMALL_ROWS,
    STATES,
    UNINDEXED,
    WALKS,
    check_bounded,
    choose,
    offered,
    order_of,
    states_of,
)
from asyncjobs.testing import ManualClock

from .kit import Desk

FEW, MANY = SMALL_ROWS, SMALL_ROWS + 1
SCANNED = Filter(error="no")


def test_every_state_has_a_walk() -> None:
    assert set(STATES) == {*State, "scheduled", "retrying"}


def test_every_condition_is_served_by_a_walk_or_known_not_to_be() -> None:
    values: dict[str, Any] = {
        "states": ("failed",), "tags_all": ("t",), "tags_any": ("t",), "trigger": "cron",
        "created_after": 1, "created_before": 1, "finished_after": 1, "finished_before": 1,
        "task": "x", "queue": "x", "key": "x", "fingerprint": "f",
    }  # fmt: skip
    for name in Filter.__struct_fields__:
        if name in UNINDEXED:
            alone: dict[str, Any] = {name: 1}
            assert offered(Filter(**alone)) == [], name
        elif name not in BULK_CONDITIONS:
            walk, *_ = offered(Filter(**{name: values[name]}))  # a fingerprint implies a state
            assert walk in WALKS, name


@pytest.mark.parametrize(
    ("given", "order", "sizes", "walk"),
    [
        ({}, "newest", {}, "all"),
        ({}, "created", {}, "created"),
        ({"task": "x"}, "newest", {"task": MANY}, "task"),
        ({"task": "x", "queue": "q"}, "newest", {"task": MANY, "queue": MANY + 1}, "task"),
        ({"task": "x", "queue": "q"}, "newest", {"task": MANY + 1, "queue": MANY}, "queue"),
        ({"key": "k", "task": "x"}, "newest", {"task": 0}, "key"),
        ({"tags_all": ("t",), "task": "x"}, "newest", {"task": MANY}, "tags"),
        ({"tags_all": ("t",), "task": "x"}, "newest", {"task": FEW}, "task"),
        ({"states": ("failed",), "task": "x"}, "finished_at", {"states": MANY, "task": MANY},
         "states"),
        ({"states": ("failed",), "task": "x"}, "finished_at", {"states": MANY, "task": FEW},
         "task"),
        ({"states": ("failed",)}, "newest", {"states": MANY}, "all"),
        ({"states": ("failed",)}, "newest", {"states": FEW}, "states"),
        ({"states": ("failed",), "task": "x"}, "newest", {"states": MANY, "task": MANY}, "task"),
        ({"states": ("running",)}, "newest", {"states": MANY}, "states"),
        ({"states": ("queued",), "task": "x"}, "run_at", {"states": MANY, "task": MANY}, "states"),
        ({"trigger": "cron", "task": "x"}, "newest", {"task": MANY}, "trigger"),
        ({"trigger": "api"}, "newest", {}, "all"),
        ({"created_after": 1, "task": "x"}, "created", {"task": MANY}, "created"),
        ({"states": ("retrying", "scheduled")}, "run_at", {"states": MANY}, "states"),
    ],
)  # fmt: skip
def test_few_rows_are_sorted_and_many_walked_in_order(
    given: dict[str, Any], order: Order, sizes: dict[str, int], walk: str
) -> None:
    assert choose(Filter(**given), order, sizes) == walk


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({}, "newest"),
        ({"task": "x"}, "newest"),
        ({"states": ("running",)}, "newest"),
        ({"states": ("retrying",)}, "newest"),
        ({"states": ("failed", "cancelled")}, "finished_at"),
        ({"finished_before": 1}, "finished_at"),
        ({"states": ("queued",)}, "run_at"),
        ({"states": ("blocked", "retrying")}, "run_at"),
        ({"states": ("queued", "failed")}, "newest"),
        ({"states": ("failed",), "created_after": 1}, "created"),
        ({"states": ("failed",), "tags_any": ("t",)}, "newest"),
        ({"states": ("queued",), "key": "k"}, "newest"),
    ],
)
def test_order_that_nobody_asked_for_suits_the_filter(given: dict[str, Any], order: Order) -> None:
    assert order_of(Filter(**given)) == order


@pytest.mark.parametrize("order", ["run_at", "finished_at"])
@pytest.mark.parametrize("states", [(), ("running",), ("queued", "completed"), ("task",)])
def test_order_by_a_time_that_some_jobs_lack_is_refused(
    order: Order, states: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidOption, match=f"order='{order}' needs state="):
        order_of(Filter(states=states), order)


def test_queued_covers_scheduled_and_retrying() -> None:
    assert states_of(Filter(states=("queued", "retrying", "scheduled"))) == ("queued",)


@pytest.mark.parametrize("name", UNINDEXED)
def test_condition_that_no_index_serves_needs_another_beside_it(name: str) -> None:
    alone: dict[str, Any] = {name: 1}
    with pytest.raises(ScanRequired, match=f"no index serves {name}: add .*scan=True"):
        check_bounded(Filter(**alone))
    check_bounded(Filter(**alone, task="x"))


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search that takes more than a few steps is over its budget."""
    monkeypatch.setattr(listing, "BUDGET_SECONDS", -1.0)
    monkeypatch.setattr(listing, "STEPS", 1_000)


async def five_hundred(desk: Desk) -> None:
    await desk.insert(*[desk.job(queue=f"q{number % 2}") for number in range(500)])


@pytest.mark.usefixtures("no_time")
async def test_search_that_finds_nothing_for_too_long_is_given_up(desk: Desk) -> None:
    await five_hundred(desk)
    with pytest.raises(ScanRequired, match=r"filter by queue, error needs more than.*scan=True"):
        await desk.listed(queue="q1", error="x")
    with pytest.raises(ScanRequired):
        await desk.store.count_rows(Filter(queue="q1", error="x"), most=10)
    with pytest.raises(ScanRequired):
        await desk.store.places(Filter(queue="q1", error="x"), limit=10, cursor=None)


@pytest.mark.usefixtures("no_time")
async def test_scan_is_searched_to_its_end(desk: Desk) -> None:
    await five_hundred(desk)
    what = Filter(queue="q1", error="x")
    page = await desk.store.list(what, limit=10, cursor=None, scan=True)
    assert page.jobs == []
    assert await desk.store.count_rows(Filter(queue="q1"), most=None, scan=True) == 250


@pytest.mark.usefixtures("no_time")
async def test_page_that_an_index_gives_at_once_is_within_any_budget(desk: Desk) -> None:
    await five_hundred(desk)
    assert len(await desk.listed(queue="q1", limit=10)) == 10
    assert len(await desk.listed(states=("queued",), limit=10)) == 10


@pytest.mark.usefixtures("no_time")
async def test_store_works_on_after_a_search_was_given_up(desk: Desk) -> None:
    await five_hundred(desk)
    for _ in range(3):
        with pytest.raises(ScanRequired):
            await desk.listed(task="add", arguments=(("left", 2),))
        assert len((await desk.claim(room={"coroutine": 1})).jobs) == 1
    assert len(await desk.store.outcomes(await desk.listed(limit=5))) == 5


async def test_scan_leaves_no_connection_behind(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    before = set(threading.enumerate())
    desk = Desk(file_store, clock)
    await desk.finished(Event.FAILED)
    assert len((await file_store.list(SCANNED, limit=1, cursor=None, scan=True)).jobs) == 1
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive() or thread.daemon
