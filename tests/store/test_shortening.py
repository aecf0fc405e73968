"""How long the file is: as long as it was full in the last rounds of pruning, and a little more."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest

from asyncjobs import Tasks
from asyncjobs.services.pruner import FREE_PAGES_MAX, ROUNDS_OF_USE, Pruner
from asyncjobs.store.base import Delete
from asyncjobs.store.retention import Shorten
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import Desk
from .test_pruning import first_column
from .test_retention import pruning

PAGE_BYTES = 4096


def arguments_of(pages: int) -> str:
    return f'{{"text":"{"x" * (pages * PAGE_BYTES)}"}}'


async def count_pages(store: SQLiteStore) -> int:
    (count,) = await first_column(store, "PRAGMA page_count")
    return int(count)


async def lengths(store: SQLiteStore, pruner: Pruner, rounds: int) -> list[int]:
    """How long the file is after each of so many rounds."""
    found = []
    for _ in range(rounds):
        await pruner.prune()
        found.append(await count_pages(store))
    return found


async def test_file_becomes_shorter_when_ten_rounds_have_not_needed_its_pages(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await desk.cancel(await desk.add(arguments=arguments_of(2_000)))
    long = await count_pages(file_store)
    clock.advance(20)

    async with pruning(file_store, clock, keep={"cancelled": 10}) as pruner:
        # The first ten have seen the job.
        found = await lengths(file_store, pruner, 2 * ROUNDS_OF_USE)

    assert min(found[:-1]) >= long
    used = await file_store.used_pages()
    assert used < 200
    assert found[-1] == pytest.approx(used + FREE_PAGES_MAX, abs=5)
    assert await file_store.check() == []


async def test_file_that_is_full_before_every_round_stays_as_long(
    file_store: SQLiteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.services.pruner.FREE_PAGES_MAX", 5)
    desk = Desk(file_store, clock)
    found = []
    async with pruning(file_store, clock, keep={"cancelled": 10}) as pruner:
        for _ in range(3 * ROUNDS_OF_USE):
            await desk.cancel(await desk.add(arguments=arguments_of(100)))
            clock.advance(20)
            found += await lengths(file_store, pruner, 1)

    assert await desk.count() == 0
    assert all(later >= earlier for earlier, later in pairwise(found))
    assert found[-1] <= found[0] + 20  # events and names, which stay


async def test_file_that_is_full_only_before_rules_are_applied_stays_as_long(
    file_store: SQLiteStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.services.pruner.FREE_PAGES_MAX", 5)
    desk = Desk(file_store, clock)
    add = Tasks().task(name="add", keep_completed=0)(print)
    found = []
    async with pruning(file_store, clock, tasks=[add]) as pruner:
        for _ in range(3 * ROUNDS_OF_USE):
            await desk.finished(own_retention=True, arguments=arguments_of(100))
            await pruner.prune_retained()
            assert await desk.count() == 0
            found += await lengths(file_store, pruner, 1)

    assert all(later >= earlier for earlier, later in pairwise(found))


async def test_pages_are_given_back_in_slices_and_down_to_a_length(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await desk.do(Delete([await desk.add(arguments=arguments_of(100))]))
    long = await count_pages(file_store)

    assert await desk.do(Shorten(long - 30, 20)) == 20
    assert await desk.do(Shorten(long - 30, 20)) == 10
    # Another process has come to the same length: the file is not shortened twice.
    assert await desk.do(Shorten(long - 30, 20)) == 0
    assert await count_pages(file_store) == long - 30


async def test_pages_that_hold_something_stay(file_store: SQLiteStore, clock: ManualClock) -> None:
    desk = Desk(file_store, clock)
    await desk.add(arguments=arguments_of(50))
    await desk.do(Delete([await desk.add(arguments=arguments_of(50))]))
    used = await file_store.used_pages()

    assert await desk.do(Shorten(0, 1_000)) >= 50
    assert await desk.do(Shorten(0, 1_000)) == 0
    assert await count_pages(file_store) <= used


async def test_file_with_older_tables_of_others_keeps_its_length(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What makes a file able to become shorter must be set before its first table.
    monkeypatch.setattr("asyncjobs.services.pruner.FREE_PAGES_MAX", 5)
    application = sqlite3.connect(tmp_path / "app.db")
    application.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    application.close()
    store = SQLiteStore(str(tmp_path / "app.db"), shared=True, clock=clock)
    await store.open()
    desk = Desk(store, clock)
    await desk.do(Delete([await desk.add(arguments=arguments_of(100))]))
    long = await count_pages(store)

    async with pruning(store, clock) as pruner:
        found = await lengths(store, pruner, 2 * ROUNDS_OF_USE)
    await store.close()

    assert min(found) >= long
