"""Gathers what is known of a job and its surroundings, to explain why it is not running."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .clock import to_datetime
from .records import Job
from .rules.explaining import AHEAD_MAX, Facts, Taker
from .states import State
from .store.overview import TakerRow

if TYPE_CHECKING:
    from .runner import Runner


async def gather_facts(runner: Runner, job: Job) -> Facts:
    """What the reasons look at, in a few bounded queries; for a finished job none."""
    engine = runner.engine()
    task = runner.tasks.get(job.task)
    executor = None if task is None else task.executor
    instant = runner.clock.now()
    now = to_datetime(instant)
    if job.state is State.RUNNING and job.instance is not None:
        alive = engine.is_alive(job.instance)
        return Facts(job=job, now=now, executor=executor, owner_alive=alive)
    if job.finished:
        return Facts(job=job, now=now, executor=executor)
    around = await engine.store.surroundings(job, most=AHEAD_MAX)
    window = around.window
    return Facts(
        job=job,
        now=now,
        executor=executor,
        window=None if window is None else window.sentence,
        opens_at=None if window is None else to_datetime(window.opening(instant)),
        takers=tuple(_taker(runner, row) for row in around.takers if engine.is_alive(row.instance)),
        ahead=around.ahead,
        queue=around.queue,
        limit=around.limit,
    )


def _taker(runner: Runner, row: TakerRow) -> Taker:
    running: Counter[str] = Counter()
    for name, jobs in row.running.items():
        if name in runner.tasks:
            running[runner.tasks[name].executor] += jobs
    return Taker(id=row.instance, slots=row.slots, running=running)
