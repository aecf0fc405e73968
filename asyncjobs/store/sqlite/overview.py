"""The state of the whole: queues, runner processes, and what was done by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from ...clock import MICROSECONDS, to_datetime
from ...inventory import AuditEntry, Count, LimitStanding, Queue
from ...records import optional_datetime
from ...rules.explaining import AHEAD_MAX
from ...states import State
from ..base import Filter
from ..overview import HOLDERS_MAX, InstanceRow
from ..queueing import QueueSettings
from .gates import read_settings
from .listing import count_rows
from .transaction import STATEMENTS, from_json


def queues(connection: sqlite3.Connection, now: int, *, most: int) -> list[Queue]:
    """Every queue that has jobs or settings, by name; its instances may be dead."""
    settings = read_settings(connection)
    counts = {queue: dict.fromkeys(State, 0) for queue in settings}
    for queue, state, jobs in connection.execute(STATEMENTS["counts_by_queue"]):
        counts.setdefault(queue, dict.fromkeys(State, 0))[State(state)] = jobs
    rows = connection.execute(STATEMENTS["retrying_by_queue"], (now, most + 1)).fetchall()
    retrying = {queue: (jobs, later) for queue, jobs, later in rows}
    all_seen = sum(jobs for jobs, _ in retrying.values()) <= most
    levels = connection.execute(STATEMENTS["claim_levels"]).fetchall()
    takers = takers_of(connection)
    found = []
    for queue in sorted(counts):
        limits = settings.get(queue, QueueSettings())
        again, again_later = retrying.get(queue, (0, 0))
        priorities = [priority for name, priority in levels if name == queue]
        if all_seen:
            later = _later(connection, queue, priorities, now=now, most=most + 1 + again_later)
            scheduled = Count.up_to(later - again_later, most=most)
        else:  # slower: each job is looked for among those that failed
            what = Filter(states=("scheduled",), queue=queue)
            jobs = count_rows(connection, what, now, most=most + 1, scan=True)
            scheduled = Count.up_to(jobs, most=most)
        found.append(
            Queue(
                name=queue,
                counts=counts[queue],
                scheduled=scheduled,
                retrying=Count(again, exact=all_seen),
                oldest_due=_oldest_due(connection, queue, priorities, now),
                paused=limits.paused,
                running_max=limits.running,
                rate_jobs=limits.pace.jobs if limits.pace else None,
                rate_per=limits.pace.per / MICROSECONDS if limits.pace else None,
                rate_burst=limits.pace.burst if limits.pace else None,
                weight=limits.weight,
                priority_ageing=limits.ageing / MICROSECONDS if limits.ageing else None,
                instances=tuple(taker.instance for taker in takers if taker.takes(queue)),
            )
        )
    return found


class _Taker(NamedTuple):
    """A runner process that has not ended and takes jobs."""

    instance: str
    queues: Sequence[str] | None
    """``None`` for all."""
    slots: Mapping[str, int]

    def takes(self, queue: str) -> bool:
        """Whether jobs of this queue."""
        return self.queues is None or queue in self.queues


def takers_of(connection: sqlite3.Connection) -> list[_Taker]:
    """Those that there are, dead or alive."""
    rows = connection.execute(STATEMENTS["takers"]).fetchall()
    offers = [(instance, from_json(takes)) for instance, takes in rows]
    return [_Taker(instance, offer["queues"], offer["slots"]) for instance, offer in offers]


def _later(
    connection: sqlite3.Connection, queue: str, priorities: list[int], *, now: int, most: int
) -> int:
    """How many of a queue's jobs are due later, counted up to ``most``."""
    later = 0
    for priority in priorities:
        values = (queue, priority, now, most - later)
        later += connection.execute(STATEMENTS["later_in_level"], values).fetchone()[0]
    return later


def _oldest_due(
    connection: sqlite3.Connection, queue: str, priorities: list[int], now: int
) -> datetime | None:
    first = [
        connection.execute(STATEMENTS["first_run_at"], (queue, priority)).fetchone()[0]
        for priority in priorities
    ]
    due = min(first, default=now + 1)
    return to_datetime(due) if due <= now else None


def instances(connection: sqlite3.Connection, limit: int) -> list[InstanceRow]:
    """Runner processes: first those that have not ended, then the newest."""
    rows = connection.execute(STATEMENTS["instances"], (limit,))
    return [InstanceRow._make(row) for row in rows]


def audit(connection: sqlite3.Connection, limit: int, before: int | None) -> list[AuditEntry]:
    """Entries of the audit, newest first."""
    rows = connection.execute(STATEMENTS["audit"], (before or 2**63 - 1, limit))
    return [
        AuditEntry(
            position=position,
            at=to_datetime(at),
            actor=actor,
            action=action,
            what=from_json(what),
            matched=matched,
            changed=changed,
        )
        for position, at, actor, action, what, matched, changed in rows
    ]


def limit_of(connection: sqlite3.Connection, job_id: str, now: int) -> LimitStanding | None:
    """How a job stands in the line of its limit; ``None`` without a limit."""
    row = connection.execute(STATEMENTS["standing_in_line"], (job_id,)).fetchone()
    if row is None:
        return None
    limit_id, place, priority, run_at, seq, name, key, running, ordered, opens_at = row
    holders = connection.execute(STATEMENTS["permit_holders"], (limit_id, HOLDERS_MAX)).fetchall()
    ahead = 0
    if place == "ready":
        values = (limit_id, priority, run_at, seq, AHEAD_MAX + 1)
        ahead = connection.execute(STATEMENTS["ahead_in_line"], values).fetchone()[0]
    closed = opens_at is not None and opens_at > now
    return LimitStanding(
        name=name,
        key=key,
        running=running,
        ordered=bool(ordered),
        place=place,
        holders=tuple(holder for holder, *_ in holders),
        stopped_by=next((holder for holder, state, _ in holders if state == "failed"), None),
        holds_until=optional_datetime(_holds_until(holders, now) if ordered else None),
        ahead=Count.up_to(ahead, most=AHEAD_MAX),
        opens_at=optional_datetime(opens_at) if closed else None,
    )


def _holds_until(holders: list[tuple[str, str, int]], now: int) -> int | None:
    """When the only job with a permit is due that waits for that."""
    waiting = [run_at for _, state, run_at in holders if state == "queued" and run_at > now]
    return waiting[0] if len(waiting) == len(holders) == 1 else None
