"""Enqueueing and claiming in one: new jobs that nothing stands before start at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Accepted, NewJob
from ...rules.window import closed_until
from ..base import Claim, ClaimResult, InsertAndClaim
from .claiming import claim, first_due
from .inserting import heed_callbacks, insert_rows, sort_out
from .transaction import Transaction


def insert_and_claim(
    tx: Transaction, operation: InsertAndClaim
) -> tuple[list[Accepted | None], ClaimResult]:
    """Enqueue, and start what can be started: directly when nothing else is due."""
    accepted, fresh = sort_out(tx, operation.insert)
    heed_callbacks(tx, fresh)
    wanted = operation.claim
    replaced = len(fresh) < len(accepted) and any(there and there.replaced for there in accepted)
    if not replaced and _all_start(fresh, wanted, tx.now):
        next_run_at = first_due(tx, wanted)
        if next_run_at is None or next_run_at > tx.now:
            claimed = insert_rows(tx, fresh, wanted.instance) if fresh else []
            return accepted, ClaimResult(claimed, frozenset(), next_run_at)
    if fresh:
        insert_rows(tx, fresh)
    left = replaced or _others_may_start(fresh, wanted, tx.now)
    return accepted, claim(tx, wanted)._replace(left=left)


def _all_start(jobs: Sequence[NewJob[Any]], wanted: Claim, now: int) -> bool:
    """Whether every one of these could be claimed at once, in the order given."""
    room = dict(wanted.room)
    if len(jobs) > sum(room.values()):
        return False
    for job in jobs:
        executor = wanted.tasks.get(job.task)
        if executor is None or room.get(executor, 0) <= 0 or job.priority != jobs[0].priority:
            return False
        if job.run_at is not None or job.delay or job.limit is not None:
            return False
        if job.expires_at is not None and job.expires_at <= now:
            return False
        if closed_until(job.options, now) is not None:
            return False
        if wanted.queues is not None and job.queue not in wanted.queues:
            return False
        room[executor] -= 1
    return True


def _others_may_start(jobs: Sequence[NewJob[Any]], wanted: Claim, now: int) -> bool:
    """Whether some of these are not for this claim alone: due later, or of other queues."""
    return any(
        job.run_at is not None
        or job.delay
        or closed_until(job.options, now) is not None
        or (wanted.queues is not None and job.queue not in wanted.queues)
        for job in jobs
    )
