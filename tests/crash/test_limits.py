"""Limits over processes that are killed: never one job over a cap, and none left behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from asyncjobs import NewJob
from tests.oracles import Start, deadline, seed_of, unfinished_ended

from .hosts import Host
from .keyed import KEY_CAP, QUEUE_CAP, Keyed

PROCESSES = 4
KEYS = 40
SHARE = 1_000
"""Jobs that are enqueued at once, a third of each kind."""


@pytest.mark.parametrize(
    ("jobs", "kills"), [(3_000, 3), pytest.param(100_000, 150, marks=pytest.mark.proof)]
)
async def test_no_key_and_no_queue_ever_runs_one_over_its_cap(
    tmp_path: Path, jobs: int, kills: int
) -> None:
    chance = random.Random(seed_of("limits"))
    keyed = Keyed(tmp_path / "jobs.db", tmp_path)
    groups: dict[str, tuple[str, int]] = {}
    deaths: dict[int, float] = {}
    async with deadline(100 + jobs / 100 + kills), keyed.runner.client():
        await keyed.runner.registry.set_queue("narrow", running=QUEUE_CAP)
        hosts = [await start(tmp_path, chance) for _ in range(PROCESSES)]
        for _ in range(jobs // SHARE):
            groups |= await enqueue(keyed, chance)
        ended = asyncio.create_task(unfinished_ended(keyed.runner))
        for _ in range(kills):
            # The random point is the test.
            await asyncio.sleep(chance.random() * 0.3)
            host = hosts.pop(chance.randrange(PROCESSES))
            deaths[host.pid] = time.monotonic()
            await host.kill()
            hosts.append(await start(tmp_path, chance))
        await ended
        assert await keyed.runner.registry.check() == []
        assert await keyed.runner.registry.count(state="completed") == jobs
    for host in hosts:
        await host.kill()
    runs = keyed.effects.runs()
    keyed.effects.close()
    assert set(runs) == set(groups)
    assert sum(len(starts) for starts in runs.values()) > jobs - kills
    over = {
        group: most for group, most in most_at_once(runs, groups, deaths).items() if most > group[1]
    }
    assert over == {}
    assert out_of_order(runs, groups) == []


async def start(folder: Path, chance: random.Random) -> Host:
    return await Host.start("keyed", folder / "jobs.db", folder, chance.getrandbits(32))


async def enqueue(keyed: Keyed, chance: random.Random) -> dict[str, tuple[str, int]]:
    """A share of jobs of all kinds; for each its group, and how many of that may run at once."""
    new: list[tuple[NewJob[None], tuple[str, int]]] = []
    for _ in range(SHARE):
        key = chance.randrange(KEYS)
        match chance.randrange(3):
            case 0:
                job = keyed.keyed.options(priority=chance.randrange(3)).job(key)
                new.append((job, (f"keyed {key}", KEY_CAP)))
            case 1:
                job = keyed.ordered.options(priority=chance.randrange(3)).job(key)
                new.append((job, (f"ordered {key}", 1)))
            case _:
                new.append((keyed.narrow.job(), ("narrow", QUEUE_CAP)))
    await keyed.runner.enqueue_many([job for job, _ in new])
    return {job.id: group for job, group in new}


def most_at_once(
    runs: dict[str, list[Start]],
    groups: dict[str, tuple[str, int]],
    deaths: Mapping[int, float] = MappingProxyType({}),
) -> dict[tuple[str, int], int]:
    """For each group how many jobs ever ran at once.

    A run that was cut off counts until its job's next, since a key's permit is held all that time;
    in a queue it counts until its process was killed.
    """
    steps: list[tuple[float, int, tuple[str, int]]] = []
    for job_id, starts in runs.items():
        for place, run in enumerate(starts):
            following = starts[place + 1].started if place + 1 < len(starts) else None
            if groups[job_id][0] == "narrow":
                following = deaths.get(run.pid)
            end = run.ended if run.ended is not None else following
            assert end is not None, "the last run of a completed job has ended"
            steps += [(run.started, 1, groups[job_id]), (end, -1, groups[job_id])]
    now: dict[tuple[str, int], int] = {}
    most: dict[tuple[str, int], int] = {}
    for _, change, group in sorted(steps):
        now[group] = now.get(group, 0) + change
        most[group] = max(most.get(group, 0), now[group])
    return most


def out_of_order(runs: dict[str, list[Start]], groups: dict[str, tuple[str, int]]) -> list[str]:
    """Jobs of ordered keys that began before one that was enqueued earlier."""
    last: dict[str, float] = {}
    wrong = []
    for job_id, (group, _) in groups.items():
        if group.startswith("ordered"):
            if runs[job_id][0].started < last.get(group, 0.0):
                wrong.append(job_id)
            last[group] = runs[job_id][-1].started
    return wrong


def test_one_over_a_cap_would_be_found() -> None:
    groups = {"a": ("k", 1), "b": ("k", 1)}
    runs = {
        "a": [Start("a", "x", 1, 1, 1.0, None, 1.0), Start("a", "y", 2, 2, 3.0, 4.0, 4.0)],
        "b": [Start("b", "y", 1, 2, 2.0, 2.5, 2.5)],
    }
    assert most_at_once(runs, groups) == {("k", 1): 2}
    runs["b"] = [Start("b", "y", 1, 2, 4.0, 5.0, 5.0)]
    assert most_at_once(runs, groups) == {("k", 1): 1}


def test_a_job_that_overtook_another_would_be_found() -> None:
    groups = {"a": ("ordered 1", 1), "b": ("ordered 1", 1)}
    runs = {
        "a": [Start("a", "x", 1, 1, 2.0, 3.0, 3.0)],
        "b": [Start("b", "y", 1, 2, 1.0, 1.5, 1.5)],
    }
    assert out_of_order(runs, groups) == ["b"]
