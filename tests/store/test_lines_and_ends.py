"""Limits by key where something else than a run ends or moves a job: no permit stays behind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from asyncjobs.records import Hold, JobLimit
from asyncjobs.states import Event
from asyncjobs.store.base import Delete, Disown, Prune, Requeue
from asyncjobs.store.expiry import Expire
from asyncjobs.store.queueing import SetQueue
from asyncjobs.store.retention import PruneRetained

from .kit import SECOND, TASKS, Desk
from .rota import Rota
from .test_admitting import STOPS, add, claimed, end, ids, rows_of

ONE = JobLimit("add", "k", 1)
LIMITED = '{"limited":true}'
STRANGE = {"strange": "coroutine"}
LIMITED_NIGHT = '{"window":{"opens":"22:00","closes":"06:00"},"limited":true}'


async def test_job_that_expires_in_its_line_is_passed_over(desk: Desk) -> None:
    (first,) = await add(desk, 1, ONE)
    (impatient,) = await add(desk, 1, ONE, expires=SECOND)
    (last,) = await add(desk, 1, ONE)
    (run,) = await claimed(desk)
    desk.clock.advance(1)
    assert [job_id for job_id, _ in await desk.do(Expire(9))] == [impatient]
    job = await desk.get(impatient)
    assert (run.id, job.state, job.reason) == (first, "cancelled", "expired")
    await desk.report(end(desk, run))
    assert ids(await claimed(desk)) == [last]


async def test_job_that_expires_with_a_permit_gives_it_to_the_next(desk: Desk) -> None:
    await add(desk, 1, ONE, expires=SECOND)
    (patient,) = await add(desk, 1, ONE)
    desk.clock.advance(1)
    await desk.do(Expire(9))
    assert ids(await claimed(desk)) == [patient]


async def test_claim_that_finds_a_permit_expired_says_to_look_again_at_once(desk: Desk) -> None:
    (late,) = await add(desk, 1, ONE, expires=SECOND)
    (patient,) = await add(desk, 1, ONE, priority=-5)
    desk.clock.advance(1)
    result = await desk.claim()
    assert ([job_id for job_id, _ in result.expired], result.jobs) == ([late], [])
    assert result.next_run_at == desk.clock.now()
    assert ids(await claimed(desk)) == [patient]


async def test_run_that_was_disowned_and_cancelled_gives_its_permit_back(desk: Desk) -> None:
    cancelled, behind = await add(desk, 2, ONE)
    await claimed(desk)
    await desk.cancel(cancelled)
    assert await desk.do(Disown("here", frozenset())) == 1
    assert (await desk.get(cancelled)).state == "cancelled"
    assert ids(await claimed(desk)) == [behind]


@pytest.mark.parametrize("by_rule", [False, True])
async def test_job_that_stops_its_key_is_not_pruned(desk: Desk, *, by_rule: bool) -> None:
    failed, behind = await add(desk, 2, STOPS, own_retention=by_rule)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    desk.clock.advance(1)
    now = desk.clock.now()
    if by_rule:
        assert await desk.do(PruneRetained("add", "failed", (now, 0), 9)) == 0
    else:
        assert await desk.do(Prune({"failed": now}, 0, 9)) == 0
    assert await claimed(desk) == []
    await desk.do(Delete([failed]))
    assert ids(await claimed(desk)) == [behind]


async def test_dead_letters_that_come_back_one_a_second_line_up_when_they_are_due(
    desk: Desk,
) -> None:
    jobs = await add(desk, 3, JobLimit("add", "k", 3))
    runs = await claimed(desk)
    await desk.report(*[end(desk, run, Event.FAILED) for run in runs])
    await desk.do(Requeue(jobs, first_at=desk.clock.now(), gap=SECOND))
    due = {job_id: (await desk.get(job_id)).run_at for job_id in jobs}
    jobs.sort(key=lambda job_id: due[job_id])
    (new,) = await add(desk, 1, JobLimit("add", "k", 3))
    result = await desk.claim()
    assert ids(result.jobs) == [jobs[0], new]
    assert result.next_run_at == desk.clock.now() + SECOND
    desk.clock.advance(1)
    assert ids(await claimed(desk)) == [jobs[1]]
    desk.clock.advance(1)
    assert await claimed(desk) == []  # the key is full
    await desk.report(end(desk, result.jobs[0]))
    assert ids(await claimed(desk)) == [jobs[2]]


async def test_dead_letter_with_other_arguments_leaves_the_key_that_it_had_stopped(
    desk: Desk,
) -> None:
    failed, behind = await add(desk, 2, STOPS)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    other = JobLimit("add", "other", 1)
    (there,) = await add(desk, 1, other)
    await desk.do(Requeue([failed], '{"left":2}', other))
    runs = await claimed(desk)
    assert ids(runs) == [behind, there]
    await desk.report(*[end(desk, run) for run in runs])
    assert ids(await claimed(desk)) == [failed]


@pytest.mark.parametrize("rate", [None, (1, 60 * SECOND, 1)])
@pytest.mark.parametrize("behind_it", ["queued", "delayed", "retrying", "parked"])
async def test_job_that_is_retried_by_hand_comes_before_a_later_one_that_has_its_turn(
    desk: Desk, behind_it: str, rate: tuple[int, int, int] | None
) -> None:
    line = JobLimit("add", "k", 1, rate, ordered=True)
    (first,) = await add(desk, 1, line)
    task = "strange" if behind_it == "parked" else "add"
    delay = 3_600 * SECOND if behind_it == "delayed" else None
    (second,) = await add(desk, 1, line, task=task, delay=delay)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    desk.clock.advance(60)
    if behind_it == "retrying":
        (run,) = await claimed(desk)
        due = desk.clock.now() + 3_600 * SECOND
        await desk.report(end(desk, run, Event.RETRYING, run_at=due))
        desk.clock.advance(60)
    await desk.claim(room={"coroutine": 0 if behind_it == "queued" else 1})
    await desk.do(Requeue([first]))
    (run,) = await claimed(desk)
    job = await desk.get(second)
    assert (run.id, job.state, job.reason) == (first, "blocked", "limit")
    assert await desk.store.check() == []
    await desk.report(end(desk, run))
    desk.clock.advance(60)
    known, late = {**TASKS, **STRANGE}, behind_it in ("delayed", "retrying")
    assert ids(await claimed(desk, tasks=known)) == ([] if late else [second])
    desk.clock.advance(3_600)
    assert ids(await claimed(desk, tasks=known)) == ([second] if late else [])


async def test_job_that_is_retried_by_hand_recalls_nothing_that_stands_before_it(
    desk: Desk,
) -> None:
    first, second = await add(desk, 2, JobLimit("add", "k", 1, ordered=True))
    await desk.cancel(second)
    await desk.do(Requeue([second]))
    assert [(await desk.get(job)).state for job in (first, second)] == ["queued", "blocked"]


@pytest.mark.parametrize("limit", [None, STOPS])
async def test_dead_letter_whose_key_stays_goes_first_again(
    desk: Desk, limit: JobLimit | None
) -> None:
    failed, _ = await add(desk, 2, STOPS)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    await desk.do(Requeue([failed], '{"left":2}', limit))
    assert ids(await claimed(desk)) == [failed]
    names = await rows_of(desk, "SELECT name, key FROM asyncjobs_limits")
    assert names == [("add", "k")]


async def test_jobs_without_a_limit_are_retried_with_other_arguments_as_ever(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.FAILED)
    await desk.do(Requeue([run.id], '{"left":2}', ONE))  # its task has got a limit since
    assert ids(await claimed(desk)) == [run.id]
    assert await rows_of(desk, "SELECT * FROM asyncjobs_limits") == []


async def test_jobs_of_schedules_share_a_key_with_others(desk: Desk) -> None:
    rota = Rota(desk)
    limited: dict[str, Any] = {"limit": ONE, "options": '{"limited":true}'}
    await rota.create("a", job=desk.job(**limited))
    await rota.create("b", job=desk.job(**limited))
    (by_hand,) = await add(desk, 1, ONE)
    ticked = await rota.tick(timedelta(minutes=1).total_seconds())
    assert ticked.jobs == 2
    seen = []
    while runs := await claimed(desk):
        (run,) = runs
        seen.append((run.trigger, run.id))
        await desk.report(end(desk, run, followed=True))
    assert [trigger for trigger, _ in seen] == ["api", "schedule:a", "schedule:b"]
    assert seen[0][1] == by_hand


async def test_parked_job_that_is_put_off_waits_in_its_line_and_the_next_goes(desk: Desk) -> None:
    limit = JobLimit("strange", "k", 1)
    nightly = await desk.add(task="strange", limit=limit, options=LIMITED_NIGHT)
    daily = await desk.add(task="strange", limit=limit, options=LIMITED)
    await desk.claim()  # by one that does not have the task
    desk.clock.advance(6 * 3_600)
    assert (await desk.claim(tasks=STRANGE)).jobs == []
    job = await desk.get(nightly)
    assert (job.state, job.reason) == ("blocked", "unknown_task")
    assert [run.id for run in (await desk.claim(tasks=STRANGE)).jobs] == [daily]
    assert await desk.store.check() == []
    desk.clock.advance(16 * 3_600)
    assert await desk.rescue()
    assert (await desk.claim(tasks=STRANGE)).jobs[0].id == daily
    assert await desk.store.check() == []


async def test_parked_job_does_not_start_while_its_key_is_pushed_back(desk: Desk) -> None:
    limit = JobLimit("shared", "k", 2)
    (first,) = await add(desk, 1, limit)
    parked = await desk.add(task="strange", limit=limit, options=LIMITED)
    (run,) = await claimed(desk)
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=opens_at, key_opens_at=opens_at))
    assert (await desk.claim(tasks=STRANGE)).jobs == []
    assert await desk.store.check() == []
    desk.clock.move_to(opens_at)
    both = (await desk.claim(tasks={**TASKS, **STRANGE})).jobs
    assert {run.id for run in both} == {first, parked}


@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED, Event.RELEASED, None])
async def test_run_that_comes_back_at_once_waits_while_its_key_is_pushed_back(
    desk: Desk, event: Event | None
) -> None:
    jobs = await add(desk, 2, JobLimit("add", "k", 2))
    back, closing = await claimed(desk)
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, closing, Event.RETRYING, run_at=opens_at, key_opens_at=opens_at))
    if event is None:
        await desk.rescue()
    else:
        await desk.report(end(desk, back, event))
    result = await desk.claim()
    assert (result.jobs, result.next_run_at) == ([], opens_at)
    assert await desk.store.check() == []
    desk.clock.move_to(opens_at)
    assert sorted(ids(await claimed(desk))) == sorted(jobs)


async def test_limit_that_was_given_last_in_a_bulk_holds(desk: Desk) -> None:
    caps = [*range(1, 20), 3]
    await desk.insert(*[desk.job(limit=JobLimit("add", "k", cap)) for cap in caps])
    assert len(await claimed(desk)) == 3


async def test_replaced_job_keeps_the_permit_that_it_had(desk: Desk) -> None:
    hold = Hold("queued", "replace")
    paced = JobLimit("add", "k", 1, (1, SECOND, 1))
    (first,) = await add(desk, 1, paced)
    waiting = desk.job(limit=paced, options=LIMITED, key="\x01k", hold=hold)
    await desk.insert(waiting)
    await add(desk, 1, paced)
    desk.clock.advance(1)
    await desk.cancel(first)
    for priority in (-1, -2):
        assert (await desk.get(waiting.id)).state == "queued"
        await desk.add(limit=paced, options=LIMITED, key="\x01k", hold=hold, priority=priority)
        await desk.claim(room={"thread": 1})
    (run,) = await claimed(desk)
    assert run.id == waiting.id
    assert await desk.store.check() == []


async def test_replaced_job_that_is_due_later_gives_its_permit_to_the_next(desk: Desk) -> None:
    hold = Hold("queued", "replace")
    replaced = desk.job(limit=ONE, options=LIMITED, key="\x01k", hold=hold)
    await desk.insert(replaced)
    (behind,) = await add(desk, 1, ONE)
    await desk.add(limit=ONE, options=LIMITED, key="\x01k", hold=hold, delay=SECOND)
    assert ids(await claimed(desk)) == [behind]
    assert (await desk.get(replaced.id)).state == "queued"
    assert await desk.store.check() == []


# Rates


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED, Event.RELEASED, None])
async def test_job_that_comes_back_waits_for_the_rate_as_each_start_counts(
    desk: Desk, event: Event | None, ordered: bool
) -> None:
    limit = JobLimit("add", "k", 1 if ordered else None, (1, 60 * SECOND, 1), ordered)
    first, second = await add(desk, 2, limit)
    (run,) = await claimed(desk)
    if event is None:
        await desk.rescue()
    else:
        await desk.report(end(desk, run, event))
    assert await claimed(desk) == []
    assert await desk.store.check() == []
    desk.clock.advance(60)
    (run,) = await claimed(desk)
    assert run.id == first
    await desk.report(end(desk, run))
    assert await claimed(desk) == []
    desk.clock.advance(60)
    assert ids(await claimed(desk)) == [second]


async def test_rate_of_a_key_counts_although_its_jobs_are_deleted(desk: Desk) -> None:
    limit = JobLimit("add", "k", None, (1, 60 * SECOND, 1))
    for wait in (0, 60):
        (job,) = await add(desk, 1, limit)
        assert len(await claimed(desk)) == (1 if wait == 0 else 0)
        desk.clock.advance(wait)
        assert ids(await claimed(desk)) == ([] if wait == 0 else [job])
        await desk.cancel(job)
        await desk.rescue()
        await desk.do(Delete([job]))
    desk.clock.advance(59)
    await desk.do(Prune({}, 0, 9))
    assert await rows_of(desk, "SELECT count(*) FROM asyncjobs_limits") == [(1,)]
    desk.clock.advance(1)
    await desk.do(Prune({}, 0, 9))
    assert await rows_of(desk, "SELECT count(*) FROM asyncjobs_limits") == [(0,)]


async def test_permit_that_was_recalled_before_its_start_is_not_counted_twice(desk: Desk) -> None:
    first, second, third = await add(desk, 3, JobLimit("add", "k", None, (1, 60 * SECOND, 1)))
    (run,) = await claimed(desk)
    desk.clock.advance(60)
    assert await claimed(desk, room={"thread": 1}) == []  # there is no slot for the second one
    assert (await desk.get(second)).state == "queued"
    opens_at = desk.clock.now() + 10 * SECOND
    await desk.report(end(desk, run, Event.FAILED, key_opens_at=opens_at))
    assert await claimed(desk) == []
    desk.clock.move_to(opens_at)
    assert ids(await claimed(desk)) == [second]
    desk.clock.advance(59)
    assert await claimed(desk) == []
    desk.clock.advance(1)
    assert (run.id, ids(await claimed(desk))) == (first, [third])


async def test_jobs_whose_window_is_closed_use_up_nothing_of_their_rate(desk: Desk) -> None:
    paced = JobLimit("add", "k", None, (1, 60 * SECOND, 1))
    for _ in range(3):
        await desk.add(limit=paced, options=LIMITED_NIGHT)
    (daily,) = await add(desk, 1, paced)
    desk.clock.advance(6 * 3_600)  # until the morning
    started = [ids(await claimed(desk)) for _ in range(4)]  # which all are put off but the last
    assert started == [[], [], [], [daily]]
    assert await desk.store.check() == []


DAY = 86_400


@pytest.mark.parametrize("burst", [1, 2, 3])
@pytest.mark.parametrize("running", [None, 1, 2])
@pytest.mark.parametrize("paused", [False, True])
async def test_permits_that_are_taken_up_late_count_from_then_on(
    desk: Desk, burst: int, running: int | None, paused: bool
) -> None:
    await add(desk, 8, JobLimit("add", "k", running, (1, DAY * SECOND, burst)))
    await desk.do(pausing(paused))
    for _ in range(5):
        if paused:
            await desk.claim()
        desk.clock.advance(DAY)
    await desk.do(pausing(False))
    started = 0
    for _ in range(20):
        runs = await claimed(desk, room={"coroutine": 1})
        started += len(runs)
        desk.clock.advance(0.2)
        await desk.report(*[end(desk, run) for run in runs])
        desk.clock.advance(2)
    assert started == burst
    desk.clock.advance(DAY)
    assert len(await claimed(desk)) == 1
    assert await desk.store.check() == []


async def test_job_that_has_waited_long_for_its_retry_counts_from_its_start_on(
    desk: Desk,
) -> None:
    await add(desk, 2, JobLimit("add", "k", 1, (1, DAY * SECOND, 1), ordered=True))
    (run,) = await claimed(desk)
    due = desk.clock.now() + 2 * DAY * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=due))
    desk.clock.advance(DAY)
    assert await claimed(desk) == []
    desk.clock.move_to(due)
    await desk.report(*[end(desk, run) for run in await claimed(desk)])
    desk.clock.advance(DAY - 1)
    assert await claimed(desk) == []
    desk.clock.advance(1)
    assert len(await claimed(desk)) == 1


async def test_start_of_a_run_that_is_in_the_future_by_the_clock_does_not_count(
    desk: Desk,
) -> None:
    paced = JobLimit("add", "k", None, (1, 2 * SECOND, 1))
    await add(desk, 1, paced)
    (run,) = await claimed(desk)
    desk.clock.move_to(desk.clock.now() - DAY * SECOND)
    await add(desk, 3, paced)
    started = []
    for _ in range(4):
        started.append(len(await claimed(desk)))
        desk.clock.advance(1)
    assert started == [0, 0, 1, 0]
    await desk.report(end(desk, run))
    assert [len(await claimed(desk)), len(await claimed(desk))] == [1, 0]


@pytest.mark.parametrize("waiting", [0, 1])
async def test_clock_that_is_set_back_costs_a_key_no_more_than_one_burst(
    desk: Desk, waiting: int
) -> None:
    paced = JobLimit("add", "k", None, (1, 2 * SECOND, 1))
    await add(desk, 1 + waiting, paced)
    assert len(await claimed(desk)) == 1
    desk.clock.move_to(desk.clock.now() - 86_400 * SECOND)
    await add(desk, 2, paced)
    started = []
    for _ in range(5):
        started.append(len(await claimed(desk)))
        desk.clock.advance(1)
    assert started == [0, 0, 1, 0, 1]
    assert await desk.store.check() == []


async def test_full_key_with_a_rate_goes_on_when_a_run_ends_and_not_by_time(desk: Desk) -> None:
    await add(desk, 3, JobLimit("add", "k", 1, (10, SECOND, 5)))
    result = await desk.claim()
    assert (len(result.jobs), result.next_run_at) == (1, None)
    desk.clock.advance(1)
    assert (await desk.claim()).next_run_at is None
    await desk.report(end(desk, result.jobs[0]))
    assert len(await claimed(desk)) == 1


async def test_keys_whose_jobs_nobody_starts_are_looked_at_once_a_second(desk: Desk) -> None:
    await desk.do(pausing(True))
    for key in range(10):
        await add(desk, 5, JobLimit("add", str(key), None, (1_000 + key, SECOND, 2)))
        desk.clock.advance(0.0123)
    looks, end_at = 0, desk.clock.now() + 60 * SECOND
    while desk.clock.now() < end_at:
        result = await desk.claim()
        assert result.next_run_at is not None
        desk.clock.move_to(result.next_run_at)
        looks += 1
    assert looks < 60 + 10 * 20
    await desk.do(pausing(False))
    assert len(await claimed(desk)) == 20


def pausing(paused: bool) -> SetQueue:
    return SetQueue(
        queue="default", note_id=f"{paused}", actor=None, action="set", what="{}", paused=paused
    )


@pytest.mark.parametrize("way", ["now", "later", "group", "edited", "edited to another key"])
async def test_start_of_a_dead_letter_that_had_stopped_its_key_counts(desk: Desk, way: str) -> None:
    limit, other = paced_stop("k"), paced_stop("other")
    failed, behind = await add(desk, 2, limit)
    (there,) = await add(desk, 1, other)
    runs = await claimed(desk)
    await desk.report(*[end(desk, run, Event.FAILED) for run in runs])
    now = desk.clock.now()
    retry = {
        "now": Requeue([failed]),
        "later": Requeue([failed], first_at=now + SECOND, gap=SECOND),
        "group": Requeue([there, failed], first_at=now, gap=SECOND),
        "edited": Requeue([failed], '{"left":2}', limit),
        "edited to another key": Requeue([failed], '{"left":2}', other),
    }
    await desk.do(retry[way])
    desk.clock.advance(59)
    moved = way == "edited to another key"  # where another one stands in its way
    assert await claimed(desk) == []
    assert await desk.store.check() == []
    desk.clock.advance(1)
    runs = await claimed(desk)
    first = {"group": [failed, there], "edited to another key": [behind]}.get(way, [failed])
    assert sorted(ids(runs)) == sorted(first)
    await desk.report(*[end(desk, run) for run in runs])
    assert await claimed(desk) == []
    desk.clock.advance(60)
    assert ids(await claimed(desk)) == ([] if moved else [behind])


async def test_dead_letter_that_had_stopped_its_key_waits_while_that_is_pushed_back(
    desk: Desk,
) -> None:
    failed, _ = await add(desk, 2, STOPS)
    (run,) = await claimed(desk)
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.FAILED, key_opens_at=opens_at))
    await desk.do(Requeue([failed]))
    assert await claimed(desk) == []
    desk.clock.move_to(opens_at)
    assert ids(await claimed(desk)) == [failed]


async def test_dead_letter_that_moves_to_an_ordered_key_forgets_its_priority(desk: Desk) -> None:
    line = JobLimit("add", "line", 1, ordered=True)
    first, behind = await add(desk, 2, line)
    (moved,) = await add(desk, 1, ONE, priority=5)
    runs = await claimed(desk)
    assert ids(runs) == [moved, first]
    await desk.report(end(desk, runs[0], Event.FAILED))
    await desk.do(Requeue([moved], '{"left":2}', line))
    await desk.report(end(desk, runs[1]))
    order = []
    while runs := await claimed(desk):
        order += ids(runs)
        await desk.report(end(desk, runs[0]))
    assert order == [behind, moved]


def paced_stop(key: str) -> JobLimit:
    return JobLimit("add", key, 1, (1, 60 * SECOND, 1), ordered=True, stops=True)
