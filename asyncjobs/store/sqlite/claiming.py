"""The claim: which queued jobs run next.

Order: priority, larger first; then due time; then acceptance, unless queues have weights or let
jobs rise (:mod:`rules.ordering`). Each priority level of each queue is one range of the claim's
index, so jobs due later and levels without due jobs cost one seek each.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from ...records import Claimed
from ...rules.expiry import is_expired
from ...rules.limits import FLUSH_ROWS_MAX
from ...rules.window import closed_until
from ...states import Event, State
from ..base import Claim, ClaimResult
from .admitting import Look, look_at_lines, step_back
from .expiring import expire_those
from .gates import Gates
from .transaction import Transaction, to_json
from .turning import Line

VISITS_MAX = 10_000
"""Jobs without room that a walk passes over in a level: a millisecond of the writer. The next claim
goes on from there, so that what stands behind them is found."""
SMALLEST_WINDOW = 16
NO_TASKS = "[]"
NO_LOOK = Look(None, None)
EARLIEST = -(2**63)
"""Before every instant that a job can be due at; those before 1970 are negative."""

# A row of candidates is a job as it will be once claimed: the values of a ``Claimed``.
SEQ, TASK, QUEUE, CLAIM, CRASHES, OPTIONS, RUN_AT, MAX_CRASHES, EXPIRES_AT = map(
    Claimed.__struct_fields__.index,
    ("seq", "task", "queue", "claim", "crashes", "options", "run_at", "max_crashes", "expires_at"),
)


class _Selection:
    """What one claim has chosen so far."""

    def __init__(
        self,
        operation: Claim,
        unstarted: dict[tuple[str, str], int],
        gates: Gates,
        now: int,
        until: int,
    ) -> None:
        self._now = now
        self.until = until
        """Jobs that are due later than that are not for this claim."""
        self._tasks = operation.tasks
        self.gates = gates
        wanted = {task for (task, _), jobs in unstarted.items() if jobs > 0}
        executors = {operation.tasks[task] for task in wanted if task in operation.tasks}
        self._executors = executors
        # Slots that no waiting job wants do not count: a claim is done when the others are taken.
        self.room = {
            name: free for name, free in operation.room.items() if free > 0 and name in executors
        }
        self.total = sum(self.room.values())
        self.waiting = executors - self.room.keys()
        self.probation = operation.probation
        self.resume = operation.resume
        self.unseen: dict[tuple[str, int], tuple[int, int]] = {}
        """Where the walk had to stop in levels that hold more due jobs."""
        self.queued: list[Any] = []
        self.parked: list[Any] = []
        self.unknown: list[int] = []
        self.expired: list[int] = []
        self.put_off: list[int] = []
        """``seq, run_at, ...`` of jobs that are due while their windows are closed."""
        self.has_parked = any(
            jobs > 0 and state == State.BLOCKED and task in operation.tasks
            for (task, state), jobs in unstarted.items()
        )
        self.worthwhile = self.total > 0 or not wanted <= operation.tasks.keys()
        """Whether a walk can find something: to run, or to park."""

    def take_from(self, candidates: Iterator[Any], chosen: list[Any]) -> bool:
        """Choose what there is room for. False when nothing more can be taken."""
        tasks, room, gates = self._tasks, self.room, self.gates
        gated = bool(gates)
        for row in candidates:
            executor = tasks.get(row[TASK])
            if row[EXPIRES_AT] is not None and is_expired(
                row[EXPIRES_AT], row[CLAIM] - 1, self._now
            ):
                self.expired.append(row[SEQ])
                if len(self.expired) >= FLUSH_ROWS_MAX:
                    self.waiting.update(room)
                    return False
            elif executor is None:
                self.unknown.append(row[SEQ])
                if len(self.unknown) >= FLUSH_ROWS_MAX:
                    # Not seen what stands behind them.
                    self.waiting.update(room)
                    return False
            elif row[OPTIONS] is not None and (opens_at := closed_until(row[OPTIONS], self._now)):
                self.put_off += (row[SEQ], opens_at)
                if len(self.put_off) >= 2 * FLUSH_ROWS_MAX:
                    self.waiting.update(room)
                    return False
            elif room.get(executor, 0) > 0:
                if gated and not gates.is_open(row[QUEUE]):
                    continue
                if row[CRASHES] and row[CRASHES] + 1 >= row[MAX_CRASHES]:
                    if not self.probation:
                        continue
                    self.probation = False
                if gated:
                    gates.take(row[QUEUE])
                chosen.append(row)
                room[executor] -= 1
                self.total -= 1
                if self.total == 0:
                    self.waiting.update(room)
                    return False
            else:
                self.waiting.add(executor)
        return True

    def full_tasks(self) -> str:
        """Known tasks whose executor has no room left, as JSON: those jobs are not looked at."""
        room = self.room
        self.waiting.update(name for name in self._executors if not room.get(name))
        return to_json([task for task, name in self._tasks.items() if not room.get(name)]).decode()


def claim(tx: Transaction, operation: Claim) -> ClaimResult:
    """Take due jobs for the free slots."""
    unstarted = tx.unstarted()
    held = any(state == State.BLOCKED and jobs > 0 for (_, state), jobs in unstarted.items())
    look = look_at_lines(tx) if held or tx.has_later_permits else NO_LOOK
    gates = Gates(tx)
    # Very many that fall due at once have not all asked for their permits: the next claim goes on.
    until = tx.now if look.due_at is None else min(tx.now, look.due_at - 1)
    selection = _Selection(operation, unstarted, gates, tx.now, until)
    levels = _levels(tx, operation.queues)
    saw_all = True
    if selection.worthwhile:
        saw_all = _take_parked(tx, operation, selection) and _take_queued(
            tx, [level for level in levels if gates.is_open(level[0])], selection
        )
    parked = _park(tx, selection.unknown) if selection.unknown else {}
    expired = expire_those(tx, selection.expired)
    if _put_off(tx, selection.put_off):
        selection.waiting.update(operation.room)  # for those that have got their permits
    if selection.unseen:
        selection.waiting.update(selection.room)  # there may be something for them after all
    due = [_next_due(tx, gates, *level) for level in levels] if saw_all else []
    if selection.has_parked and saw_all:
        due += [tx.value("next_parked", task, tx.now) for task in operation.tasks]
    # Jobs that have expired may have held permits: who got them has not been seen yet.
    due.append(tx.now if expired and held else look.at)
    gates.settle(tx)
    return ClaimResult(
        _claim(tx, operation.instance, selection),
        frozenset(selection.waiting),
        min((run_at for run_at in due if run_at is not None), default=None),
        parked,
        selection.unseen,
        expired=expired,
        capped=gates.capped,
    )


def _next_due(tx: Transaction, gates: Gates, queue: str, priority: int) -> int | None:
    """When there is something more to claim of a level that was seen to the end."""
    if gates.is_open(queue):
        run_at: int | None = tx.value("next_run_at", queue, priority, tx.now)
        return run_at
    return gates.next_at(queue)


def first_due(tx: Transaction, operation: Claim) -> int | None:
    """When the first waiting job falls due that this claim may meet; ``None`` if none waits.

    Parked jobs of known tasks count as due at once, and so does everything while something is set
    for some queue.
    """
    unstarted = {key for key, jobs in tx.unstarted().items() if jobs > 0}
    if tx.has_queue_settings:
        return tx.now  # a claim asks them
    if not unstarted:
        return None
    if any(state == State.BLOCKED and task in operation.tasks for task, state in unstarted):
        return tx.now
    times = [tx.value("first_run_at", *level) for level in _levels(tx, operation.queues)]
    return min(times, default=None)


def _levels(tx: Transaction, queues: Sequence[str] | None) -> list[tuple[str, int]]:
    """Every (queue, priority) that has queued jobs, highest priority first."""
    if queues is None:
        return tx.fetch("claim_levels")
    return tx.fetch("claim_levels_of", to_json(queues).decode())


def _take_parked(tx: Transaction, operation: Claim, selection: _Selection) -> bool:
    """Jobs that others set aside come first: they have waited longest."""
    if not selection.has_parked:
        return True
    for (task,) in tx.fetch("parked_tasks"):
        if task not in operation.tasks:
            continue
        queues = None if operation.queues is None else to_json(operation.queues).decode()
        closed = selection.gates.closed()
        rows = tx.fetch("parked_candidates", task, selection.until, queues, FLUSH_ROWS_MAX, closed)
        if not selection.take_from(iter(rows), selection.parked):
            return False
    return True


def _take_queued(tx: Transaction, levels: list[tuple[str, int]], selection: _Selection) -> bool:
    if selection.gates.reorder:
        return _take_in_turn(tx, levels, selection)
    for priority, group in groupby(levels, key=itemgetter(1)):
        queues = [queue for queue, _ in group]
        window = max(SMALLEST_WINDOW, min(selection.total, FLUSH_ROWS_MAX) // len(queues))
        streams = [_due(tx, queue, priority, window, selection) for queue in queues]
        # One stream needs no merging: the usual case.
        candidates = streams[0] if len(streams) == 1 else heapq.merge(
            *streams, key=itemgetter(RUN_AT, SEQ)
        )  # fmt: skip
        if not selection.take_from(candidates, selection.queued):
            return False
    return True


def _take_in_turn(tx: Transaction, levels: list[tuple[str, int]], selection: _Selection) -> bool:
    window = max(SMALLEST_WINDOW, min(selection.total, FLUSH_ROWS_MAX) // max(1, len(levels)))
    line = Line(tx, selection.gates, selection.queued)
    candidates = line.candidates(
        levels, lambda queue, priority: _due(tx, queue, priority, window, selection)
    )
    saw_all = selection.take_from(candidates, selection.queued)
    line.settle(tx)
    return saw_all


def _due(
    tx: Transaction, queue: str, priority: int, window: int, selection: _Selection
) -> Iterator[Any]:
    """Due jobs of one level, but for tasks without room.

    From its head; when too many are passed over there, also from where the last claim had to stop.
    """
    edge = yield from _walk(tx, queue, priority, window, selection, (EARLIEST, 0))
    if edge is not None:
        start = max(edge, selection.resume.get((queue, priority), edge))
        edge = yield from _walk(tx, queue, priority, window, selection, start)
    if edge is not None:
        selection.unseen[queue, priority] = edge


def _walk(
    tx: Transaction,
    queue: str,
    priority: int,
    window: int,
    selection: _Selection,
    start: tuple[int, int],
) -> Generator[Any, None, tuple[int, int] | None]:
    """Fetch a window at a time behind ``start``; where it had to stop, ``None`` at the end."""
    run_at, seq = start
    while selection.gates.is_open(queue):
        full, probation = selection.full_tasks(), selection.probation
        rows = tx.fetch(
            "claim_candidates",
            queue, priority, selection.until, run_at, seq, VISITS_MAX, full, probation, window,
        )  # fmt: skip
        yield from rows
        if len(rows) < window:
            if full == NO_TASKS and probation:  # nothing was passed over
                return None
            edges = tx.fetch(
                "claim_edge", queue, priority, run_at, seq, selection.until, VISITS_MAX - 1
            )
            return edges[0] if edges else None
        run_at, seq = rows[-1][RUN_AT], rows[-1][SEQ]
    return None


def _put_off(tx: Transaction, put_off: list[int]) -> bool:
    """Jobs whose windows are closed; whether others have got what they held of their limits."""
    if not put_off:
        return False
    tx.write_rows("put_off", put_off)
    return step_back(tx, list(zip(put_off[::2], put_off[1::2], strict=True)))


def _park(tx: Transaction, seqs: list[int]) -> dict[str, int]:
    """Set jobs of unknown tasks aside; how many, by task."""
    rows = tx.fetch("park", to_json(seqs).decode())
    for seq, claimed, queue, task in rows:
        tx.count_move(queue, task, State.QUEUED.value, State.BLOCKED.value)
        tx.note(Event.PARKED, (seq, claimed))
    return Counter(task for _, _, _, task in rows)


def _claim(tx: Transaction, instance: str, selection: _Selection) -> list[Claimed]:
    """Write the claim; the jobs in the order in which they were chosen."""
    rows = selection.parked + selection.queued
    if not rows:
        return []
    seqs = [row[SEQ] for row in rows]
    tx.fetch("claim", instance, tx.now, to_json(seqs).decode())
    fences = [0] * (2 * len(rows))
    fences[::2] = seqs
    fences[1::2] = [row[CLAIM] for row in rows]
    tx.note(Event.CLAIMED, fences)
    for chosen, state in (
        (selection.parked, State.BLOCKED),
        (selection.queued, State.QUEUED),
    ):
        for (queue, task), jobs in Counter([(row[QUEUE], row[TASK]) for row in chosen]).items():
            tx.count_move(queue, task, state.value, State.RUNNING.value, jobs)
    return [Claimed(*row) for row in rows]
