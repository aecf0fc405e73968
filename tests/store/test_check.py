"""``check()``: each invariant, broken by hand, is found; a sound store has nothing to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncjobs.records import JobLimit
from asyncjobs.states import Event
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock

from .kit import Desk

pytestmark = pytest.mark.broken


async def test_empty_store_is_sound(desk: Desk) -> None:
    assert await desk.store.check() == []


async def test_store_with_jobs_in_every_state_is_sound(desk: Desk) -> None:
    await fill(desk)
    assert await desk.store.check() == []


async def fill(desk: Desk) -> None:
    await desk.add(task="strange")
    await desk.claim()
    await desk.finished(key="k", tags=("t",))
    await desk.finished(Event.FAILED)
    await desk.finished(Event.CANCELLED)
    await desk.start()
    await desk.add(delay=1_000)
    for _ in range(2):
        await desk.add(delay=1_000, limit=JobLimit("add", "k", 1, ordered=True))


BREAKS = {
    "UPDATE asyncjobs_jobs SET instance = NULL WHERE state = 'running'": "a running job has",
    "UPDATE asyncjobs_jobs SET started_at = NULL WHERE state = 'running'": "a running job has",
    "UPDATE asyncjobs_jobs SET finished_at = NULL WHERE state = 'failed'": "a finished job has",
    "UPDATE asyncjobs_jobs SET finished_at = 1 WHERE state = 'queued'": "a finished job has",
    "UPDATE asyncjobs_jobs SET state = 'paused' WHERE state = 'queued'": "only the six states",
    "INSERT INTO asyncjobs_results SELECT seq, '1' FROM asyncjobs_jobs WHERE state = 'queued'": (
        "only completed jobs"
    ),
    "DELETE FROM asyncjobs_attempts": "a failed job has the error",
    "UPDATE asyncjobs_jobs SET crashes = 9": "no job crashed more often",
    "UPDATE asyncjobs_jobs SET run_at = started_at + 1 WHERE state = 'running'": "no run starts",
    "UPDATE asyncjobs_attempts SET claim = 99": "no recorded run is newer",
    "INSERT INTO asyncjobs_payloads VALUES (99, '{}', NULL)": "everything that hangs",
    "INSERT INTO asyncjobs_results VALUES (99, '1')": "everything that hangs",
    "INSERT INTO asyncjobs_keys (key, task, seq) VALUES ('b', 'add', 99)": "everything that hangs",
    "INSERT INTO asyncjobs_tags VALUES ('t', 99)": "everything that hangs",
    "UPDATE asyncjobs_attempts SET seq = 99": "everything that hangs",
    "UPDATE asyncjobs_limited SET seq = 99 WHERE place = 'ready'": "everything that hangs",
    "DELETE FROM asyncjobs_limits": "everything that hangs",
    "UPDATE asyncjobs_limited SET place = NULL WHERE place = 'in'": "a job with a limit holds",
    "UPDATE asyncjobs_limited SET place = 'in' WHERE place = 'ready'": "a job with a limit holds",
    "UPDATE asyncjobs_limited SET place = 'later' WHERE place = 'ready'": "a job with a limit",
    "UPDATE asyncjobs_limited SET place = 'ready' WHERE place = 'in'": "a job with a limit holds",
    "DELETE FROM asyncjobs_limited WHERE place = 'ready'": "who waits for a permit has a place",
    "UPDATE asyncjobs_limits SET running = 2": "who waits for a permit has a place",
    "DELETE FROM asyncjobs_keys": "a job's key is registered",
    "DELETE FROM asyncjobs_tags": "a job's tags",
    "UPDATE asyncjobs_counts SET jobs = jobs + 1 WHERE state = 'queued'": "the counter rows",
    "DELETE FROM asyncjobs_counts WHERE state = 'completed'": "the counter rows",
    "UPDATE asyncjobs_counts SET jobs = 1 WHERE queue = ''": "no job has a seq",
    "UPDATE asyncjobs_jobs SET state = 'queued' WHERE state = 'blocked'": "the journal replays",
    "UPDATE asyncjobs_jobs SET claim = claim + 1 WHERE state = 'completed'": "the journal replays",
    "UPDATE asyncjobs_journal SET kind = 'completed' WHERE kind = 'parked'": "the journal has only",
    "UPDATE asyncjobs_journal SET jobs = '[2,5]' WHERE kind = 'claimed' AND jobs = '[2,1]'": (
        "a job's fence only rises"
    ),
}


@pytest.mark.parametrize("statement", BREAKS)
async def test_broken_row_is_found(desk: Desk, statement: str) -> None:
    await fill(desk)
    store: Any = desk.store
    changed = await store._writer.run(lambda connection: connection.execute(statement).rowcount)
    assert changed > 0
    violations = await store.check()
    assert any(violation.rule.startswith(BREAKS[statement]) for violation in violations), violations
    assert all(0 < len(violation.examples) <= 5 for violation in violations)


async def test_damaged_file_is_found(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "jobs.db"
    store = SQLiteStore(str(path), clock=clock)
    await store.open()
    desk = Desk(store, clock)
    await desk.insert(*[desk.job(queue=f"q{number}") for number in range(500)])
    root = await store._writer.run(
        lambda connection: connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'asyncjobs_by_queue'"
        ).fetchone()[0]
    )
    await store.close()
    with path.open("r+b") as file:
        file.seek(root * 4096 - 100)  # where the root's entries lie
        file.write(bytes(100))
    await store.open()
    violations = await store.check()
    await store.close()
    assert "SQLite finds the file intact" in [violation.rule for violation in violations]
