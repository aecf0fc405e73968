"""The claim: which queued jobs run next.

Order: priority, larger first; then due time; then acceptance. Each priority level of each queue is
one range of the claim's index, so jobs due later and levels without due jobs cost one seek each.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from ...records import Claimed
from ...rules.limits import FLUSH_ROWS_MAX
from ...states import Event, State
from ..base import Claim, ClaimResult
from .transaction import Transaction, to_json

VISITS_MAX = 10_000
"""Jobs without room that one claim passes over in a level: a millisecond of the writer."""
SMALLEST_WINDOW = 16


class _Selection:
    """What one claim has chosen so far."""

    def __init__(self, operation: Claim, unstarted: dict[tuple[str, str], int]) -> None:
        self._tasks = operation.tasks
        wanted = {task for (task, state), jobs in unstarted.items()
                  if jobs > 0 and state in (State.QUEUED, State.BLOCKED)}  # fmt: skip
        executors = {operation.tasks[task] for task in wanted if task in operation.tasks}
        # Slots that no waiting job wants do not count: a claim is done when the others are taken.
        self.room = {name: free for name, free in operation.room.items() if name in executors}
        self.total = sum(self.room.values())
        self.waiting = executors - self.room.keys()
        self.chosen: list[tuple[int, str, str]] = []
        """(seq, the state it was in, task)"""
        self.unknown: list[int] = []
        self.has_parked = any(
            jobs > 0 and state == State.BLOCKED and task in operation.tasks
            for (task, state), jobs in unstarted.items()
        )
        self.worthwhile = self.total > 0 or not wanted <= operation.tasks.keys()
        """Whether a walk can find something: to run, or to park."""

    def offer(self, seq: int, task: str, state: str) -> bool:
        """Take the job if its executor has room. False when nothing more can be taken."""
        executor = self._tasks.get(task)
        if executor is None:
            self.unknown.append(seq)
            return len(self.unknown) < FLUSH_ROWS_MAX
        if self.room.get(executor, 0) <= 0:
            self.waiting.add(executor)
            return True
        self.room[executor] -= 1
        self.total -= 1
        self.chosen.append((seq, state, task))
        if self.total == 0:
            self.waiting.update(self.room)
        return self.total > 0

    def full_tasks(self) -> list[str]:
        """Known tasks whose executor has no room left."""
        return [task for task, executor in self._tasks.items() if self.room.get(executor, 0) <= 0]


def claim(tx: Transaction, operation: Claim) -> ClaimResult:
    """Take due jobs for the free slots."""
    selection = _Selection(operation, tx.unstarted())
    levels = _levels(tx, operation.queues)
    saw_all = True
    if selection.worthwhile:
        saw_all = _offer_parked(tx, operation, selection) and _offer_queued(tx, levels, selection)
    if selection.unknown:
        _park(tx, selection.unknown)
    jobs = _take(tx, operation.instance, selection.chosen)
    due = [tx.value("next_run_at", *level, tx.now) for level in levels] if saw_all else []
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
        streams = [_due(tx, queue, priority, window, selection) for queue in queues]
        # One stream needs no merging: the usual case.
        candidates = heapq.merge(*streams) if len(streams) > 1 else streams[0]
        for _, seq, task in candidates:
            if not selection.offer(seq, task, State.QUEUED.value):
                return False
    return True


def _due(
    tx: Transaction, queue: str, priority: int, window: int, selection: _Selection
) -> Iterator[tuple[int, int, str]]:
    """Due jobs of one level as (run_at, seq, task), fetched a window at a time.

    The first window takes all tasks, so that jobs of unknown ones are met; the others leave out
    those without room.
    """
    run_at, seq, full, visits = -1, -1, "[]", window
    while True:
        rows = tx.fetch(
            "claim_candidates", queue, priority, tx.now, run_at, seq, visits, full, window
        )
        yield from rows
        if len(rows) < window:
            return
        run_at, seq, _ = rows[-1]
        full, visits = to_json(selection.full_tasks()).decode(), VISITS_MAX


def _offer_parked(tx: Transaction, operation: Claim, selection: _Selection) -> bool:
    """Jobs that others set aside come first: they have waited longest."""
    if not selection.has_parked:
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
    moves: Counter[tuple[str, str, str]] = Counter()
    for seq, state, task in chosen:
        row = rows[seq]
        jobs.append(Claimed._make(row))
        fences += (seq, row[4])
        moves[row[3], task, state] += 1
    for (queue, task, state), count in moves.items():
        tx.count_move(queue, task, state, State.RUNNING.value, count)
    tx.note(Event.CLAIMED, fences)
    return jobs
