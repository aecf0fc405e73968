"""Limits by key where something else than a run ends or moves a job: no permit stays behind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from asyncjobs.records import JobLimit
from asyncjobs.states import Event
from asyncjobs.store.base import Disown, Prune, Requeue
from asyncjobs.store.expiry import Expire
from asyncjobs.store.retention import PruneRetained

from .kit import SECOND, Desk
from .rota import Rota
from .test_admitting import STOPS, add, claimed, end, ids, rows_of

ONE = JobLimit("add", "k", 1)


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
async def test_key_that_a_pruned_job_had_stopped_goes_on(desk: Desk, *, by_rule: bool) -> None:
    failed, behind = await add(desk, 2, STOPS, own_retention=by_rule)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    desk.clock.advance(1)
    now = desk.clock.now()
    if by_rule:
        assert await desk.do(PruneRetained("add", "failed", (now, 0), 9)) == 1
    else:
        assert await desk.do(Prune({"failed": now}, 0, 9)) == 1
    assert run.id == failed
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
