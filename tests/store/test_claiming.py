"""Claim: which jobs run next, in which order, and when to look again."""

from __future__ import annotations

import pytest

from asyncjobs import Runner
from asyncjobs.states import Event
from asyncjobs.store.base import Claim, Insert
from asyncjobs.store.sqlite import claiming
from asyncjobs.testing import ManualClock

from .kit import PLENTY, SECOND, Desk, new_job


async def ids_in_order(desk: Desk, **options: object) -> list[str]:
    return [job.id for job in (await desk.claim(**options)).jobs]  # type: ignore[arg-type]


async def test_claim_names_everything_that_a_run_needs(desk: Desk) -> None:
    job = desk.job(tags=("a",), meta='{"m":1}', trigger="cause", options='{"timeout":1.0}')
    await desk.insert(job)
    (claimed,) = (await desk.claim()).jobs
    assert (claimed.id, claimed.task, claimed.queue) == (job.id, "add", "default")
    assert (claimed.claim, claimed.attempt, claimed.crashes, claimed.snoozes) == (1, 1, 0, 0)
    assert (claimed.trigger, claimed.tags, claimed.options) == ("cause", '["a"]', job.options)
    assert (claimed.arguments, claimed.meta) == (job.arguments, job.meta)


async def test_claimed_job_is_running_under_its_instance(desk: Desk) -> None:
    claimed = await desk.start("one")
    row = await desk.get(claimed.id)
    assert (row.state, row.instance, row.claim, row.attempt) == ("running", "one", 1, 1)
    assert row.started_at == desk.clock.datetime()
    assert row.seq == claimed.seq
    assert await desk.store.running_instances() == ["one"]


async def test_no_job_is_claimed_twice(desk: Desk) -> None:
    await desk.start("one")
    assert (await desk.claim("two")).jobs == []


async def test_larger_priority_comes_first_then_due_time_then_acceptance(desk: Desk) -> None:
    now = desk.clock.now()
    late = await desk.add(run_at=now)
    early = await desk.add(run_at=now - SECOND)
    same = await desk.add(run_at=now)
    low = await desk.add(priority=-1, run_at=now - 5 * SECOND)
    high = await desk.add(priority=100)
    assert await ids_in_order(desk) == [high, early, late, same, low]


async def test_jobs_of_one_batch_start_in_the_order_given(desk: Desk) -> None:
    batch = [desk.job() for _ in range(300)]
    await desk.insert(*batch)
    claimed = []
    for _ in range(30):
        claimed += await ids_in_order(desk, room={"coroutine": 10})
    assert claimed == [job.id for job in batch]


async def test_queues_are_merged_by_priority_and_due_time(desk: Desk) -> None:
    now = desk.clock.now()
    a2 = await desk.add(queue="a", run_at=now - 2 * SECOND)
    b3 = await desk.add(queue="b", run_at=now - 3 * SECOND)
    a1 = await desk.add(queue="a", run_at=now - 1 * SECOND)
    b0 = await desk.add(queue="b", run_at=now)
    c = await desk.add(queue="c", priority=1)
    assert await ids_in_order(desk) == [c, b3, a2, a1, b0]


async def test_only_the_given_queues_are_served(desk: Desk) -> None:
    await desk.add(queue="a")
    b = await desk.add(queue="b")
    c = await desk.add(queue="c", priority=5)
    assert await ids_in_order(desk, queues=("b", "c", "nobody's")) == [c, b]


async def test_queue_names_that_look_like_patterns_are_names(desk: Desk) -> None:
    odd = await desk.add(queue="a%_'\"[1]")
    await desk.add(queue="ab")
    assert await ids_in_order(desk, queues=("a%_'\"[1]",)) == [odd]


@pytest.mark.parametrize("room", [1, 99, 100, 101])
async def test_claim_takes_as_many_as_there_is_room_for(desk: Desk, room: int) -> None:
    await desk.insert(*[desk.job() for _ in range(100)])
    result = await desk.claim(room={"coroutine": room})
    assert len(result.jobs) == min(room, 100)
    assert ("coroutine" in result.waiting) >= (room < 100)


async def test_full_executor_does_not_block_the_others(desk: Desk) -> None:
    await desk.insert(*[desk.job() for _ in range(500)])
    read = await desk.add(task="read")
    result = await desk.claim(room={"thread": 4})
    assert [job.id for job in result.jobs] == [read]
    assert "coroutine" in result.waiting


async def test_executor_that_fills_up_on_the_way_does_not_block_the_others(desk: Desk) -> None:
    await desk.insert(*[desk.job() for _ in range(500)])
    read = await desk.add(task="read")
    result = await desk.claim(room={"coroutine": 3, "thread": 4})
    assert len(result.jobs) == 4
    assert result.jobs[-1].id == read
    assert "coroutine" in result.waiting


async def test_executor_without_room_is_named_as_waiting(desk: Desk) -> None:
    await desk.add()
    result = await desk.claim(room={"coroutine": 0, "thread": 1})
    assert result.jobs == []
    assert "coroutine" in result.waiting


async def test_executor_filled_at_a_higher_priority_still_waits_for_lower_ones(desk: Desk) -> None:
    high = await desk.add(priority=10)
    low = await desk.add(priority=0)
    await desk.add(task="read", delay=60 * SECOND)
    result = await desk.claim(room={"coroutine": 1, "thread": 5})
    assert [job.id for job in result.jobs] == [high]
    assert "coroutine" in result.waiting
    assert await ids_in_order(desk, room={"coroutine": 1}) == [low]


async def test_executor_filled_before_unknown_jobs_still_waits(desk: Desk) -> None:
    await desk.insert(
        desk.job(), *[desk.job(task="strange") for _ in range(40)], desk.job(), desk.job()
    )
    await desk.add(task="read", delay=60 * SECOND)
    result = await desk.claim(room={"coroutine": 1, "thread": 20})
    assert len(result.jobs) == 1
    assert "coroutine" in result.waiting


async def test_claim_of_everything_leaves_nothing_waiting(desk: Desk) -> None:
    await desk.insert(*[desk.job() for _ in range(20)], desk.job(task="read"))
    result = await desk.claim()
    assert len(result.jobs) == 21
    assert (result.waiting, result.next_run_at) == (frozenset(), None)


async def test_delayed_job_is_not_claimed_before_it_is_due(desk: Desk) -> None:
    job_id = await desk.add(delay=10 * SECOND)
    result = await desk.claim()
    assert (result.jobs, result.next_run_at) == ([], desk.clock.now() + 10 * SECOND)
    desk.clock.move_to(desk.clock.now() + 10 * SECOND - 1)
    assert (await desk.claim()).jobs == []
    desk.clock.move_to(desk.clock.now() + 1)
    assert await ids_in_order(desk) == [job_id]


async def test_next_run_at_is_the_earliest_of_all_levels(desk: Desk) -> None:
    now = desk.clock.now()
    await desk.add(delay=30 * SECOND, priority=50)
    await desk.add(delay=20 * SECOND, queue="b")
    await desk.add(delay=40 * SECOND)
    await desk.add()
    result = await desk.claim()
    assert (len(result.jobs), result.next_run_at) == (1, now + 20 * SECOND)


async def test_next_run_at_looks_only_at_the_given_queues(desk: Desk) -> None:
    await desk.add(delay=10 * SECOND, queue="a")
    await desk.add(delay=20 * SECOND, queue="b")
    result = await desk.claim(queues=("b",))
    assert result.next_run_at == desk.clock.now() + 20 * SECOND


async def test_delayed_jobs_on_top_do_not_hide_due_ones(desk: Desk) -> None:
    await desk.insert(*[desk.job(priority=9, delay=60 * SECOND) for _ in range(200)])
    low = await desk.add(priority=-9)
    assert await ids_in_order(desk) == [low]


async def test_job_due_before_1970_is_claimed(desk: Desk) -> None:
    job_id = await desk.add(run_at=-5 * SECOND)
    assert await ids_in_order(desk) == [job_id]


async def test_retried_job_is_claimed_again_under_a_higher_fence(desk: Desk) -> None:
    first = await desk.start()
    await desk.end(first, Event.RETRYING, run_at=desk.clock.now() + SECOND)
    assert (await desk.claim()).jobs == []
    desk.clock.advance(1)
    (second,) = (await desk.claim("two")).jobs
    assert (second.id, second.claim, second.attempt) == (first.id, 2, 2)


async def test_new_jobs_are_claimed_in_the_transaction_that_inserts_them(desk: Desk) -> None:
    job = desk.job()
    _, result = await desk.store.write([Insert([job]), Claim("here", {"add": "coroutine"}, PLENTY)])
    assert [claimed.id for claimed in result.jobs] == [job.id]
    assert (await desk.get(job.id)).state == "running"


# Tasks that the claiming instance does not know


async def test_job_of_an_unknown_task_is_parked(desk: Desk) -> None:
    job_id = await desk.add(task="strange")
    result = await desk.claim()
    row = await desk.get(job_id)
    assert (result.jobs, row.state, row.reason) == ([], "blocked", "unknown_task")
    assert await desk.count("blocked") == 1


async def test_parked_job_is_taken_by_who_knows_its_task(desk: Desk) -> None:
    job_id = await desk.add(task="strange")
    await desk.claim()
    (claimed,) = (await desk.claim("two", tasks={"strange": "coroutine"})).jobs
    assert (claimed.id, claimed.claim, claimed.attempt) == (job_id, 1, 1)
    assert (await desk.get(job_id)).reason is None


async def test_parked_jobs_keep_priority_due_time_and_acceptance(desk: Desk) -> None:
    now = desk.clock.now()
    second = await desk.add(task="strange", run_at=now)
    third = await desk.add(task="strange", run_at=now)
    first = await desk.add(task="strange", run_at=now - SECOND)
    top = await desk.add(task="strange", priority=1)
    await desk.claim()
    taken = []
    for _ in range(4):
        taken += await ids_in_order(desk, tasks={"strange": "coroutine"}, room={"coroutine": 1})
    assert taken == [top, first, second, third]


async def test_two_instances_that_each_know_one_task_never_pass_jobs_to_and_fro(
    desk: Desk,
) -> None:
    mine = [desk.job(task="mine") for _ in range(40)]
    yours = [desk.job(task="yours") for _ in range(40)]
    await desk.insert(*[job for pair in zip(mine, yours, strict=True) for job in pair])
    taken: dict[str, list[str]] = {"mine": [], "yours": []}
    for _ in range(4):
        for task in taken:
            result = await desk.claim(task, tasks={task: "coroutine"}, room={"coroutine": 10})
            taken[task] += [job.id for job in result.jobs]
    assert sorted(taken["mine"]) == sorted(job.id for job in mine)
    assert sorted(taken["yours"]) == sorted(job.id for job in yours)
    for job in mine + yours:
        assert (await desk.get(job.id)).claim == 1


async def test_parked_job_of_a_queue_not_served_does_not_hide_those_of_ours(desk: Desk) -> None:
    await desk.insert(*[desk.job(task="strange", queue="theirs", priority=9) for _ in range(1_100)])
    ours = await desk.add(task="strange", queue="ours")
    await desk.claim()
    await desk.claim()
    assert await desk.count("blocked") == 1_101
    assert await ids_in_order(
        desk, tasks={"strange": "coroutine"}, room={"coroutine": 1}, queues=("ours",)
    ) == [ours]


async def test_parked_jobs_without_room_wait_for_it(desk: Desk) -> None:
    await desk.insert(*[desk.job(task="strange") for _ in range(3)])
    await desk.claim()
    result = await desk.claim(tasks={"strange": "coroutine"}, room={"coroutine": 2})
    assert len(result.jobs) == 2
    assert "coroutine" in result.waiting


async def test_known_job_behind_thousands_of_unknown_ones_is_reached(desk: Desk) -> None:
    await desk.insert(*[desk.job(task="strange") for _ in range(2_500)])
    known = await desk.add()
    taken = []
    for _ in range(3):
        result = await desk.claim(room={"coroutine": 1})
        taken += [job.id for job in result.jobs]
        # Either it is taken, or the claim says that there may be more to take.
        assert taken or "coroutine" in result.waiting
    assert taken == [known]


async def test_job_with_room_behind_more_jobs_without_than_a_walk_visits_is_reached(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "VISITS_MAX", 10)
    tasks = {"add": "coroutine", "convert": "thread"}
    ahead = [desk.job() for _ in range(35)]
    last = desk.job(task="convert")
    await desk.insert(*ahead, last)
    taken: list[str] = []
    result = await desk.claim(tasks=tasks, room={"thread": 1})
    claims = 1
    while "thread" in result.waiting and not result.jobs:
        result = await desk.claim(tasks=tasks, room={"thread": 1}, resume=result.resume)
        claims += 1
    taken = [job.id for job in result.jobs]
    assert (taken, claims) == ([last.id], 3)
    # With room for those ahead, the walk begins with the first of them, wherever it had stopped.
    result = await desk.claim(
        tasks=tasks, room={"coroutine": 1}, resume={("default", 0): (desk.clock.now(), 20)}
    )
    assert [job.id for job in result.jobs] == [ahead[0].id]


async def test_walk_that_found_nothing_to_the_end_asks_for_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "VISITS_MAX", 10)
    await desk.insert(*[desk.job() for _ in range(10)])
    await desk.add(task="convert", delay=SECOND)
    result = await desk.claim(tasks={"add": "coroutine", "convert": "thread"}, room={"thread": 1})
    assert (result.jobs, result.resume) == ([], {})
    assert result.waiting == {"coroutine"}


async def test_delayed_job_of_an_unknown_task_is_left_alone_until_due(desk: Desk) -> None:
    job_id = await desk.add(task="strange", delay=SECOND)
    await desk.claim()
    assert (await desk.get(job_id)).state == "queued"


async def test_claim_when_full_still_parks_unknown_jobs_for_others(desk: Desk) -> None:
    await desk.add()
    job_id = await desk.add(task="strange")
    await desk.claim(room={"thread": 1})
    assert (await desk.get(job_id)).state == "blocked"


async def test_runner_goes_on_claiming_past_thousands_of_unknown_jobs(
    runner: Runner, clock: ManualClock
) -> None:
    @runner.task
    async def known() -> str:
        return "done"

    strange = [new_job(clock, task="strange") for _ in range(2_500)]
    await runner.engine().commit.enqueue_many([*strange, known.job()])
    handle = await known.enqueue()
    assert await handle == "done"
    assert await runner.registry.count(state="completed") == 2
