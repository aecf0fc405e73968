"""Why a job is not running, as far as somebody can tell who has none of its tasks."""

from __future__ import annotations

import sqlite3

from ..clock import to_datetime, to_instant
from ..inventory import Count
from ..records import Job
from ..rules.explaining import AHEAD_MAX, Explanation, Facts, Taker, explain
from ..states import State
from ..store.sqlite.explaining import ahead_of, takers
from .checkup import LEASE_SECONDS


def why(connection: sqlite3.Connection, database: str, job: Job, now: int) -> Explanation | None:
    """What the registry would say, but for slots; nothing of a finished job, which says it all."""
    if job.finished:
        return None
    # Only here: locks bring asyncio along.
    from ..services.instance import Neighbours

    def is_alive(instance: str) -> bool:
        try:
            return neighbours.is_alive(instance)
        except OSError:  # another user's: somebody has it
            return True

    neighbours = Neighbours(f"{database}-runners", LEASE_SECONDS)
    run_at = to_instant(job.run_at, "run_at")
    ahead = None
    if job.state is State.QUEUED and run_at <= now:
        ahead = Count.up_to(
            ahead_of(connection, job, run_at, now, most=AHEAD_MAX + 1), most=AHEAD_MAX
        )
    return explain(
        Facts(
            job=job,
            now=to_datetime(now),
            executor=None,
            owner_alive=job.instance is not None and is_alive(job.instance),
            takers=tuple(
                Taker(id=row.instance, slots=row.slots, running={})
                for row in takers(connection, job.queue)
                if is_alive(row.instance)
            ),
            ahead=ahead,
        )
    )
