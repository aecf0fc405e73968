"""kill -9 of processes around the times of schedules: each time has exactly one job."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from tests.oracles import deadline, nothing_left, seed_of, unfinished_ended

from .hosts import Host
from .scheduled import SCHEDULES, scheduled

SECOND = 1_000_000


def times_of(database: Path) -> dict[str, list[int]]:
    """The times that have a job, by schedule; nobody may have the file open."""
    times = defaultdict(list)
    connection = sqlite3.connect(database)
    for trigger, at in connection.execute(
        "SELECT trigger, json_extract(options, '$.scheduled.at') FROM asyncjobs_jobs"
    ):
        times[trigger].append(at)
    connection.close()
    return {name: sorted(found) for name, found in times.items()}


@pytest.mark.parametrize("kills", [4, pytest.param(300, marks=pytest.mark.proof)])
async def test_each_time_has_one_job_whoever_is_killed_and_when(tmp_path: Path, kills: int) -> None:
    chance = random.Random(seed_of("kill around times"))
    database = tmp_path / "jobs.db"
    async with deadline(60 + 2 * kills), nothing_left(database):
        hosts: list[Host] = []
        for _ in range(kills):
            # One or two at a time: now and then nobody is there when a time comes.
            while len(hosts) < chance.randint(1, 2):
                hosts.append(await Host.start("scheduled", database))
            await asyncio.sleep(chance.random() * 0.25)  # the random point is the test
            await hosts.pop(chance.randrange(len(hosts))).kill()
        for host in hosts:
            await host.kill()
        runner = scheduled(database)
        async with runner:
            await unfinished_ended(runner)
            shown = await runner.registry.schedules()
            assert await runner.registry.check() == []
    times = times_of(database)
    count = sum(map(len, times.values()))
    print(f"{kills} kills, {count} times")
    assert len(shown) == SCHEDULES
    for name, found in times.items():
        assert {later - time for time, later in pairwise(found)} <= {SECOND}, name
    assert sum(one.missed + one.skipped for one in shown) == 0
    assert count >= kills  # three times as many are due, but hosts start as fast as they can
