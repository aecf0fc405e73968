"""Report: runs end or go back to the queue, each under its fence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from asyncjobs.records import ErrorRecord, Outcome
from asyncjobs.rules.limits import ATTEMPT_ROWS_MAX
from asyncjobs.states import Event, State
from asyncjobs.store.base import Report, Requeue

from .kit import ERROR, SECOND, Desk


async def test_completed_run_ends_its_job_and_keeps_the_result(desk: Desk) -> None:
    run = await desk.start()
    desk.clock.advance(2)
    assert await desk.end(run, result='{"sum":3}') == "done"
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.result) == ("completed", None, {"sum": 3})
    assert (row.attempt, row.finished_at) == (1, desk.clock.datetime())
    assert row.duration == timedelta(seconds=2)


async def test_completed_run_without_a_result_has_none(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run)
    assert (await desk.get(run.id)).result is None


async def test_failed_run_is_a_dead_letter_with_its_error(desk: Desk) -> None:
    run = await desk.start()
    assert await desk.end(run, Event.FAILED) == "done"
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.error) == ("failed", "error", ERROR)


async def test_retrying_run_goes_back_to_the_queue_for_later(desk: Desk) -> None:
    run = await desk.start()
    due = desk.clock.now() + 7 * SECOND
    assert await desk.end(run, Event.RETRYING, run_at=due) == "done"
    row = await desk.get(run.id)
    assert (row.state, row.status, row.reason, row.attempt) == ("queued", "retrying", "error", 1)
    assert row.run_at == desk.clock.datetime() + timedelta(seconds=7)
    assert (row.finished_at, row.error) == (None, ERROR)


async def test_snoozed_run_gives_its_attempt_back_and_is_counted(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.SNOOZED, run_at=desk.clock.now() + SECOND)
    row = await desk.get(run.id)
    assert (row.state, row.status, row.reason) == ("queued", "scheduled", "snoozed")
    assert (row.attempt, row.snoozes, row.crashes) == (0, 1, 0)


async def test_released_run_gives_its_attempt_back(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.RELEASED)
    row = await desk.get(run.id)
    assert (row.state, row.status, row.attempt, row.snoozes) == ("queued", "queued", 0, 0)


async def test_cancelled_run_ends_as_cancelled(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.CANCELLED, reason="user")
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.attempt) == ("cancelled", "user", 1)


async def test_reason_that_says_crash_is_not_counted_as_one(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.CANCELLED, reason="crash")
    assert (await desk.get(run.id)).crashes == 0


ENDS = [Event.COMPLETED, Event.FAILED, Event.CANCELLED]
BACKS = [Event.RETRYING, Event.SNOOZED, Event.RELEASED]


@pytest.mark.parametrize("event", ENDS + BACKS)
async def test_same_report_again_answers_already_and_changes_nothing(
    desk: Desk, event: Event
) -> None:
    run = await desk.start()
    assert await desk.end(run, event) == "done"
    before = await desk.get(run.id)
    assert await desk.end(run, event) == "already"
    assert await desk.get(run.id) == before


@pytest.mark.parametrize("event", ENDS + BACKS)
async def test_report_of_another_instance_is_lost(desk: Desk, event: Event) -> None:
    run = await desk.start("one")
    before = await desk.get(run.id)
    assert await desk.end(run, event, instance="two") == "lost"
    assert await desk.get(run.id) == before


@pytest.mark.parametrize("event", ENDS + BACKS)
async def test_late_report_of_a_rescued_run_is_lost(desk: Desk, event: Event) -> None:
    run = await desk.start("one")
    await desk.rescue("one")
    before = await desk.get(run.id)
    assert await desk.end(run, event, instance="one") == "lost"
    assert await desk.get(run.id) == before


@pytest.mark.parametrize("event", ENDS + BACKS)
async def test_late_report_never_touches_a_newer_run(desk: Desk, event: Event) -> None:
    run = await desk.start("one")
    await desk.rescue("one")
    await desk.claim("one")
    before = await desk.get(run.id)
    assert await desk.end(run, event, instance="one", result=None) == "lost"
    assert await desk.get(run.id) == before


@pytest.mark.parametrize("event", BACKS)
async def test_job_that_was_to_run_again_is_cancelled_when_somebody_has_asked(
    desk: Desk, event: Event
) -> None:
    run = await desk.start()
    bystander = await desk.start()
    await desk.cancel(run.id, reason="enough")
    answers = await desk.report(desk.move(run, event), desk.move(bystander, event))
    assert answers == ["cancelled", "done"]
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.cancel_reason) == ("cancelled", "user", "enough")
    assert (await desk.get(bystander.id)).state == "queued"


async def test_report_after_a_retry_by_hand_is_lost(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run)
    await desk.do(Requeue([run.id]))
    assert await desk.end(run, result="1") == "lost"
    assert (await desk.get(run.id)).state == "queued"


async def test_report_of_a_job_that_is_gone_is_lost(desk: Desk) -> None:
    run = await desk.start()
    assert await desk.end(replace(run, seq=run.seq + 1)) == "lost"
    await desk.end(run)


async def test_old_and_new_run_of_one_job_in_one_report_are_told_apart(desk: Desk) -> None:
    old = await desk.start()
    await desk.rescue()
    (new,) = (await desk.claim()).jobs
    answers = await desk.report(desk.move(old), desk.move(new, result="7"))
    assert answers == ["lost", "done"]
    assert (await desk.get(new.id)).result == 7


async def test_old_and_new_failure_of_one_job_in_one_report_are_told_apart(desk: Desk) -> None:
    old = await desk.start()
    await desk.rescue()
    (new,) = (await desk.claim()).jobs
    answers = await desk.report(desk.move(new, Event.RETRYING), desk.move(old, Event.FAILED))
    assert answers == ["done", "lost"]
    assert (await desk.get(new.id)).state == "queued"


async def test_mixed_report_answers_in_order(desk: Desk) -> None:
    await desk.insert(*[desk.job() for _ in range(6)])
    runs = (await desk.claim()).jobs
    await desk.end(runs[3])
    moves = [
        desk.move(runs[0], Event.FAILED),
        desk.move(runs[1], result="1"),
        desk.move(runs[2], Event.SNOOZED),
        desk.move(runs[3], result="1"),
        desk.move(replace(runs[4], claim=9)),
        desk.move(runs[5]),
    ]
    assert await desk.report(*moves) == ["done", "done", "done", "already", "lost", "done"]
    states = [(await desk.get(run.id)).state.value for run in runs]
    assert states == ["failed", "completed", "queued", "completed", "running", "completed"]
    await desk.end(runs[4])


@pytest.mark.parametrize("runs", [127, 128, 129, 300])
async def test_reports_of_every_size_land_whole(desk: Desk, runs: int) -> None:
    await desk.insert(*[desk.job() for _ in range(runs)])
    claimed = (await desk.claim(room={"coroutine": runs})).jobs
    assert await desk.report(*[desk.move(run, result="1") for run in claimed]) == ["done"] * runs
    assert await desk.count("completed") == runs
    assert await desk.report(*[desk.move(run) for run in claimed]) == ["already"] * runs


async def test_nothing_to_report_is_no_error(desk: Desk) -> None:
    assert await desk.do(Report("here", [])) == []


# Attempts


async def test_job_that_completes_at_once_tells_its_run_itself(desk: Desk) -> None:
    run = await desk.start("one")
    started = desk.clock.datetime()
    desk.clock.advance(1)
    await desk.end(run, instance="one")
    (attempt,) = await desk.store.attempts(run.id)
    assert (attempt.number, attempt.claim, attempt.event) == (1, 1, Event.COMPLETED)
    assert (attempt.instance, attempt.started_at) == ("one", started)
    assert (attempt.finished_at, attempt.error) == (desk.clock.datetime(), None)


async def test_running_job_shows_its_run_without_an_end(desk: Desk) -> None:
    run = await desk.start()
    (attempt,) = await desk.store.attempts(run.id)
    assert (attempt.number, attempt.event, attempt.finished_at) == (1, None, None)


async def test_job_that_never_ran_has_no_attempts(desk: Desk) -> None:
    job_id = await desk.add()
    assert await desk.store.attempts(job_id) == []
    assert await desk.store.attempts("nobody") == []
    await desk.cancel(job_id)
    assert await desk.store.attempts(job_id) == []


async def test_failures_and_the_last_run_are_told_in_order(desk: Desk) -> None:
    run = await desk.start()
    for number in (1, 2):
        error = ErrorRecord("E", f"no {number}", "")
        await desk.end(run, Event.RETRYING, error=error)
        (run,) = (await desk.claim()).jobs
    await desk.end(run, result="1")
    attempts = await desk.store.attempts(run.id)
    assert [a.number for a in attempts] == [1, 2, 3]
    assert [a.event for a in attempts] == [Event.RETRYING, Event.RETRYING, Event.COMPLETED]
    assert [a.error.message if a.error else None for a in attempts] == ["no 1", "no 2", None]


@pytest.mark.parametrize("event", [Event.SNOOZED, Event.RELEASED])
async def test_job_cancelled_while_it_waits_shows_no_run_that_was_not(
    desk: Desk, event: Event
) -> None:
    run = await desk.start()
    await desk.end(run, event)
    await desk.cancel(run.id)
    assert await desk.store.attempts(run.id) == []
    assert (await desk.get(run.id)).duration is None


async def test_job_cancelled_after_a_crash_shows_the_crash_alone(desk: Desk) -> None:
    run = await desk.start()
    await desk.rescue()
    await desk.cancel(run.id)
    assert [attempt.event for attempt in await desk.store.attempts(run.id)] == [Event.RESCUED]


async def test_job_cancelled_while_it_runs_shows_that_run(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.CANCELLED, reason="user")
    (attempt,) = await desk.store.attempts(run.id)
    assert (attempt.number, attempt.event) == (1, Event.CANCELLED)


async def test_history_of_one_job_is_bounded(desk: Desk) -> None:
    run = await desk.start(max_crashes=1_000)
    for _ in range(ATTEMPT_ROWS_MAX + 5):
        await desk.end(run, Event.RETRYING)
        (run,) = (await desk.claim()).jobs
    attempts = await desk.store.attempts(run.id)
    assert len(attempts) == ATTEMPT_ROWS_MAX + 1  # and the one that runs
    assert attempts[-1].number == ATTEMPT_ROWS_MAX + 6


async def test_history_stays_bounded_over_many_retries_by_hand(desk: Desk) -> None:
    run = await desk.start()
    for _ in range(ATTEMPT_ROWS_MAX + 5):
        await desk.end(run, Event.FAILED)
        await desk.do(Requeue([run.id]))
        (run,) = (await desk.claim()).jobs
    await desk.end(run, Event.FAILED)
    assert len(await desk.store.attempts(run.id)) == ATTEMPT_ROWS_MAX


# Outcomes, for handles


async def test_outcomes_tell_unfinished_from_missing(desk: Desk) -> None:
    waiting = await desk.add(delay=SECOND)
    running = (await desk.start()).id
    found = await desk.store.outcomes([waiting, running, "nobody"])
    assert found == {waiting: None, running: None}


async def test_outcomes_carry_result_and_error(desk: Desk) -> None:
    good = await desk.start()
    await desk.end(good, result="[1]")
    bad = await desk.start()
    await desk.end(bad, Event.FAILED, reason="timeout")
    found = await desk.store.outcomes([good.id, bad.id])
    assert found[good.id] == Outcome("add", State.COMPLETED, None, "[1]", None)
    assert found[bad.id] == Outcome("add", State.FAILED, "timeout", None, ERROR)


async def test_outcome_of_a_job_that_failed_before_it_completed_has_no_error(desk: Desk) -> None:
    run = await desk.start()
    await desk.end(run, Event.RETRYING)
    (run,) = (await desk.claim()).jobs
    await desk.end(run, result="1")
    found: Any = await desk.store.outcomes([run.id])
    assert found[run.id] == Outcome("add", State.COMPLETED, None, "1", None)


async def test_outcome_of_a_failure_is_its_own_reason_although_a_cancel_was_asked(
    desk: Desk,
) -> None:
    run = await desk.start()
    await desk.cancel(run.id, reason="no longer needed")
    await desk.end(run, Event.FAILED, reason="timeout")
    found: Any = await desk.store.outcomes([run.id])
    assert found[run.id].reason == "timeout"


@pytest.mark.parametrize("running", [False, True])
async def test_outcome_of_a_job_cancelled_without_a_word_has_the_reason_user(
    desk: Desk, running: bool
) -> None:
    if running:
        run = await desk.start()
        job_id = run.id
        await desk.cancel(job_id)
        await desk.end(run, Event.CANCELLED, reason="user")
    else:
        job_id = await desk.add()
        await desk.cancel(job_id)
    found: Any = await desk.store.outcomes([job_id])
    assert (found[job_id].state, found[job_id].reason) == (State.CANCELLED, "user")
