"""The six states, what may happen to a job, and which moves are legal. One table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a job stands. Stored as its value."""

    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happened to a job: the kinds of the journal."""

    ENQUEUED = "enqueued"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRYING = "retrying"
    SNOOZED = "snoozed"
    RELEASED = "released"
    RESCUED = "rescued"
    CANCELLED = "cancelled"
    PARKED = "parked"
    HELD = "held"
    ADMITTED = "admitted"
    REQUEUED = "requeued"
    DELETED = "deleted"
    PRUNED = "pruned"
    PROGRESS = "progress"
    LOGGED = "logged"


NOT_KEPT: Final = "result_not_kept"
"""The reason of a completed job that returned something which ``keep_result=False`` left out."""

FINISHED: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

# Shown, never stored: queued jobs that are due later, or that already failed an attempt.
DERIVED_STATES: Final = frozenset({"scheduled", "retrying"})

_WAITING = frozenset({State.QUEUED, State.BLOCKED})
_RUNNING = frozenset({State.RUNNING})

# event -> (states it may happen in, the state it leads to). ``None`` stands for "no row".
MOVES: Final[dict[Event, tuple[frozenset[State], State | None]]] = {
    Event.ENQUEUED: (frozenset(), State.QUEUED),
    Event.CLAIMED: (_WAITING, State.RUNNING),
    Event.COMPLETED: (_RUNNING, State.COMPLETED),
    Event.FAILED: (_RUNNING, State.FAILED),
    Event.RETRYING: (_RUNNING, State.QUEUED),
    Event.SNOOZED: (_RUNNING, State.QUEUED),
    Event.RELEASED: (_RUNNING, State.QUEUED),
    Event.RESCUED: (_RUNNING, State.QUEUED),
    Event.CANCELLED: (_WAITING | _RUNNING, State.CANCELLED),
    Event.PARKED: (frozenset({State.QUEUED}), State.BLOCKED),
    Event.HELD: (frozenset({State.QUEUED}), State.BLOCKED),
    Event.ADMITTED: (frozenset({State.BLOCKED}), State.QUEUED),
    Event.REQUEUED: (FINISHED, State.QUEUED),
    Event.DELETED: (FINISHED | _WAITING, None),
    Event.PRUNED: (FINISHED, None),
    Event.PROGRESS: (_RUNNING, State.RUNNING),
    Event.LOGGED: (_RUNNING, State.RUNNING),
}
