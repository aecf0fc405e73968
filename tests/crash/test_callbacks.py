"""Callbacks over kill -9: every outcome is followed by one job, and no job without an outcome."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from asyncjobs.testing import run_until_idle
from tests.oracles import deadline, seed_of, unfinished_ended

from .followed import runner_on
from .hosts import Host


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.proof)])
async def test_every_outcome_is_followed_once_over_kills(tmp_path: Path, kills: int) -> None:
    chance = random.Random(seed_of("callbacks"))
    database = tmp_path / "jobs.db"
    async with deadline(60 + 3 * kills):
        for _ in range(kills):
            host = await Host.start("followed", database, chance.getrandbits(32))
            await asyncio.sleep(chance.random() * 0.3)
            await host.kill()
        async with runner_on(database) as runner:
            await unfinished_ended(runner)
            await run_until_idle(runner)
            expected: Counter[tuple[str, str]] = Counter()
            async for job in runner.registry.iterate(task="work"):
                follower = "good" if job.state == "completed" else "bad"
                expected[follower, f"job:{job.id}"] += 1
            found: Counter[tuple[str, str]] = Counter()
            for task in ("good", "bad"):
                async for job in runner.registry.iterate(task=task):
                    assert job.state == "completed"
                    found[task, job.trigger] += 1
            crashed = await runner.registry.list(task="work", state="failed", limit=1_000)
            assert await runner.registry.check() == []
    reasons = Counter(job.reason for job in crashed.jobs)
    print(f"{kills} kills, {sum(expected.values())} outcomes, failed: {dict(reasons)}")
    assert found == expected
    assert sum(expected.values()) > 20 * kills
    assert reasons["crash"] > 0, "some were ended by a rescue"
