"""How SQLite walks: what is executed is caught on its way, and its plan is looked at."""

from __future__ import annotations

import re
from typing import Any, Self

import pytest

from asyncjobs.rules.fingerprint import fingerprint_of
from asyncjobs.states import Event
from asyncjobs.store.base import (
    Cancel,
    Claim,
    Filter,
    Insert,
    InsertAndClaim,
    Join,
    Prune,
    Requeue,
    Slice,
)
from asyncjobs.store.overview import AuditNote
from asyncjobs.store.queueing import SetQueue
from asyncjobs.store.sqlite.store import SQLiteStore

from .kit import ERROR, PLENTY, SECOND, TASKS, Desk

WHOLE_TABLE = re.compile(r"SCAN (j|asyncjobs_jobs)( USING INDEX asyncjobs_claimable)?$")
PICK = re.compile(r"SELECT [jt]\.seq(, j\.\w+)? FROM")
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
    assert any("asyncjobs_parked (reason=? AND task=?" in line for line in lines)
    assert SORT not in lines


async def test_insert_and_claim_in_one_walks_no_table(
    file_store: SQLiteStore, file_desk: Desk
) -> None:
    async with Plans(file_store) as plans:
        jobs = [file_desk.job() for _ in range(3)]
        await file_desk.do(InsertAndClaim(Insert(jobs), Claim("here", TASKS, PLENTY)))
    assert whole_walks(await plans.of("asyncjobs_jobs")) == []


async def test_explaining_a_job_walks_indexes_alone(
    file_store: SQLiteStore, file_desk: Desk
) -> None:
    await file_desk.do(Join("here", 1, "host", '{"queues":null,"slots":{"coroutine":1}}'))
    await file_desk.start()
    await file_desk.add(priority=5)
    job = await file_desk.get(await file_desk.add())
    await file_desk.do(
        SetQueue(queue="default", note_id="a", actor=None, action="set", what="{}", running=1)
    )
    async with Plans(file_store, reading=True) as plans:
        around = await file_store.surroundings(job, most=10)
    assert around.takers == [("here", {"coroutine": 1}, {"add": 1})]
    assert (around.ahead, around.queue and around.queue.running) == (1, 1)
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    assert any("asyncjobs_running (instance=?)" in line for line in lines)
    by = "asyncjobs_claimable (queue=? AND priority=? AND run_at<?"
    assert any(by in line for line in lines)


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


CLAIMABLE = "SEARCH j USING INDEX asyncjobs_claimable (queue=? AND priority=?"
FINISHED = "SEARCH j USING COVERING INDEX asyncjobs_finished (state=?"
PARKED = "SEARCH j USING INDEX asyncjobs_parked (reason=? AND task=? AND priority=?"
CREATED = "SEARCH j USING COVERING INDEX sqlite_autoindex_asyncjobs_jobs_1"

KIND = fingerprint_of("x", ERROR.type, "")

# Filter, the walk through its index, whether what it finds is sorted: only where that is little.
LISTINGS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "nothing": ({}, "SCAN j", False),
    "completed": ({"states": ("completed",)}, FINISHED, False),
    "failed": ({"states": ("failed",)}, FINISHED, False),
    "cancelled": ({"states": ("cancelled",)}, FINISHED, False),
    "queued": ({"states": ("queued",)}, CLAIMABLE, False),
    "scheduled": ({"states": ("scheduled",)}, CLAIMABLE + " AND run_at>?", False),
    "blocked": ({"states": ("blocked",)}, PARKED, False),
    "retrying": ({"states": ("retrying",)}, "j USING INDEX asyncjobs_retrying", False),
    "running": ({"states": ("running",)}, "SCAN j USING COVERING INDEX asyncjobs_running", True),
    "finished": ({"finished_after": 1}, FINISHED + " AND finished_at>?", False),
    "due": ({"states": ("queued",), "run_after": 1}, CLAIMABLE + " AND run_at>?", False),
    "task": ({"task": "x"}, "SEARCH j USING COVERING INDEX asyncjobs_by_task (task=?", False),
    "queue": ({"queue": "x"}, "SEARCH j USING COVERING INDEX asyncjobs_by_queue (queue=?", False),
    "tag": ({"tags_all": ("x",)}, "SEARCH t USING PRIMARY KEY (tag=?", False),
    "tags": ({"tags_any": ("x", "y")}, "SEARCH t USING PRIMARY KEY (tag=?", False),
    # A key has a job for each task at most.
    "fingerprint": (
        {"fingerprint": KIND},
        "j USING INDEX asyncjobs_by_fingerprint (fingerprint=?",
        False,
    ),
    "key": ({"key": "x"}, "SEARCH k USING PRIMARY KEY (key=?", True),
    "trigger": ({"trigger": "x"}, "j USING COVERING INDEX asyncjobs_by_trigger (trigger=?", False),
    "api": ({"trigger": "api"}, "SCAN j", False),  # common enough to be met on the way
    "created_after": ({"created_after": 1}, CREATED + " (id>?)", False),
    "created_before": ({"created_before": 9**18}, CREATED + " (id<?)", False),
    "created": ({"created_after": 1, "created_before": 9**18}, CREATED + " (id>? AND id<?)", False),
}


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("page", [1, 2])
async def test_listing_by_one_indexed_filter_walks_its_index_in_order(
    file_store: SQLiteStore, file_desk: Desk, name: str, page: int
) -> None:
    given, walk, is_sorted = LISTINGS[name]
    what = Filter(**given)
    await two_of_each(file_desk)
    cursor = None
    if page == 2:
        cursor = (await file_store.list(what, limit=1, cursor=None)).cursor
        assert cursor is not None
    async with Plans(file_store, reading=True) as plans:
        assert (await file_store.list(what, limit=1, cursor=cursor)).jobs != []
    plans.statements = [text for text in plans.statements if PICK.match(text)]
    lines = await plans.of("LIMIT")
    # On a second page a range may bound what the first one only sought.
    assert any(walk.removesuffix(")") in line for line in lines) or "SCAN" in walk, lines
    assert whole_walks(lines) == ([] if walk != "SCAN j" or page == 2 else [walk])
    assert (SORT in lines) == is_sorted
    assert not any("BY INDEX" in line or "MULTI-INDEX" in line for line in lines)


async def two_of_each(desk: Desk) -> None:
    """Jobs that each of the filters finds two of."""
    tasks = {"x": "coroutine", "y": "coroutine"}
    options: dict[str, Any] = {"queue": "x", "tags": ("x",), "trigger": "x", "task": "x"}
    for event in (Event.COMPLETED, Event.FAILED, Event.CANCELLED, Event.RETRYING):
        await desk.insert(*[desk.job(**options) for _ in range(2)])
        runs = (await desk.claim(tasks=tasks)).jobs
        later = {"run_at": desk.clock.now() + SECOND} if event is Event.RETRYING else {}
        await desk.report(*[desk.move(run, event, **later) for run in runs])
    await desk.insert(*[desk.job(task="strange") for _ in range(2)])
    await desk.claim(tasks=tasks)  # sets the strangers aside
    await desk.insert(desk.job(key="x", task="x"), desk.job(key="x", task="y"))
    await desk.claim(tasks=tasks)  # these run
    await desk.insert(*[desk.job(delay=SECOND) for _ in range(2)])


@pytest.mark.parametrize(
    ("what", "walk"),
    [
        (Filter(task="x", states=("failed",)), "asyncjobs_finished (state=?"),
        (Filter(queue="x", states=("queued",)), "asyncjobs_claimable (queue=?"),
        (Filter(task="x", tags_all=("x", "y")), "SEARCH t USING PRIMARY KEY (tag=?"),
        (Filter(task="x", created_before=9**18), "sqlite_autoindex_asyncjobs_jobs_1 (id<?"),
        (Filter(task="x", error="no"), "asyncjobs_by_task (task=?"),
        (Filter(key="x", task="x", states=("running",)), "SEARCH k USING PRIMARY KEY (key=?"),
        (Filter(states=("running",), arguments=(("a.b", 1),)), "asyncjobs_running"),
    ],
)
async def test_filters_together_walk_the_index_of_one_of_them(
    file_store: SQLiteStore,
    file_desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    what: Filter,
    walk: str,
) -> None:
    monkeypatch.setattr("asyncjobs.store.walks.SMALL_ROWS", -1)  # as if each had many jobs
    await two_of_each(file_desk)
    async with Plans(file_store, reading=True) as plans:
        await file_store.list(what, limit=1, cursor=None)
    lines = await plans.of("FROM asyncjobs_")
    assert any(walk in line for line in lines), lines
    assert whole_walks(lines) == []


async def test_rows_of_a_page_are_sought(file_store: SQLiteStore, file_desk: Desk) -> None:
    await file_desk.add()
    async with Plans(file_store, reading=True) as plans:
        await file_store.list(Filter(), limit=1, cursor=None)
    lines = await plans.of("json_each")
    assert whole_walks(lines) == []
    assert "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)" in lines


async def test_jobs_of_a_bulk_change_are_sought(file_store: SQLiteStore, file_desk: Desk) -> None:
    job_id = await file_desk.add()
    seq = (await file_desk.get(job_id)).seq
    what = Filter(states=("queued",), task="add", queue="default", error="x")
    async with Plans(file_store) as plans:
        await file_desk.do(Slice(Cancel(()), AuditNote("id", None, "{}"), what, [seq]))
    lines = await plans.of("asyncjobs_jobs AS j")
    assert whole_walks(lines) == []
    assert "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)" in lines


async def test_overview_walks_small_indexes_and_counters(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.queues(most=10)
        await file_store.instances(limit=10)
        await file_store.audit(limit=10, before=None)
    lines = await plans.of("asyncjobs_")
    assert whole_walks(lines) == []
    assert any("SEARCH asyncjobs_audit USING INTEGER PRIMARY KEY (rowid<?)" in x for x in lines)


async def test_groups_of_failures_are_walked_by_their_last(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.failures(limit=5)
    lines = await plans.of("asyncjobs_failures")
    assert whole_walks(lines) == []
    assert "SCAN f USING INDEX asyncjobs_failures_last" in lines
    assert SORT not in lines
    assert any("asyncjobs_by_fingerprint (fingerprint=?)" in line for line in lines)


async def test_retried_jobs_are_sought(file_store: SQLiteStore, file_desk: Desk) -> None:
    job_id = await file_desk.finished(Event.FAILED)
    async with Plans(file_store) as plans:
        await file_desk.do(Requeue([job_id]))
    assert whole_walks(await plans.of("asyncjobs_jobs")) == []


async def test_one_job_and_its_attempts_are_sought(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.get("x")
        await file_store.glance("x")
        await file_store.attempts("x")
        await file_store.outcomes(["x"])
    lines = await plans.of("asyncjobs_jobs")
    assert whole_walks(lines) == []
    assert not any(re.match(r"SCAN (a|f|p|r|asyncjobs_attempts)\b", line) for line in lines)


async def test_counts_are_read_from_the_counters_alone(file_store: SQLiteStore) -> None:
    async with Plans(file_store, reading=True) as plans:
        await file_store.count(["queued", "failed"], queue=None, task=None)
    lines = await plans.of("asyncjobs_")
    assert [line for line in lines if "asyncjobs_" in line] == ["SCAN asyncjobs_counts"]
