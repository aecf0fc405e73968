"""What stands around a job: who takes its queue, what they run, what comes before it."""

from __future__ import annotations

import sqlite3

from ...clock import to_instant
from ...inventory import Count
from ...records import Job
from ...rules.window import window_of
from ...states import State
from ..overview import Surroundings, TakerRow
from .gates import standing_of
from .overview import limit_of, takers_of
from .transaction import STATEMENTS, to_json

LAST = (2**63 - 1, 2**63 - 1)
"""Behind every job of a level."""


def surroundings(connection: sqlite3.Connection, now: int, *, job: Job, most: int) -> Surroundings:
    """All of it; those before the job are counted up to ``most``."""
    ahead = None
    if job.state is State.QUEUED and to_instant(job.run_at, "run_at") <= now:
        ahead = Count.up_to(_ahead_of(connection, job, now, most + 1), most=most)
    options = connection.execute(STATEMENTS["options_of"], (job.seq,)).fetchone()
    return Surroundings(
        _takers(connection, job.queue),
        standing_of(connection, job.queue, now),
        limit_of(connection, job.id, now),
        ahead,
        window_of(options[0]) if options else None,
    )


def _takers(connection: sqlite3.Connection, queue: str) -> list[TakerRow]:
    found = []
    for taker in takers_of(connection):
        if taker.takes(queue):
            runs = connection.execute(STATEMENTS["running_by_task"], (taker.instance,)).fetchall()
            found.append(TakerRow(taker.instance, taker.slots, dict(runs)))
    return found


def _ahead_of(connection: sqlite3.Connection, job: Job, now: int, most: int) -> int:
    run_at = to_instant(job.run_at, "run_at")
    ahead = 0
    levels = connection.execute(STATEMENTS["claim_levels_of"], (to_json([job.queue]).decode(),))
    for queue, priority in levels.fetchall():
        if priority < job.priority or ahead >= most:
            break
        end = (run_at, job.seq) if priority == job.priority else LAST
        values = (queue, priority, now, *end, most - ahead)
        ahead += connection.execute(STATEMENTS["due_before"], values).fetchone()[0]
    return ahead
