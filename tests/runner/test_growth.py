"""The file of a runner that keeps few of many jobs stays as long as it is."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from asyncjobs import Runner
from asyncjobs.testing import ManualClock

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("jobs", "kept"), [(3_000, 100), pytest.param(1_000_000, 10_000, marks=pytest.mark.proof)]
)
async def test_file_stays_flat_within_ten_percent(
    tmp_path: Path, clock: ManualClock, jobs: int, kept: int
) -> None:
    runner = Runner(
        tmp_path / "app.db", clock=clock, concurrency=1_000,
        keep_journal=10, keep_completed=10, keep_failed=10, keep_cancelled=10,
    )  # fmt: skip

    @runner.task(keep_completed=kept)
    async def work(number: int) -> str:
        return f"result {number}"

    pages, wal = [], 0
    async with runner:
        for done in range(0, jobs, kept):
            for handle in await runner.enqueue_many([work.job(n) for n in range(kept)]):
                await handle
            clock.advance(1)
            await runner.engine().pruner.prune()
            assert await runner.registry.count() == kept
            wal = max(wal, os.path.getsize(tmp_path / "app.db-wal"))
            if done >= 20 * kept:  # events and names of ten rounds are there, which stay so long
                pages.append(count_pages(tmp_path / "app.db"))
    print(f"{jobs:,} jobs, {kept:,} kept: {min(pages):,} to {max(pages):,} pages, "
          f"log up to {wal / MIB:.1f} MiB")  # fmt: skip
    assert max(pages) <= 1.1 * min(pages)
    assert wal <= 64 * MIB


def count_pages(path: Path) -> int:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])
    finally:
        connection.close()
