"""Counts failed jobs by what they failed of, and tells of them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable

from ...clock import to_datetime
from ...records import Transition
from ...rules.fingerprint import fingerprint_of
from ...states import Event
from ..failures import Failure
from .transaction import STATEMENTS, Transaction


def fingerprint(t: Transition) -> str | None:
    """What a run that has failed for good shares with others; ``None`` for other ends."""
    if t.event is not Event.FAILED or t.error is None:
        return None
    return fingerprint_of(t.task, t.error.type, t.error.place)


def count_failures(tx: Transaction, transitions: Iterable[Transition]) -> None:
    """Add the jobs that have failed to their kinds."""
    values: list[object] = []
    for t in transitions:
        kind = fingerprint(t)
        if kind is not None and t.error is not None:
            values += (kind, t.task, t.error.type, t.error.place, t.at, t.at)
    tx.write_rows("add_failures", values)


def lose_failures(tx: Transaction, fingerprints: Iterable[str | None]) -> None:
    """Take jobs from their kinds: they start anew, or are gone."""
    for kind, jobs in Counter(fingerprints).items():
        if kind is not None:
            tx.fetch("lose_failures", jobs, kind)


def failures(connection: sqlite3.Connection, limit: int, kind: str | None) -> list[Failure]:
    """Kinds of failures, what failed last first."""
    rows = connection.execute(STATEMENTS["failures"], (limit, kind))
    return [
        Failure(
            fingerprint=row[0],
            task=row[1],
            error_type=row[2],
            place=row[3],
            jobs=row[4],
            first_at=to_datetime(row[5]),
            last_at=to_datetime(row[6]),
            job_id=row[7],
            message=row[8],
        )
        for row in rows
    ]
