"""Events over kill -9, restarts and processes: each heard once, in the order of the commits."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sqlite3
import statistics
import time
from pathlib import Path

import pytest

from asyncjobs import Event, Runner
from tests.oracles import deadline, seed_of, unfinished_ended

from .hosts import Host
from .load import Load

Told = tuple[str, str, int]


def journal_of(database: Path) -> list[Told]:
    """What the file itself says: (kind, job, claim), in commit order."""
    connection = sqlite3.connect(database)
    ids = dict(connection.execute("SELECT seq, id FROM asyncjobs_jobs"))
    told: list[Told] = []
    for kind, jobs in connection.execute(
        "SELECT kind, jobs FROM asyncjobs_journal ORDER BY position"
    ):
        fences = json.loads(jobs)
        told += [
            (kind, ids[seq], claim) for seq, claim in zip(fences[::2], fences[1::2], strict=True)
        ]
    connection.close()
    return told


async def first_cursor(database: Path) -> str:
    runner = Runner(database)
    async with runner.client():
        return (await runner.cursor()).partition("-")[0] + "-1-0"


async def kill_hosts(folder: Path, chance: random.Random, kills: int) -> None:
    """Two loaded hosts at a time; one of them is killed, again and again."""
    hosts: list[Host] = []
    for _ in range(kills):
        while len(hosts) < 2:
            seed = chance.getrandbits(32)
            hosts.append(await Host.start("load", folder / "jobs.db", folder, seed))
        await asyncio.sleep(chance.random() * 0.25)
        await hosts.pop(chance.randrange(2)).kill()
    for host in hosts:
        await host.kill()


async def kill_listeners(folder: Path, chance: random.Random, until: asyncio.Event) -> int:
    """A listener that is killed and started again where it had got to; how often."""
    kills = 0
    while not until.is_set():
        listener = await Host.start("listener", folder / "jobs.db", folder / "heard")
        await asyncio.sleep(chance.random() * 0.5)
        await listener.kill()
        kills += 1
    return kills


def heard_in(file: Path) -> list[Told]:
    # The last line may be cut off by no kill: each was one write.
    lines = [line.split() for line in file.read_text().splitlines()[1:]]
    return [(kind, job_id, int(claim)) for _, kind, job_id, claim in lines]


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.proof)])
async def test_no_event_is_lost_or_doubled_over_kills_of_writers_and_listeners(
    tmp_path: Path, kills: int
) -> None:
    chance = random.Random(seed_of("events"))
    database, over = tmp_path / "jobs.db", asyncio.Event()
    (tmp_path / "heard").write_text(await first_cursor(database) + "\n")
    stayed: list[Event] = []
    runner = Runner(database)

    async def stay() -> None:
        async for event in runner.events(await first_cursor(database)):
            stayed.append(event)

    async with deadline(60 + 4 * kills):
        async with runner.client():
            staying = asyncio.create_task(stay())
            listening = asyncio.create_task(
                kill_listeners(tmp_path, random.Random(chance.random()), over)
            )
            await kill_hosts(tmp_path, chance, kills)
            load = Load(database, tmp_path)
            async with load.runner:
                await unfinished_ended(load.runner)
            load.close()
            over.set()
            listener_kills = await listening
            truth = journal_of(database)
            listener = await Host.start("listener", database, tmp_path / "heard")
            while len(heard_in(tmp_path / "heard")) < len(truth) or len(stayed) < len(truth):
                await asyncio.sleep(0.01)
            await listener.kill()
        await staying

    print(f"{len(truth)} events, {kills} writers and {listener_kills} listeners killed")
    assert [(event.kind, event.job_id, event.claim) for event in stayed] == truth
    assert heard_in(tmp_path / "heard") == truth
    assert sum(kind == "rescued" for kind, _, _ in truth) > 0
    assert listener_kills > 1


async def test_subscriber_hears_each_event_at_least_once_over_its_own_deaths(
    tmp_path: Path,
) -> None:
    kills = 5
    chance = random.Random(seed_of("subscriber"))
    database, heard = tmp_path / "jobs.db", tmp_path / "heard"
    start = await first_cursor(database)
    heard.write_text(start + "\n")
    runner = Runner(database)
    async with deadline(60), runner.client():
        await runner.subscriber("audit").rewind(start)
        member = await Host.start("member", database, tmp_path, 1, json.dumps({}))
        await member.write("load")
        for _ in range(kills):
            listener = await Host.start("listener", database, heard, "audit")
            await asyncio.sleep(chance.random() * 0.5)
            await listener.kill()
        await member.write("stop")
        assert (await member.ended())[0] == 0
        truth = journal_of(database)
        listener = await Host.start("listener", database, heard, "audit")
        while heard_in(heard)[-1:] != truth[-1:]:
            await asyncio.sleep(0.01)
        await listener.kill()
    lines = heard_in(heard)
    print(f"{len(truth)} events, {len(lines) - len(truth)} of them heard again, {kills} kills")
    assert list(dict.fromkeys(lines)) == truth, "none left out, and the first time in their order"


@pytest.mark.timed
async def test_listener_hears_another_process_within_milliseconds(tmp_path: Path) -> None:
    rounds = 60
    database = tmp_path / "jobs.db"
    runner = Runner(database)
    delays = []
    async with deadline(60), runner.client():
        member = await Host.start("member", database, tmp_path, 1, json.dumps({}))
        events = runner.events(kinds=["completed"])
        waiting = asyncio.ensure_future(anext(events))
        while not runner.engine().feed.listening:
            await asyncio.sleep(0.001)
        await member.write("run 50")  # the first may come before it knows of us
        for _ in range(50):
            await waiting
            waiting = asyncio.ensure_future(anext(events))
        assert await member.line() == "done"
        for _ in range(rounds):
            await member.write("run 50")
            for _ in range(50):
                event = await waiting
                waiting = asyncio.ensure_future(anext(events))
                # By the clock of the transaction, which is a commit earlier than it need be.
                delays.append(time.time() - event.at.timestamp())
            assert await member.line() == "done"
        waiting.cancel()
        await member.write("stop")
        assert (await member.ended())[0] == 0
    delays.sort()
    p99 = delays[math.ceil(0.99 * len(delays)) - 1]
    print(f"heard after p50 {statistics.median(delays) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
    assert p99 < 0.3, "100 ms is the bar, on a machine that does nothing else"
