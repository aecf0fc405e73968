"""Named subscribers: at least once, over restarts and crashes, and from wherever one wants."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import CursorTooOld, InvalidOption, Runner, Tasks, subscribing
from asyncjobs.store.base import Prune
from asyncjobs.testing import ManualClock

from .support import until

tasks = Tasks()


@tasks.task(name="short")
async def short(number: int) -> int:
    return number


@tasks.task(name="other")
async def other() -> None: ...


@pytest.fixture
def runner(runner: Runner) -> Runner:
    runner.include(tasks)
    return runner


async def run(*numbers: int) -> list[str]:
    """Run some jobs; their ids."""
    handles = [await short.enqueue(number) for number in numbers]
    for handle in handles:
        await handle
    return [handle.id for handle in handles]


async def take(subscriber: Any, count: int) -> list[str]:
    """Hear so many jobs end, acknowledging all but the last; then leave."""
    heard: list[str] = []
    async with asyncio.timeout(10):
        events = subscriber.__aiter__()
        async for event in events:
            heard.append(event.job_id)
            if len(heard) == count:
                break
        await events.aclose()
    return heard


async def test_subscriber_begins_now_and_goes_on_where_it_was(tmp_path: Path) -> None:
    def new() -> Runner:
        runner = Runner(tmp_path / "jobs.db")
        runner.include(tasks)
        return runner

    async with new() as runner:
        await run(0)
        audit = runner.subscriber("audit", kinds=["completed"])
        first = asyncio.create_task(take(audit, 2))
        await until(lambda: runner.engine().feed.listening)
        ids = await run(1, 2, 3)
        assert await first == ids[:2]
    async with new() as runner:
        ids += await run(4)
        audit = runner.subscriber("audit", kinds=["completed"])
        # The one that was not acknowledged comes again.
        assert await take(audit, 3) == ids[1:]
        assert await take(audit, 1) == ids[-1:]


async def test_every_name_has_a_place_of_its_own(runner: Runner) -> None:
    one = runner.subscriber("one", kinds=["completed"])
    two = runner.subscriber("two", kinds=["completed"])
    start = await runner.cursor()
    await one.rewind(start)
    await two.rewind(start)
    ids = await run(1, 2, 3)
    assert await take(one, 3) == ids
    assert await take(two, 1) == ids[:1]
    assert await take(one, 1) == ids[2:]
    assert await take(two, 3) == ids


async def test_filters_are_those_of_events(runner: Runner) -> None:
    start = await runner.cursor()
    await (await other.enqueue())
    ids = await run(1)
    audit = runner.subscriber("audit", task="short", kinds=["claimed"])
    await audit.rewind(start)
    assert await take(audit, 1) == ids


async def test_acknowledgements_are_written_together(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await runner.cursor()
    ids = await run(*range(300))
    audit = runner.subscriber("audit", kinds=["completed"])
    await audit.rewind(start)
    commit = runner.engine().commit
    before = commit.flushes
    assert await take(audit, 300) == ids
    assert commit.flushes - before < 150
    assert await take(audit, 1) == ids[-1:]


async def test_rewind_to_a_time(runner: Runner, clock: ManualClock) -> None:
    audit = runner.subscriber("audit", kinds=["completed"])
    begun = clock.datetime()
    first = await run(1)
    clock.advance(10)
    middle = clock.datetime()
    second = await run(2)
    await audit.rewind(middle)
    assert await take(audit, 1) == second
    await audit.rewind(begun)
    assert await take(audit, 2) == first + second


async def test_rewind_takes_effect_in_the_midst_of_an_iteration(runner: Runner) -> None:
    start = await runner.cursor()
    audit = runner.subscriber("audit", kinds=["completed"])
    await audit.rewind(start)
    ids = await run(1, 2, 3)
    heard: list[str] = []
    async with asyncio.timeout(10):
        async for event in audit:
            heard.append(event.job_id)
            if len(heard) == 3:
                await audit.rewind(start)
            if len(heard) == 6:
                break
    assert heard == ids + ids


async def test_rewind_reaches_one_who_waits(runner: Runner) -> None:
    start = await runner.cursor()
    audit = runner.subscriber("audit", kinds=["completed"])
    ids = await run(1)
    waiting = asyncio.create_task(take(audit, 1))
    await until(lambda: runner.engine().feed.listening)
    await audit.rewind(start)
    assert await waiting == ids


async def test_stop_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "jobs.db")
    runner.include(tasks)
    heard: list[str] = []

    async def listen() -> None:
        async for event in runner.subscriber("audit", kinds=["completed"]):
            heard.append(event.job_id)

    async with runner:
        listening = asyncio.create_task(listen())
        await until(lambda: runner.engine().feed.listening)
        ids = await run(1, 2)
        await until(lambda: len(heard) == 2)
    await asyncio.wait_for(listening, 5)
    async with runner:
        ids += await run(3)
        again = await take(runner.subscriber("audit", kinds=["completed"]), 1)
    assert heard == ids[:2]
    assert again[0] in ids[1:], "at least once: the last may come again, none is left out"


async def test_place_that_is_past_the_retention_is_said_to_be(
    runner: Runner, clock: ManualClock
) -> None:
    start = await runner.cursor()
    audit = runner.subscriber("audit")
    await audit.rewind(start)
    await run(1)
    clock.advance(60)
    await run(2)
    await runner.engine().commit.alone(Prune({}, clock.now(), 99))
    with pytest.raises(CursorTooOld):
        await take(audit, 1)
    with pytest.raises(CursorTooOld):
        await audit.rewind(start)
    await audit.rewind(clock.datetime())
    assert len(await take(audit, 3)) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ""}, "name must not be empty"),
        ({"name": 3}, "name must be a str"),
        ({"name": "a", "kinds": ["x"]}, "kinds='x' is not known"),
        ({"name": "a", "task": ""}, "task must not be empty"),
    ],
)
async def test_subscribers_that_mean_nothing_are_refused(
    runner: Runner, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        runner.subscriber(**given)


async def test_rewind_to_nothing_is_refused(runner: Runner, clock: ManualClock) -> None:
    audit = runner.subscriber("audit")
    for to, message in (
        ("x", "not one that an event had"),
        (clock.datetime().replace(tzinfo=None), "no time zone"),
        (3, "not one that an event had"),
    ):
        with pytest.raises(InvalidOption, match=message):
            await audit.rewind(to)  # type: ignore[arg-type]


async def test_rewind_to_a_cursor_of_another_database_is_refused(
    tmp_path: Path, runner: Runner
) -> None:
    audit = runner.subscriber("audit", kinds=["completed"])
    await audit.rewind(await runner.cursor())
    async with Runner(tmp_path / "other.db") as other:
        foreign = await other.cursor()
    with pytest.raises(InvalidOption, match="another database"):
        await audit.rewind(foreign)
    ids = await run(1)
    assert await take(audit, 1) == ids, "its place is where it was"


async def test_place_moves_on_also_when_nothing_passes_the_filters(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribing, "ADVANCE_SECONDS", 0.01)
    store = runner.engine().store

    async def listen() -> None:
        async for _ in runner.subscriber("audit", kinds=["failed"]):
            raise AssertionError("nothing failed")

    listening = asyncio.create_task(listen())
    await until(lambda: runner.engine().feed.listening)
    await run(1, 2)
    end = (await store.journal_end()).place
    async with asyncio.timeout(10):
        while await store.subscriber_place("audit") != end:
            await asyncio.sleep(0.001)
    listening.cancel()
    await asyncio.wait([listening])
