"""What is set for queues is held by every claim, and costs nothing where nothing is set."""

from __future__ import annotations

from typing import Any

import pytest

from asyncjobs.clock import new_id
from asyncjobs.rules.limiting import Pace, Rate
from asyncjobs.states import Event
from asyncjobs.store.base import Claim, ClaimResult, Insert, InsertAndClaim, Report
from asyncjobs.store.queueing import SetQueue
from asyncjobs.store.sqlite.store import SQLiteStore

from .kit import PLENTY, SECOND, TASKS, Desk
from .test_plans import Plans, whole_walks


async def set_queue(desk: Desk, queue: str, **settings: Any) -> None:
    if "rate" in settings:
        rate: Rate | None = settings.pop("rate")
        settings["pace"] = rate.pace() if rate else None
    note_id = new_id(desk.clock.now())
    await desk.do(
        SetQueue(queue=queue, note_id=note_id, actor=None, action="set", what="{}", **settings)
    )


async def add(desk: Desk, jobs: int, **options: Any) -> None:
    await desk.insert(*[desk.job(**options) for _ in range(jobs)])


def queues_of(result: ClaimResult) -> list[str]:
    return [job.queue for job in result.jobs]


async def test_jobs_of_a_paused_queue_are_not_claimed_and_those_of_others_are(desk: Desk) -> None:
    await add(desk, 3, queue="a", priority=9)
    await add(desk, 2, queue="b")
    await set_queue(desk, "a", paused=True)
    result = await desk.claim()
    assert queues_of(result) == ["b", "b"]
    assert (result.waiting, result.next_run_at) == (frozenset(), None)
    await set_queue(desk, "a", paused=False)
    assert queues_of(await desk.claim()) == ["a"] * 3


async def test_delayed_job_of_a_paused_queue_sets_no_timer(desk: Desk) -> None:
    await add(desk, 1, queue="a", delay=SECOND)
    await set_queue(desk, "a", paused=True)
    assert (await desk.claim()).next_run_at is None


async def test_parked_jobs_of_a_paused_queue_stay(desk: Desk) -> None:
    await add(desk, 1, queue="a", task="strange")
    await desk.claim()
    await set_queue(desk, "a", paused=True)
    known = {"strange": "coroutine"}
    assert (await desk.claim(tasks=known)).jobs == []
    await set_queue(desk, "a", paused=False)
    assert len((await desk.claim(tasks=known)).jobs) == 1


@pytest.mark.parametrize("queues", [None, ("a", "b")])
async def test_queue_runs_no_more_than_its_cap_in_all_instances(
    desk: Desk, queues: tuple[str, ...] | None
) -> None:
    await add(desk, 40, queue="a")
    await add(desk, 2, queue="b")
    await set_queue(desk, "a", running=3)
    first = await desk.claim("first", room={"coroutine": 2, "thread": 0}, queues=queues)
    second = await desk.claim("second", queues=queues)
    assert queues_of(first) == ["a", "a"]
    assert queues_of(second) == ["a", "b", "b"]
    assert second.waiting == frozenset()
    assert (await desk.claim(queues=queues)).jobs == []


@pytest.mark.parametrize("event", [Event.COMPLETED, Event.FAILED, Event.SNOOZED])
async def test_end_of_a_run_makes_room_for_a_claim_of_the_same_transaction(
    desk: Desk, event: Event
) -> None:
    await add(desk, 5, queue="a")
    await set_queue(desk, "a", running=2)
    result = await desk.claim()
    assert result.capped == {"a"}
    move = desk.move(result.jobs[0], event)
    _, claimed = await desk.store.write([Report("here", [move]), Claim("here", TASKS, PLENTY)])
    assert len(claimed.jobs) == 1


async def test_cap_that_is_lowered_lets_run_what_runs(desk: Desk) -> None:
    await add(desk, 5, queue="a")
    running = (await desk.claim(room={"coroutine": 3})).jobs
    await set_queue(desk, "a", running=1)
    assert await desk.end(running[0]) == "done"
    assert (await desk.claim()).jobs == []
    assert await desk.report(*map(desk.move, running[1:])) == ["done", "done"]
    assert len((await desk.claim()).jobs) == 1


async def test_cap_of_zero_lets_none_start(desk: Desk) -> None:
    await add(desk, 1)
    await set_queue(desk, "default", running=0)
    assert (await desk.claim()).jobs == []


async def test_caps_hold_over_priorities_and_parked_jobs(desk: Desk) -> None:
    await add(desk, 2, queue="a", task="strange")
    await desk.claim()
    for priority in range(5):
        await add(desk, 2, queue="a", priority=priority)
    await set_queue(desk, "a", running=5)
    result = await desk.claim(tasks={**TASKS, "strange": "coroutine"})
    assert [job.task for job in result.jobs] == ["strange"] * 2 + ["add"] * 3


async def test_rate_holds_over_claims_and_says_when_to_look_again(desk: Desk) -> None:
    await add(desk, 100, queue="a")
    await set_queue(desk, "a", rate=Rate(10, burst=2))
    started, end = 0, desk.clock.now() + 5 * SECOND
    looks = 0
    while desk.clock.now() < end:
        result = await desk.claim()
        started += len(result.jobs)
        looks += 1
        assert result.next_run_at is not None
        assert result.next_run_at > desk.clock.now()
        desk.clock.move_to(result.next_run_at)
    assert started == 51  # the burst of two, then one each 100 ms
    assert looks == 50


async def test_rate_that_is_raised_holds_from_the_next_claim_on(desk: Desk) -> None:
    await add(desk, 4, queue="a")
    await set_queue(desk, "a", rate=Rate(1, per=3_600))
    assert len((await desk.claim()).jobs) == 1
    await set_queue(desk, "a", rate=Rate(1, per=2))
    result = await desk.claim()
    assert result.next_run_at == desk.clock.now() + 2 * SECOND
    desk.clock.advance(1)
    assert (await desk.claim()).next_run_at == desk.clock.now() + SECOND
    desk.clock.advance(1)
    assert len((await desk.claim()).jobs) == 1


async def test_clock_that_is_set_back_costs_a_queue_no_more_than_one_burst(desk: Desk) -> None:
    await add(desk, 1, queue="a")
    await set_queue(desk, "a", rate=Rate(1, per=2))
    assert len((await desk.claim()).jobs) == 1
    desk.clock.move_to(desk.clock.now() - 86_400 * SECOND)
    await add(desk, 2, queue="a")
    started = []
    for _ in range(5):
        started.append(len((await desk.claim()).jobs))
        desk.clock.advance(1)
    assert started == [0, 0, 1, 0, 1]


async def test_rate_and_cap_hold_together(desk: Desk) -> None:
    await add(desk, 10, queue="a")
    await set_queue(desk, "a", rate=Rate(10, burst=4), running=3)
    result = await desk.claim()
    assert len(result.jobs) == 3
    assert result.next_run_at is None  # the next end brings the next claim
    await desk.report(*map(desk.move, result.jobs))
    result = await desk.claim()
    assert len(result.jobs) == 1
    assert result.next_run_at == desk.clock.now() + SECOND // 10


async def test_what_is_left_out_stays_as_it_is(desk: Desk) -> None:
    await set_queue(desk, "a", running=3)
    await set_queue(desk, "a", rate=Rate(10))
    await set_queue(desk, "a", paused=True)
    (queue,) = await desk.store.queues(most=10)
    assert (queue.name, queue.paused, queue.running_max) == ("a", True, 3)
    assert (queue.rate_jobs, queue.rate_per) == (10, 1.0)
    await set_queue(desk, "a", running=None, paused=False)
    (queue,) = await desk.store.queues(most=10)
    assert (queue.paused, queue.running_max, queue.rate_jobs) == (False, None, 10)


async def test_queue_of_which_nothing_is_set_any_more_has_no_row(desk: Desk) -> None:
    await set_queue(desk, "a", running=3, rate=Rate(10))
    await set_queue(desk, "a", running=None, rate=None)
    assert await desk.store.queues(most=10) == []


@pytest.mark.parametrize(
    ("settings", "starts"),
    [({"paused": True}, 0), ({"running": 2}, 2), ({"pace": Pace(1, SECOND, 1)}, 1)],
)
async def test_jobs_that_would_start_at_once_are_held_as_well(
    desk: Desk, settings: dict[str, Any], starts: int
) -> None:
    await set_queue(desk, "default", **settings)
    jobs = [desk.job() for _ in range(3)]
    _, claimed = await desk.do(InsertAndClaim(Insert(jobs), Claim("here", TASKS, PLENTY)))
    assert len(claimed.jobs) == starts
    assert await desk.count("running") == starts


async def test_without_settings_jobs_start_at_once_in_as_many_statements_as_before(
    file_store: SQLiteStore,
    file_desk: Desk,
) -> None:
    async def statements() -> list[str]:
        async with Plans(file_store) as plans:
            jobs = [file_desk.job() for _ in range(3)]
            await file_desk.do(InsertAndClaim(Insert(jobs), Claim("here", TASKS, PLENTY)))
        return plans.statements

    before = await statements()
    assert not any("rate_jobs" in text or "parked" in text for text in before)
    await set_queue(file_desk, "elsewhere", paused=True)
    assert len(await statements()) > len(before)
    await set_queue(file_desk, "elsewhere", paused=False)
    assert len(await statements()) == len(before)


async def test_claim_among_settings_walks_no_table(
    file_store: SQLiteStore,
    file_desk: Desk,
) -> None:
    await add(file_desk, 30, queue="a")
    await set_queue(file_desk, "a", running=20, rate=Rate(10, burst=10))
    async with Plans(file_store) as plans:
        assert len((await file_desk.claim()).jobs) == 10
    assert whole_walks(await plans.of("asyncjobs_")) == []
    counts = [line for line in await plans.of("s.rate_jobs") if " c " in line]
    assert counts == ["SEARCH c USING PRIMARY KEY (queue=?)"]


async def test_full_queue_of_twenty_thousand_jobs_does_not_hold_up_another(
    file_desk: Desk,
) -> None:
    for _ in range(2):
        await add(file_desk, 10_000, queue="a", priority=5)
    await add(file_desk, 1, queue="b")
    await set_queue(file_desk, "a", running=1)
    assert queues_of(await file_desk.claim(room={"coroutine": 1_000})) == ["a", "b"]
