"""What people do to jobs: cancel, retry, delete. And what becomes of a job's history."""

from __future__ import annotations

import pytest

from asyncjobs.states import Event
from asyncjobs.store.base import Answer, Delete, Requeue

from .kit import SECOND, Desk

FINISHED = [Event.COMPLETED, Event.FAILED, Event.CANCELLED]


def outcomes(answers: list[Answer]) -> list[str]:
    return [answer.outcome for answer in answers]


async def test_queued_job_is_cancelled_at_once(desk: Desk) -> None:
    job_id = await desk.add()
    seq = (await desk.get(job_id)).seq
    assert await desk.cancel(job_id, reason="twice") == [Answer("cancelled", seq)]
    row = await desk.get(job_id)
    assert (row.state, row.reason, row.cancel_reason) == ("cancelled", "user", "twice")
    assert row.finished_at == desk.clock.datetime()
    assert (await desk.claim()).jobs == []


async def test_delayed_and_parked_jobs_are_cancelled_at_once(desk: Desk) -> None:
    delayed = await desk.add(delay=SECOND)
    parked = await desk.add(task="strange")
    await desk.claim()
    assert outcomes(await desk.cancel(delayed, parked)) == ["cancelled", "cancelled"]
    assert await desk.count("cancelled") == 2
    assert await desk.count("blocked") == 0


async def test_cancelling_a_running_job_notes_the_request(desk: Desk) -> None:
    run = await desk.start()
    assert await desk.cancel(run.id) == [Answer("requested", run.seq)]
    row = await desk.get(run.id)
    assert (row.state, row.cancel_reason) == ("running", "user")


async def test_first_request_to_cancel_keeps_its_reason(desk: Desk) -> None:
    run = await desk.start()
    await desk.cancel(run.id, reason="first")
    await desk.cancel(run.id, reason="second")
    assert (await desk.get(run.id)).cancel_reason == "first"


@pytest.mark.parametrize("event", FINISHED)
async def test_cancelling_a_finished_job_comes_too_late(desk: Desk, event: Event) -> None:
    job_id = await desk.finished(event)
    before = await desk.get(job_id)
    (result,) = await desk.cancel(job_id)
    assert result.outcome == "finished"
    assert await desk.get(job_id) == before


async def test_cancel_answers_in_the_order_of_the_ids(desk: Desk) -> None:
    queued = await desk.add(delay=SECOND)
    running = (await desk.start()).id
    done = await desk.finished()
    ids = ["nobody", done, queued, running, queued]
    answers = outcomes(await desk.cancel(*ids))
    assert answers == ["missing", "finished", "cancelled", "requested", "cancelled"]


@pytest.mark.parametrize("event", FINISHED)
async def test_finished_job_starts_a_new_life(desk: Desk, event: Event) -> None:
    job_id = await desk.finished(event)
    claim = (await desk.get(job_id)).claim
    desk.clock.advance(5)
    assert outcomes(await desk.do(Requeue([job_id]))) == ["requeued"]
    row = await desk.get(job_id)
    assert (row.state, row.status, row.reason) == ("queued", "queued", "retry")
    assert (row.attempt, row.crashes, row.snoozes) == (0, 0, 0)
    assert (row.finished_at, row.cancel_reason, row.result) == (None, None, None)
    assert row.run_at == desk.clock.datetime()
    assert row.claim == claim + 1
    (again,) = (await desk.claim()).jobs
    assert (again.claim, again.attempt) == (claim + 2, 1)


async def test_new_life_takes_a_new_result(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, result="1")
    await desk.do(Requeue([run.id]))
    (again,) = (await desk.claim()).jobs
    assert await desk.end(again, result="2") == "done"
    assert (await desk.get(run.id)).result == 2


async def test_job_can_crash_as_often_in_its_new_life(desk: Desk) -> None:
    await desk.start(max_crashes=1)
    ((job_id, _),) = (await desk.rescue()).ended
    await desk.do(Requeue([job_id]))
    await desk.claim()
    assert (await desk.rescue()).jobs == 1
    assert (await desk.get(job_id)).crashes == 1


async def test_only_finished_jobs_are_requeued(desk: Desk) -> None:
    queued = await desk.add(delay=SECOND)
    running = (await desk.start()).id
    done = await desk.finished()
    answers = await desk.do(Requeue([queued, running, "nobody", done]))
    assert outcomes(answers) == ["queued", "running", "missing", "requeued"]


async def test_attempts_of_the_old_life_stay(desk: Desk) -> None:
    job_id = await desk.finished(Event.FAILED)
    await desk.do(Requeue([job_id]))
    (again,) = (await desk.claim()).jobs
    await desk.end(again)
    events = [attempt.event for attempt in await desk.store.attempts(job_id)]
    assert events == [Event.FAILED, Event.COMPLETED]


async def test_deleted_job_is_gone_with_all_that_hangs_on_it(desk: Desk) -> None:
    run = await desk.start(key="k", tags=("a", "b"), meta='{"m":1}')
    await desk.end(run, Event.RETRYING)
    (again,) = (await desk.claim()).jobs
    await desk.end(again, result="1")
    assert await desk.do(Delete([run.id])) == [Answer("deleted", run.seq)]
    assert await desk.store.get(run.id) is None
    assert await desk.store.attempts(run.id) == []
    assert await desk.store.outcomes([run.id]) == {}
    assert await desk.listed(tags_all=("a",)) == []
    assert await desk.count() == 0
    assert await desk.insert(desk.job(key="k", arguments="{}")) == [None]


async def test_job_that_completed_after_a_retry_by_hand_leaves_no_attempts_behind(
    desk: Desk,
) -> None:
    job_id = await desk.finished(Event.FAILED)
    await desk.do(Requeue([job_id]))
    await desk.end((await desk.claim()).jobs[0])
    await desk.do(Delete([job_id]))
    assert await desk.store.check() == []


async def test_running_jobs_are_not_deleted(desk: Desk) -> None:
    queued = await desk.add(delay=SECOND)
    run = await desk.start()
    answers = await desk.do(Delete([run.id, "nobody", queued]))
    assert outcomes(answers) == ["running", "missing", "deleted"]
    assert await desk.end(run) == "done"


async def test_parked_job_can_be_deleted(desk: Desk) -> None:
    job_id = await desk.add(task="strange")
    await desk.claim()
    assert outcomes(await desk.do(Delete([job_id]))) == ["deleted"]


async def test_deleting_twice_in_one_call_counts_once(desk: Desk) -> None:
    job_id = await desk.finished()
    other = await desk.finished()
    await desk.do(Delete([job_id, job_id]))
    assert await desk.count("completed") == 1
    assert await desk.store.get(other) is not None


async def test_nothing_to_do_is_no_error(desk: Desk) -> None:
    assert await desk.cancel() == []
    assert await desk.do(Requeue([])) == []
    assert await desk.do(Delete([])) == []
