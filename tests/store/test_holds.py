"""What unique jobs hold: one at a time, judged when the next one comes."""

from __future__ import annotations

from typing import Any

import pytest

from asyncjobs.records import UNIQUE, Accepted, Hold, NewJob
from asyncjobs.states import Event
from asyncjobs.store.base import (
    Claim,
    Delete,
    Insert,
    InsertAndClaim,
    Prune,
    Requeue,
)
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import PLENTY, SECOND, TASKS, Desk
from .test_plans import Plans, whole_walks


def held(
    desk: Desk,
    while_: str = "unfinished",
    on_conflict: str = "existing",
    *,
    key: str = "k",
    seconds: int = 0,
    longest: int = 0,
    **options: Any,
) -> NewJob[Any]:
    hold = Hold(while_, on_conflict, seconds * SECOND, longest * SECOND)
    return desk.job(key=UNIQUE + key, hold=hold, **options)


def debounced(desk: Desk, **options: Any) -> NewJob[Any]:
    options = {"delay": 5 * SECOND, **options}
    return held(desk, "queued", "debounce", seconds=5, longest=12, **options)


async def check(desk: Desk) -> None:
    assert await desk.store.check() == []


async def put(desk: Desk, job: NewJob[Any]) -> Accepted | None:
    (accepted,) = await desk.insert(job)
    return accepted


@pytest.mark.parametrize("while_", ["queued", "unfinished", "window"])
async def test_job_that_waits_stands_for_the_next_one(desk: Desk, while_: str) -> None:
    first = held(desk, while_, seconds=60)
    assert await put(desk, first) is None
    assert await put(desk, held(desk, while_, seconds=60)) == Accepted(first.id, False)
    assert await desk.count() == 1
    await check(desk)


async def test_queued_ends_at_the_claim(desk: Desk) -> None:
    first = held(desk, "queued")
    await desk.insert(first)
    (run,) = (await desk.claim()).jobs
    second = held(desk, "queued")
    assert await put(desk, second) is None
    # The first one is queued again, but has started once: the second one holds.
    assert await desk.end(run, Event.RETRYING) == "done"
    assert await put(desk, held(desk, "queued")) == Accepted(second.id, False)


async def test_queued_ends_when_the_job_starts_in_the_commit_of_its_enqueue(desk: Desk) -> None:
    job = held(desk, "queued")
    await desk.do(InsertAndClaim(Insert([job]), Claim("here", TASKS, PLENTY)))
    assert await put(desk, held(desk, "queued")) is None


@pytest.mark.parametrize("event", [Event.COMPLETED, Event.FAILED])
async def test_unfinished_ends_at_the_outcome(desk: Desk, event: Event) -> None:
    first = held(desk)
    await desk.insert(first)
    (run,) = (await desk.claim()).jobs
    assert await put(desk, held(desk)) == Accepted(first.id, False)
    await desk.end(run, event)
    second = held(desk)
    assert await put(desk, second) is None
    assert await put(desk, held(desk)) == Accepted(second.id, False)
    await check(desk)


@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED, Event.RELEASED])
async def test_unfinished_goes_on_over_further_runs(desk: Desk, event: Event) -> None:
    first = held(desk)
    await desk.insert(first)
    (run,) = (await desk.claim()).jobs
    await desk.end(run, event)
    assert await put(desk, held(desk)) == Accepted(first.id, False)


async def test_unfinished_goes_on_when_the_process_dies(desk: Desk) -> None:
    first = held(desk)
    await desk.insert(first)
    await desk.claim()
    await desk.rescue()
    assert await put(desk, held(desk)) == Accepted(first.id, False)
    (run,) = (await desk.claim("other")).jobs
    await desk.end(run, instance="other")
    assert await put(desk, held(desk)) is None


async def test_window_ends_at_its_instant_however_the_job_ended(desk: Desk) -> None:
    first = held(desk, "window", seconds=10)
    await desk.insert(first)
    (run,) = (await desk.claim()).jobs
    await desk.end(run, Event.FAILED)
    desk.clock.advance(9.999_999)
    assert await put(desk, held(desk, "window", seconds=10)) == Accepted(first.id, False)
    desk.clock.advance(0.000_001)
    assert await put(desk, held(desk, "window", seconds=10)) is None


@pytest.mark.parametrize("while_", ["queued", "unfinished", "window"])
async def test_cancelled_job_holds_nothing(desk: Desk, while_: str) -> None:
    first = held(desk, while_, seconds=60)
    await desk.insert(first)
    await desk.cancel(first.id)
    assert await put(desk, held(desk, while_, seconds=60)) is None


@pytest.mark.parametrize("while_", ["queued", "unfinished", "window"])
async def test_deleted_job_leaves_nothing_behind(desk: Desk, while_: str) -> None:
    first = held(desk, while_, seconds=60)
    await desk.insert(first)
    await desk.do(Delete([first.id]))
    await check(desk)
    assert await put(desk, held(desk, while_, seconds=60)) is None


async def test_deleting_a_former_holder_takes_nothing_from_the_present_one(desk: Desk) -> None:
    first = held(desk)
    await desk.insert(first)
    await desk.cancel(first.id)
    second = held(desk)
    await desk.insert(second)
    await desk.do(Delete([first.id]))
    assert await put(desk, held(desk)) == Accepted(second.id, False)


async def test_job_stays_until_its_window_is_over_and_is_pruned_then(desk: Desk) -> None:
    first = held(desk, "window", seconds=10)
    await desk.insert(first, desk.job())
    for run in (await desk.claim()).jobs:
        await desk.end(run)
    desk.clock.advance(5)
    prune = Prune({"completed": desk.clock.now()}, journal_before=0, limit=100)
    assert await desk.do(prune) == 1
    assert await put(desk, held(desk, "window", seconds=10)) == Accepted(first.id, False)
    desk.clock.advance(5)
    assert await desk.do(prune) == 1
    assert await desk.store.get(first.id) is None
    await check(desk)


async def test_finished_job_that_is_retried_by_hand_holds_again(desk: Desk) -> None:
    first = held(desk)
    await desk.insert(first)
    (run,) = (await desk.claim()).jobs
    await desk.end(run, Event.FAILED)
    await desk.do(Requeue([first.id]))
    assert await put(desk, held(desk)) == Accepted(first.id, False)


async def test_how_long_is_said_by_the_job_that_holds(desk: Desk) -> None:
    first = held(desk, "unfinished")
    await desk.insert(first)
    await desk.claim()
    assert await put(desk, held(desk, "queued")) == Accepted(first.id, False)


async def test_keys_of_other_tasks_and_idempotency_keys_do_not_meet(desk: Desk) -> None:
    jobs = [held(desk), desk.job(key="k"), held(desk, task="mul"), held(desk, key="l")]
    assert await desk.insert(*jobs) == [None] * 4
    assert await desk.listed(key="k") == [jobs[1].id]
    assert [(await desk.get(job.id)).key for job in jobs] == [None, "k", None, None]
    await check(desk)


async def test_same_new_job_again_is_no_conflict_with_itself(desk: Desk) -> None:
    for on_conflict in ("raise", "replace"):
        job = held(desk, on_conflict=on_conflict, key=on_conflict)
        await desk.insert(job)
        assert await put(desk, job) == Accepted(job.id, False)
        assert await desk.insert(desk.job(), job) == [None, Accepted(job.id, False)]


async def test_same_finished_new_job_again_is_not_run_again(desk: Desk) -> None:
    job = held(desk)
    await desk.insert(job)
    await desk.end((await desk.claim()).jobs[0])
    assert await put(desk, job) == Accepted(job.id, False)
    assert (await desk.get(job.id)).state == "completed"


# Raise


async def test_raise_is_a_conflict_that_names_the_job(desk: Desk) -> None:
    first = held(desk)
    await desk.insert(first)
    assert await put(desk, held(desk, on_conflict="raise")) == Accepted(first.id, conflict=True)


async def test_conflict_in_a_bulk_changes_nothing_at_all(desk: Desk) -> None:
    first, other = held(desk), held(desk, key="l")
    await desk.insert(first, other)
    jobs = [
        desk.job(),
        held(desk, on_conflict="replace", key="l", priority=9),
        held(desk, on_conflict="raise"),
    ]
    answers = await desk.insert(*jobs, together=True)
    assert answers[2] == Accepted(first.id, conflict=True)
    assert await desk.count() == 2
    assert (await desk.get(other.id)).priority == 0


# Replace


async def test_replaced_job_takes_over_all_but_id_and_acceptance(desk: Desk) -> None:
    first = held(desk, arguments='{"a":1}', tags=("x", "y"), meta='{"m":1}', delay=60 * SECOND)
    await desk.insert(first)
    before = await desk.get(first.id)
    desk.clock.advance(1)
    second = held(
        desk, on_conflict="replace", arguments='{"a":2}', tags=("y", "z"), queue="other",
        priority=7, max_crashes=9, trigger="hook", options='{"timeout":3.0}',
    )  # fmt: skip

    assert await put(desk, second) == Accepted(first.id, False, replaced=True)

    job = await desk.get(first.id)
    assert await desk.store.get(second.id) is None
    assert (job.seq, job.created_at) == (before.seq, before.created_at)
    assert (job.arguments, job.meta, job.tags) == ({"a": 2}, {}, ("y", "z"))
    assert (job.queue, job.priority, job.max_crashes, job.trigger) == ("other", 7, 9, "hook")
    assert job.run_at == desk.clock.datetime()
    assert await desk.listed(tags_all=("z",)) == [first.id]
    assert await desk.listed(tags_all=("x",)) == []
    assert (await desk.count(queue="default"), await desk.count(queue="other")) == (0, 1)
    (run,) = (await desk.claim()).jobs
    assert (run.id, run.arguments, run.options) == (first.id, '{"a":2}', second.options)
    await check(desk)


async def test_replaced_job_that_is_due_keeps_its_place_in_the_line(desk: Desk) -> None:
    first = held(desk)
    await desk.insert(first)
    desk.clock.advance(5)
    other = await desk.add()
    await desk.insert(held(desk, on_conflict="replace"))
    assert [run.id for run in (await desk.claim()).jobs] == [first.id, other]


async def test_replaced_job_is_due_when_the_new_one_says(desk: Desk) -> None:
    first = held(desk)
    await desk.insert(first)
    await desk.insert(held(desk, on_conflict="replace", delay=60 * SECOND))
    assert (await desk.claim()).jobs == []
    await desk.insert(held(desk, on_conflict="replace", run_at=desk.clock.now() + SECOND))
    desk.clock.advance(1)
    assert [run.id for run in (await desk.claim()).jobs] == [first.id]


@pytest.mark.parametrize("event", [None, Event.RETRYING, Event.COMPLETED])
async def test_job_that_has_started_is_not_replaced(desk: Desk, event: Event | None) -> None:
    first = held(desk, "window", seconds=60)
    await desk.insert(first)
    (run,) = (await desk.claim()).jobs
    if event is not None:
        await desk.end(run, event)
    second = held(desk, "window", "replace", seconds=60, priority=9, arguments="{}")
    assert await put(desk, second) == Accepted(first.id, False)
    job = await desk.get(first.id)
    assert (job.priority, job.arguments) == (0, {"left": 1, "right": 2})


async def test_parked_job_is_replaced_where_it_stands(desk: Desk) -> None:
    first = held(desk, task="strange")
    await desk.insert(first)
    await desk.claim()
    assert (await desk.get(first.id)).state == "blocked"
    await desk.insert(held(desk, on_conflict="replace", task="strange", queue="other"))
    job = await desk.get(first.id)
    assert (job.state, job.reason, job.queue) == ("blocked", "unknown_task", "other")
    await check(desk)
    (run,) = (await desk.claim(tasks={"strange": "coroutine"})).jobs
    assert run.id == first.id


async def test_replaced_in_the_commit_of_a_claim_it_runs_with_what_is_new(desk: Desk) -> None:
    first = held(desk, delay=60 * SECOND)
    await desk.insert(first)
    second = held(desk, on_conflict="replace", arguments="{}")
    answers, claimed = await desk.do(InsertAndClaim(Insert([second]), Claim("here", TASKS, PLENTY)))
    assert answers == [Accepted(first.id, False, replaced=True)]
    assert claimed.left  # others may have waited for the former time
    assert [(run.id, run.arguments) for run in claimed.jobs] == [(first.id, None)]


# Within one batch


@pytest.mark.parametrize("together", [False, True])
async def test_duplicates_within_one_batch_are_one_job(desk: Desk, together: bool) -> None:
    jobs = [held(desk), desk.job(), held(desk), held(desk, key="l")]
    answers = await desk.insert(*jobs, together=together)
    assert answers == [None, None, Accepted(jobs[0].id, False), None]
    assert await desk.count() == 3
    await check(desk)


async def test_last_of_one_batch_wins_under_the_first_id(desk: Desk) -> None:
    jobs = [held(desk, on_conflict="replace", arguments=f'{{"a":{n}}}') for n in range(3)]
    answers = await desk.insert(*jobs)
    first = jobs[0].id
    assert answers == [None, Accepted(first, False), Accepted(first, False)]
    assert (await desk.get(first)).arguments == {"a": 2}
    later = [held(desk, on_conflict="replace", arguments=f'{{"b":{n}}}') for n in range(3)]
    assert await desk.insert(*later) == [Accepted(first, False, True)] * 3
    assert (await desk.get(first)).arguments == {"b": 2}
    await check(desk)


async def test_raise_within_one_batch_refuses_the_second_alone(desk: Desk) -> None:
    jobs = [held(desk, on_conflict="raise") for _ in range(2)]
    assert await desk.insert(*jobs) == [None, Accepted(jobs[0].id, conflict=True)]
    assert await desk.count() == 1


async def test_two_operations_of_one_transaction_see_each_other(desk: Desk) -> None:
    jobs = [held(desk), held(desk)]
    answers = await desk.store.write([Insert(jobs[:1]), Insert(jobs[1:])])
    assert answers == [[None], [Accepted(jobs[0].id, False)]]


# Debounce


async def test_debounced_job_is_pushed_back_up_to_its_maximum(
    desk: Desk, clock: ManualClock
) -> None:
    start = clock.now()
    first = debounced(desk)
    await desk.insert(first)
    due = []
    for at in (3, 6, 9, 11):
        clock.move_to(start + at * SECOND)
        answer = await put(desk, debounced(desk, arguments=f'{{"at":{at}}}'))
        assert answer == Accepted(first.id, False, replaced=True)
        due.append(round((await desk.get(first.id)).run_at.timestamp() - start / SECOND))
    assert due == [8, 11, 12, 12]
    clock.move_to(start + 12 * SECOND - 1)
    assert (await desk.claim()).jobs == []
    clock.advance(0.000_001)
    (run,) = (await desk.claim()).jobs
    assert (run.id, run.arguments) == (first.id, '{"at":11}')


async def test_next_debounced_job_after_the_start_is_a_new_one(desk: Desk) -> None:
    await desk.insert(debounced(desk))
    desk.clock.advance(5)
    assert len((await desk.claim()).jobs) == 1
    second = debounced(desk)
    assert await put(desk, second) is None
    desk.clock.advance(11)
    await desk.insert(debounced(desk))
    # Its own maximum, not that of the first one.
    assert (await desk.get(second.id)).run_at.timestamp() * SECOND == desk.clock.now() + SECOND


async def test_clock_that_steps_back_holds_a_debounced_job_no_longer_than_said(desk: Desk) -> None:
    first = debounced(desk)
    await desk.insert(first)
    desk.clock.move_to(desk.clock.now() - 3_600 * SECOND)
    await desk.insert(debounced(desk))
    assert (await desk.get(first.id)).run_at.timestamp() * SECOND == desk.clock.now() + 5 * SECOND


# Plans


async def test_unique_jobs_walk_no_table(file_store: SQLiteStore, clock: ManualClock) -> None:
    desk = Desk(file_store, clock)
    await desk.insert(*[held(desk, key=f"k{n}") for n in range(50)])
    async with Plans(file_store) as plans:
        await desk.insert(held(desk, key="new"), held(desk, on_conflict="replace", key="k1"))
        await desk.do(Delete([(await desk.listed(limit=1))[0]]))
        prune = Prune({"completed": clock.now() + 1}, journal_before=0, limit=100)
        await desk.do(prune)
    assert whole_walks(await plans.of("asyncjobs_jobs")) == []
    lines = await plans.of("asyncjobs_keys")
    assert [line for line in lines if line.startswith("SCAN k")] == []
    assert lines.count("SEARCH k USING PRIMARY KEY (key=? AND task=?)") == 2, lines
