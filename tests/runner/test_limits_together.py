"""Limits by key together with schedules, expiry, dead letters, purging, retention, and ``tx=``."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from asyncjobs import (
    Every,
    InvalidOption,
    JobExpired,
    JobFailed,
    JobOutcome,
    Limit,
    ResultGone,
    Runner,
    Tasks,
    current_job,
)
from asyncjobs.services import by_hand
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

tasks = Tasks()
account = Limit(key="account", ordered=True, after_failure="stop", name="account")


class Gate:
    """Jobs stand in it until it opens, and note who they are."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.inside = 0
        self.passed: list[str] = []


async def through(word: str) -> str:
    gate: Gate = current_job().state
    gate.inside += 1
    await gate.opened.wait()
    gate.inside -= 1
    gate.passed.append(word)
    if word == "wrong":
        raise ValueError(word)
    return word


@tasks.task(name="told")
async def told(outcome: JobOutcome) -> None:
    current_job().state.passed.append(f"told: {outcome.reason}")


@tasks.task(name="post", limit=account, on_failure=told)
async def post(account: int, word: str) -> str:
    return await through(word)


@tasks.task(name="mail", queue="mail", limit=account)
async def mail(account: int, word: str) -> str:
    return await through(word)


@pytest_asyncio.fixture
async def gate() -> Gate:
    return Gate()


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock, gate: Gate) -> AsyncIterator[Runner]:
    """Its invariants hold at the end."""
    kept = timedelta(days=1)
    runner = Runner(tmp_path / "jobs.db", clock=clock, grace=0, state=gate, keep_failed=kept)
    runner.include(tasks)
    async with runner:
        yield runner
        assert await runner.registry.check() == []


async def test_job_that_waits_too_long_for_its_key_expires_and_the_next_one_goes(
    runner: Runner, clock: ManualClock, gate: Gate
) -> None:
    first = await post.enqueue(1, "first")
    impatient = await post.options(expires=60).enqueue(1, "impatient")
    last = await post.enqueue(1, "last")
    await until(lambda: gate.inside == 1)
    clock.advance(60)
    with pytest.raises(JobExpired):
        await impatient
    gate.opened.set()
    assert [await first, await last] == ["first", "last"]
    await run_until_idle(runner)
    assert sorted(gate.passed) == ["first", "last", "told: expired"]


async def test_jobs_of_a_schedule_take_their_turns_in_the_line_of_their_key(
    runner: Runner, clock: ManualClock, gate: Gate
) -> None:
    by_hand = await post.enqueue(1, "by hand")
    await until(lambda: gate.inside == 1)
    await runner.schedules.create("hourly", Every(3600), post.job(1, "hourly"), overlap="allow")
    for _ in range(2):
        clock.advance(3600)
        await until_waiting(runner, clock)
    assert await runner.registry.count(state="blocked") == 2
    assert gate.inside == 1
    gate.opened.set()
    await by_hand
    await run_until_idle(runner)
    assert gate.passed == ["by hand", "hourly", "hourly"]


async def until_waiting(runner: Runner, clock: ManualClock) -> None:
    """Until the schedule's job of this hour is there."""
    while (await runner.registry.schedule("hourly")).next_run == clock.datetime():
        await asyncio.sleep(0)


async def test_dead_letter_that_stopped_its_key_is_retried_with_other_arguments(
    runner: Runner, gate: Gate
) -> None:
    gate.opened.set()
    wrong = await post.enqueue(1, "wrong")
    behind = await mail.enqueue(1, "behind")
    with pytest.raises(JobFailed):
        await wrong
    await run_until_idle(runner)
    assert (await behind.job()).state == "blocked"
    standing = await runner.registry.limit_of(behind.id)
    assert standing is not None
    assert standing.stopped_by == wrong.id
    await runner.registry.retry(wrong.id, arguments={"word": "right"})
    assert [await wrong, await behind] == ["right", "behind"]
    assert gate.passed[2:] == ["right", "behind"]


async def test_dead_letter_moves_to_the_key_of_its_new_arguments(
    runner: Runner, gate: Gate
) -> None:
    gate.opened.set()
    wrong = await post.enqueue(1, "wrong")
    behind = await post.enqueue(1, "behind")
    with pytest.raises(JobFailed):
        await wrong
    await runner.registry.retry(wrong.id, arguments={"account": 2, "word": "right"})
    assert [await behind, await wrong] == ["behind", "right"]
    standing = await runner.registry.limit_of(wrong.id)
    assert standing is not None
    assert (standing.name, standing.key, standing.place) == ("account", "2", None)


async def test_dead_letter_whose_new_arguments_have_no_key_is_refused(
    runner: Runner, gate: Gate
) -> None:
    @runner.task(name="strict", limit=Limit(key=lambda given: given["word"]))
    async def strict(word: str) -> None:
        raise ValueError(word)

    handle = await strict.enqueue("x")
    with pytest.raises(JobFailed):
        await handle
    with pytest.raises(InvalidOption, match="the key of task 'strict' takes 0 bytes"):
        await runner.registry.retry(handle.id, arguments={"word": ""})
    assert (await handle.job()).state == "failed"


async def test_dead_letters_that_come_back_at_a_rate_hold_their_keys_in_the_meantime(
    runner: Runner, clock: ManualClock, gate: Gate
) -> None:
    gate.opened.set()
    handles = [await post.enqueue(n, "wrong") for n in range(2)]
    for handle in handles:
        with pytest.raises(JobFailed):
            await handle
    await run_until_idle(runner)
    gate.passed.clear()
    await runner.registry.retry_all(state="failed", rate=0.1, dry_run=False)
    await run_until_idle(runner)
    assert gate.passed == ["wrong", "told: error"]
    late = await mail.enqueue(1, "late")
    clock.advance(10)
    await run_until_idle(runner)
    assert gate.passed[2:] == ["wrong", "told: error"]
    assert (await late.job()).state == "blocked"


@pytest.mark.parametrize("rate", [None, 1000])
async def test_dead_letters_of_an_ordered_key_come_back_in_their_order(
    runner: Runner, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, rate: float | None
) -> None:
    started: list[int] = []

    @runner.task(name="numbered", limit=Limit(ordered=True))
    async def numbered(number: int) -> None:
        started.append(number)
        if len(started) <= 101:
            raise ValueError(number)

    monkeypatch.setattr(by_hand, "PAGE_ROWS", 30)
    handles = await runner.enqueue_many([numbered.job(number) for number in range(100)])
    await run_until_idle(runner)
    clock.advance(1)
    await handles[7].retry()  # the last to end, and not the last to be accepted
    await run_until_idle(runner)
    done = await runner.registry.retry_all(state="failed", dry_run=False, rate=rate)
    clock.advance(1)
    await run_until_idle(runner)
    assert (done.matched, done.changed) == (100, 100)
    assert started == [*range(100), 7, *range(100)]


async def test_purged_jobs_give_their_permits_to_those_of_other_queues(
    runner: Runner, gate: Gate
) -> None:
    await runner.registry.pause_queue("mail")
    purged = [await mail.enqueue(n % 2, "purged") for n in range(6)]
    others = [await post.enqueue(n, "other") for n in range(2)]
    await run_until_idle(runner)
    assert await runner.registry.count(state="blocked") == 6  # two more hold the permits
    gate.opened.set()
    result = await runner.registry.purge_queue("mail", dry_run=False)
    assert (result.matched, result.changed) == (6, 6)
    assert [await handle for handle in others] == ["other", "other"]
    with pytest.raises(ResultGone):
        await purged[0]
    assert gate.passed == ["other", "other"]


async def test_job_that_stops_its_key_is_not_pruned_and_the_key_goes_on_at_once_when_it_is_deleted(
    tmp_path: Path, gate: Gate
) -> None:
    gate.opened.set()
    # On the machine's clock: one that stands still counts as stepped, which wakes.
    runner = Runner(tmp_path / "jobs.db", grace=0, state=gate, keep_failed=0.001)
    runner.include(tasks)
    async with runner:
        wrong = await post.enqueue(1, "wrong")
        behind = await post.enqueue(1, "behind")
        with pytest.raises(JobFailed):
            await wrong
        await run_until_idle(runner)
        assert (await behind.job()).state == "blocked"
        ended = runner.clock.now()
        await until(lambda: runner.clock.now() > ended + 1_000)
        await runner.engine().pruner.prune()
        await run_until_idle(runner)
        assert (await behind.job()).state == "blocked"
        await runner.registry.delete(wrong.id)
        await run_until_idle(runner)
        assert (await behind.job()).state == "completed"


async def test_job_of_an_application_that_commits_lines_up(
    runner: Runner, tmp_path: Path, gate: Gate
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        async with runner.transaction(connection) as tx:
            handles = [await runner.enqueue(post.job(1, word), tx=tx) for word in "abc"]
        with pytest.raises(KeyError):
            async with runner.transaction(connection) as tx:
                await runner.enqueue(post.job(1, "rolled back"), tx=tx)
                raise KeyError
    gate.opened.set()
    assert [await handle for handle in handles] == ["a", "b", "c"]
    assert gate.passed == ["a", "b", "c"]


async def test_job_that_completes_in_a_transaction_of_the_application_lets_the_next_go(
    runner: Runner, tmp_path: Path
) -> None:
    committed: list[int] = []

    @runner.task(name="count", limit=Limit(running=1))
    async def count(number: int) -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
            async with runner.transaction(connection) as tx:
                await current_job().complete_in(tx, number)
        committed.append(number)
        return number

    handles = await runner.enqueue_many([count.job(n) for n in range(3)])
    assert [await asyncio.wait_for(handle, 10) for handle in handles] == [0, 1, 2]
    assert committed == [0, 1, 2]
