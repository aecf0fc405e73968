"""Prune: what is past its time goes, in slices."""

from __future__ import annotations

import asyncio
import statistics
import time
from itertools import pairwise
from typing import Any

import pytest

from asyncjobs.records import Note, ProgressValue
from asyncjobs.services.pruner import SLICE_ROWS, Pruner
from asyncjobs.states import Event
from asyncjobs.store.base import Delete, Join, Leave, Prune
from asyncjobs.store.group_commit import GroupCommit
from asyncjobs.store.journal import Annotate
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import SECOND, Desk, new_job

DAY = 86_400
LONG_AGO = -(10**15)


async def prune(
    desk: Desk, before: dict[str, int], *, journal: int = LONG_AGO, limit: int = 99
) -> Any:
    return await desk.do(Prune(before, journal, limit))


async def journal_rows(store: Any) -> int:
    rows: int = await store._reader.run(
        lambda connection: connection.execute("SELECT count(*) FROM asyncjobs_journal").fetchone()[
            0
        ]
    )
    return rows


async def test_finished_jobs_go_when_their_time_is_over(desk: Desk) -> None:
    old = await desk.finished(key="k", tags=("t",))
    desk.clock.advance(10)
    new = await desk.finished()
    assert await prune(desk, {"completed": desk.clock.now()}) == 1
    assert await desk.store.get(old) is None
    assert await desk.store.get(new) is not None


async def test_limit_itself_is_kept(desk: Desk) -> None:
    job_id = await desk.finished()
    assert await prune(desk, {"completed": desk.clock.now()}) == 0
    assert await prune(desk, {"completed": desk.clock.now() + 1}) == 1
    assert await desk.store.get(job_id) is None


async def test_each_state_has_its_own_time(desk: Desk) -> None:
    done = await desk.finished()
    failed = await desk.finished(Event.FAILED)
    cancelled = await desk.finished(Event.CANCELLED)
    now = desk.clock.now()
    desk.clock.advance(10)
    assert await prune(desk, {"completed": now, "failed": now + 1, "cancelled": now + 1}) == 2
    assert await desk.listed() == [done]
    assert await desk.store.outcomes([failed, cancelled]) == {}


async def test_unfinished_jobs_never_go(desk: Desk) -> None:
    await desk.add(delay=10**9)
    await desk.add(task="strange")
    run = await desk.start()
    desk.clock.advance(10 * DAY)
    far = desk.clock.now() + DAY * SECOND
    await prune(desk, dict.fromkeys(["completed", "failed", "cancelled"], far))
    assert await desk.count() == 3
    assert await desk.end(run) == "done"


async def test_slice_ends_at_its_limit_and_says_so(desk: Desk) -> None:
    for _ in range(3):
        await desk.finished()
    for _ in range(2):
        await desk.finished(Event.FAILED)
    far = desk.clock.now() + 1
    slices = [await prune(desk, {"completed": far, "failed": far}, limit=2) for _ in range(4)]
    assert slices == [2, 2, 1, 0]


async def test_oldest_end_goes_first(desk: Desk) -> None:
    ids = []
    for _ in range(3):
        ids.append(await desk.finished())
        desk.clock.advance(1)
    await prune(desk, {"completed": desk.clock.now()}, limit=1)
    assert await desk.listed() == ids[:0:-1]


async def test_journal_rows_past_their_time_count_as_work_done(desk: Desk) -> None:
    for _ in range(5):
        await desk.add()
    before = await journal_rows(desk.store)
    far = desk.clock.now() + 1
    assert await prune(desk, {}, journal=far, limit=3) == 3
    assert await prune(desk, {}, journal=far, limit=3) == before - 4
    assert await journal_rows(desk.store) == 1  # the last one keeps its position taken


async def test_journal_keeps_what_is_not_past_its_time(desk: Desk) -> None:
    await desk.add()
    desk.clock.advance(1)
    await desk.add()
    assert await prune(desk, {}, journal=desk.clock.now()) == 1
    assert await journal_rows(desk.store) == 1


async def test_names_that_no_event_needs_go_in_slices_too(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await desk.do(Delete([await desk.add() for _ in range(5)]))
    far = clock.now() + 1
    while await prune(desk, {}, journal=far, limit=6) == 6:
        pass
    await desk.do(Delete([await desk.add() for _ in range(25)]))

    names: list[int] = []
    while names[-1:] != [0]:
        await prune(desk, {}, journal=far, limit=2)
        names += await first_column(file_store, "SELECT count(*) FROM asyncjobs_gone")
    assert sorted(names, reverse=True) == names
    assert all(before - after <= 10 for before, after in pairwise(names))


async def test_young_journal_is_not_walked_through(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    # A walk of the whole journal would hold the writer for seconds once it has millions of rows.
    def fill(connection: Any) -> None:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO asyncjobs_journal (at, kind, jobs) SELECT ?, 'enqueued', '[]' FROM n",
            (clock.now(),),
        )

    steps = 0

    def count_steps() -> None:
        nonlocal steps
        steps += 1

    await file_store._writer.run(fill)
    await file_store._writer.run(lambda c: c.set_progress_handler(count_steps, 1_000))
    await file_store.write([Prune({}, clock.now(), SLICE_ROWS)])
    assert steps < 20  # thousands of SQLite's own instructions; a walk would take 400


async def test_pruner_works_off_everything_in_one_go(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await desk.insert(*[desk.job() for _ in range(SLICE_ROWS * 2 + 10)])
    runs = (await desk.claim(room={"coroutine": 1_000})).jobs
    await desk.report(*[desk.move(run, result="1") for run in runs])
    for _ in range(SLICE_ROWS + 5):
        await desk.add()
    clock.advance(8 * DAY)
    commit: GroupCommit[Any] = GroupCommit(file_store)
    writing = asyncio.create_task(commit.run())
    pruner = Pruner(
        keep_seconds={"completed": 7 * DAY},
        keep_journal_seconds=7 * DAY,
        clock=clock,
        store=file_store,
        commit=commit,
        tasks={},
    )
    await pruner.prune()
    commit.close()
    await writing
    assert await desk.count("completed") == 0
    assert await journal_rows(file_store) <= 3  # what the pruning itself has written
    assert await file_store.check() == []


@pytest.mark.timed
@pytest.mark.parametrize("kind", ["plain", "tagged"])
async def test_slice_holds_the_writer_for_at_most_20_ms(
    file_store: SQLiteStore, clock: ManualClock, kind: str
) -> None:
    desk = Desk(file_store, clock)
    more: dict[str, Any] = {"tags": ("a", "b"), "key": None} if kind == "tagged" else {}
    slices = 9
    jobs = [new_job(clock, arguments=f'{{"text":"{"x" * 200}"}}', **more)
            for _ in range(slices * SLICE_ROWS)]  # fmt: skip
    for start in range(0, len(jobs), 900):
        await desk.insert(*jobs[start : start + 900])
        runs = (await desk.claim(room={"coroutine": 900})).jobs
        await desk.report(*[desk.move(run, result='"y"') for run in runs])
    clock.advance(8 * DAY)
    seconds = []
    for _ in range(slices):
        began = time.perf_counter()
        assert await prune(desk, {"completed": clock.now()}, limit=SLICE_ROWS) == SLICE_ROWS
        seconds.append(time.perf_counter() - began)
    print(f"prune of {SLICE_ROWS} {kind} rows: median {statistics.median(seconds) * 1e3:.1f} ms")
    assert min(seconds) <= 0.020  # the least: the machine may be busy with other things


async def test_processes_that_ended_long_ago_are_forgotten(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    for name in ("old", "young", "alive"):
        await desk.do(Join(name, 1, "host"))
    await desk.do(Leave("old", "stop"))
    clock.advance(10)
    await desk.do(Leave("young", "stop"))

    await prune(desk, {}, journal=clock.now() - SECOND)

    assert await first_column(file_store, "SELECT id FROM asyncjobs_instances") == [
        "alive",
        "young",
    ]


async def first_column(store: SQLiteStore, query: str) -> list[Any]:
    rows = await store._reader.run(lambda connection: connection.execute(query).fetchall())
    return [row[0] for row in rows]


async def test_counters_of_queues_that_are_empty_go(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    jobs = [desk.job(queue=f"tenant-{number}") for number in range(10)]
    await desk.insert(*jobs)
    await desk.do(Delete([job.id for job in jobs[1:]]))

    await prune(desk, {})

    assert await first_column(file_store, "SELECT queue FROM asyncjobs_counts") == ["", "tenant-0"]


async def passing(desk: Desk, number: int) -> None:
    """One more value of the first job's progress, in a transaction of its own."""
    value = ProgressValue(number, number, None, None)
    await desk.do(Annotate("here", [Note(1, 1, 1, value)]))


async def test_progress_leaves_the_journal_early_and_stays_with_the_job(desk: Desk) -> None:
    run = await desk.start()
    for number in (1, 2, 3):
        await passing(desk, number)
    before = await journal_rows(desk.store)
    desk.clock.advance(1)
    now = desk.clock.now()
    assert await desk.do(Prune({}, LONG_AGO, 99, passing_before=now - SECOND)) == 0
    assert await desk.do(Prune({}, LONG_AGO, 2, passing_before=now)) == 2
    await passing(desk, 4)  # the last row of the journal stays, whatever it is
    assert await desk.do(Prune({}, LONG_AGO, 99, passing_before=now + 1)) == 1
    assert await journal_rows(desk.store) == before - 2
    job = await desk.get(run.id)
    assert job.progress is not None
    assert job.progress.done == 4


async def test_older_progress_never_takes_the_place_of_newer(desk: Desk) -> None:
    run = await desk.start()
    await passing(desk, 2)
    before = await journal_rows(desk.store)
    await passing(desk, 1)
    await passing(desk, 2)
    assert await journal_rows(desk.store) == before
    job = await desk.get(run.id)
    assert job.progress is not None
    assert job.progress.done == 2


async def test_progress_of_a_run_that_was_given_up_changes_nothing(desk: Desk) -> None:
    run = await desk.start()
    await desk.rescue()
    await passing(desk, 1)
    assert (await desk.get(run.id)).progress is None
    (again,) = (await desk.claim()).jobs
    await passing(desk, 1)
    assert (await desk.get(again.id)).progress is None


async def test_progress_goes_with_its_job(desk: Desk) -> None:
    run = await desk.start()
    await passing(desk, 1)
    await desk.end(run)
    (answer,) = await desk.do(Delete([run.id]))
    assert answer.outcome == "deleted"  # check() finds what is left hanging
