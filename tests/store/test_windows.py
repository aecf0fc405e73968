"""Jobs with a window: whatever makes them due, none is claimed while it is closed."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from asyncjobs.records import Hold
from asyncjobs.rules.limits import FLUSH_ROWS_MAX
from asyncjobs.rules.window import Window
from asyncjobs.states import Event
from asyncjobs.store.base import Claim, Filter, Insert, InsertAndClaim, Requeue
from asyncjobs.store.sqlite.store import SQLiteStore

from .kit import PLENTY, SECOND, TASKS, Desk
from .test_plans import Plans, whole_walks

HOUR = 3_600 * SECOND
# The clock stands at midnight when a test begins.
NIGHT = msgspec.json.encode({"window": Window("22:00", "06:00")}).decode()
DAY = msgspec.json.encode({"window": Window("08:00", "18:00")}).decode()
STRANGE = {"strange": "coroutine"}


async def test_job_outside_its_window_is_scheduled_for_the_next_opening(desk: Desk) -> None:
    job = await desk.get(await desk.add(options=DAY))
    assert (job.status, job.reason) == ("scheduled", "window")
    assert job.run_at == desk.clock.datetime() + timedelta(hours=8)
    result = await desk.claim()
    assert (result.jobs, result.next_run_at) == ([], desk.clock.now() + 8 * HOUR)
    desk.clock.advance(8 * 3_600)
    (claimed,) = (await desk.claim()).jobs
    job = await desk.get(claimed.id)
    assert (job.state, job.reason, job.attempt) == ("running", None, 1)


async def test_job_inside_its_window_is_due_at_once(desk: Desk) -> None:
    job = await desk.get(await desk.add(options=NIGHT))
    assert (job.status, job.reason, job.run_at) == ("queued", None, desk.clock.datetime())


@pytest.mark.parametrize(("delay", "hours"), [(7, 8), (9, 9), (20, 32)])
async def test_delay_is_prolonged_until_the_window_is_open(
    desk: Desk, delay: int, hours: int
) -> None:
    job = await desk.get(await desk.add(options=DAY, delay=delay * HOUR))
    assert job.run_at == desk.clock.datetime() + timedelta(hours=hours)


async def test_backlog_that_the_closing_time_overtakes_is_put_off(desk: Desk) -> None:
    await desk.insert(*[desk.job(options=NIGHT) for _ in range(5)])
    assert len((await desk.claim(room={"coroutine": 2})).jobs) == 2
    other = await desk.add(priority=-1)
    desk.clock.advance(6 * 3_600)
    result = await desk.claim()
    assert [job.id for job in result.jobs] == [other]
    assert (result.waiting, result.next_run_at) == (frozenset(), desk.clock.now() + 16 * HOUR)
    late = (await desk.store.list(Filter(states=("queued",)), limit=9, cursor=None)).jobs
    assert [(job.reason, job.attempt, job.claim) for job in late] == [("window", 0, 0)] * 3
    desk.clock.advance(16 * 3_600)
    assert len((await desk.claim()).jobs) == 3


@pytest.mark.parametrize("jobs", [FLUSH_ROWS_MAX - 1, FLUSH_ROWS_MAX, FLUSH_ROWS_MAX + 1])
async def test_long_backlog_is_put_off_in_slices(desk: Desk, jobs: int) -> None:
    await desk.insert(*[desk.job(options=NIGHT, priority=1) for _ in range(jobs)])
    open_now = await desk.add()
    desk.clock.advance(7 * 3_600)
    first = await desk.claim()
    if jobs < FLUSH_ROWS_MAX:
        assert [job.id for job in first.jobs] == [open_now]
        return
    assert (first.jobs, first.next_run_at) == ([], None)
    assert "coroutine" in first.waiting
    second = await desk.claim()
    assert [job.id for job in second.jobs] == [open_now]
    assert second.next_run_at == desk.clock.now() + 15 * HOUR


@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED, Event.RELEASED])
async def test_job_that_comes_back_when_its_window_is_closed_is_put_off(
    desk: Desk, event: Event
) -> None:
    run = await desk.start(options=NIGHT)
    desk.clock.advance(6 * 3_600)
    assert await desk.end(run, event) == "done"
    assert (await desk.claim()).jobs == []
    job = await desk.get(run.id)
    assert job.run_at == desk.clock.datetime() + timedelta(hours=16)
    assert job.attempt == (1 if event is Event.RETRYING else 0)


async def test_job_that_is_rescued_or_retried_by_hand_waits_for_its_window(desk: Desk) -> None:
    rescued = await desk.start(options=NIGHT)
    retried = await desk.finished(options=NIGHT)
    desk.clock.advance(6 * 3_600)
    await desk.rescue()
    await desk.do(Requeue([retried]))
    assert (await desk.claim()).jobs == []
    desk.clock.advance(16 * 3_600)
    claimed = {job.id: job for job in (await desk.claim()).jobs}
    assert claimed.keys() == {rescued.id, retried}
    assert claimed[rescued.id].attempt == 1


async def test_parked_job_waits_for_its_window_and_is_looked_for_then(desk: Desk) -> None:
    job_id = await desk.add(task="strange", options=NIGHT)
    early = await desk.add(task="strange", options=NIGHT, priority=2)
    await desk.claim()
    await desk.claim(tasks=STRANGE, room={"coroutine": 1})
    desk.clock.advance(6 * 3_600)
    result = await desk.claim(tasks=STRANGE)
    assert (result.jobs, result.next_run_at) == ([], desk.clock.now() + 16 * HOUR)
    job = await desk.get(job_id)
    assert (job.state, job.reason) == ("blocked", "unknown_task")
    assert (await desk.claim(tasks=STRANGE)).next_run_at == desk.clock.now() + 16 * HOUR
    desk.clock.advance(16 * 3_600)
    assert [job.id for job in (await desk.claim(tasks=STRANGE)).jobs] == [job_id]
    assert (await desk.get(early)).state == "running"


async def test_new_job_starts_directly_only_while_its_window_is_open(desk: Desk) -> None:
    claim = Claim("here", TASKS, PLENTY)
    closed, opened = desk.job(options=DAY), desk.job(options=NIGHT)
    _, result = await desk.do(InsertAndClaim(Insert([closed]), claim))
    assert (result.jobs, result.left) == ([], True)
    assert result.next_run_at == desk.clock.now() + 8 * HOUR
    _, result = await desk.do(InsertAndClaim(Insert([opened]), claim))
    assert [job.id for job in result.jobs] == [opened.id]
    assert not result.left


async def test_replaced_job_waits_for_the_window_of_the_new_one_alone(desk: Desk) -> None:
    hold = Hold("queued", "replace")
    job_id = await desk.add(key="\x01k", hold=hold)
    await desk.add(key="\x01k", hold=hold, options=DAY)
    job = await desk.get(job_id)
    assert (job.status, job.reason) == ("scheduled", "window")
    assert job.run_at == desk.clock.datetime() + timedelta(hours=8)
    await desk.add(key="\x01k", hold=hold, options=NIGHT)
    job = await desk.get(job_id)
    assert (job.status, job.reason) == ("queued", None)


async def test_putting_off_seeks_its_rows_by_seq(
    file_store: SQLiteStore,
    file_desk: Desk,
) -> None:
    await file_desk.insert(
        *[file_desk.job(options=NIGHT, task=task) for task in ("add", "strange")]
    )
    await file_desk.claim(room={"thread": 1})
    file_desk.clock.advance(6 * 3_600)
    async with Plans(file_store) as plans:
        await file_desk.claim(tasks={**TASKS, **STRANGE})
    assert sum("SET run_at" in text for text in plans.statements) == 1
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    assert "SEARCH asyncjobs_jobs USING INTEGER PRIMARY KEY (rowid=?)" in lines
    parked = [line for line in lines if "asyncjobs_parked" in line]
    assert any("task=? AND priority=? AND run_at>?)" in line for line in parked), parked
