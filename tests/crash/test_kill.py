"""kill -9 of a loaded host at random points: nothing lost, nothing doubled, nothing stale."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.oracles import Verdict, deadline, judge, nothing_left, seed_of, unfinished_ended

from .hosts import Host
from .load import Load

LANES = 2


async def lane(folder: Path, chance: random.Random, kills: int, *, neighbour: bool) -> None:
    """Kill hosts on one database ``kills`` times; with a neighbour, two are alive at a time."""
    hosts: list[Host] = []
    for _ in range(kills):
        while len(hosts) < 1 + neighbour:
            seed = chance.getrandbits(32)
            hosts.append(await Host.start("load", folder / "jobs.db", folder, seed))
        # The random point is the test: from the first claims after a recovery into full load.
        await asyncio.sleep(chance.random() * 0.25)
        await hosts.pop(chance.randrange(len(hosts))).kill()
    for host in hosts:
        await host.kill()


async def verdict_of(folder: Path) -> Verdict:
    """Let everything that is left finish, and judge."""
    database = folder / "jobs.db"
    async with nothing_left(database):
        load = Load(database, folder)
        async with load.runner:
            await unfinished_ended(load.runner)
        load.close()
    return judge(database, load.acks, load.effects)


async def kill_loop(folder: Path, *, kills: int, seed: int) -> list[Verdict]:
    """Half of the kills with one host at a time, half with a living neighbour that rescues."""
    chance = random.Random(seed)
    folders = [folder / f"lane{number}" for number in range(LANES)]
    async with asyncio.TaskGroup() as group:
        for number, own in enumerate(folders):
            own.mkdir()
            fate = random.Random(chance.random())
            group.create_task(lane(own, fate, kills // LANES, neighbour=number == 1))
    return [await verdict_of(own) for own in folders]


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
