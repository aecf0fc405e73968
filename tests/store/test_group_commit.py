"""Group commit on the real store: batches, their order, their limits, and trouble."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs.errors import StoreBusy
from asyncjobs.records import Transition
from asyncjobs.store import group_commit
from asyncjobs.store.base import Claim, ClaimResult, Operation
from asyncjobs.store.group_commit import GroupCommit
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import PLENTY, TASKS, new_job


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

    async def write(self, operations: Sequence[Operation]) -> list[Any]:
        self.transactions.append(list(operations))
        return await super().write(operations)


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
