"""Limits that change while jobs of their keys wait and run, as a new deployment changes them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from asyncjobs.records import Claimed, Hold, JobLimit
from asyncjobs.states import Event
from asyncjobs.store.base import Delete, Requeue
from tests.oracles import seed_of

from .kit import SECOND, TASKS, Desk
from .test_admitting import ORDERED, STOPS, add, claimed, end, ids, rows_of

THREE = JobLimit("add", "k", 3)
ONE = JobLimit("add", "k", 1)
STRANGE = {"strange": "coroutine"}
LIMITED = '{"limited":true}'


async def run_out(desk: Desk) -> list[str]:
    """Run all that is due, one after the other; the order in which they started."""
    order: list[str] = []
    while runs := await claimed(desk):
        order += ids(runs)
        await desk.report(*[end(desk, run) for run in runs])
    return order


# From places to an order


async def test_what_is_due_later_is_queued_or_waits_its_turn_as_the_key_is_ordered(
    desk: Desk,
) -> None:
    first, second = await add(desk, 2, THREE, delay=60 * SECOND)
    assert await desk.count("queued") == 2
    (third,) = await add(desk, 1, ORDERED)
    states = [(await desk.get(job)).state for job in (first, second, third)]
    assert states == ["queued", "blocked", "blocked"]
    assert await desk.store.check() == []
    (fourth,) = await add(desk, 1, THREE)
    states = [(await desk.get(job)).state for job in (first, second, third, fourth)]
    assert states == ["queued"] * 4
    assert await desk.store.check() == []
    assert await run_out(desk) == [third, fourth]
    desk.clock.advance(60)
    assert await run_out(desk) == [first, second]


async def test_key_that_is_ordered_from_now_on_starts_as_enqueued_what_waits(desk: Desk) -> None:
    waiting = []
    for priority in (0, 5, -5, 3):
        waiting += await add(desk, 1, THREE, priority=priority)
    waiting += await add(desk, 1, THREE, delay=60 * SECOND)
    waiting += await add(desk, 1, ORDERED, priority=9)
    assert await desk.count("queued") == 1  # of three that had their permits
    assert await desk.store.check() == []
    assert await run_out(desk) == waiting[:4]
    desk.clock.advance(60)
    assert await run_out(desk) == waiting[4:]


async def test_what_runs_when_a_key_becomes_ordered_ends_before_the_next_starts(
    desk: Desk,
) -> None:
    jobs = await add(desk, 4, THREE)
    runs = await claimed(desk, room={"coroutine": 2})
    jobs += await add(desk, 1, ORDERED)
    assert await claimed(desk) == []
    await desk.report(end(desk, runs[0]))
    assert await claimed(desk) == []
    await desk.report(end(desk, runs[1]))
    assert await run_out(desk) == jobs[2:]


@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED, Event.RELEASED, None])
async def test_of_several_that_come_back_to_an_ordered_key_one_runs_at_a_time(
    desk: Desk, event: Event | None
) -> None:
    jobs = await add(desk, 3, THREE)
    runs = await claimed(desk)
    jobs += await add(desk, 1, ORDERED)
    if event is None:
        await desk.rescue()
    else:
        await desk.report(*[end(desk, run, event) for run in reversed(runs)])
    order = []
    while runs := await claimed(desk):
        assert len(runs) == 1
        order += ids(runs)
        await desk.report(end(desk, runs[0]))
    assert order == jobs


async def test_one_that_waits_for_its_retry_holds_a_key_that_is_ordered_meanwhile(
    desk: Desk,
) -> None:
    head, behind = await add(desk, 2, ONE)
    (run,) = await claimed(desk)
    due = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=due))
    assert (await desk.get(behind)).state == "queued"
    (last,) = await add(desk, 1, ORDERED)
    result = await desk.claim()
    assert (result.jobs, result.next_run_at) == ([], due)
    desk.clock.move_to(due)
    assert await run_out(desk) == [head, behind, last]


# From an order to places


async def test_key_that_is_ordered_no_more_starts_by_priority_what_is_due(desk: Desk) -> None:
    first = await add(desk, 1, ORDERED)
    late = await add(desk, 1, ORDERED, delay=60 * SECOND)
    low = await add(desk, 1, ORDERED, priority=-5)
    high = await add(desk, 1, ORDERED, priority=5)
    (run,) = await claimed(desk)
    new = await add(desk, 1, ONE)
    assert await desk.store.check() == []
    await desk.report(end(desk, run))
    assert [run.id] == first
    assert await run_out(desk) == [*high, *new, *low]
    desk.clock.advance(60)
    assert await run_out(desk) == late


async def test_head_that_waits_for_its_retry_holds_its_key_only_while_that_is_ordered(
    desk: Desk,
) -> None:
    head, behind = await add(desk, 2, ORDERED)
    (run,) = await claimed(desk)
    due = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=due))
    (new,) = await add(desk, 1, ONE)
    assert await run_out(desk) == [behind, new]
    desk.clock.move_to(due)
    assert await run_out(desk) == [head]


@pytest.mark.parametrize("limit", [ORDERED, ONE, THREE])
async def test_failure_that_had_stopped_a_key_does_so_no_more(desk: Desk, limit: JobLimit) -> None:
    failed, behind = await add(desk, 2, STOPS)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    (new,) = await add(desk, 1, limit)
    assert await run_out(desk) == [behind, new]
    await desk.do(Requeue([failed]))
    assert await run_out(desk) == [failed]


async def test_edited_dead_letter_with_a_new_limit_is_still_the_first_of_its_line(
    desk: Desk,
) -> None:
    failed, *behind = await add(desk, 3, STOPS)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    await desk.do(Requeue([failed], '{"left":2}', ORDERED))
    assert await run_out(desk) == [failed, *behind]


# More or fewer places


async def test_cap_that_is_lowered_recalls_permits_of_what_has_not_started(desk: Desk) -> None:
    jobs = await add(desk, 3, THREE)
    await claimed(desk, room={"coroutine": 1})
    await add(desk, 1, ONE)
    assert await claimed(desk) == []
    assert [(await desk.get(job)).reason for job in jobs[1:]] == ["limit", "limit"]


@pytest.mark.parametrize("event", [Event.RELEASED, Event.RETRYING, None])
async def test_cap_that_is_lowered_holds_for_those_that_come_back(
    desk: Desk, event: Event | None
) -> None:
    jobs = await add(desk, 3, THREE)
    runs = await claimed(desk)
    jobs += await add(desk, 1, ONE)
    if event is None:
        await desk.rescue()
    else:
        await desk.report(*[end(desk, run, event) for run in runs])
    assert await desk.store.check() == []
    assert len(await claimed(desk)) == 1


async def test_cap_that_is_raised_lets_what_waits_start_and_calls_nothing_back(desk: Desk) -> None:
    jobs = await add(desk, 3, ONE)
    before = (await desk.get(jobs[0])).run_at
    desk.clock.advance(1)
    jobs += await add(desk, 1, THREE)
    assert (await desk.get(jobs[0])).run_at == before
    assert ids(await claimed(desk)) == jobs[:3]


async def test_rate_that_is_new_holds_for_permits_that_were_given_without_it(desk: Desk) -> None:
    jobs = await add(desk, 3, THREE)
    jobs += await add(desk, 1, JobLimit("add", "k", 3, (1, 60 * SECOND, 1)))
    for job in jobs:
        assert await run_out(desk) == [job]
        desk.clock.advance(60)


async def test_rate_of_a_key_that_is_raised_holds_from_then_on(desk: Desk) -> None:
    await add(desk, 3, JobLimit("add", "k", None, (1, 3_600 * SECOND, 1)))
    assert len(await claimed(desk)) == 1
    await add(desk, 1, JobLimit("add", "k", None, (1, 2 * SECOND, 1)))
    started = []
    for _ in range(7):
        started.append(len(await claimed(desk)))
        desk.clock.advance(1)
    assert started == [0, 0, 1, 0, 1, 0, 1]


async def test_key_whose_rate_was_raised_is_closed_by_its_jobs_as_ever(desk: Desk) -> None:
    await add(desk, 1, JobLimit("add", "k", None, (1, 3_600 * SECOND, 1)))
    (run,) = await claimed(desk)
    faster = JobLimit("add", "k", None, (1, SECOND, 1))
    await add(desk, 1, faster, delay=SECOND)  # so that nothing waits yet
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.FAILED, key_opens_at=opens_at))
    (new,) = await add(desk, 1, faster)
    desk.clock.move_to(opens_at - SECOND)
    assert await claimed(desk) == []
    desk.clock.move_to(opens_at)
    assert ids(await claimed(desk)) == [new]


async def test_recalled_permit_of_a_key_with_a_rate_counts_once(desk: Desk) -> None:
    paced, order = (JobLimit("add", "k", 2, (1, 60 * SECOND, 1), way) for way in (False, True))
    (first,) = await add(desk, 1, paced)
    (second,) = await add(desk, 1, order)
    assert ids(await claimed(desk)) == [first]
    desk.clock.advance(59)
    assert await claimed(desk) == []
    desk.clock.advance(1)
    assert ids(await claimed(desk)) == [second]


async def test_recalled_permit_that_was_given_without_a_rate_is_not_refunded(desk: Desk) -> None:
    paced = JobLimit("add", "k", None, (1, 60 * SECOND, 1))
    first, second = await add(desk, 2, paced)
    assert ids(await claimed(desk)) == [first]
    await add(desk, 3, JobLimit("add", "k", 5))
    await add(desk, 1, paced)
    desk.clock.advance(59)
    assert await claimed(desk) == []
    desk.clock.advance(1)
    assert ids(await claimed(desk)) == [second]
    assert await desk.store.check() == []


@pytest.mark.parametrize("key", ["k", "other"])
async def test_edited_dead_letter_is_not_refunded_the_start_that_it_had(
    desk: Desk, key: str
) -> None:
    rate = (1, 60 * SECOND, 1)
    failed, behind = await add(desk, 2, JobLimit("add", "k", 1, rate, ordered=True, stops=True))
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    await desk.do(Requeue([failed], '{"left":2}', JobLimit("add", key, 1, rate)))
    moved = [failed] if key == "other" else []
    assert ids(await claimed(desk)) == moved
    desk.clock.advance(59)
    assert await claimed(desk) == []
    desk.clock.advance(1)
    assert ids(await claimed(desk)) == ([behind] if moved else [failed])
    assert await desk.store.check() == []


async def test_parked_job_gives_its_permit_back_and_is_taken_up_in_its_turn(desk: Desk) -> None:
    first, parked = [await desk.add(task="strange", limit=THREE, options=LIMITED) for _ in range(2)]
    await desk.claim()  # by one that does not have the task
    (new,) = await add(desk, 1, ORDERED)
    assert await desk.store.check() == []
    for job in (first, parked):
        (run,) = (await desk.claim(tasks=STRANGE)).jobs
        assert run.id == job
        assert await claimed(desk) == []
        await desk.report(end(desk, run))
    assert ids(await claimed(desk, tasks={**TASKS, **STRANGE})) == [new]


async def test_replaced_job_keeps_no_permit_of_a_key_that_it_makes_an_ordered_one(
    desk: Desk,
) -> None:
    (first,) = await add(desk, 1, THREE)
    hold = Hold("queued", "replace")
    replaced = desk.job(limit=THREE, options=LIMITED, key="\x01k", hold=hold)
    await desk.insert(replaced)
    await desk.add(limit=ORDERED, options=LIMITED, key="\x01k", hold=hold)
    assert await desk.store.check() == []
    assert await run_out(desk) == [first, replaced.id]


# Everything at once

VARIANTS = (ONE, THREE, ORDERED, STOPS, JobLimit("add", "k", 2, (50, SECOND, 3)))
UNFINISHED = "SELECT id, state FROM asyncjobs_jobs WHERE finished_at IS NULL ORDER BY seq"


@pytest.mark.parametrize("rounds", [150, pytest.param(3_000, marks=pytest.mark.proof)])
async def test_whatever_a_limit_becomes_no_start_is_against_it(desk: Desk, rounds: int) -> None:
    chance = Random(seed_of("changed limits"))
    running: dict[int, Claimed] = {}
    known: list[str] = []
    limit = ONE
    for _ in range(rounds):
        match chance.randrange(7):
            case 0 | 1:
                limit = chance.choice(VARIANTS)
                delay = chance.choice([None, None, SECOND])
                many, priority = chance.randrange(1, 4), chance.randrange(3)
                known += await add(desk, many, limit, priority=priority, delay=delay)
            case 2 | 3:
                room = {"coroutine": chance.randrange(1, 4)}
                running |= await starts(desk, limit, room)
            case 4 if running:
                run = running.pop(chance.choice(list(running)))
                event = chance.choice([*ENDS, Event.RETRYING, Event.SNOOZED, Event.RELEASED])
                again = event in (Event.RETRYING, Event.SNOOZED)
                more: dict[str, Any] = {"run_at": desk.clock.now() + SECOND} if again else {}
                await desk.end(run, event, limited=True, **more)
            case 5 if known and chance.randrange(2):
                if chance.randrange(4):
                    await desk.do(Delete([chance.choice(known)]))
                else:
                    await desk.rescue()
                    running.clear()
            case _:
                desk.clock.advance(chance.random())
        if chance.randrange(10) == 0:
            assert await desk.store.check() == []
    await ends(desk, running)


ENDS = (Event.COMPLETED, Event.FAILED)


async def starts(desk: Desk, limit: JobLimit, room: dict[str, int]) -> dict[int, Claimed]:
    """Claim: no more run than the limit has places, and an ordered one starts its first."""
    unfinished = [job_id for job_id, _ in await rows_of(desk, UNFINISHED)]
    runs = await claimed(desk, room=room)
    if runs:
        states = [state for _, state in await rows_of(desk, UNFINISHED)]
        assert states.count("running") <= (limit.running or 0)
        assert not limit.ordered or ids(runs) == unfinished[:1]
    return {run.seq: run for run in runs}


async def ends(desk: Desk, running: dict[int, Claimed]) -> None:
    """Nothing waits for ever, once a failure stops nothing any more."""
    await add(desk, 1, THREE)
    for _ in range(2_000):
        await desk.report(*[end(desk, run) for run in running.values()])
        desk.clock.advance(0.5)
        running = await starts(desk, THREE, {"coroutine": 3})
        if not await rows_of(desk, UNFINISHED):
            return
    raise AssertionError(f"{len(await rows_of(desk, UNFINISHED))} jobs are held for ever")
