"""Schedules on a walk at random: clocks stepped both ways, nobody there for a day, jobs that end
when they like, changes by hand. No time has two jobs, and nothing waits for ever."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from asyncjobs import At, Cron, Every
from asyncjobs.clock import to_datetime
from asyncjobs.rules.joboptions import read_options
from asyncjobs.rules.schedule import check_plan, check_template
from asyncjobs.states import Event
from asyncjobs.store.base import Cancel, Delete, Rescue
from asyncjobs.store.schedules import Pause, Resume, RunNow, Update
from asyncjobs.store.sqlite.store import SQLiteStore
from asyncjobs.testing import ManualClock
from tests.oracles import seed_of
from tests.store.kit import SECOND, Desk
from tests.store.rota import Rota

PLANS: list[dict[str, Any]] = [
    {"when": Every(600)},
    {"when": Every(900), "catch_up": "all", "overlap": "allow"},
    {"when": Every(3_600), "catch_up": "all"},
    {"when": Cron("*/20 1-22 * * *", tz="Europe/Berlin"), "overlap": "skip"},
    {"when": Cron("30 2 * * *", tz="America/New_York"), "catch_up": "none", "jitter": 30},
    {"when": Every(90), "max_runs": 5},
]


class Walk:
    """One store, and the times that its jobs were made for."""

    def __init__(self, rota: Rota, chance: random.Random) -> None:
        self.rota = rota
        self.chance = chance
        self.running: list[Any] = []
        self.times: Counter[tuple[str, int]] = Counter()

    async def step(self) -> None:
        """One thing that may happen."""
        chance, rota = self.chance, self.rota
        clock, desk = rota.clock, rota.desk
        match chance.randrange(12):
            case 0 | 1 | 2:
                seconds = chance.choice((1, 45, 600, 600, 3_600, 3_600, 86_400)) * chance.random()
                clock.move_to(clock.now() + round(seconds * SECOND))
            case 3:
                clock.move_to(clock.now() - round(chance.random() * 7_200 * SECOND))
            case 4 | 5 | 6:
                await rota.tick()
                await rota.tick()  # as another process does
            case 7:
                self.note((await desk.claim()).jobs)
            case 8 | 9 if self.running:
                run = self.running.pop(chance.randrange(len(self.running)))
                event = chance.choice((Event.COMPLETED, Event.FAILED, Event.RETRYING))
                await desk.end(run, event, followed=True)
            case 10:
                await self.by_hand(f"s{chance.randrange(len(PLANS))}")
            case _:
                await desk.do(Rescue("here", "its process died"))
                self.running.clear()

    def note(self, runs: list[Any]) -> None:
        """What was claimed, each job once."""
        for run in runs:
            self.running.append(run)
            options = read_options(run.options)
            assert options is not None
            scheduled = options.scheduled
            assert scheduled is not None
            if run.claim == 1 and not scheduled.by_hand:
                self.times[scheduled.name, scheduled.at] += 1

    async def by_hand(self, name: str) -> None:
        """A change that somebody makes."""
        desk = self.rota.desk
        last = (await self.rota.get(name)).last_run
        match self.chance.randrange(6):
            case 0:
                await desk.do(Pause(name))
            case 1 | 2:
                await desk.do(Resume(name))
            case 3:
                await desk.do(RunNow(name))
            case 4:
                job = check_template(name, desk.job(tags=("new",)))
                await desk.do(Update(name, check_plan({"jitter": 1}), job))
            case _ if last is not None:
                await desk.do(self.chance.choice((Cancel, Delete))([last.job_id]))


@pytest.mark.parametrize("walks", [3, pytest.param(100, marks=pytest.mark.proof)])
async def test_each_time_is_one_job_whatever_happens(clock: ManualClock, walks: int) -> None:
    store = SQLiteStore(":memory:", clock=clock)
    await store.open()
    await walk_through(Rota(Desk(store, clock)), walks)
    await store.close()


async def walk_through(rota: Rota, walks: int) -> None:
    chance = random.Random(seed_of("walk of schedules"))
    desk, clock = rota.desk, rota.clock
    for number, plan in enumerate(PLANS):
        await rota.create(f"s{number}", **plan, job=desk.job(max_crashes=2))
    await rota.create("once", when=At(to_datetime(clock.now() + 3_600 * SECOND)))
    walk = Walk(rota, chance)
    for _ in range(walks):
        for _ in range(100):
            await walk.step()
        assert await rota.store.check() == []
    assert max(walk.times.values()) == 1
    # At last everything that is due comes, and what waits for the end of another one as well.
    for number in range(len(PLANS)):
        await desk.do(Resume(f"s{number}"))
    clock.advance(86_400)
    for _ in range(2_000):
        ticked = await rota.tick()
        walk.note((await desk.claim()).jobs)
        for run in walk.running:
            await desk.end(run, Event.COMPLETED, followed=True)
        done = not walk.running and ticked.jobs == 0
        walk.running.clear()
        shown = await rota.store.schedules(limit=100, after="")
        if done and all(one.waiting_for is None for one in shown):
            break
    assert all(one.waiting_for is None for one in shown)
    assert max(walk.times.values()) == 1
    assert len(walk.times) > 20
    by_name = {one.name: one for one in shown}
    assert (by_name["once"].status, by_name["once"].runs) == ("finished", 1)
    limited = by_name["s5"]
    assert limited.runs <= 5
    assert (limited.status == "finished") == (limited.runs == 5)
