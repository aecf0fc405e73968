"""kill -9 of a host whose jobs count: the counter says exactly how many have completed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from pathlib import Path

import pytest

from tests.oracles import deadline, nothing_left, seed_of, unfinished_ended

from .exact import Exact
from .hosts import Host

LANES = 2


async def lane(database: Path, chance: random.Random, kills: int) -> None:
    """Kill hosts on one database, ``kills`` times."""
    for _ in range(kills):
        host = await Host.start("exact", database, chance.getrandbits(32))
        # The random point is the test: from the first claims after a recovery into full load.
        await asyncio.sleep(chance.random() * 0.2)
        await host.kill()


def ask(database: Path, sql: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("kills", [50, pytest.param(1_000, marks=pytest.mark.proof)])
async def test_every_effect_happens_exactly_once_over_kills(tmp_path: Path, kills: int) -> None:
    chance = random.Random(seed_of("exactly once"))
    begun = time.monotonic()
    databases = [tmp_path / f"lane{number}.db" for number in range(LANES)]
    async with deadline(60 + 2 * kills):
        async with asyncio.TaskGroup() as group:
            for database in databases:
                fate = random.Random(chance.random())
                group.create_task(lane(database, fate, kills // LANES))
        for database in databases:
            exact = Exact(database)
            async with nothing_left(database), exact.runner:
                await unfinished_ended(exact.runner)
                assert await exact.runner.registry.check() == []

    crashes = 0
    for database in databases:
        counted = ask(database, "SELECT executor, n FROM counter ORDER BY executor")
        completed = ask(
            database,
            "SELECT task, count(*) FROM asyncjobs_jobs WHERE state = 'completed' "
            "GROUP BY task ORDER BY task",
        )
        orders = ask(database, "SELECT job FROM orders ORDER BY job")
        jobs = ask(database, "SELECT id FROM asyncjobs_jobs ORDER BY id")
        print(f"{kills} kills in {time.monotonic() - begun:.1f} s:", counted, len(orders))
        assert counted == completed  # no effect lost, none doubled
        assert orders == jobs  # no job without its order, no order without its job
        wrong = ask(
            database,
            "SELECT id FROM asyncjobs_jobs AS j LEFT JOIN asyncjobs_results AS r ON r.seq = j.seq "
            "WHERE state <> 'completed' OR r.result IS NOT CAST(claim AS TEXT)",
        )
        assert wrong == []  # the result is the one of the run that had the effect
        # How many a host gets done is the machine's affair: at a load of 20 less than one.
        assert len(jobs) >= kills // LANES // 4
        (row,) = ask(database, "SELECT ifnull(sum(crashes), 0) FROM asyncjobs_jobs")
        crashes += int(str(row[0]))
    assert crashes > 0
