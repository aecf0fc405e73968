"""Retention by task: the newest so many, or up to an age; and what it costs to keep few of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from asyncjobs import InvalidOption, Limit, Tasks
from asyncjobs.records import JobLimit
from asyncjobs.services.pruner import Pruner
from asyncjobs.states import Event
from asyncjobs.store.base import Delete
from asyncjobs.store.group_commit import GroupCommit
from asyncjobs.store.retention import PruneRetained, Retain, Rule
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import SECOND, Desk
from .test_plans import Plans, whole_walks
from .test_pruning import first_column

FAR = 10**9


@asynccontextmanager
async def pruning(store: SQLiteStore, clock: ManualClock, **options: Any) -> AsyncIterator[Pruner]:
    """A pruner at work on the store; by default nothing is too old for it."""
    commit: GroupCommit[Any] = GroupCommit(store)
    writing = asyncio.create_task(commit.run())
    tasks: Any = {task.name: task for task in options.pop("tasks", ())}
    keep = {"completed": FAR, "failed": FAR, "cancelled": FAR, **options.pop("keep", {})}
    try:
        yield Pruner(
            keep_seconds=keep, keep_journal_seconds=FAR, clock=clock, store=store, commit=commit,
            tasks=tasks, **options,
        )  # fmt: skip
    finally:
        commit.close()
        await writing


async def ended(desk: Desk, jobs: int, event: Event = Event.COMPLETED, **options: Any) -> list[str]:
    """So many jobs that ended one second after the other."""
    ids = []
    for _ in range(jobs):
        ids.append(await desk.finished(event, own_retention=True, **options))
        desk.clock.advance(1)
    return ids


async def test_newest_so_many_stay(file_store: SQLiteStore, clock: ManualClock) -> None:
    desk = Desk(file_store, clock)
    ids = await ended(desk, 5)
    others = [await desk.finished(task="mul"), await desk.finished(Event.FAILED)]
    add = Tasks().task(name="add", keep_completed=2)(print)
    async with pruning(file_store, clock, tasks=[add]) as pruner:
        await pruner.prune()
        assert set(await desk.listed()) == {*ids[-2:], *others}
        await ended(desk, 1)
        await pruner.prune_retained()
    assert await desk.count("completed", task="add") == 2
    assert await file_store.check() == []


async def test_none_can_be_kept(file_store: SQLiteStore, clock: ManualClock) -> None:
    desk = Desk(file_store, clock)
    await ended(desk, 3, Event.FAILED)
    add = Tasks().task(name="add", keep_failed=0)(print)
    async with pruning(file_store, clock, tasks=[add]) as pruner:
        await pruner.prune()
    assert await desk.count() == 0
    assert await file_store.check() == []


async def test_failed_job_that_stops_its_key_stays_until_it_is_retried(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    keys = [JobLimit("add", key, 1, ordered=True, stops=True) for key in ("runner's", "own")]
    stopping = []
    for key in keys:
        run = await desk.start(limit=key, own_retention=key is keys[1])
        await desk.end(run, Event.FAILED, limited=True)
        stopping.append(run.id)
    behind = await desk.add(limit=keys[1])
    for own in (False, True):
        await desk.finished(Event.FAILED, own_retention=own)
    clock.advance(60)
    add = Tasks().task(name="add", keep_failed=0)(print)
    async with pruning(file_store, clock, tasks=[add], keep={"failed": 1}) as pruner:
        await pruner.prune()
        assert set(await desk.listed()) == {*stopping, behind}
        assert (await desk.get(behind)).state == "blocked"
        await desk.do(Delete(stopping))
        await pruner.prune()
    assert await desk.listed() == [behind]
    assert (await desk.get(behind)).state == "queued"
    assert await file_store.check() == []


def test_task_whose_failed_jobs_stop_their_keys_keeps_one_at_least() -> None:
    tasks = Tasks()
    stop = Limit(ordered=True, after_failure="stop")
    with pytest.raises(InvalidOption, match="keep_failed=0 contradicts"):
        tasks.task(name="none", limit=stop, keep_failed=0)(print)
    tasks.task(name="one", limit=stop, keep_failed=1)(print)
    tasks.task(name="goes on", limit=Limit(ordered=True), keep_failed=0)(print)


async def test_jobs_that_ended_at_one_instant_are_told_apart(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    ids = [await desk.finished(own_retention=True) for _ in range(4)]
    add = Tasks().task(name="add", keep_completed=3)(print)
    async with pruning(file_store, clock, tasks=[add]) as pruner:
        await pruner.prune()
    assert sorted(await desk.listed()) == sorted(ids[1:])


async def test_age_of_a_task_is_shorter_or_longer_than_the_runners(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    tasks = Tasks()
    add = tasks.task(name="add", keep_cancelled=timedelta(seconds=10))(print)
    mul = tasks.task(name="mul", keep_completed=timedelta(seconds=500))(print)
    short = await ended(desk, 2, Event.CANCELLED)
    long = await ended(desk, 2, task="mul")
    plain = await desk.finished(task="read")
    clock.advance(8)  # the first of the short ones is 12 seconds old, the second one 11
    async with pruning(file_store, clock, tasks=[add, mul], keep={"completed": 100}) as pruner:
        await pruner.prune()
        assert set(await desk.listed()) == {*long, plain}
        clock.advance(100)
        await pruner.prune()
        assert set(await desk.listed()) == set(long)
        clock.advance(500)
        await pruner.prune()
    assert await desk.count() == 0
    assert short != long


async def test_other_process_keeps_to_rules_of_tasks_that_it_does_not_have(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    kept = await ended(desk, 3)
    add = Tasks().task(name="add", keep_completed=2)(print)
    async with pruning(file_store, clock, tasks=[add]) as first:
        await first.prune()
    clock.advance(50)
    async with pruning(file_store, clock, keep={"completed": 10}) as other:
        await other.prune()
    assert set(await desk.listed()) == set(kept[-2:])


async def test_task_that_takes_its_rule_back_is_under_the_runners(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await ended(desk, 3)
    clock.advance(50)
    ruled, free = Tasks().task(name="add", keep_completed=9)(print), Tasks().task(name="add")(print)
    async with pruning(file_store, clock, tasks=[ruled], keep={"completed": 10}) as pruner:
        await pruner.prune()
        assert await desk.count() == 3
        async with pruning(file_store, clock, tasks=[free], keep={"completed": FAR}) as restarted:
            await restarted.prune()
        await pruner.prune()  # hears of it
        await pruner.prune()  # looks from the beginning
    assert await desk.count() == 0


async def test_prunable_jobs_are_found_behind_thousands_that_a_rule_keeps(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await finish(desk, 2_500, own_retention=True)
    await finish(desk, 300, task="mul")
    clock.advance(20)
    add = Tasks().task(name="add", keep_completed=timedelta(days=1))(print)
    async with pruning(file_store, clock, tasks=[add], keep={"completed": 10}) as pruner:
        await pruner.prune()
    assert await desk.count(task="add") == 2_500
    assert await desk.count(task="mul") == 0


async def test_rules_are_applied_by_their_index(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await ended(desk, 3)
    rule = Rule("add", "completed", 1, None)
    await desk.do(Retain(["add"], [rule]))
    async with Plans(file_store) as plans, Plans(file_store, reading=True) as reads:
        edge = await file_store.edge_of(rule)
        assert edge is not None
        assert await desk.do(PruneRetained("add", "completed", edge, 9)) == 2
        await file_store.first_prunable("completed", since=(0, 0), before=clock.now())
    lines = [*await plans.of("asyncjobs_retained"), *await reads.of("asyncjobs_jobs")]
    assert whole_walks(lines) == []
    assert not any("TEMP B-TREE" in line for line in lines)
    assert sum("asyncjobs_retained (task=? AND state=?" in line for line in lines) == 2
    assert any("asyncjobs_finished (state=? AND finished_at>" in line for line in lines)


@pytest.mark.parametrize("value", [-1, 1.5, "7", True, timedelta(seconds=-1), 10**9])
@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_retention_that_makes_no_sense_is_refused(state: str, value: Any) -> None:
    options: dict[str, Any] = {f"keep_{state}": value}
    with pytest.raises(InvalidOption, match=f"keep_{state}"):
        Tasks().task(**options)(print)


async def test_rules_hold_from_the_first_time_that_they_are_applied(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    # The pruner's whole round comes a minute later, when thousands a second have long ended.
    desk = Desk(file_store, clock)
    ids = await ended(desk, 5)
    add = Tasks().task(name="add", keep_completed=2)(print)
    async with pruning(file_store, clock, tasks=[add]) as pruner:
        await pruner.prune_retained()
    assert set(await desk.listed()) == set(ids[-2:])


async def test_slices_grow_with_the_jobs_that_run_meanwhile(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    add = Tasks().task(name="add", keep_completed=0)(print)
    slices = []
    for flush in (0, 100, 150, 900, 9_000):
        await finish(desk, 2_100, own_retention=True)
        runs = count(flush, flush)
        async with pruning(
            file_store, clock, tasks=[add], started=lambda runs=runs: next(runs)
        ) as pruner:
            before = await slices_of(file_store)
            await pruner.prune_retained()
            slices.append(await slices_of(file_store) - before)
    # Of 200 rows; of 200; of 300; of 1,800; of 2,000 at most.
    assert slices == [11, 11, 7, 2, 2]
    assert await desk.count() == 0


async def slices_of(store: SQLiteStore) -> int:
    """How many slices have deleted something."""
    query = "SELECT count(*) FROM asyncjobs_journal WHERE kind = 'pruned'"
    (slices,) = await first_column(store, query)
    return int(slices)


async def finish(desk: Desk, jobs: int, **options: Any) -> None:
    """Insert, claim and complete many jobs, a flush at a time."""
    for start in range(0, jobs, 900):
        await desk.insert(*[desk.job(**options) for _ in range(min(900, jobs - start))])
        runs = (await desk.claim(room={"coroutine": 900})).jobs
        await desk.report(*[desk.move(run, result='"y"') for run in runs])


@pytest.mark.parametrize(
    ("jobs", "kept"),
    [(20_000, 500), pytest.param(1_000_000, 10_000, marks=pytest.mark.proof)],
)
async def test_file_stays_flat_while_many_jobs_come_and_few_are_kept(
    file_store: SQLiteStore, clock: ManualClock, jobs: int, kept: int
) -> None:
    desk = Desk(file_store, clock)
    add = Tasks().task(name="add", keep_completed=kept)(print)
    sizes = []
    async with pruning(file_store, clock, tasks=[add]) as pruner:
        # Names of deleted jobs and events stay for as long as the journal: here, ten rounds.
        pruner._keep_journal = 10 * SECOND
        for done in range(0, jobs, kept * 2):
            await finish(desk, kept * 2, own_retention=True)
            clock.advance(1)
            await pruner.prune()
            assert await desk.count() == kept
            if done >= kept * 2 * 11:  # all that stays for a while is there
                sizes += await first_column(file_store, "PRAGMA page_count")
    print(f"{jobs:,} jobs, {kept:,} kept: {min(sizes):,} to {max(sizes):,} pages")
    assert len(sizes) >= 8
    assert max(sizes) <= 1.1 * min(sizes)
