"""Limits by key: who holds a permit, who waits, and who is next."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from asyncjobs.records import Claimed, JobLimit, Transition
from asyncjobs.states import Event
from asyncjobs.store.base import (
    Cancel,
    Claim,
    Delete,
    Disown,
    Insert,
    InsertAndClaim,
    Prune,
    Report,
    Requeue,
)
from asyncjobs.store.expiry import Expire
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.store.sqlite.transaction import STATEMENTS
from tests.oracles import seed_of

from .kit import PLENTY, SECOND, TASKS, Desk
from .test_plans import Plans, whole_walks

TWO = JobLimit("add", "k", 2)
ORDERED = JobLimit("add", "k", 1, ordered=True)
STOPS = JobLimit("add", "k", 1, ordered=True, stops=True)


async def add(desk: Desk, jobs: int, limit: JobLimit = TWO, **options: Any) -> list[str]:
    new = [desk.job(limit=limit, options='{"limited":true}', **options) for _ in range(jobs)]
    await desk.insert(*new)
    return [job.id for job in new]


def end(desk: Desk, run: Claimed, event: Event = Event.COMPLETED, **more: Any) -> Transition:
    return desk.move(run, event, limited=True, **more)


async def claimed(desk: Desk, instance: str = "here", **options: Any) -> list[Claimed]:
    return (await desk.claim(instance, **options)).jobs


def ids(runs: list[Claimed]) -> list[str]:
    return [run.id for run in runs]


async def test_key_runs_no_more_than_its_cap_and_the_others_are_blocked(desk: Desk) -> None:
    jobs = await add(desk, 5)
    others = await add(desk, 3, JobLimit("add", "other", 2))
    assert await desk.count("blocked") == 4
    assert (await desk.get(jobs[2])).reason == "limit"
    assert ids(await claimed(desk)) == [*jobs[:2], *others[:2]]
    assert await claimed(desk) == []


@pytest.mark.parametrize("event", [Event.COMPLETED, Event.FAILED, Event.CANCELLED])
async def test_end_admits_the_next_in_the_same_transaction(desk: Desk, event: Event) -> None:
    jobs = await add(desk, 4)
    first, second = await claimed(desk)
    _, result = await desk.store.write(
        [Report("here", [end(desk, first, event)]), Claim("here", TASKS, PLENTY)]
    )
    assert ids(result.jobs) == [jobs[2]]
    await desk.report(end(desk, second, event), end(desk, result.jobs[0], event))
    assert ids(await claimed(desk)) == [jobs[3]]


async def test_next_is_the_one_of_highest_priority_then_the_oldest(desk: Desk) -> None:
    (first,) = await add(desk, 1, JobLimit("add", "k", 1))
    low = await add(desk, 2, JobLimit("add", "k", 1))
    (high,) = await add(desk, 1, JobLimit("add", "k", 1), priority=5)
    order = []
    while runs := await claimed(desk):
        order += ids(runs)
        await desk.report(*[end(desk, run) for run in runs])
    assert order == [first, high, *low]


async def test_jobs_that_start_at_once_take_permits_as_well(desk: Desk) -> None:
    new = [desk.job(limit=TWO, options='{"limited":true}') for _ in range(3)]
    _, result = await desk.do(InsertAndClaim(Insert(new), Claim("here", TASKS, PLENTY)))
    assert ids(result.jobs) == [job.id for job in new[:2]]


async def test_delayed_job_takes_its_permit_when_it_is_due(desk: Desk) -> None:
    (late,) = await add(desk, 1, delay=SECOND)
    jobs = await add(desk, 2)
    result = await desk.claim()
    assert ids(result.jobs) == jobs
    assert result.next_run_at == desk.clock.now() + SECOND
    desk.clock.advance(1)
    assert await claimed(desk) == []  # the key is full
    await desk.report(end(desk, result.jobs[0]))
    assert ids(await claimed(desk)) == [late]


async def test_job_that_waits_for_its_retry_gives_its_permit_back(desk: Desk) -> None:
    first, second = await add(desk, 2, JobLimit("add", "k", 1))
    (run,) = await claimed(desk)
    due = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=due))
    job = await desk.get(first)
    assert (job.state, job.reason) == ("queued", "error")
    result = await desk.claim()
    assert ids(result.jobs) == [second]
    assert result.next_run_at == due
    desk.clock.move_to(due)
    await desk.report(end(desk, result.jobs[0]))
    (run,) = await claimed(desk)
    assert (run.id, run.attempt) == (first, 2)


async def test_job_that_is_due_while_its_key_is_full_is_blocked_until_there_is_room(
    desk: Desk,
) -> None:
    await add(desk, 1, JobLimit("add", "k", 1))
    (run,) = await claimed(desk)
    (late,) = await add(desk, 1, JobLimit("add", "k", 1), delay=SECOND)
    assert (await desk.get(late)).state == "queued"
    desk.clock.advance(1)
    assert await claimed(desk) == []
    job = await desk.get(late)
    assert (job.state, job.reason) == ("blocked", "limit")
    await desk.report(end(desk, run))
    assert ids(await claimed(desk)) == [late]


async def test_very_many_that_are_due_at_once_ask_for_their_permits_before_any_starts(
    desk: Desk,
) -> None:
    jobs = [desk.job(limit=TWO, options='{"limited":true}', delay=SECOND) for _ in range(2_500)]
    await desk.insert(*jobs)
    desk.clock.advance(2)
    (other,) = await add(desk, 1, JobLimit("add", "other", 1))
    started, looks = [], 0
    while True:
        result = await desk.claim()
        started += ids(result.jobs)
        looks += 1
        assert await desk.store.check() == []
        if result.next_run_at is None:
            break
        assert result.next_run_at <= desk.clock.now()
    assert started == [jobs[0].id, jobs[1].id, other]
    assert looks == 3
    assert await desk.count("blocked") == 2_498


async def test_job_that_is_given_back_keeps_its_permit(desk: Desk) -> None:
    first, _ = await add(desk, 2, JobLimit("add", "k", 1))
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.RELEASED))
    assert ids(await claimed(desk)) == [first]


async def test_permits_of_a_dead_instance_are_taken_over_with_its_jobs(desk: Desk) -> None:
    jobs = await add(desk, 2, max_crashes=2)
    (pill,) = await add(desk, 1, max_crashes=1)
    rest = await add(desk, 2)
    assert ids(await claimed(desk, "dead")) == jobs
    await desk.rescue("dead")
    assert ids(await claimed(desk, "dead", probation=False)) == []
    (first,) = await claimed(desk, "dead")
    await desk.rescue("dead")  # the second crash ends it
    assert first.id == jobs[0]
    assert ids(await claimed(desk, "other")) == [jobs[1], pill]
    await desk.rescue("other")
    assert ids(await claimed(desk)) == rest


async def test_cancelled_job_makes_room_whether_it_had_a_permit_or_not(desk: Desk) -> None:
    jobs = await add(desk, 5)
    await desk.cancel(jobs[0], jobs[2])
    assert ids(await claimed(desk)) == [jobs[1], jobs[3]]


async def test_deleted_job_makes_room_and_the_last_one_takes_its_key_along(desk: Desk) -> None:
    jobs = await add(desk, 3)
    await desk.do(Delete([jobs[0]]))
    assert ids(await claimed(desk)) == jobs[1:]
    await desk.report(*[end(desk, run) for run in await claimed(desk)])
    await desk.rescue("here")
    runs = await claimed(desk)
    await desk.report(*[end(desk, run) for run in runs])
    desk.clock.advance(1)
    await desk.do(Prune({"completed": desk.clock.now()}, 0, 100))
    rows = await rows_of(desk, "SELECT count(*) FROM asyncjobs_limits")
    assert rows == [(0,)]


async def rows_of(desk: Desk, query: str) -> list[Any]:
    store: Any = desk.store
    rows: list[Any] = await store._reader.run(lambda c: c.execute(query).fetchall())
    return rows


async def test_job_that_is_retried_by_hand_lines_up_again(desk: Desk) -> None:
    jobs = await add(desk, 2, JobLimit("add", "k", 1))
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    await desk.do(Requeue([jobs[0]]))
    assert (await desk.get(jobs[0])).state == "blocked"
    (run,) = await claimed(desk)
    assert run.id == jobs[1]
    await desk.report(end(desk, run))
    assert ids(await claimed(desk)) == [jobs[0]]


async def test_cap_of_zero_holds_every_job_until_a_job_says_otherwise(desk: Desk) -> None:
    jobs = await add(desk, 2, JobLimit("add", "k", 0))
    assert await claimed(desk) == []
    jobs += await add(desk, 1, JobLimit("add", "k", 3))
    assert ids(await claimed(desk)) == jobs


async def test_cap_that_is_lowered_lets_run_what_runs(desk: Desk) -> None:
    await add(desk, 3, JobLimit("add", "k", 3))
    runs = await claimed(desk)
    await add(desk, 1, JobLimit("add", "k", 1))
    await desk.report(*[end(desk, run) for run in runs[:2]])
    assert await claimed(desk) == []
    await desk.report(end(desk, runs[2]))
    assert len(await claimed(desk)) == 1


async def test_full_keys_stand_in_nobodys_way(desk: Desk) -> None:
    for key in range(100):
        await add(desk, 20, JobLimit("add", str(key), 1), priority=9)
    await claimed(desk, room={"coroutine": 200})
    (free,) = await add(desk, 1, JobLimit("add", "free", 1), priority=-9)
    assert ids(await claimed(desk, room={"coroutine": 1})) == [free]


# Ordered keys


async def test_ordered_key_runs_one_by_one_as_enqueued_whatever_the_priority(desk: Desk) -> None:
    chance = Random(7)
    jobs = []
    for _ in range(30):
        jobs += await add(desk, 1, ORDERED, priority=chance.randrange(-5, 5))
    order = []
    while runs := await claimed(desk):
        assert len(runs) == 1
        order += ids(runs)
        await desk.report(end(desk, runs[0]))
    assert order == jobs


@pytest.mark.parametrize("event", [Event.RETRYING, Event.SNOOZED])
async def test_head_that_waits_for_its_next_attempt_holds_its_key(desk: Desk, event: Event) -> None:
    head, behind = await add(desk, 2, ORDERED)
    (run,) = await claimed(desk)
    due = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, event, run_at=due))
    result = await desk.claim()
    assert (result.jobs, result.next_run_at) == ([], due)
    desk.clock.move_to(due)
    (run,) = await claimed(desk)
    assert run.id == head
    await desk.report(end(desk, run))
    assert ids(await claimed(desk)) == [behind]


async def test_delayed_head_holds_its_key(desk: Desk) -> None:
    (late,) = await add(desk, 1, ORDERED, delay=60 * SECOND)
    await add(desk, 1, ORDERED)
    assert await claimed(desk) == []
    desk.clock.advance(60)
    assert ids(await claimed(desk)) == [late]


async def test_delayed_job_further_back_waits_for_its_time_when_it_is_the_head(desk: Desk) -> None:
    await add(desk, 1, ORDERED)
    (late,) = await add(desk, 1, ORDERED, delay=60 * SECOND)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run))
    assert await claimed(desk) == []
    desk.clock.advance(60)
    assert ids(await claimed(desk)) == [late]


async def test_head_that_pushes_its_key_back_waits_for_its_own_time_with_its_reason(
    desk: Desk,
) -> None:
    head, behind = await add(desk, 2, ORDERED)
    (run,) = await claimed(desk)
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=opens_at, key_opens_at=opens_at))
    job = await desk.get(head)
    assert (job.state, job.reason) == ("queued", "error")
    assert (await desk.get(behind)).state == "blocked"
    assert await desk.store.check() == []


async def test_failure_lets_the_next_of_an_ordered_key_go(desk: Desk) -> None:
    _, behind = await add(desk, 2, ORDERED)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    assert ids(await claimed(desk)) == [behind]


async def test_failure_stops_a_key_until_the_job_is_retried(desk: Desk) -> None:
    failed, behind = await add(desk, 2, STOPS)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    assert await claimed(desk) == []
    await desk.do(Requeue([failed]))
    (run,) = await claimed(desk)
    assert run.id == failed
    await desk.report(end(desk, run))
    assert ids(await claimed(desk)) == [behind]


async def test_failure_stops_a_key_until_the_job_is_deleted(desk: Desk) -> None:
    failed, behind = await add(desk, 2, STOPS)
    (run,) = await claimed(desk)
    await desk.report(end(desk, run, Event.FAILED))
    (late,) = await add(desk, 1, STOPS)
    assert await claimed(desk) == []
    await desk.do(Delete([failed]))
    (run,) = await claimed(desk)
    await desk.report(end(desk, run))
    assert [run.id, *ids(await claimed(desk))] == [behind, late]


async def test_cancelled_head_does_not_stop_a_key(desk: Desk) -> None:
    head, behind = await add(desk, 2, STOPS)
    await desk.cancel(head)
    assert ids(await claimed(desk)) == [behind]


# Rates


async def test_rate_of_a_key_holds_over_a_minute_and_wakes_no_more_often_than_it_starts(
    desk: Desk,
) -> None:
    limit = JobLimit("add", "k", None, (10, SECOND, 2))
    for _ in range(4):
        await add(desk, 200, limit)
    started = looks = 0
    end_at = desk.clock.now() + 60 * SECOND
    while desk.clock.now() < end_at:
        result = await desk.claim()
        started += len(result.jobs)
        looks += 1
        await desk.report(*[end(desk, run) for run in result.jobs])
        assert result.next_run_at is not None
        assert result.next_run_at > desk.clock.now()
        desk.clock.move_to(result.next_run_at)
    assert 600 <= started <= 606
    assert looks <= 620


async def test_permits_do_not_pile_up_while_nobody_claims(desk: Desk) -> None:
    limit = JobLimit("add", "k", None, (10, SECOND, 2))
    for _ in range(30):
        await add(desk, 1, limit)
        desk.clock.advance(1)
    assert await desk.count("queued") == 2
    await claimed(desk)
    assert len(await claimed(desk)) <= 2


# Keys that are pushed back


async def test_job_pushes_its_whole_key_back_and_what_runs_goes_on(desk: Desk) -> None:
    jobs = await add(desk, 4, JobLimit("add", "k", 3))
    (other,) = await add(desk, 1, JobLimit("add", "other", 3))
    first, second = await claimed(desk, room={"coroutine": 2})
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, first, Event.RETRYING, run_at=opens_at, key_opens_at=opens_at))
    result = await desk.claim()
    assert (ids(result.jobs), result.next_run_at) == ([other], opens_at)
    assert await desk.end(second, limited=True) == "done"
    await add(desk, 1, JobLimit("add", "k", 3))
    assert await claimed(desk) == []
    desk.clock.move_to(opens_at)
    assert ids(await claimed(desk))[:2] == jobs[2:]


async def test_job_that_fails_pushes_its_key_back_as_well(desk: Desk) -> None:
    await add(desk, 2, ORDERED)
    (run,) = await claimed(desk)
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.FAILED, key_opens_at=opens_at))
    assert await claimed(desk) == []
    desk.clock.move_to(opens_at)
    assert len(await claimed(desk)) == 1


async def test_ordered_head_that_pushes_its_key_back_stays_the_head(desk: Desk) -> None:
    head, _ = await add(desk, 2, ORDERED)
    (run,) = await claimed(desk)
    opens_at = desk.clock.now() + 60 * SECOND
    await desk.report(end(desk, run, Event.RETRYING, run_at=opens_at, key_opens_at=opens_at))
    desk.clock.move_to(opens_at)
    assert ids(await claimed(desk)) == [head]


# Fairness


@pytest.mark.parametrize("thousands", [5, pytest.param(100, marks=pytest.mark.proof)])
async def test_small_tenants_are_done_long_before_a_large_one(desk: Desk, thousands: int) -> None:
    """One tenant with very many jobs and 99 with ten, a pool of ten."""
    large = JobLimit("add", "large", 100)
    for _ in range(thousands):
        await add(desk, 1_000, large)
    small = {}
    runs = await claimed(desk, room={"coroutine": 10})
    for tenant in range(99):
        for job_id in await add(desk, 10, JobLimit("add", f"small-{tenant}", 100)):
            small[job_id] = tenant
    large_runs = 0
    while small:
        large_runs += sum(run.id not in small for run in runs)
        for run in runs:
            small.pop(run.id, None)
        _, result = await desk.store.write(
            [
                Report("here", [end(desk, run) for run in runs]),
                Claim("here", TASKS, {"coroutine": 10}),
            ]
        )
        desk.clock.advance(0.001)
        runs = result.jobs
    assert large_runs < 300


# What SQLite does


async def test_limited_jobs_walk_no_table(
    file_store: SQLiteStore,
    file_desk: Desk,
) -> None:
    async with Plans(file_store) as plans:
        jobs = await add(file_desk, 6, JobLimit("add", "k", 2, (100, SECOND, 50)))
        await add(file_desk, 1, delay=SECOND)
        runs = await claimed(file_desk)
        later = {"run_at": file_desk.clock.now() + SECOND}
        await file_desk.report(
            end(file_desk, runs[0]), end(file_desk, runs[1], Event.RETRYING, **later)
        )
        file_desk.clock.advance(2)
        await claimed(file_desk)
        await file_desk.cancel(jobs[5])
        await file_desk.do(Requeue([jobs[5]]))
        await file_desk.cancel(jobs[5])
        await file_desk.do(Requeue([jobs[5]], '{"left":2}', ORDERED))
        await file_desk.do(Delete([jobs[5]]))
    lines = await plans.of("asyncjobs_")
    assert whole_walks(lines) == []
    small = ("asyncjobs_counts", "asyncjobs_queue_settings")
    assert [line for line in lines if "SCAN asyncjobs" in line and not line.endswith(small)] == []
    sorts = [line for line in await plans.of("place = 'ready'") if "TEMP B-TREE" in line]
    assert sorts == []


async def test_jobs_without_a_limit_ask_nothing_about_limits(
    file_store: SQLiteStore,
    file_desk: Desk,
) -> None:
    async with Plans(file_store) as plans:
        await file_desk.insert(*[file_desk.job() for _ in range(3)])
        runs = (await file_desk.claim()).jobs
        await file_desk.report(*map(file_desk.move, runs))
    # But for one seek in an index that is empty then, in a statement that a claim needs anyway.
    look = STATEMENTS["unstarted"]
    assert [text for text in plans.statements if "asyncjobs_limit" in text and text != look] == []


# Everything at once

LIMITS = (
    JobLimit("add", "one", 1),
    JobLimit("add", "three", 3),
    JobLimit("add", "paced", 2, (50, SECOND, 3)),
    JobLimit("add", "ordered", 1, ordered=True),
    JobLimit("add", "stops", 1, ordered=True, stops=True),
    JobLimit("add", "slow", 1, (1, 5 * SECOND, 1), ordered=True, stops=True),
)


@pytest.mark.parametrize("rounds", [150, pytest.param(3_000, marks=pytest.mark.proof)])
async def test_caps_hold_and_every_line_goes_on_whatever_happens(desk: Desk, rounds: int) -> None:
    chance = Random(seed_of("admitting"))
    known: list[str] = []
    running: dict[int, Claimed] = {}
    slow = SlowKey()
    for _ in range(rounds):
        match chance.randrange(9):
            case 0 | 1:
                limit = chance.choice(LIMITS)
                delay = chance.choice([None, None, SECOND])
                known += await add(
                    desk, chance.randrange(1, 5), limit, priority=chance.randrange(3), delay=delay,
                    expires=chance.choice([None, 3 * SECOND]),
                )  # fmt: skip
            case 2 | 3:
                room = {"coroutine": chance.randrange(1, 6)}
                runs = await claimed(desk, room=room)
                await slow.look(desk, runs)
                running |= {run.seq: run for run in runs}
            case 4 if running:
                run = running.pop(chance.choice(list(running)))
                event = chance.choice([*ENDS, Event.RETRYING, Event.SNOOZED, Event.RELEASED])
                again = event not in ENDS and event is not Event.RELEASED
                more: dict[str, Any] = {"run_at": desk.clock.now() + SECOND} if again else {}
                if chance.randrange(5) == 0:
                    more["key_opens_at"] = desk.clock.now() + SECOND
                answer = await desk.end(run, event, limited=True, **more)
                assert answer in ("done", "cancelled")
            case 5 if known:
                await desk.do(by_hand(desk, chance, [chance.choice(known)]))
            case 8 if stopping := await rows_of(desk, STOPPED):
                await desk.do(by_hand(desk, chance, [job_id for (job_id,) in stopping]))
            case 6 if chance.randrange(4) == 0:
                if chance.randrange(2):
                    await desk.rescue()
                else:
                    await desk.do(Disown("here", frozenset()))
                running.clear()
            case 6:
                await desk.do(Prune({"failed": desk.clock.now()}, 0, 9))
                await desk.do(Expire(9))
            case _:
                desk.clock.advance(chance.random())
        await slow.look(desk)
        await caps_hold(desk)
    assert await desk.store.check() == []
    await drains(desk, running, slow)


def by_hand(desk: Desk, chance: Random, ids: list[str]) -> Requeue | Delete | Cancel:
    """What people may do to jobs."""
    changes: list[Requeue | Delete | Cancel] = [
        Delete(ids),
        Cancel(ids),
        Requeue(ids),
        Requeue(ids, first_at=desk.clock.now() + SECOND),
        Requeue(ids, '{"left":2}', chance.choice(LIMITS)),
    ]
    return chance.choice(changes)


ENDS = (Event.COMPLETED, Event.FAILED, Event.CANCELLED)
RUNNING = """
SELECT k.key, count(*) FROM asyncjobs_limited AS l
JOIN asyncjobs_limits AS k ON k.id = l.limit_id JOIN asyncjobs_jobs AS j ON j.seq = l.seq
WHERE j.state = 'running' GROUP BY k.key
"""
STOPPED = """
SELECT j.id FROM asyncjobs_limited AS l JOIN asyncjobs_jobs AS j ON j.seq = l.seq
WHERE l.place = 'in' AND j.state = 'failed'
"""
SLOW_SPENT = "SELECT spent FROM asyncjobs_limits WHERE key = 'slow'"
SLOW_JOBS = """
SELECT l.seq FROM asyncjobs_limited AS l JOIN asyncjobs_limits AS k ON k.id = l.limit_id
WHERE k.key = 'slow'
"""


async def caps_hold(desk: Desk) -> None:
    caps = {limit.key: limit.running or 0 for limit in LIMITS}
    over = [(key, jobs) for key, jobs in await rows_of(desk, RUNNING) if jobs > caps[key]]
    assert over == []


class SlowKey:
    """Each start of a key whose rate admits one at a time has a permit that counted."""

    def __init__(self) -> None:
        self._permits = self._starts = 0
        self._spent = 0.0

    async def look(self, desk: Desk, runs: Sequence[Claimed] = ()) -> None:
        """After every step."""
        for (spent,) in await rows_of(desk, SLOW_SPENT) or [(0.0,)]:
            if spent != 0.0:  # else its row was gone, and has come again
                self._permits += (spent > self._spent) - (spent < self._spent)
            self._spent = spent
        slow = {seq for (seq,) in await rows_of(desk, SLOW_JOBS)}
        self._starts += sum(run.seq in slow for run in runs)
        assert self._starts <= self._permits


async def drains(desk: Desk, running: dict[int, Claimed], slow: SlowKey) -> None:
    """Once nothing new comes and stopped keys are let go, everything ends."""
    runs = list(running.values())
    for _ in range(5_000):
        await desk.report(*[end(desk, run) for run in runs])
        await slow.look(desk)
        await desk.do(Delete([job_id for (job_id,) in await rows_of(desk, STOPPED)]))
        await slow.look(desk)
        desk.clock.advance(0.5)
        runs = await claimed(desk)
        await slow.look(desk, runs)
        await caps_hold(desk)
        if not await desk.count("blocked") + await desk.count("queued") + len(runs):
            return
    raise AssertionError(f"{await desk.count('blocked')} jobs are held for ever")
