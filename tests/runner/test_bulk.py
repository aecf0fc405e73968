"""Bulk changes by filter: counted first, done in slices, noted in the audit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs import (
    BulkResult,
    IllegalMove,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobFilter,
    ResultGone,
    Runner,
    ScanRequired,
    Tasks,
    UnknownJob,
)
from asyncjobs.services import by_hand
from asyncjobs.testing import ManualClock, run_until_idle

from .support import PATIENCE_SECONDS, until

tasks = Tasks()
broken = True
EVER: JobFilter = {"created_after": datetime(2000, 1, 1, tzinfo=UTC)}


@tasks.task(name="fragile", queue="a")
async def fragile(number: int) -> int:
    if broken:
        raise ValueError("not yet")
    return number


@tasks.task(name="held", queue="b")
async def held() -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def repaired_again() -> None:
    global broken
    broken = True


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Runner]:
    """One that does not wait for held jobs at its end."""
    async with Runner(tmp_path / "jobs.db", clock=clock, grace=0) as runner:
        runner.include(tasks)
        yield runner
        assert await runner.registry.check() == []


async def failed(runner: Runner, count: int) -> list[Any]:
    handles = await runner.enqueue_many([fragile.job(number) for number in range(count)])
    await run_until_idle(runner)
    return handles


def result(matched: int, changed: int, *, dry_run: bool = False) -> BulkResult:
    skipped = 0 if dry_run else matched - changed
    return BulkResult(matched=matched, changed=changed, skipped=skipped, dry_run=dry_run)


@pytest.mark.parametrize("verb", ["retry_all", "cancel_all", "delete_all"])
async def test_nothing_is_changed_unless_one_says_so(runner: Runner, verb: str) -> None:
    await failed(runner, 3)
    before = (await runner.registry.list()).jobs

    states = {"cancel_all": "queued"}
    await fragile.options(delay=60).enqueue(4)
    before = (await runner.registry.list()).jobs

    found = await getattr(runner.registry, verb)(state=states.get(verb, "failed"), actor="ops")

    assert found == result(1 if verb == "cancel_all" else 3, 0, dry_run=True)
    assert (await runner.registry.list()).jobs == before
    assert await runner.registry.audit() == []


async def test_retry_all_runs_every_job_again_and_wakes_its_handles(runner: Runner) -> None:
    global broken
    handles = await failed(runner, 120)
    broken = False

    done = await runner.registry.retry_all(task="fragile", state="failed", dry_run=False)

    assert done == result(120, 120)
    assert [await handle for handle in handles] == list(range(120))


async def test_cancel_all_ends_what_waits_and_reaches_what_runs(runner: Runner) -> None:
    ended = (await failed(runner, 1))[0]
    running = await held.enqueue()
    waiting = await fragile.options(delay=60).enqueue(1)
    await until(lambda: runner.tally.started == 2)

    done = await runner.registry.cancel_all("spring cleaning", **EVER, dry_run=False)

    assert done == result(2, 2)
    for handle in (running, waiting):
        with pytest.raises(JobCancelled, match="spring cleaning"):
            await handle
    assert (await ended.job()).state == "failed"


async def test_job_cancelled_without_a_reason_says_user_whichever_way(runner: Runner) -> None:
    waiting, running = await fragile.options(delay=60).enqueue(1), await held.enqueue()
    in_bulk = await fragile.options(delay=60, queue="c").enqueue(2)
    in_bulk_running = await held.enqueue()
    await until(lambda: runner.tally.started == 2)
    await waiting.cancel()
    await running.cancel()
    await runner.registry.cancel_all(queue="c", dry_run=False)
    await runner.registry.cancel_all(state="running", dry_run=False)

    jobs = [await handle.wait() for handle in (waiting, running, in_bulk, in_bulk_running)]

    assert [(job.reason, job.cancel_reason) for job in jobs] == [("user", "user")] * 4


async def test_delete_all_spares_what_runs(runner: Runner) -> None:
    gone = (await failed(runner, 60))[0]
    running = await held.enqueue()
    await until(lambda: runner.tally.started == 61)

    done = await runner.registry.delete_all(**EVER, dry_run=False)

    assert done == result(60, 60)
    with pytest.raises(ResultGone):
        await gone
    assert (await running.job()).state == "running"
    assert await runner.registry.count() == 1


async def one_in_each_state(runner: Runner) -> dict[str, Any]:
    global broken
    handles = {"failed": (await failed(runner, 1))[0]}
    broken = False
    handles["completed"] = (await failed(runner, 1))[0]
    handles["cancelled"] = await fragile.options(delay=60).enqueue(1)
    await handles["cancelled"].cancel()
    handles["queued"] = await fragile.options(delay=60).enqueue(1)
    handles["running"] = await held.enqueue()
    await until(lambda: runner.tally.started == 3)
    return handles


@pytest.mark.parametrize(
    ("verb", "states"),
    [
        ("retry_all", {"failed"}),
        ("cancel_all", {"queued", "running"}),
        ("delete_all", {"failed", "completed", "cancelled", "queued"}),
    ],
)
async def test_without_a_state_only_jobs_that_can_be_changed_are_counted_and_changed(
    runner: Runner, verb: str, states: set[str]
) -> None:
    handles = await one_in_each_state(runner)
    change = getattr(runner.registry, verb)
    before = {state: await runner.registry.get(handle.id) for state, handle in handles.items()}

    counted = [await change(), await change(**EVER)]
    done = await change(**EVER, dry_run=False)
    await until(lambda: runner.engine().commit.quiet)

    assert counted == [result(len(states), 0, dry_run=True)] * 2
    assert done == result(len(states), len(states))
    after = {state: await runner.registry.find(handle.id) for state, handle in handles.items()}
    assert {state for state in handles if after[state] != before[state]} == states


@pytest.mark.parametrize(
    ("verb", "state", "wrong"),
    [
        ("retry_all", "running", "running"),
        ("retry_all", ["failed", "scheduled"], "scheduled"),
        ("cancel_all", "completed", "completed"),
        ("cancel_all", ["queued", "failed", "cancelled"], "cancelled, failed"),
        ("delete_all", ["running", "failed"], "running"),
    ],
)
async def test_states_that_cannot_be_changed_are_refused_naming_them(
    runner: Runner, verb: str, state: Any, wrong: str
) -> None:
    with pytest.raises(InvalidOption, match=f"{verb} cannot change jobs that are {wrong};"):
        await getattr(runner.registry, verb)(state=state)


async def test_finished_jobs_that_a_time_asks_for_are_not_there_to_cancel(runner: Runner) -> None:
    with pytest.raises(InvalidOption, match="cancel_all cannot change jobs that are cancelled"):
        await runner.registry.cancel_all(finished_after=datetime(2000, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("state", ["completed", "cancelled"])
async def test_completed_and_cancelled_jobs_are_retried_when_asked_for(
    runner: Runner, state: str
) -> None:
    handles = await one_in_each_state(runner)

    assert await runner.registry.retry_all(state=state, dry_run=False) == result(1, 1)

    assert await handles[state] in (0, 1)


async def test_time_of_the_end_alone_does_not_ask_for_completed_jobs_to_be_retried(
    runner: Runner,
) -> None:
    handles = await one_in_each_state(runner)
    since = datetime(2000, 1, 1, tzinfo=UTC)

    assert await runner.registry.retry_all(finished_after=since, dry_run=False) == result(1, 1)

    assert await handles["failed"] == 0


@pytest.mark.parametrize("verb", ["cancel_all", "delete_all"])
@pytest.mark.parametrize("filters", [{}, {"state": None, "tag": None}])
async def test_change_of_all_that_there_is_is_refused(
    runner: Runner, verb: str, filters: dict[str, Any]
) -> None:
    await failed(runner, 1)
    with pytest.raises(InvalidOption, match="no filter is given"):
        await getattr(runner.registry, verb)(**filters, dry_run=False)
    assert await runner.registry.count() == 1
    assert await runner.registry.audit() == []


async def test_collections_of_any_kind_are_noted_in_the_audit(runner: Runner) -> None:
    await failed(runner, 1)
    states: Any = {"failed": 1, "cancelled": 2}.keys()
    await runner.registry.delete_all(state=states, tags_any={"b": 1}.keys(), dry_run=False)
    (entry,) = await runner.registry.audit()
    assert entry.what == {"state": ["cancelled", "failed"], "tags_any": ["b"]}


async def test_jobs_that_changed_meanwhile_are_skipped(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    global broken
    handles = await failed(runner, 8)
    broken = False
    monkeypatch.setattr(by_hand, "FIRST_SLICE_ROWS", 4)
    store = runner.engine().store
    places = store.places

    async def places_then_a_change(*args: Any, **options: Any) -> Any:
        found = await places(*args, **options)
        await runner.registry.retry(handles[0].id)  # completes: it would be retried once more
        await runner.registry.delete(handles[5].id)
        assert await handles[0] == 0
        return found

    monkeypatch.setattr(store, "places", places_then_a_change)

    done = await runner.registry.retry_all(state="failed", dry_run=False)

    assert done == result(8, 6)
    (entry,) = await runner.registry.audit()
    assert (entry.matched, entry.changed, entry.skipped) == (8, 6, 2)
    assert (await handles[0].job()).claim == 3  # claimed, retried by hand once, claimed


async def test_jobs_accepted_later_are_left_alone(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failed(runner, 3)
    store = runner.engine().store
    last_seq = store.last_seq

    async def last_seq_then_a_job() -> int:
        last = await last_seq()
        await failed(runner, 1)
        return last

    monkeypatch.setattr(store, "last_seq", last_seq_then_a_job)

    assert await runner.registry.delete_all(state="failed", dry_run=False) == result(3, 3)
    assert await runner.registry.count() == 1


async def test_cancelled_call_stops_between_two_slices_and_the_audit_says_how_far(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failed(runner, 20)
    for name in ("FIRST_SLICE_ROWS", "SLICE_ROWS_MIN", "SLICE_ROWS_MAX"):
        monkeypatch.setattr(by_hand, name, 5)
    alone = runner.engine().commit.alone
    slices = 0

    def alone_then_cancelled(operation: Any) -> Any:
        nonlocal slices
        slices += 1
        if slices == 2:
            bulk.cancel()
        return alone(operation)

    monkeypatch.setattr(runner.engine().commit, "alone", alone_then_cancelled)
    bulk = asyncio.ensure_future(runner.registry.delete_all(state="failed", dry_run=False))
    with pytest.raises(asyncio.CancelledError):
        await bulk
    monkeypatch.undo()
    await until(lambda: runner.engine().commit.quiet)

    (entry,) = await runner.registry.audit()
    assert (entry.matched, entry.changed) == (10, 10)
    assert await runner.registry.count() == 10


@pytest.mark.parametrize(
    ("rows", "seconds", "following"),
    [
        (50, 0.0101, 25),
        (50, 0.01, 50),
        (50, 0.005, 50),
        (50, 0.0049, 100),
        (19, 1.0, 10),
        (10, 1.0, 10),
        (101, 0.0, 200),
        (200, 0.0, 200),
    ],
)
def test_slices_grow_and_shrink_so_that_each_takes_ten_milliseconds(
    rows: int, seconds: float, following: int
) -> None:
    assert by_hand.next_rows(rows, seconds) == following


async def test_each_slice_is_as_large_as_the_time_of_the_last_one_says(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failed(runner, 501)
    sizes: list[int] = []
    results: list[Any] = []
    alone = runner.engine().commit.alone

    def noted(operation: Any) -> Any:
        sizes.append(len(operation.seqs))
        future = alone(operation)
        future.add_done_callback(lambda done: results.append(done.result()))
        return future

    monkeypatch.setattr(runner.engine().commit, "alone", noted)
    await runner.registry.delete_all(state="failed", dry_run=False)

    assert (sizes[0], sum(sizes)) == (50, 501)
    assert all(result.seconds > 0 for result in results)
    rows = 50
    for size, result in zip(sizes[:-1], results[:-1], strict=True):
        assert size == rows
        rows = by_hand.next_rows(rows, result.seconds)
    assert sizes[-1] <= rows


async def test_audit_says_who_did_what_to_how_many(runner: Runner, clock: ManualClock) -> None:
    handles = await failed(runner, 2)
    registry = runner.registry
    await registry.retry_all(
        task="fragile", state="failed", arguments={"number": 1}, created_before=clock.datetime(),
        error="not yet", dry_run=False, actor="ops@x",
    )  # fmt: skip
    clock.advance(1)
    await registry.delete_all(state="cancelled", dry_run=False)
    await registry.retry(handles[0].id, actor="me")
    await run_until_idle(runner)
    await registry.delete(handles[0].id, actor="me")
    later = await fragile.options(delay=60).enqueue(3)
    await registry.cancel(later.id, "wrong", actor="you")

    entries = await registry.audit()

    assert [(entry.actor, entry.action, entry.matched, entry.changed) for entry in entries] == [
        ("you", "cancel", 1, 1),
        ("me", "delete", 1, 1),
        ("me", "retry", 1, 1),
        (None, "delete", 0, 0),
        ("ops@x", "retry", 0, 0),
    ]
    assert [entry.what for entry in entries[:3]] == [
        {"id": later.id}, {"id": handles[0].id}, {"id": handles[0].id}
    ]  # fmt: skip
    assert entries[3].what == {"state": ["cancelled"]}
    assert entries[4].what["arguments"] == ["number"]
    assert entries[4].what["created_before"].startswith(str(clock.datetime().year))
    assert entries[0].at == clock.datetime()
    older = await registry.audit(limit=2, before=entries[1].position)
    assert older == entries[2:4]


async def test_what_changes_nothing_or_names_nobody_is_not_in_the_audit(runner: Runner) -> None:
    handle = (await failed(runner, 1))[0]
    registry = runner.registry
    await registry.retry(handle.id)
    with pytest.raises(UnknownJob):
        await registry.cancel("nobody", actor="me")
    running = await held.enqueue()
    await until(lambda: runner.tally.started == 3)
    with pytest.raises(IllegalMove):
        await registry.delete(running.id, actor="me")
    with pytest.raises(IllegalMove):
        await registry.retry(running.id, actor="me")
    await run_until_idle_but_held(runner)
    assert await registry.cancel(handle.id, actor="me") == "finished"

    assert await registry.audit() == []


async def run_until_idle_but_held(runner: Runner) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await runner.registry.count(state=["queued", "failed"]) != 1:
            await asyncio.sleep(0)


async def test_change_whose_caller_is_cancelled_is_acted_upon_all_the_same(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    global broken
    handle = (await failed(runner, 1))[0]
    with pytest.raises(JobFailed):
        await handle
    broken = False
    commit = runner.engine().commit
    execute = commit.execute

    def executed_then_cancelled(operation: Any) -> Any:
        retrying.cancel()
        return execute(operation)

    monkeypatch.setattr(commit, "execute", executed_then_cancelled)
    retrying = asyncio.ensure_future(runner.registry.retry(handle.id))
    with pytest.raises(asyncio.CancelledError):
        await retrying
    monkeypatch.undo()
    await until(lambda: runner.tally.started == 2)

    assert await handle == 0  # without it, the old outcome: the mailbox was never told


async def test_bulk_of_an_unindexed_filter_needs_scan(runner: Runner) -> None:
    await failed(runner, 2)

    with pytest.raises(ScanRequired):
        await runner.registry.delete_all(error="not yet", dry_run=False)

    done = await runner.registry.delete_all(error="not yet", dry_run=False, scan=True)
    assert done == result(2, 2)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"actor": ""}, "actor"),
        ({"actor": 5}, "actor"),
        ({"actor": "a\nb"}, "actor"),
        ({"dry_run": "no"}, "dry_run must be True or False"),
        ({"scan": 1}, "scan must be True or False"),
    ],
)
async def test_wrong_option_of_a_bulk_is_refused(
    runner: Runner, options: dict[str, Any], named: str
) -> None:
    for verb in ("retry_all", "cancel_all", "delete_all"):
        with pytest.raises(InvalidOption, match=named):
            await getattr(runner.registry, verb)(**options)


async def test_wrong_page_of_the_audit_is_refused(runner: Runner) -> None:
    for wrong in ({"limit": 0}, {"limit": 1_001}, {"before": 0}, {"before": "1"}):
        options: dict[str, Any] = dict(wrong)
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            await runner.registry.audit(**options)
