"""Expire: what nobody has started in time is cancelled, by the claim and by the sweep."""

from __future__ import annotations

from typing import Any

import pytest

from asyncjobs.records import Outcome
from asyncjobs.states import Event, State
from asyncjobs.store.base import Claim, Insert, InsertAndClaim, Requeue
from asyncjobs.store.expiry import Expire
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import PLENTY, SECOND, TASKS, Desk
from .test_plans import Plans, whole_walks


async def test_job_is_claimed_before_its_time_is_over(desk: Desk) -> None:
    job_id = await desk.add(expires=10 * SECOND)
    desk.clock.move_to(desk.clock.now() + 10 * SECOND - 1)
    assert [job.id for job in (await desk.claim()).jobs] == [job_id]


async def test_claim_at_the_very_instant_cancels_the_job(desk: Desk) -> None:
    job_id = await desk.add(expires=10 * SECOND)
    later = await desk.add()
    desk.clock.advance(10)
    result = await desk.claim()
    assert [job.id for job in result.jobs] == [later]
    assert result.expired == [(job_id, Outcome("add", State.CANCELLED, "expired"))]
    job = await desk.get(job_id)
    assert (job.state, job.reason, job.started_at) == ("cancelled", "expired", None)


async def test_sweep_cancels_what_nobody_claims_oldest_first_and_in_slices(desk: Desk) -> None:
    late = await desk.add(expires=3 * SECOND)
    early = await desk.add(expires=2 * SECOND, delay=SECOND)
    lasting = await desk.add(expires=9 * SECOND)
    assert await desk.store.next_expiry() == desk.clock.now() + 2 * SECOND
    desk.clock.advance(5)
    assert [job_id for job_id, _ in await desk.do(Expire(1))] == [early]
    assert [job_id for job_id, _ in await desk.do(Expire(9))] == [late]
    assert await desk.do(Expire(9)) == []
    assert (await desk.get(lasting)).state == "queued"
    assert await desk.store.next_expiry() == desk.clock.now() + 4 * SECOND


async def test_parked_job_expires_too(desk: Desk) -> None:
    job_id = await desk.add(task="strange", expires=SECOND)
    await desk.claim()
    desk.clock.advance(1)
    assert (await desk.claim(tasks={"strange": "coroutine"})).expired[0][0] == job_id
    assert await desk.count("blocked") == 0


@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED, Event.RELEASED])
async def test_job_that_was_started_in_time_never_expires(desk: Desk, event: Event) -> None:
    run = await desk.start(expires=SECOND)
    assert await desk.store.next_expiry() is None
    await desk.end(run, event)
    desk.clock.advance(5)
    assert await desk.do(Expire(9)) == []
    assert [job.id for job in (await desk.claim()).jobs] == [run.id]


async def test_expired_job_that_is_retried_by_hand_does_not_expire_again(desk: Desk) -> None:
    job_id = await desk.add(expires=SECOND)
    desk.clock.advance(1)
    await desk.do(Expire(9))
    await desk.do(Requeue([job_id]))
    assert [job.id for job in (await desk.claim()).jobs] == [job_id]


async def test_job_that_is_too_late_when_it_is_accepted_is_not_started(desk: Desk) -> None:
    job = desk.job(expires_at=desk.clock.now())
    _, result = await desk.do(InsertAndClaim(Insert([job]), Claim("here", TASKS, PLENTY)))
    assert (result.jobs, [job_id for job_id, _ in result.expired]) == ([], [job.id])


async def test_what_stands_behind_thousands_of_expired_jobs_is_found(desk: Desk) -> None:
    await desk.insert(*[desk.job(expires=SECOND) for _ in range(2_100)])
    last = await desk.add()
    desk.clock.advance(1)
    claimed: list[str] = []
    for _ in range(3):
        result = await desk.claim(room={"coroutine": 1, "thread": 1})
        claimed += [job.id for job in result.jobs]
        assert len(result.expired) <= 1_000
    assert claimed == [last]
    assert await desk.count("cancelled") == 2_100


async def test_sweep_walks_an_index_of_expiring_jobs_alone(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    desk = Desk(file_store, clock)
    await desk.add(expires=SECOND)
    clock.advance(1)
    async with Plans(file_store) as plans, Plans(file_store, reading=True) as reads:
        await file_store.next_expiry()
        await desk.do(Expire(9))
    lines: list[Any] = [
        *await plans.of("asyncjobs_expiring"),
        *await reads.of("asyncjobs_expiring"),
    ]
    assert whole_walks(lines) == []
    assert "SEARCH asyncjobs_jobs USING INDEX asyncjobs_expiring (expires_at<?)" in lines
    assert not any("TEMP B-TREE" in line for line in lines)
