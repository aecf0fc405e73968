"""Rescue, disown, join, leave: what becomes of the runs of instances that are gone."""

from __future__ import annotations

import pytest

from asyncjobs.states import Event, State
from asyncjobs.store.base import Disown, Join, Leave

from .kit import Desk


async def test_run_of_a_dead_instance_is_queued_again(desk: Desk) -> None:
    run = await desk.start("dead")
    assert await desk.rescue("dead") == (1, [])
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.attempt, row.crashes) == ("queued", "crash", 0, 1)
    assert row.claim == run.claim + 1
    (attempt,) = await desk.store.attempts(run.id)
    assert (attempt.event, attempt.reason, attempt.instance) == (Event.RESCUED, "crash", "dead")
    assert attempt.number == 1
    assert attempt.error is not None
    assert attempt.error.message == "its process died"


async def test_rescued_job_can_be_claimed_at_once(desk: Desk) -> None:
    run = await desk.start("dead")
    await desk.rescue("dead")
    (again,) = (await desk.claim("alive")).jobs
    assert (again.id, again.claim, again.attempt, again.crashes) == (run.id, 3, 1, 1)


async def test_runs_of_others_are_left_alone(desk: Desk) -> None:
    alive = await desk.start("alive")
    await desk.start("dead")
    assert (await desk.rescue("dead")).jobs == 1
    assert (await desk.get(alive.id)).state == "running"
    assert await desk.store.running_instances() == ["alive"]


@pytest.mark.parametrize("max_crashes", [1, 2, 3])
async def test_job_that_crashes_too_often_fails(desk: Desk, max_crashes: int) -> None:
    job_id = await desk.add(max_crashes=max_crashes)
    for _ in range(max_crashes - 1):
        await desk.claim()
        assert (await desk.rescue()).ended == []
    await desk.claim()
    ((ended, outcome),) = (await desk.rescue()).ended
    assert (ended, outcome.state, outcome.reason) == (job_id, State.FAILED, "crash")
    row = await desk.get(job_id)
    assert (row.state, row.reason, row.crashes) == ("failed", "crash", max_crashes)
    assert len(await desk.store.attempts(job_id)) == max_crashes


async def test_run_that_a_clean_stop_left_behind_is_given_back_without_a_crash(desk: Desk) -> None:
    await desk.do(Join("gone", 1, "host"))
    run = await desk.start("gone")
    await desk.do(Leave("gone", "stop"))
    assert await desk.rescue("gone") == (1, [])
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.attempt, row.crashes) == ("queued", "shutdown", 0, 0)
    assert row.claim == run.claim + 1
    assert await desk.end(run, instance="gone") == "lost"


async def test_run_that_may_not_be_repeated_fails_also_after_a_clean_stop(desk: Desk) -> None:
    await desk.do(Join("gone", 1, "host"))
    run = await desk.start("gone", max_crashes=1)
    await desk.do(Leave("gone", "stop"))
    assert (await desk.rescue("gone")).jobs == 1
    row = await desk.get(run.id)
    assert (row.state, row.reason, row.crashes) == ("failed", "crash", 1)


async def test_run_that_was_to_be_cancelled_ends_as_cancelled(desk: Desk) -> None:
    run = await desk.start()
    await desk.cancel(run.id, reason="enough")
    ((job_id, outcome),) = (await desk.rescue()).ended
    assert (job_id, outcome.state) == (run.id, State.CANCELLED)
    row = await desk.get(run.id)
    assert (row.state, row.crashes, row.claim) == ("cancelled", 0, run.claim + 1)


async def test_rescue_goes_no_further_than_its_limit(desk: Desk) -> None:
    await desk.insert(*[desk.job() for _ in range(5)])
    await desk.claim()
    assert [(await desk.rescue(limit=2)).jobs for _ in range(4)] == [2, 2, 1, 0]
    assert await desk.count("running") == 0


async def test_two_rescuers_of_one_instance_count_a_crash_once(desk: Desk) -> None:
    run = await desk.start("dead")
    await desk.rescue("dead")
    assert (await desk.rescue("dead")).jobs == 0
    assert (await desk.get(run.id)).crashes == 1


async def test_run_that_is_not_held_is_released_without_a_charge(desk: Desk) -> None:
    await desk.insert(desk.job(), desk.job())
    held, unknown = (await desk.claim()).jobs
    assert await desk.do(Disown("here", frozenset({held.seq}))) == 1
    row = await desk.get(unknown.id)
    assert (row.state, row.reason, row.attempt, row.crashes) == ("queued", "claim_lost", 0, 0)
    assert row.claim == unknown.claim + 1
    assert (await desk.get(held.id)).state == "running"


async def test_run_that_was_disowned_cannot_report(desk: Desk) -> None:
    run = await desk.start()
    await desk.do(Disown("here", frozenset()))
    assert await desk.end(run) == "lost"


async def test_disowning_touches_no_other_instance(desk: Desk) -> None:
    await desk.start("other")
    assert await desk.do(Disown("here", frozenset())) == 0


async def test_run_that_is_disowned_and_was_to_be_cancelled_is_cancelled(desk: Desk) -> None:
    run = await desk.start()
    await desk.cancel(run.id)
    await desk.do(Disown("here", frozenset()))
    assert (await desk.get(run.id)).state == "cancelled"


async def test_instances_come_and_go(desk: Desk) -> None:
    assert await desk.do(Join("one", 12, "host")) is None
    assert await desk.do(Leave("one", "stop")) is None
    assert await desk.do(Leave("nobody", "rescue")) is None
