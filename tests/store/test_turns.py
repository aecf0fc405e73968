"""Queues with weights, and queues that let waiting jobs rise, as the claim holds them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from asyncjobs.rules.limiting import Rate
from asyncjobs.rules.ordering import place
from asyncjobs.store.base import Claim, Insert, InsertAndClaim
from asyncjobs.store.sqlite.store import SQLiteStore
from tests.oracles import seed_of

from .kit import PLENTY, SECOND, TASKS, Desk
from .test_gates import add, queues_of, set_queue
from .test_plans import Plans, whole_walks

ONE = {"coroutine": 1}


async def test_queues_with_weights_share_the_starts_by_them_whatever_the_priorities(
    desk: Desk,
) -> None:
    await add(desk, 100, queue="a", priority=-5)
    await add(desk, 100, queue="b", priority=50)
    await set_queue(desk, "a", weight=3)
    await set_queue(desk, "b", weight=1)
    assert queues_of(await desk.claim(room={"coroutine": 8})) == list("baaabaaa")


@pytest.mark.parametrize("sizes", [(1,), (7,), (1, 2, 3, 40)])
async def test_shares_hold_over_claims_of_several_instances(
    desk: Desk, sizes: tuple[int, ...]
) -> None:
    chance = random.Random(seed_of("instances"))
    await add(desk, 400, queue="a")
    await add(desk, 400, queue="b")
    await set_queue(desk, "a", weight=3)
    shares: Counter[str] = Counter()
    while shares.total() < 400:
        room = {"coroutine": chance.choice(sizes)}
        shares.update(queues_of(await desk.claim(chance.choice(("one", "two")), room=room)))
    assert abs(shares["a"] - shares.total() * 3 / 4) <= 1


async def test_share_of_a_queue_that_is_empty_goes_to_the_others_and_is_not_saved_up(
    desk: Desk,
) -> None:
    await set_queue(desk, "a", weight=1)
    await set_queue(desk, "b", weight=1)
    await add(desk, 100, queue="a")
    assert queues_of(await desk.claim(room={"coroutine": 50})) == ["a"] * 50
    await add(desk, 100, queue="b")
    shares = Counter(queues_of(await desk.claim(room={"coroutine": 20})))
    assert abs(shares["a"] - shares["b"]) <= 1


async def test_jobs_that_are_passed_over_take_no_turn(desk: Desk) -> None:
    await add(desk, 50, queue="a", task="read")  # a thread, of which there is none
    await add(desk, 50, queue="b")
    await add(desk, 50, queue="c")
    await set_queue(desk, "a", weight=10)
    await set_queue(desk, "b", weight=2, paused=True)
    assert queues_of(await desk.claim(room={"coroutine": 3})) == ["c"] * 3
    await set_queue(desk, "b", paused=False, rate=Rate(10, burst=2))
    assert Counter(queues_of(await desk.claim(room={"coroutine": 6}))) == {"b": 2, "c": 4}


async def test_weight_that_is_taken_away_leaves_the_order_as_it_was(desk: Desk) -> None:
    await add(desk, 9, queue="a")
    await add(desk, 9, queue="b", priority=1)
    await set_queue(desk, "a", weight=1_000)
    assert queues_of(await desk.claim(room={"coroutine": 4})) == ["b", "a", "a", "a"]
    await set_queue(desk, "a", weight=None)
    assert queues_of(await desk.claim(room={"coroutine": 4})) == ["b"] * 4


async def test_new_job_does_not_overtake_by_a_direct_start(desk: Desk) -> None:
    await add(desk, 3, queue="a")
    await set_queue(desk, "a", weight=5)
    new = desk.job(queue="b", priority=9)
    _, result = await desk.do(InsertAndClaim(Insert([new]), Claim("here", TASKS, ONE)))
    assert queues_of(result) == ["b"]  # both are in line, and priority decides
    for expected in "aaa":
        assert queues_of(await desk.claim(room=ONE)) == [expected]


async def test_every_job_is_claimed_once_and_priorities_order_each_queues_own(desk: Desk) -> None:
    chance = random.Random(seed_of("own order"))
    for _ in range(200):
        await desk.add(queue=chance.choice("abc"), priority=chance.randrange(-3, 4))
    await set_queue(desk, "a", weight=2)
    jobs = []
    while claimed := (await desk.claim(room={"coroutine": chance.randrange(1, 60)})).jobs:
        jobs += [await desk.get(job.id) for job in claimed]
    assert len({job.id for job in jobs}) == 200
    for queue in "abc":
        own = [(-job.priority, job.seq) for job in jobs if job.queue == queue]
        assert own == sorted(own)


async def test_job_that_waits_rises_above_newer_ones_of_higher_priority(desk: Desk) -> None:
    old = await desk.add(priority=0)
    desk.clock.advance(60)
    new = await desk.add(priority=2)
    await set_queue(desk, "default", ageing=20 * SECOND)
    assert [job.id for job in (await desk.claim(room=ONE)).jobs] == [old]
    assert [job.id for job in (await desk.claim(room=ONE)).jobs] == [new]


async def test_nothing_rises_in_a_queue_that_does_not_age(desk: Desk) -> None:
    await desk.add(queue="a", priority=0)
    await desk.add(queue="b", priority=0)
    desk.clock.advance(3_600)
    new = await desk.add(queue="a", priority=3)
    await set_queue(desk, "b", ageing=600 * SECOND)
    found = (await desk.claim()).jobs
    assert queues_of(await desk.claim()) == []
    assert [job.queue for job in found] == ["b", "a", "a"]
    assert found[1].id == new


async def test_order_of_a_claim_is_that_of_the_rule(desk: Desk) -> None:
    chance = random.Random(seed_of("ageing claims"))
    jobs = {}
    for _ in range(150):
        priority = chance.choice((-100, -1, 0, 1, 5, 100))
        jobs[await desk.add(priority=priority)] = priority
        desk.clock.advance(chance.randrange(30))
    span = 60 * SECOND
    await set_queue(desk, "default", ageing=span)
    found: list[Any] = []
    while claimed := (await desk.claim(room={"coroutine": 40})).jobs:
        found += claimed
    places = [
        place(0, jobs[job.id], job.run_at, job.seq, now=desk.clock.now(), ageing=span)
        for job in found
    ]
    assert len(places) == 150
    assert places == sorted(places)


async def test_stream_of_urgent_jobs_does_not_starve_a_job_beyond_the_bound(desk: Desk) -> None:
    low = await desk.add(priority=90)
    await set_queue(desk, "default", ageing=SECOND)
    starts: list[str] = []
    while low not in starts:
        await add(desk, 2, priority=100)  # twice what is done
        starts += [job.id for job in (await desk.claim(room=ONE)).jobs]
        desk.clock.advance(1)
    # After ten seconds it counts 100, and only what was due earlier goes before it.
    assert len(starts) == 11


async def test_weights_and_ageing_are_shown_and_taken_away(desk: Desk) -> None:
    await add(desk, 1, queue="a")
    await set_queue(desk, "a", weight=3, ageing=90 * SECOND)
    (queue,) = await desk.store.queues(most=10)
    assert (queue.weight, queue.priority_ageing) == (3, 90.0)
    await set_queue(desk, "a", weight=None)
    (queue,) = await desk.store.queues(most=10)
    assert (queue.weight, queue.priority_ageing) == (None, 90.0)


async def test_claim_by_turns_walks_no_table(
    file_store: SQLiteStore,
    file_desk: Desk,
) -> None:
    for queue in "ab":
        await add(file_desk, 20, queue=queue, priority=1)
        await add(file_desk, 20, queue=queue)
    await set_queue(file_desk, "a", weight=3, ageing=SECOND)
    async with Plans(file_store) as plans:
        assert len((await file_desk.claim(room={"coroutine": 60})).jobs) == 60
        await file_desk.do(Claim("here", TASKS, PLENTY))
    assert whole_walks(await plans.of("asyncjobs_jobs")) == []
    writes = [text for text in plans.statements if "asyncjobs_turns" in text]
    assert len(writes) == 2 * 3
