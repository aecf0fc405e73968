"""Why a job is not running, as far as somebody can tell who has none of its tasks."""

from __future__ import annotations

import sqlite3

from ..clock import to_datetime
from ..records import Job
from ..rules.explaining import AHEAD_MAX, Explanation, Facts, Taker, explain
from ..store.sqlite.explaining import surroundings
from .living import living


def why(connection: sqlite3.Connection, database: str, job: Job, now: int) -> Explanation | None:
    """What the registry would say, but for slots; nothing of a finished job, which says it all."""
    if job.finished:
        return None
    is_alive = living(database)
    around = surroundings(connection, now, job=job, most=AHEAD_MAX)
    window = around.window
    return explain(
        Facts(
            job=job,
            now=to_datetime(now),
            window=None if window is None else window.sentence,
            opens_at=None if window is None else to_datetime(window.opening(now)),
            executor=None,
            owner_alive=job.instance is not None and is_alive(job.instance),
            takers=tuple(
                Taker(id=row.instance, slots=row.slots, running={})
                for row in around.takers
                if is_alive(row.instance)
            ),
            ahead=around.ahead,
            queue=around.queue,
            limit=around.limit,
            at_terminal=True,
        )
    )
