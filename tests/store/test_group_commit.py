"""Group commit on the real store: batches, their order, their limits, and trouble."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs.errors import StoreBusy, StoreError, StoreFull
from asyncjobs.records import Claimed, NewJob, Transition
from asyncjobs.rules.limits import FLUSH_BYTES_MAX, FLUSH_ROWS_MAX
from asyncjobs.states import Event
from asyncjobs.store import group_commit
from asyncjobs.store.base import (
    Cancel,
    Claim,
    ClaimResult,
    Disown,
    Insert,
    InsertAndClaim,
    Join,
    Operation,
    Report,
)
from asyncjobs.store.group_commit import GroupCommit
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import PLENTY, TASKS, Desk, new_job


class Worker:
    """A source of claims that runs nothing: it keeps what it is given."""

    instance = "here"

    def __init__(self) -> None:
        self.claiming = False
        self.claims: list[ClaimResult] = []
        self.reported: list[tuple[Transition, str]] = []
        self.landing = asyncio.Event()

    def claim_request(self, *, new_jobs: bool) -> Claim | None:
        return Claim(self.instance, TASKS, PLENTY) if self.claiming else None

    def claimed(self, result: ClaimResult) -> None:
        self.claims.append(result)
        self.landing.set()

    def missed(self) -> None:
        pass

    def landed(self, reports: Sequence[tuple[Transition, Any]], answers: Sequence[str]) -> None:
        for (transition, _), answer in zip(reports, answers, strict=True):
            self.reported.append((transition, answer))
        self.landing.set()

    def held(self) -> frozenset[int]:
        return frozenset(job.seq for claim in self.claims for job in claim.jobs)


class WatchedStore(SQLiteStore):
    """The real store, which also remembers what each transaction held."""

    def __init__(self, path: str, clock: ManualClock) -> None:
        super().__init__(path, clock=clock)
        self.transactions: list[list[Operation]] = []
        self.gate = asyncio.Event()
        """Cleared, it stops the writer on its way into the next transaction."""
        self.gate.set()
        self.waiting = asyncio.Event()

    async def write(self, operations: Sequence[Operation]) -> list[Any]:
        self.transactions.append(list(operations))
        self.waiting.set()
        await self.gate.wait()
        return await super().write(operations)

    @contextlib.asynccontextmanager
    async def held_up(self, commit: GroupCommit[Any], job: NewJob[Any]) -> AsyncIterator[None]:
        """One flush, of ``job`` alone, is under way as long as this lasts."""
        self.gate.clear()
        self.waiting.clear()
        first = commit.enqueue(job)
        await self.waiting.wait()
        yield
        self.gate.set()
        await first

    def rows(self) -> list[int]:
        """How many rows each transaction brought."""
        return [sum(map(_rows_of, operations)) for operations in self.transactions]


@pytest_asyncio.fixture
async def watched(tmp_path: Any, clock: ManualClock) -> AsyncIterator[WatchedStore]:
    store = WatchedStore(str(tmp_path / "jobs.db"), clock)
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def worker() -> Worker:
    return Worker()


@pytest_asyncio.fixture
async def commit(watched: WatchedStore, worker: Worker) -> AsyncIterator[GroupCommit[Any]]:
    commit: GroupCommit[Any] = GroupCommit(watched)
    commit.serve(worker)
    running = asyncio.create_task(commit.run())
    yield commit
    commit.give_up()
    await running


def _rows_of(operation: Operation) -> int:
    if isinstance(operation, InsertAndClaim):
        return len(operation.insert.jobs)
    if isinstance(operation, Insert):
        return len(operation.jobs)
    return len(operation.transitions) if isinstance(operation, Report) else 1


async def started(
    commit: GroupCommit[Any], worker: Worker, jobs: int, **options: Any
) -> list[Claimed]:
    """Enqueue and claim so many jobs."""
    worker.claiming = True
    clock: Any = options.pop("clock")
    await asyncio.gather(*[commit.enqueue(new_job(clock, **options)) for _ in range(jobs)])
    claimed = [job for claim in worker.claims for job in claim.jobs]
    assert len(claimed) == jobs
    worker.claiming = False
    return claimed


@contextlib.contextmanager
def locked(store: SQLiteStore) -> Any:
    """Another program holds the write lock."""
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def until_failing(commit: GroupCommit[Any]) -> None:
    while commit.failing is None:
        await commit.flushed()


async def test_claim_that_meets_a_lock_does_not_freeze_the_event_loop(
    commit: GroupCommit[Any], watched: WatchedStore, worker: Worker
) -> None:
    with locked(watched):
        worker.claiming = True
        commit.look()
        await until_failing(commit)
        assert isinstance(commit.failing, StoreBusy)
    worker.landing.clear()
    await worker.landing.wait()
    assert commit.failing is None


async def test_enqueue_behind_a_long_lock_raises_and_the_next_one_succeeds(
    commit: GroupCommit[Any],
    watched: WatchedStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_commit, "BUSY_SECONDS", 0.1)
    with locked(watched), pytest.raises(StoreBusy, match="waits for itself"):
        await commit.enqueue(new_job(clock))
    assert await commit.enqueue(new_job(clock)) is None


@pytest.mark.timed
async def test_all_who_wait_behind_a_lock_hear_of_it_at_the_same_time(
    commit: GroupCommit[Any],
    watched: WatchedStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_commit, "BUSY_SECONDS", 0.3)
    loop = asyncio.get_running_loop()
    with locked(watched):
        begun = loop.time()
        waiting: list[asyncio.Future[Any]] = [
            commit.enqueue(new_job(clock)) for _ in range(FLUSH_ROWS_MAX * 2)
        ]
        waiting += [commit.enqueue_many([new_job(clock)]) for _ in range(4)]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        took = loop.time() - begun
    assert {type(answer) for answer in answers} == {StoreBusy}
    assert took < 2


# Batches


async def test_first_operation_is_flushed_at_once_and_the_rest_gathers(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    async with watched.held_up(commit, new_job(clock)):
        others = [commit.enqueue(new_job(clock)) for _ in range(500)]
    assert await asyncio.gather(*others) == [None] * 500
    assert watched.rows() == [1, 500]


async def test_lone_operations_wait_for_nobody(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    for _ in range(5):
        await commit.enqueue(new_job(clock))
    assert watched.rows() == [1] * 5
    assert commit.flushes == 5
    assert commit.quiet


async def test_outcomes_come_first_then_what_is_done_by_hand_then_new_jobs_and_the_claim(
    commit: GroupCommit[Any], watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    (run,) = await started(commit, worker, 1, clock=clock)
    desk = Desk(watched, clock)
    worker.claiming = True
    watched.transactions.clear()
    async with watched.held_up(commit, new_job(clock, task="read")):
        new = commit.enqueue(new_job(clock))
        by_hand = commit.execute(Cancel([run.id]))
        commit.report(desk.move(run), "run")
    await new
    assert [type(operation) for operation in watched.transactions[1]] == [
        Report,
        Cancel,
        InsertAndClaim,
    ]
    # So the job had completed before its cancellation came.
    assert (await by_hand)[0].outcome == "finished"


async def test_enqueue_whose_caller_is_cancelled_is_written_all_the_same(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    job, other = new_job(clock), new_job(clock)
    async with watched.held_up(commit, new_job(clock)):
        abandoned, kept = commit.enqueue(job), commit.enqueue(other)
        abandoned.cancel()
    assert await kept is None
    assert await watched.get(job.id) is not None
    assert await watched.check() == []


# Limits


async def test_flush_takes_a_thousand_rows_at_most(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    async with watched.held_up(commit, new_job(clock)):
        others = [commit.enqueue(new_job(clock)) for _ in range(2 * FLUSH_ROWS_MAX + 1)]
    await asyncio.gather(*others)
    assert watched.rows() == [1, FLUSH_ROWS_MAX, FLUSH_ROWS_MAX, 1]


async def test_outcomes_and_new_jobs_share_the_thousand(
    commit: GroupCommit[Any], watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    runs = await started(commit, worker, 100, clock=clock)
    desk = Desk(watched, clock)
    watched.transactions.clear()
    async with watched.held_up(commit, new_job(clock)):
        others = [commit.enqueue(new_job(clock)) for _ in range(FLUSH_ROWS_MAX)]
        for run in runs:
            commit.report(desk.move(run, result="1"), "run")
    await asyncio.gather(*others)
    assert watched.rows() == [1, FLUSH_ROWS_MAX, 100]
    assert [answer for _, answer in worker.reported] == ["done"] * 100


async def test_flush_takes_four_megabytes_of_arguments_at_most(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    large = f'{{"text":"{"x" * (FLUSH_BYTES_MAX // 4 - 11)}"}}'
    assert len(large) * 4 == FLUSH_BYTES_MAX
    async with watched.held_up(commit, new_job(clock)):
        others = [commit.enqueue(new_job(clock, arguments=large)) for _ in range(9)]
    await asyncio.gather(*others)
    assert watched.rows() == [1, 4, 4, 1]


async def test_flush_takes_four_megabytes_of_results_at_most(
    commit: GroupCommit[Any], watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    runs = await started(commit, worker, 9, clock=clock)
    desk = Desk(watched, clock)
    large = f'"{"x" * (FLUSH_BYTES_MAX // 4 - 2)}"'
    watched.transactions.clear()
    async with watched.held_up(commit, new_job(clock)):
        for run in runs:
            commit.report(desk.move(run, result=large), "run")
    while len(worker.reported) < 9:
        await commit.flushed()
    assert watched.rows() == [1, 4, 4, 1]


async def test_job_larger_than_a_flush_goes_by_itself(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    huge = f'{{"text":"{"x" * (FLUSH_BYTES_MAX + 1)}"}}'
    async with watched.held_up(commit, new_job(clock)):
        others = [commit.enqueue(new_job(clock, arguments=a)) for a in ("{}", huge, "{}")]
    await asyncio.gather(*others)
    assert watched.rows() == [1, 1, 1, 1]


async def test_bulk_is_a_commit_of_its_own_and_others_wait_for_one_at_most(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    async with watched.held_up(commit, new_job(clock)):
        bulks = [commit.enqueue_many([new_job(clock) for _ in range(3_000)]) for _ in range(3)]
        single = commit.enqueue(new_job(clock))
    await asyncio.gather(single, *bulks)
    assert watched.rows() == [1, 3_000, 1, 3_000, 3_000]


# Trouble


async def test_bad_job_in_a_shared_flush_fails_alone(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    async with watched.held_up(commit, new_job(clock)):
        good = [commit.enqueue(new_job(clock)) for _ in range(3)]
        bad = commit.enqueue(new_job(clock, trigger="canary \ud800"))
        good += [commit.enqueue(new_job(clock)) for _ in range(3)]
    assert await asyncio.gather(*good) == [None] * 6
    with pytest.raises(StoreError, match="refused the value") as refused:
        await bad
    assert "canary" not in str(refused.value)
    assert commit.failing is None
    assert await watched.count([], queue=None, task=None) == 7


async def test_operation_that_breaks_a_constraint_fails_alone(
    commit: GroupCommit[Any], watched: WatchedStore, clock: ManualClock
) -> None:
    await commit.execute(Join("one", 1, "host"))
    async with watched.held_up(commit, new_job(clock)):
        good = commit.enqueue(new_job(clock))
        bad = commit.execute(Join("one", 1, "host"))
    assert await good is None
    with pytest.raises(StoreError):
        await bad
    assert commit.failing is None


async def test_outcome_that_cannot_be_stored_is_given_back_alone(
    commit: GroupCommit[Any], watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    good, bad = await started(commit, worker, 2, clock=clock)
    desk = Desk(watched, clock)
    async with watched.held_up(commit, new_job(clock)):
        commit.report(desk.move(bad, Event.CANCELLED, reason="\udfff"), "bad")
        commit.report(desk.move(good, result="1"), "good")
    while len(worker.reported) < 2:
        await commit.flushed()
    answers = {transition.seq: answer for transition, answer in worker.reported}
    assert answers == {bad.seq: "unstorable", good.seq: "done"}


async def test_full_database_refuses_new_jobs_and_keeps_outcomes_until_there_is_room(
    commit: GroupCommit[Any], watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    (run,) = await started(commit, worker, 1, clock=clock)
    desk = Desk(watched, clock)
    large = f'"{"x" * 100_000}"'

    def limit(pages: int | None) -> None:
        def set_limit(connection: sqlite3.Connection) -> None:
            used = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(
                f"PRAGMA max_page_count = {used if pages is None else pages}"
            ).fetchall()

        return watched._writer.run(set_limit)  # type: ignore[return-value]

    await limit(None)  # type: ignore[func-returns-value, misc]
    commit.report(desk.move(run, result=large), "run")
    with pytest.raises(StoreFull):
        await commit.enqueue(new_job(clock, arguments=f'{{"text":{large}}}'))
    assert worker.reported == []
    assert isinstance(commit.failing, StoreFull)
    await limit(10**6)  # type: ignore[func-returns-value, misc]
    while not worker.reported:
        await commit.flushed()
    assert [answer for _, answer in worker.reported] == ["done"]
    assert commit.failing is None
    # A commit that failed may have happened: what is not held was given back before any claim.
    assert any(isinstance(o, Disown) for operations in watched.transactions for o in operations)


async def test_closing_writes_what_waits(
    watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    commit: GroupCommit[Any] = GroupCommit(watched)
    commit.serve(worker)
    futures = [commit.enqueue(new_job(clock)) for _ in range(1_500)]
    commit.close()
    await commit.run()
    assert await asyncio.gather(*futures) == [None] * 1_500


async def test_giving_up_leaves_nobody_waiting(
    watched: WatchedStore, worker: Worker, clock: ManualClock
) -> None:
    commit: GroupCommit[Any] = GroupCommit(watched)
    commit.serve(worker)
    with locked(watched):
        future = commit.enqueue(new_job(clock))
        bulk = commit.enqueue_many([new_job(clock)])
        commit.give_up()
        await commit.run()
    for waiting in (future, bulk):
        with pytest.raises(StoreError):
            await waiting
    assert commit.finished.is_set()
