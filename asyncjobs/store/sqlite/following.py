"""Callbacks: the jobs that follow outcomes, enqueued in the transactions of those outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...records import ErrorRecord, JobOutcome
from ...rules.callbacks import follow, read_callbacks
from ...states import State
from .inserting import insert_rows
from .schedules import job_ended
from .transaction import Transaction, to_json


class Ended(NamedTuple):
    """What the row of a job that has just ended does not say itself."""

    result: str | None = None
    error: ErrorRecord | None = None


def follow_up(tx: Transaction, ended: Mapping[int, Ended]) -> None:
    """Enqueue what follows these jobs, whose rows say already how they ended."""
    if not ended:
        return
    jobs = []
    rows = tx.fetch("followed", to_json(list(ended)).decode())
    for seq, job_id, task, state, reason, options in rows:
        callbacks = read_callbacks(options)
        if callbacks.scheduled is not None:
            job_ended(tx, callbacks.scheduled.name, seq, state)
        result, error = ended[seq]
        outcome = JobOutcome(
            job_id=job_id, task=task, state=State(state), reason=reason, error=error
        )
        jobs.append(follow(callbacks, outcome, result, tx.now))
    following = [job for job in jobs if job is not None]
    if following:
        insert_rows(tx, following)
