"""kill -9 of a loaded host at random points: nothing lost, nothing doubled, nothing stale."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from pathlib import Path

import pytest

from tests.oracles import (
    Verdict,
    children_of,
    deadline,
    judge,
    living_in,
    nothing_left,
    seed_of,
    unfinished_ended,
)

from .hosts import Host
from .load import Load

LANES = 2
OUTLIVE_SECONDS = 2.0
"""How long workers may be there after their host."""


async def kill(host: Host) -> None:
    """Kill a host, and wait until its workers are gone too, if it has some."""
    servers = list(children_of(host.pid))
    await host.kill()
    ends = time.monotonic() + OUTLIVE_SECONDS
    while left := [pid for server in servers for pid in living_in(server)]:
        assert time.monotonic() < ends, f"{left} have outlived their host"
        await asyncio.sleep(0.005)


async def lane(
    folder: Path, chance: random.Random, kills: int, *, neighbour: bool, processes: int
) -> None:
    """Kill hosts on one database ``kills`` times; with a neighbour, two are alive at a time."""
    hosts: list[Host] = []
    for _ in range(kills):
        while len(hosts) < 1 + neighbour:
            seed = chance.getrandbits(32)
            hosts.append(await Host.start("load", folder / "jobs.db", folder, seed, processes))
        # The random point is the test: from the first claims after a recovery into full load.
        await asyncio.sleep(chance.random() * 0.25)
        await kill(hosts.pop(chance.randrange(len(hosts))))
    for host in hosts:
        await kill(host)


async def verdict_of(folder: Path, **options: object) -> Verdict:
    """Let everything that is left finish, and judge."""
    database = folder / "jobs.db"
    async with nothing_left(database):
        load = Load(database, folder, **options)
        async with load.runner:
            await unfinished_ended(load.runner)
        load.close()
    return judge(database, load.acks, load.effects)


async def kill_loop(folder: Path, *, kills: int, seed: int, processes: int = 0) -> list[Verdict]:
    """Half of the kills with one host at a time, half with a living neighbour that rescues."""
    chance = random.Random(seed)
    folders = [folder / f"lane{number}" for number in range(LANES)]
    async with asyncio.TaskGroup() as group:
        for number, own in enumerate(folders):
            own.mkdir()
            fate = random.Random(chance.random())
            group.create_task(
                lane(own, fate, kills // LANES, neighbour=number == 1, processes=processes)
            )
    options = {"processes": processes} if processes else {}
    return [await verdict_of(own, **options) for own in folders]


@pytest.mark.parametrize("kills", [50, pytest.param(1_000, marks=pytest.mark.proof)])
async def test_nothing_is_lost_doubled_or_stale_over_kills(tmp_path: Path, kills: int) -> None:
    seed = seed_of("kill")
    begun = time.monotonic()
    async with deadline(60 + 2 * kills):
        verdicts = await kill_loop(tmp_path, kills=kills, seed=seed)
    print(f"{kills} kills in {time.monotonic() - begun:.1f} s:", *verdicts, sep="\n  ")
    for verdict in verdicts:
        assert verdict.clean, verdict.__dict__
    assert sum(verdict.acked for verdict in verdicts) > 20 * kills
    assert sum(verdict.crashes for verdict in verdicts) > kills / 2


@pytest.mark.parametrize("kills", [6, pytest.param(300, marks=pytest.mark.proof)])
async def test_jobs_in_workers_are_not_lost_doubled_or_stale_over_kills_either(
    tmp_path: Path, kills: int
) -> None:
    seed = seed_of("kill workers")
    async with deadline(60 + 5 * kills):
        verdicts = await kill_loop(tmp_path, kills=kills, seed=seed, processes=2)
    print(f"{kills} kills:", *verdicts, sep="\n  ")
    for verdict in verdicts:
        assert verdict.clean, verdict.__dict__
    assert sum(map(crashes_in_workers, tmp_path.glob("lane*/jobs.db"))) > kills / 2


def crashes_in_workers(database: Path) -> int:
    """How many runs of process and isolated jobs have ended with their host."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (crashes,) = connection.execute(
            "SELECT sum(crashes) FROM asyncjobs_jobs WHERE task LIKE 'burn %' OR task LIKE 'hold %'"
        ).fetchone()
    return int(crashes)
