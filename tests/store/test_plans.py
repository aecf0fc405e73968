"""How SQLite walks: what is executed is caught on its way, and its plan is looked at."""

from __future__ import annotations

import re
from typing import Any, Self

import pytest

from asyncjobs.states import Event
from asyncjobs.store.base import Claim, Filter, Insert, InsertAndClaim, Prune
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import PLENTY, SECOND, TASKS, Desk

WHOLE_TABLE = re.compile(r"SCAN (j|asyncjobs_jobs)( USING INDEX asyncjobs_claimable)?$")
SORT = "USE TEMP B-TREE FOR ORDER BY"


class Plans:
    """The plans of all statements that a connection has run."""

    def __init__(self, store: SQLiteStore, *, reading: bool = False) -> None:
        self._connection = store._reader if reading else store._writer
        self.statements: list[str] = []

    async def __aenter__(self) -> Self:
        await self._connection.run(lambda c: c.set_trace_callback(self.statements.append))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.run(lambda c: c.set_trace_callback(None))

    async def of(self, table: str) -> list[str]:
        """The lines of the plans of statements that name the table."""
        chosen = [text for text in dict.fromkeys(self.statements) if table in text]
        assert chosen, f"nothing touched {table}"

        def explain(connection: Any) -> list[str]:
            return [
                row[3]
                for text in chosen
                for row in connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
            ]

        lines: list[str] = await self._connection.run(explain)
        return lines


def whole_walks(lines: list[str]) -> list[str]:
    return [line for line in lines if WHOLE_TABLE.match(line)]


@pytest.fixture
def file_desk(file_store: SQLiteStore, clock: ManualClock) -> Desk:
    return Desk(file_store, clock)


async def test_claim_walks_the_claimable_index(file_store: SQLiteStore, file_desk: Desk) -> None:
    for queue in ("a", "b"):
        await file_desk.insert(*[file_desk.job(queue=queue, priority=p) for p in range(3)])
    await file_desk.add(delay=SECOND)
    async with Plans(file_store) as plans:
        await file_desk.claim(queues=("a",))
        await file_desk.claim()
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    by = "USING INDEX asyncjobs_claimable (queue=? AND priority=? AND run_at>?"
    assert any(f"{by} AND run_at<?)" in line for line in lines)  # the candidates
    assert any(f"{by})" in line for line in lines)  # when the next falls due
    assert any("asyncjobs_claimable (queue=? AND priority<?)" in line for line in lines)
    assert any("asyncjobs_claimable (queue>?)" in line for line in lines)


async def test_claim_of_parked_jobs_walks_their_index(
    file_store: SQLiteStore, file_desk: Desk
) -> None:
    await file_desk.add(task="strange")
    await file_desk.claim()
    async with Plans(file_store) as plans:
        assert len((await file_desk.claim(tasks={"strange": "coroutine"})).jobs) == 1
    lines = await plans.of("asyncjobs_parked")
    assert whole_walks(lines) == []
    assert any("asyncjobs_parked (task=?" in line for line in lines)
    assert SORT not in lines


async def test_insert_and_claim_in_one_walks_no_table(
    file_store: SQLiteStore, file_desk: Desk
) -> None:
    async with Plans(file_store) as plans:
        jobs = [file_desk.job() for _ in range(3)]
        await file_desk.do(InsertAndClaim(Insert(jobs), Claim("here", TASKS, PLENTY)))
    assert whole_walks(await plans.of("asyncjobs_jobs")) == []


@pytest.mark.parametrize(
    "event", [Event.COMPLETED, Event.FAILED, Event.RETRYING, Event.SNOOZED, Event.RELEASED]
)
@pytest.mark.parametrize("runs", [1, 5])
async def test_outcomes_seek_their_rows_by_seq(
    file_store: SQLiteStore, file_desk: Desk, event: Event, runs: int
) -> None:
    await file_desk.insert(*[file_desk.job() for _ in range(runs)])
    claimed = (await file_desk.claim()).jobs
    async with Plans(file_store) as plans:
        answers = await file_desk.report(*[file_desk.move(run, event) for run in claimed])
        assert answers == ["done"] * runs
        await file_desk.report(*[file_desk.move(run, event) for run in claimed])  # refused
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    rows = [line for line in lines if "asyncjobs_jobs" in line]
    assert set(rows) == {"SEARCH asyncjobs_jobs USING INTEGER PRIMARY KEY (rowid=?)"}


async def test_rescue_seeks_what_the_dead_one_ran(file_store: SQLiteStore, file_desk: Desk) -> None:
    await file_desk.start("dead")
    async with Plans(file_store) as plans:
        await file_desk.rescue("dead")
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    assert "SEARCH asyncjobs_jobs USING INDEX asyncjobs_running (instance=?)" in lines


async def test_who_runs_something_is_read_from_the_running_alone(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.running_instances()
    lines = await plans.of("asyncjobs_jobs")
    assert lines == ["SCAN asyncjobs_jobs USING INDEX asyncjobs_running"]


async def test_prune_seeks_by_state_and_end(file_store: SQLiteStore, file_desk: Desk) -> None:
    await file_desk.finished(key="k", tags=("t",))
    file_desk.clock.advance(1)
    async with Plans(file_store) as plans:
        await file_desk.do(Prune({"completed": file_desk.clock.now()}, 0, 100))
    lines = await plans.of("asyncjobs_")
    assert whole_walks(lines) == []
    assert SORT not in lines
    assert any("asyncjobs_finished (state=? AND finished_at>? AND finished_at<?)" in line
               for line in lines)  # fmt: skip
    assert any("SEARCH asyncjobs_tags USING PRIMARY KEY (tag=? AND seq=?)" in line
               for line in lines)  # fmt: skip


LISTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "completed": ({"state": "completed"}, "SEARCH j USING INDEX asyncjobs_finished (state=?"),
    "failed": ({"state": "failed"}, "SEARCH j USING INDEX asyncjobs_finished (state=?"),
    "cancelled": ({"state": "cancelled"}, "SEARCH j USING INDEX asyncjobs_finished (state=?"),
    "retrying": ({"state": "retrying"}, "j USING INDEX asyncjobs_retrying"),
    "task": ({"task": "x"}, "SEARCH j USING INDEX asyncjobs_by_task (task=?"),
    "queue": ({"queue": "x"}, "SEARCH j USING INDEX asyncjobs_by_queue (queue=?"),
    "tag": ({"tag": "x"}, "SEARCH t USING PRIMARY KEY (tag=?"),
    "key": ({"key": "x"}, "SEARCH k USING PRIMARY KEY (key=?"),
    "trigger": ({"trigger": "x"}, "SEARCH j USING INDEX asyncjobs_by_trigger (trigger=?"),
    "created_after": ({"created_after": 1}, "USING INDEX sqlite_autoindex_asyncjobs_jobs_1 (id>?"),
    "created_before": ({"created_before": 9**9}, "sqlite_autoindex_asyncjobs_jobs_1 (id<?"),
    "created": ({"created_after": 1, "created_before": 9}, "(id>? AND id<?)"),
}


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("page", [1, 2])
async def test_listing_by_one_indexed_filter_walks_its_index_in_order(
    file_store: SQLiteStore, file_desk: Desk, name: str, page: int
) -> None:
    what, walk = LISTINGS[name]
    cursor = await second_page(file_desk, name) if page == 2 else None
    async with Plans(file_store, reading=True) as plans:
        await file_store.list(Filter(**what), limit=1, cursor=cursor)
    lines = await plans.of("asyncjobs_jobs")
    assert any(walk in line for line in lines), lines
    assert whole_walks(lines) == []
    # A key has a job for each task at most: those few may be sorted.
    assert (SORT in lines) == (name == "key")


async def second_page(desk: Desk, name: str) -> str:
    events = {"completed": Event.COMPLETED, "failed": Event.FAILED, "cancelled": Event.CANCELLED}
    for task in ("x", "y"):
        options: dict[str, Any] = {"queue": "x", "tags": ("x",), "trigger": "x", "key": "x"}
        # The same task for both, but for the key, which is one task's once.
        options["task"] = task if name == "key" else "x"
        if name != "key":
            del options["key"]
        await desk.add(**options)
    tasks = {"x": "coroutine", "y": "coroutine"}
    if name in events:
        runs = (await desk.claim(tasks=tasks)).jobs
        await desk.report(*[desk.move(run, events[name]) for run in runs])
    if name == "retrying":
        runs = (await desk.claim(tasks=tasks)).jobs
        await desk.report(*[desk.move(run, Event.RETRYING) for run in runs])
    what: dict[str, Any] = (
        {"created_before": 9**18} if name == "created_before" else LISTINGS[name][0]
    )
    if name == "created":
        what = {"created_after": 1, "created_before": 9**18}
    page = await desk.store.list(Filter(**what), limit=1, cursor=None)
    assert page.cursor is not None
    return page.cursor


async def test_one_job_and_its_attempts_are_sought(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.get("x")
        await file_store.attempts("x")
        await file_store.outcomes(["x"])
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    assert not any(re.match(r"SCAN (a|p|r|asyncjobs_attempts)\b", line) for line in lines)


async def test_counts_are_read_from_the_counters_alone(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.count(state="queued", queue=None, task=None)
    assert await plans.of("asyncjobs_") == ["SCAN asyncjobs_counts"]
