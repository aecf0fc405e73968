"""The claim: which queued jobs run next.

Order: priority, larger first; then due time; then acceptance. Each priority level of each queue is
one range of the claim's index, so jobs due later and levels without due jobs cost one seek each.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from ...records import Claimed
from ...states import Event, State
from ..base import Claim, ClaimResult
from .transaction import Transaction, to_json

VISITS_MAX = 10_000
"""Candidates that one claim looks at. Jobs whose executor is full are passed over, and a claim must
not hold the writer while it passes over a million of them."""
SMALLEST_WINDOW = 16


class _Selection:
    """What one claim has chosen so far."""

    def __init__(self, operation: Claim) -> None:
        self._tasks = operation.tasks
        self.room = dict(operation.room)
        self.total = sum(self.room.values())
        self.chosen: list[tuple[int, str, str]] = []
        """(seq, the state it was in, task)"""
        self.unknown: list[int] = []
        self.waiting: set[str] = set()
        self.visits = 0

    def offer(self, seq: int, task: str, state: str) -> bool:
        """Take the job if its executor has room. False when nothing more can be taken."""
        self.visits += 1
        executor = self._tasks.get(task)
        if executor is None:
            self.unknown.append(seq)
        elif self.room.get(executor, 0) > 0:
            self.room[executor] -= 1
            self.total -= 1
            self.chosen.append((seq, state, task))
        else:
            self.waiting.add(executor)
        if self.total > 0 and self.visits < VISITS_MAX:
            return True
        self.waiting.update(self.room)
        return False


def claim(tx: Transaction, operation: Claim) -> ClaimResult:
    """Take due jobs for the free slots."""
    selection = _Selection(operation)
    if selection.total <= 0:
        return ClaimResult([], frozenset(selection.room), None)
    levels = _levels(tx, operation.queues)
    finished = _offer_parked(tx, operation, selection) and _offer_queued(tx, levels, selection)
    if selection.unknown:
        _park(tx, selection.unknown)
    jobs = _take(tx, operation.instance, selection.chosen)
    due = [tx.value("next_run_at", *level, tx.now) for level in levels] if finished else []
    return ClaimResult(
        jobs, frozenset(selection.waiting), min((d for d in due if d is not None), default=None)
    )


def _levels(tx: Transaction, queues: Sequence[str] | None) -> list[tuple[str, int]]:
    """Every (queue, priority) that has queued jobs, highest priority first."""
    if queues is None:
        return tx.fetch("claim_levels")
    return tx.fetch("claim_levels_of", to_json(queues).decode())


def _offer_queued(
    tx: Transaction, levels: list[tuple[str, int]], selection: _Selection
) -> bool:
    for priority, group in groupby(levels, key=itemgetter(1)):
        queues = [queue for queue, _ in group]
        window = max(SMALLEST_WINDOW, selection.total // len(queues))
        streams = [_due(tx, queue, priority, window) for queue in queues]
        # One stream needs no merging: the usual case.
        candidates = heapq.merge(*streams) if len(streams) > 1 else streams[0]
        for _, seq, task in candidates:
            if not selection.offer(seq, task, State.QUEUED.value):
                return False
    return True


def _due(
    tx: Transaction, queue: str, priority: int, window: int
) -> Iterator[tuple[int, int, str]]:
    """Due jobs of one level as (run_at, seq, task), fetched a window at a time."""
    run_at, seq = -1, -1
    while True:
        rows = tx.fetch("claim_candidates", queue, priority, tx.now, run_at, seq, window)
        yield from rows
        if len(rows) < window:
            return
        run_at, seq, _ = rows[-1]
        window = min(window * 2, VISITS_MAX)


def _offer_parked(tx: Transaction, operation: Claim, selection: _Selection) -> bool:
    """Jobs that others set aside come first: they have waited longest."""
    if not tx.value("any_parked"):
        return True
    known = [task for (task,) in tx.fetch("parked_tasks") if task in operation.tasks]
    for task in known:
        for _, _, seq, queue in tx.fetch("parked_candidates", task, tx.now, selection.total):
            if operation.queues is not None and queue not in operation.queues:
                continue
            if not selection.offer(seq, task, State.BLOCKED.value):
                return False
    return True


def _park(tx: Transaction, seqs: list[int]) -> None:
    for seq, claimed, queue, task in tx.fetch("park", to_json(seqs).decode()):
        tx.count_move(queue, task, State.QUEUED.value, State.BLOCKED.value)
        tx.note(Event.PARKED, (seq, claimed))


def _take(tx: Transaction, instance: str, chosen: list[tuple[int, str, str]]) -> list[Claimed]:
    """Write the claim; the jobs in the order in which they were chosen."""
    if not chosen:
        return []
    seqs = to_json([seq for seq, _, _ in chosen]).decode()
    rows = {row[0]: row for row in tx.fetch("claim", instance, tx.now, seqs)}
    jobs = []
    fences: list[int] = []
    for seq, state, task in chosen:
        job = Claimed._make(rows[seq])
        jobs.append(job)
        fences += (seq, job.claim)
        tx.count_move(job.queue, task, state, State.RUNNING.value)
    tx.note(Event.CLAIMED, fences)
    return jobs
