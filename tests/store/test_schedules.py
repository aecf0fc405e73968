"""Schedules in the store: a time makes one job, whoever ticks; what is declared, changed, kept."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from asyncjobs import At, Cron, Every, InvalidOption
from asyncjobs.clock import to_datetime
from asyncjobs.rules.joboptions import read_options
from asyncjobs.rules.schedule import check_plan, check_template
from asyncjobs.states import Event
from asyncjobs.store.base import Cancel, Delete, Prune, Requeue, Rescue
from asyncjobs.store.schedules import (
    Create,
    Pause,
    Remove,
    Resume,
    RunNow,
    Synced,
    Ticked,
    Update,
)
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import SECOND, Desk
from .rota import Rota
from .test_plans import Plans

MINUTE = 60 * SECOND


@pytest.fixture
def rota(desk: Desk) -> Rota:
    return Rota(desk)


# Ticks


async def test_time_makes_one_job_however_often_it_is_ticked(rota: Rota) -> None:
    await rota.create(overlap="allow")
    first = await rota.tick()
    assert first == Ticked(0, rota.clock.now() + MINUTE)
    assert (await rota.tick(59.999)).jobs == 0
    assert (await rota.tick(0.001)).jobs == 1
    assert [await rota.tick() for _ in range(3)] == [Ticked(0, rota.clock.now() + MINUTE)] * 3
    (job,) = await rota.jobs()
    assert (job.run_at, job.trigger) == (rota.clock.datetime(), "schedule:s")
    (run,) = (await rota.desk.claim()).jobs
    assert run.options is not None
    options = read_options(run.options)
    assert options is not None
    assert options.scheduled is not None
    assert (options.scheduled.name, options.scheduled.at) == ("s", rota.clock.now())


async def test_schedule_shows_where_it_stands(rota: Rota) -> None:
    until = rota.clock.datetime() + timedelta(hours=1)
    await rota.create(jitter=0.5, until=until, max_runs=2, overlap="allow", catch_up="all")
    fresh = await rota.get()
    assert (fresh.name, fresh.origin, fresh.status, fresh.sentence) == (
        "s", "runtime", "active", "Every minute",
    )  # fmt: skip
    assert (fresh.task, fresh.queue, fresh.arguments) == ("add", "default", {"left": 1, "right": 2})
    assert (fresh.when, fresh.jitter, fresh.until, fresh.max_runs) == (Every(60), 0.5, until, 2)
    assert (fresh.catch_up, fresh.overlap, fresh.last_run) == ("all", "allow", None)
    assert fresh.next_run == rota.clock.datetime() + timedelta(minutes=1)
    assert fresh.created_at == rota.clock.datetime()

    await rota.tick(60)
    after = await rota.get()
    assert after.last_run is not None
    assert (after.last_run.scheduled_for, after.last_run.state) == (rota.clock.datetime(), "queued")
    assert (after.runs, after.missed, after.skipped) == (1, 0, 0)

    await rota.tick(60)
    ended = await rota.get()
    assert (ended.status, ended.next_run, ended.runs) == ("finished", None, 2)


async def test_missed_times_are_counted(rota: Rota) -> None:
    await rota.create()
    assert (await rota.tick(600)).jobs == 1
    shown = await rota.get()
    assert (shown.runs, shown.missed, shown.skipped) == (1, 9, 0)


async def test_clock_that_is_put_back_fires_no_time_again(rota: Rota) -> None:
    await rota.create(overlap="allow")
    await rota.tick(60)
    rota.clock.move_to(rota.clock.now() - 30 * MINUTE)
    assert (await rota.tick()).jobs == 0
    assert (await rota.tick(30 * 60)).jobs == 0
    assert (await rota.tick(60)).jobs == 1


async def test_many_that_are_due_at_once_come_in_several_ticks(rota: Rota) -> None:
    for number in range(5):
        await rota.create(f"s{number}")
    assert (await rota.tick(60, limit=3)).jobs == 3
    ticked = await rota.tick(limit=3)
    assert (ticked.jobs, ticked.next_at) == (2, rota.clock.now() + MINUTE)


async def test_tick_makes_no_more_than_about_a_thousand_jobs(rota: Rota) -> None:
    for number in range(3):
        await rota.create(f"s{number}", overlap="allow", catch_up="all")
    assert (await rota.tick(800 * 60)).jobs == 1_600
    assert (await rota.tick()).jobs == 800


async def test_schedule_that_cannot_be_understood_here_holds_up_no_other(
    rota: Rota, file_store: SQLiteStore
) -> None:
    rota = Rota(Desk(file_store, rota.clock))
    await rota.create("a", when=Cron("* * * * *", tz="Europe/Berlin"))
    await rota.create("b")
    await file_store._writer.run(
        lambda c: c.execute(
            "UPDATE asyncjobs_schedules SET plan = replace(plan, 'Berlin', 'Atlantis')"
        ).fetchall()
    )
    ticked = await rota.tick(60)
    assert (ticked.jobs, list(ticked.broken)) == (1, ["a"])
    assert "Atlantis" in ticked.broken["a"]
    assert await rota.tick(but=("a",)) == Ticked(0, rota.clock.now() + MINUTE)


async def test_key_of_the_job_is_one_for_each_time(rota: Rota) -> None:
    await rota.create(job=rota.desk.job(key="k"), overlap="allow")
    await rota.tick(60)
    await rota.tick(60)
    keys = [job.key for job in await rota.jobs()]
    assert keys == ["k@2030-01-01T00:01:00+00:00", "k@2030-01-01T00:02:00+00:00"]


# Overlap


async def finish(rota: Rota, how: str) -> None:
    """End the job that runs, or waits to, in one of many ways."""
    desk = rota.desk
    job_id = await rota.last()
    if how == "cancelled":
        await desk.do(Cancel([job_id]))
    elif how == "deleted":
        await desk.do(Delete([job_id]))
    else:
        (run,) = (await desk.claim()).jobs
        if how == "crashed":
            await desk.do(Rescue("here", "its process died"))
        else:
            await desk.end(run, Event.COMPLETED if how == "completed" else Event.FAILED,
                           followed=True)  # fmt: skip


@pytest.mark.parametrize("how", ["completed", "failed", "crashed", "cancelled", "deleted"])
async def test_job_that_waits_is_enqueued_in_the_commit_of_the_end_of_the_one_before(
    rota: Rota, how: str
) -> None:
    await rota.create(job=rota.desk.job(max_crashes=1))
    await rota.tick(60)
    first = await rota.last()
    assert (await rota.tick(60)).jobs == 0
    assert (await rota.tick(60)).jobs == 0
    waiting = await rota.get()
    assert (waiting.waiting_for, waiting.skipped) == (rota.clock.datetime(), 1)

    await finish(rota, how)

    after = await rota.get()
    assert after.last_run is not None
    assert after.last_run.job_id != first
    assert (after.last_run.scheduled_for, after.waiting_for) == (rota.clock.datetime(), None)
    assert (after.runs, after.skipped) == (2, 1)
    assert len(await rota.jobs()) == (1 if how == "deleted" else 2)


async def test_retry_that_is_to_come_is_no_end(rota: Rota) -> None:
    await rota.create()
    await rota.tick(60)
    (run,) = (await rota.desk.claim()).jobs
    await rota.tick(60)
    await rota.desk.end(run, Event.RETRYING)
    assert (await rota.get()).waiting_for is not None


async def test_skip_makes_nothing_until_the_one_before_has_finished(rota: Rota) -> None:
    await rota.create(overlap="skip")
    await rota.tick(60)
    assert (await rota.tick(60)).jobs == 0
    await finish(rota, "completed")
    assert len(await rota.jobs()) == 1
    assert (await rota.tick(60)).jobs == 1
    assert (await rota.get()).skipped == 1


async def test_all_in_turn_runs_every_time_one_after_the_other(rota: Rota) -> None:
    await rota.create(catch_up="all")
    await rota.tick(4 * 60)
    for _ in range(4):
        await finish(rota, "completed")
    jobs = await rota.jobs()
    start = rota.clock.datetime() - timedelta(minutes=4)
    assert [job.run_at for job in jobs] == [start + timedelta(minutes=n) for n in (1, 2, 3, 4)]
    assert (await rota.get()).waiting_for is None


async def test_job_that_waits_is_found_when_the_row_of_the_one_before_is_gone(rota: Rota) -> None:
    await rota.create()
    await rota.tick(60)
    await rota.tick(60)
    await finish(rota, "completed")
    await finish(rota, "completed")
    assert (await rota.tick(60)).jobs == 1


async def test_outcome_of_the_last_job_is_known_when_its_row_is_pruned(rota: Rota) -> None:
    await rota.create()
    await rota.tick(60)
    await finish(rota, "failed")
    rota.clock.advance(1)
    await rota.desk.do(Prune({"failed": rota.clock.now()}, 0, 100))
    assert await rota.jobs() == []
    last = (await rota.get()).last_run
    assert last is not None
    assert last.state == "failed"


async def test_job_that_was_retried_by_hand_is_the_last_one_again(rota: Rota) -> None:
    await rota.create()
    await rota.tick(60)
    await finish(rota, "failed")
    await rota.desk.do(Requeue([await rota.last()]))
    assert (await rota.tick(60)).jobs == 0
    await finish(rota, "completed")
    assert (await rota.get()).runs == 2


# Changes


async def test_name_is_given_once(rota: Rota) -> None:
    await rota.create()
    assert await rota.desk.do(Create(rota.given())) == "exists"
    assert await rota.desk.do(Remove("s")) == "done"
    assert await rota.store.schedule("s") is None
    await rota.create()


async def test_past_is_refused(rota: Rota) -> None:
    past = rota.clock.datetime()
    with pytest.raises(InvalidOption, match="past"):
        await rota.desk.do(Create(rota.given(when=At(past))))
    await rota.create()
    with pytest.raises(InvalidOption, match="past"):
        await rota.desk.do(Update("s", check_plan({"until": past})))


async def test_what_is_updated_changes_and_the_rest_stays(rota: Rota) -> None:
    await rota.create(max_runs=5, overlap="allow")
    await rota.tick(60)
    new_job = check_template("s", rota.desk.job(task="mul"))
    assert await rota.desk.do(Update("s", check_plan({"when": Every(120)}), new_job)) == "done"
    shown = await rota.get()
    assert (shown.when, shown.task, shown.max_runs, shown.runs) == (Every(120), "mul", 5, 1)
    assert shown.next_run == rota.clock.datetime() + timedelta(minutes=1)  # a full second one
    assert (await rota.tick(60)).jobs == 1


async def test_update_that_contradicts_what_stays_is_refused_and_changes_nothing(
    rota: Rota,
) -> None:
    await rota.create(overlap="skip")
    with pytest.raises(InvalidOption, match="contradict"):
        await rota.desk.do(Update("s", check_plan({"catch_up": "all"})))
    assert (await rota.get()).catch_up == "latest"


async def test_paused_schedule_rests_and_goes_on_from_when_it_is_resumed(rota: Rota) -> None:
    await rota.create()
    await rota.tick(60)
    await rota.tick(60)
    assert await rota.desk.do(Pause("s")) == "done"
    resting = await rota.get()
    assert (resting.status, resting.next_run, resting.waiting_for) == ("paused", None, None)
    assert resting.skipped == 1
    assert await rota.tick(600) == Ticked(0, None)
    await finish(rota, "completed")
    assert await rota.desk.do(Resume("s")) == "done"
    assert (await rota.tick()).jobs == 0
    assert (await rota.tick(60)).jobs == 1
    assert (await rota.get()).missed == 0
    assert await rota.desk.do(Resume("s")) == "done"  # it rests no more: nothing changes


async def test_job_made_by_hand_counts_as_no_run_and_holds_the_next_back(rota: Rota) -> None:
    await rota.create(max_runs=1)
    await rota.desk.do(Pause("s"))
    job_id = await rota.desk.do(RunNow("s"))
    assert await rota.last() == job_id
    await rota.desk.do(Resume("s"))
    assert (await rota.tick(60)).jobs == 0
    again = await rota.desk.do(RunNow("s"))
    assert await rota.last() == job_id  # the end of that one is what the next waits for
    assert {job.id for job in await rota.jobs()} == {job_id, again}
    await rota.desk.do(Cancel([job_id]))
    assert (await rota.get()).runs == 1


@pytest.mark.parametrize("operation", [Update("x", {}), Pause("x"), Resume("x"), Remove("x")])
async def test_name_that_is_not_there_is_missing(rota: Rota, operation: Any) -> None:
    assert await rota.desk.do(operation) == "missing"
    assert await rota.desk.do(RunNow("x")) is None


async def test_schedules_are_listed_by_name_a_page_at_a_time(rota: Rota) -> None:
    for name in ("b", "a", "ab", "c"):
        await rota.create(name)
    page = await rota.store.schedules(limit=2, after="")
    assert [shown.name for shown in page] == ["a", "ab"]
    page = await rota.store.schedules(limit=5, after="ab")
    assert [shown.name for shown in page] == ["b", "c"]
    assert await rota.store.schedule("aa") is None


# What code declares


async def test_declared_schedules_are_added_changed_and_removed(rota: Rota) -> None:
    await rota.create("by hand")
    a, b = rota.given("a"), rota.given("b")
    assert await rota.declare(a, b) == Synced(["a", "b"], [], [], [])
    assert await rota.declare(a, b) == Synced([], [], [], [])
    other = rota.given("b", overlap="skip")
    assert await rota.declare(other) == Synced([], ["b"], ["a"], [])
    assert await rota.declare(other, rota.given("by hand")) == Synced([], [], [], ["by hand"])
    names = [shown.name for shown in await rota.store.schedules(limit=10, after="")]
    assert names == ["b", "by hand"]
    assert await rota.desk.do(Update("b", {})) == "code"
    assert await rota.desk.do(Remove("b")) == "code"
    assert await rota.desk.do(Pause("b")) == "done"


async def test_next_start_finds_times_that_passed_meanwhile(rota: Rota) -> None:
    await rota.declare(rota.given())
    rota.clock.advance(600)
    assert await rota.declare(rota.given(), instance="next") == Synced([], [], [], [])
    assert (await rota.tick()).jobs == 1
    assert (await rota.get()).missed == 9


async def test_schedule_that_left_the_code_comes_back_as_it_stood(rota: Rota) -> None:
    await rota.declare(rota.given())
    await rota.tick(60)
    await rota.desk.do(Pause("s"))
    assert (await rota.declare()).removed == ["s"]
    assert await rota.tick(600) == Ticked(0, None)
    assert await rota.desk.do(Pause("s")) == "missing"
    assert (await rota.declare(rota.given())).added == ["s"]
    back = await rota.get()
    assert (back.status, back.runs) == ("paused", 1)


async def test_schedule_that_left_the_code_long_ago_is_forgotten(rota: Rota) -> None:
    await rota.declare(rota.given())
    await rota.tick(60)
    await rota.declare()
    rota.clock.advance(timedelta(days=30, seconds=1))
    await rota.declare()
    await rota.declare(rota.given())
    assert (await rota.get()).runs == 0


async def test_name_of_one_that_left_the_code_is_free_at_run_time(rota: Rota) -> None:
    await rota.declare(rota.given())
    await rota.tick(60)
    await rota.declare()
    await rota.create()
    assert ((await rota.get()).origin, (await rota.get()).runs) == ("runtime", 0)


async def test_code_takes_over_a_schedule_that_was_made_at_run_time(rota: Rota) -> None:
    await rota.create()
    assert (await rota.declare(rota.given())).taken == ["s"]
    assert (await rota.get()).origin == "code"


async def test_two_versions_of_the_code_remove_nothing_that_the_other_still_has(
    rota: Rota,
) -> None:
    """A rolling restart, one process after the other, in any order."""
    a, b, c = rota.given("a"), rota.given("b"), rota.given("c")
    await rota.declare(a, b, instance="old 1")
    await rota.declare(a, b, instance="old 2", others=["old 1"])
    assert await rota.declare(a, c, instance="new 1", others=["old 2"]) == Synced(["c"], [], [], [])
    again = await rota.declare(a, b, instance="old 3", others=["old 2", "new 1"])
    assert again == Synced([], [], [], [])  # an old one that was restarted meanwhile
    await rota.declare(a, c, instance="new 2", others=["new 1", "old 3"])
    gone = await rota.declare(a, c, instance="new 3", others=["new 1", "new 2"])
    assert gone == Synced([], [], ["b"], [])


async def test_change_that_is_undone_by_an_older_process_doubles_no_time(rota: Rota) -> None:
    old, new = rota.given(overlap="allow"), rota.given(when=Every(30), overlap="allow")
    await rota.declare(old)
    for _ in range(10):
        await rota.tick(60)
        await rota.declare(new, instance="new", others=["here"])
        await rota.tick(15)
        await rota.declare(old, others=["new"])
    times = [job.run_at for job in await rota.jobs()]
    assert len(times) == len(set(times)) >= 10


# What it costs


@pytest.mark.timed
async def test_idle_tick_among_a_hundred_thousand_is_two_seeks(
    file_store: SQLiteStore, clock: ManualClock
) -> None:
    rota = Rota(Desk(file_store, clock))
    await rota.create()
    await file_store._writer.run(
        lambda c: c.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO asyncjobs_schedules (name, origin, plan, job, created_at, next_at, paused)"
            "SELECT 'n' || i, 'runtime', plan, job, 0, next_at + i * 1000, i % 7 = 0 "
            "FROM n, asyncjobs_schedules"
        ).fetchall()
    )
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        assert (await rota.tick()).jobs == 0
        seconds.append(time.perf_counter() - begun)
    print(f"idle tick: {min(seconds) * 1e3:.2f} ms")
    assert min(seconds) <= 0.005
    async with Plans(file_store) as plans:
        await rota.tick()
    lines = await plans.of("asyncjobs_schedules")
    index = "asyncjobs_schedules USING INDEX asyncjobs_schedules_due (next_at>?"
    assert [line for line in lines if " asyncjobs_schedules" in line] == [
        f"SEARCH {index} AND next_at<?)",
        f"SEARCH {index})",
    ]


async def test_schedule_of_a_run_is_sought(file_store: SQLiteStore, clock: ManualClock) -> None:
    rota = Rota(Desk(file_store, clock))
    await rota.create()
    await rota.tick(60)
    await rota.tick(60)
    async with Plans(file_store) as plans:
        await finish(rota, "completed")
        await rota.declare()
    lines = await plans.of("asyncjobs_schedules")
    walks = [line for line in lines if line.startswith(("SCAN asyncjobs_schedules", "SCAN s"))]
    assert all("asyncjobs_schedules_of_code" in line for line in walks)  # those of the code alone


async def test_what_is_shown_says_when_each_has_run(rota: Rota) -> None:
    await rota.create(when=At(to_datetime(rota.clock.now() + SECOND)))
    await rota.tick(1)
    await finish(rota, "completed")
    shown = await rota.get()
    assert (shown.status, shown.runs) == ("finished", 1)
    assert shown.last_run is not None
    assert shown.last_run.state == "completed"
    assert "add" in repr(shown)
    assert "left" not in repr(shown)
