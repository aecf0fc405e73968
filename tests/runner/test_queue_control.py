"""Queues are paused, resumed, limited, drained and purged while jobs come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs import InvalidOption, Rate, Runner, RunnerClosed, Tasks, Unique
from asyncjobs.inventory import Queue
from asyncjobs.store.base import Filter
from asyncjobs.testing import ManualClock, run_until_idle

from .support import assert_nothing_spins, until

tasks = Tasks()


class Door:
    """Holds jobs until it is opened, and counts them."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.inside = 0
        self.most = 0


@tasks.task(name="pass", queue="doors")
async def through() -> None:
    from asyncjobs import current_job

    door: Door = current_job().state
    door.inside += 1
    door.most = max(door.most, door.inside)
    await door.opened.wait()
    await asyncio.sleep(0)
    door.inside -= 1


@tasks.task(name="other", queue="elsewhere")
async def other() -> None: ...


@pytest_asyncio.fixture
async def door() -> Door:
    return Door()


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock, door: Door) -> AsyncIterator[Runner]:
    """One whose jobs share a door, and that does not wait for them at its end."""
    async with Runner(tmp_path / "jobs.db", clock=clock, grace=0, state=door) as runner:
        runner.include(tasks)
        yield runner


async def test_paused_queue_starts_nothing_until_it_is_resumed(runner: Runner, door: Door) -> None:
    door.opened.set()
    await runner.registry.pause_queue("doors", actor="ann")
    handle = await through.enqueue()
    await (await other.enqueue())
    assert (await handle.job()).state == "queued"
    await runner.registry.resume_queue("doors", actor="ann")
    await handle
    assert [(entry.action, entry.actor) for entry in await runner.registry.audit()] == [
        ("resume", "ann"), ("pause", "ann")
    ]  # fmt: skip


async def test_pause_outlives_the_process(tmp_path: Path, door: Door) -> None:
    door.opened.set()
    async with Runner(tmp_path / "jobs.db", state=door) as runner:
        await runner.registry.pause_queue("doors")
    async with Runner(tmp_path / "jobs.db", state=door) as runner:
        runner.include(tasks)
        handle = await through.enqueue()
        await (await other.enqueue())
        assert (await handle.job()).state == "queued"
        await runner.registry.resume_queue("doors")
        await handle


async def test_queue_never_runs_more_than_it_may(runner: Runner, door: Door) -> None:
    door.opened.set()
    await runner.registry.set_queue("doors", running=3)
    handles = await runner.enqueue_many([through.job() for _ in range(50)])
    await asyncio.gather(*handles)
    assert door.most == 3


async def test_limit_that_is_taken_away_lets_those_start_that_wait(
    runner: Runner, door: Door
) -> None:
    await runner.registry.set_queue("doors", running=1)
    await runner.enqueue_many([through.job() for _ in range(5)])
    await until(lambda: door.inside == 1)
    await runner.registry.set_queue("doors", running=None)
    await until(lambda: door.inside == 5)


async def test_limit_holds_over_two_processes_and_each_end_lets_the_next_start(
    tmp_path: Path,
) -> None:
    door = Door()
    door.opened.set()
    first = Runner(tmp_path / "jobs.db", state=door)
    second = Runner(tmp_path / "jobs.db", state=door)
    own = [Tasks(), Tasks()]
    for each in own:
        each.task(name="pass", queue="doors")(through.function)
    first.include(own[0])
    second.include(own[1])
    async with first, second:
        await first.registry.set_queue("doors", running=2)
        jobs = [job for each in own for job in (next(iter(each)).job() for _ in range(20))]
        handles = await first.enqueue_many(jobs)
        await asyncio.gather(*handles)
    assert door.most == 2


async def test_nothing_spins_while_all_that_waits_is_held(runner: Runner, door: Door) -> None:
    await runner.registry.set_queue("doors", running=2)
    await runner.enqueue_many([through.job() for _ in range(100)])
    await until(lambda: door.inside == 2)
    await assert_nothing_spins(runner)


async def test_rate_of_a_queue_follows_the_clock(
    runner: Runner, door: Door, clock: ManualClock
) -> None:
    door.opened.set()
    await runner.registry.set_queue("doors", rate=Rate(6, per=60))
    await runner.enqueue_many([through.job() for _ in range(20)])
    for minute in range(3):
        await run_until_idle(runner)
        assert await runner.registry.count(state="completed") == 1 + 6 * minute
        for _ in range(6):
            clock.advance(10)
            await run_until_idle(runner)
    (queue,) = await runner.registry.queues()
    assert (queue.rate_jobs, queue.rate_per) == (6, 60.0)


async def test_weights_hold_over_two_processes(tmp_path: Path) -> None:
    starts: list[str] = []
    runners = []
    for _ in range(2):
        runner = Runner(tmp_path / "jobs.db", concurrency=1)

        @runner.task(name="start")
        async def start(queue: str) -> None:
            starts.append(queue)

        runners.append(runner)
    first, second = runners
    async with first.client() as client:
        await client.registry.set_queue("much", weight=3)
        task = first.tasks["start"]
        await client.enqueue_many(
            [
                task.options(queue=queue).job(queue)
                for queue in ("little", "much")
                for _ in range(80)
            ]
        )
    async with first, second:
        await until(lambda: len(starts) == 160)
        await run_until_idle(first)
        await run_until_idle(second)
    assert abs(starts[:100].count("much") - 75) <= 2


async def test_waiting_job_rises_in_a_queue_that_ages(tmp_path: Path, clock: ManualClock) -> None:
    runner = Runner(tmp_path / "jobs.db", clock=clock, concurrency=1)
    starts: list[str] = []

    @runner.task
    async def start(name: str) -> None:
        starts.append(name)

    async with runner.client() as client:
        await client.registry.set_queue("default", priority_ageing=60)
        await start.options(priority=-10).enqueue("old")
        clock.advance(60 * 15)
        await start.options(priority=6).enqueue("urgent")
        await start.options(priority=4).enqueue("new")
    async with runner:
        await run_until_idle(runner)
        (queue,) = await runner.registry.queues()
    assert starts == ["urgent", "old", "new"]
    assert queue.priority_ageing == 60.0


async def test_draining_waits_for_what_runs_and_what_is_due(runner: Runner, door: Door) -> None:
    await runner.registry.drain_queue("doors")  # nothing there
    await runner.registry.set_queue("doors", running=1)
    await runner.enqueue_many([through.job(), through.job(), through.options(delay=60).job()])
    draining = asyncio.ensure_future(runner.registry.drain_queue("doors"))
    await until(lambda: door.inside == 1)
    assert not draining.done()
    door.opened.set()
    await draining
    assert await runner.registry.count(state="completed") == 2


async def test_draining_waits_for_a_job_that_starts_while_it_looks(
    runner: Runner, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, store = runner.registry, runner.engine().store
    look, count = store.queues, store.count_rows
    seen: list[int] = []

    async def look_slowly(*, most: int) -> list[Queue]:
        if not seen:  # nothing ran a moment ago, and now nothing waits
            await registry.set_queue("doors", running=1)
            await until(lambda: door.inside == 1)
        return await look(most=most)

    async def count_and_open(what: Filter, *, most: int | None) -> int:
        seen.append(await count(what, most=most))
        door.opened.set()
        return seen[-1]

    await registry.set_queue("doors", running=0)
    await through.enqueue()
    monkeypatch.setattr(store, "queues", look_slowly)
    monkeypatch.setattr(store, "count_rows", count_and_open)
    await registry.drain_queue("doors")
    assert seen == [1, 0]


async def test_draining_a_paused_queue_waits_for_what_runs(runner: Runner, door: Door) -> None:
    await runner.registry.set_queue("doors", running=1)
    await runner.enqueue_many([through.job() for _ in range(3)])
    await until(lambda: door.inside == 1)
    await runner.registry.pause_queue("doors")
    draining = asyncio.ensure_future(runner.registry.drain_queue("doors"))
    door.opened.set()
    await draining
    assert await runner.registry.count(state="queued") == 2


async def test_draining_waits_for_a_job_that_started_before_the_pause_while_it_looked(
    runner: Runner, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, store = runner.registry, runner.engine().store
    look, count = store.queues, store.count
    seen: list[int] = []

    async def look_slowly(*, most: int) -> list[Queue]:
        if len(seen) == 1:  # nothing ran a moment ago
            await registry.set_queue("doors", running=1)
            await until(lambda: door.inside == 1)
            await registry.pause_queue("doors")
        return await look(most=most)

    async def count_and_open(states: Sequence[str], **options: Any) -> int:
        seen.append(await count(states, **options))
        if len(seen) == 2:
            door.opened.set()
        return seen[-1]

    await registry.set_queue("doors", running=0)
    await through.enqueue()
    monkeypatch.setattr(store, "queues", look_slowly)
    monkeypatch.setattr(store, "count", count_and_open)
    await registry.drain_queue("doors")
    assert (seen[:2], seen[-1]) == ([0, 1], 0)


async def test_draining_notices_what_no_event_tells(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.queue_control.DRAIN_LOOK_SECONDS", 0.01)
    await runner.registry.set_queue("doors", running=0)
    moved = through.options(unique=Unique(on_conflict="replace"))
    await moved.enqueue()
    draining = asyncio.ensure_future(runner.registry.drain_queue("doors"))
    await until(lambda: runner.engine().feed.listening)
    assert not draining.done()
    await through.options(
        unique=Unique(on_conflict="replace"), queue="elsewhere", delay=60
    ).enqueue()
    await draining


async def test_draining_ends_with_the_runner(tmp_path: Path, door: Door) -> None:
    async with Runner(tmp_path / "jobs.db", grace=0, state=door) as runner:
        runner.include(tasks)
        await through.enqueue()
        await until(lambda: door.inside == 1)
        draining = asyncio.ensure_future(runner.registry.drain_queue("doors"))
        await until(lambda: runner.engine().feed.listening)
    with pytest.raises(RunnerClosed):
        await draining


async def test_purging_counts_first_and_deletes_what_waits(runner: Runner, door: Door) -> None:
    await runner.registry.set_queue("doors", running=1)
    await runner.enqueue_many([through.job() for _ in range(3)])
    await through.options(delay=60).enqueue()
    await other.enqueue()
    await until(lambda: door.inside == 1)
    counted = await runner.registry.purge_queue("doors")
    assert (counted.matched, counted.dry_run) == (3, True)
    purged = await runner.registry.purge_queue("doors", dry_run=False, actor="ann")
    assert purged.changed == 3
    assert await runner.registry.count(queue="doors") == 1
    assert (await runner.registry.audit())[0].what["queue"] == "doors"


async def test_settings_stand_in_the_audit(runner: Runner) -> None:
    await runner.registry.set_queue(
        "doors", running=2, rate=Rate(10, per=60), weight=3, priority_ageing=60, actor="ann"
    )
    (entry,) = await runner.registry.audit()
    assert (entry.action, entry.actor) == ("set", "ann")
    assert entry.what == {
        "queue": "doors",
        "running": 2,
        "rate": {"jobs": 10, "per": 60, "burst": None},
        "weight": 3,
        "priority_ageing": 60.0,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to set"),
        ({"running": -1}, "running=-1"),
        ({"running": "2"}, "running must be an int"),
        ({"rate": 10}, "rate must be a Rate"),
        ({"weight": 0}, "weight=0 would let the queue wait for ever"),
        ({"weight": 1.5}, "weight must be an int"),
        ({"priority_ageing": 0}, "priority_ageing=0 is out of range: from 1"),
        ({"priority_ageing": "1"}, "priority_ageing must be seconds"),
        ({"running": 1, "actor": ""}, "actor"),
    ],
)
async def test_settings_that_mean_nothing_are_refused(
    runner: Runner, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        await runner.registry.set_queue("doors", **settings)
    with pytest.raises(InvalidOption, match="queue"):
        await runner.registry.pause_queue("")
    assert await runner.registry.queues() == []


async def test_unknown_option_of_a_queue_is_refused_naming_those_there_are(runner: Runner) -> None:
    with pytest.raises(InvalidOption, match=r"set_queue\(\) has no option 'limit'; it has running"):
        await runner.registry.set_queue("mail", limit=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"no option 'timeout'; .*asyncio\.timeout"):
        await runner.registry.drain_queue("mail", timeout=1)  # type: ignore[arg-type]
