"""What stands around a job: who takes its queue, what they run, what comes before it."""

from __future__ import annotations

import sqlite3

from ...records import Job
from ..overview import TakerRow
from .transaction import STATEMENTS, from_json, to_json

LAST = (2**63 - 1, 2**63 - 1)
"""Behind every job of a level."""


def takers(connection: sqlite3.Connection, queue: str) -> list[TakerRow]:
    """Processes that have not ended and take jobs of the queue, and how many each runs by task."""
    found = []
    for instance, takes in connection.execute(STATEMENTS["takers"]).fetchall():
        offer = from_json(takes)
        if offer["queues"] is None or queue in offer["queues"]:
            runs = connection.execute(STATEMENTS["running_by_task"], (instance,)).fetchall()
            found.append(TakerRow(instance, offer["slots"], dict(runs)))
    return found


def ahead_of(connection: sqlite3.Connection, job: Job, run_at: int, now: int, *, most: int) -> int:
    """How many due jobs of its queue a claim meets before this one, counted up to ``most``."""
    ahead = 0
    levels = connection.execute(STATEMENTS["claim_levels_of"], (to_json([job.queue]).decode(),))
    for queue, priority in levels.fetchall():
        if priority < job.priority or ahead >= most:
            break
        end = (run_at, job.seq) if priority == job.priority else LAST
        values = (queue, priority, now, *end, most - ahead)
        ahead += connection.execute(STATEMENTS["due_before"], values).fetchone()[0]
    return ahead
