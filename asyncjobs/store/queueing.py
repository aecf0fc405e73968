"""What is set for queues at run time, and how a job stands in the line of its limit."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType

from ..rules.limiting import Pace


class SetQueue(Struct, frozen=True, kw_only=True):
    """Change what is set for a queue, and note who did it. Result: None.

    What is left unset stays as it is; ``None`` takes a limit away.
    """

    queue: str
    note_id: str
    actor: str | None
    action: str
    """For the audit: ``pause``, ``resume`` or ``set``."""
    what: str
    """For the audit, as JSON."""
    paused: bool | UnsetType = UNSET
    running: int | UnsetType | None = UNSET
    pace: Pace | UnsetType | None = UNSET


class QueueSettings(Struct, frozen=True):
    """What is set for a queue."""

    paused: bool = False
    running: int | None = None
    pace: Pace | None = None
    spent: float = 0.0


class LimitStanding(Struct, frozen=True, kw_only=True):
    """How a job stands in the line of its limit's key, as ``registry.limit_of`` shows it."""

    name: str
    """The task's, or what several tasks call the limit that they share."""
    key: str
    running: int | None
    """Jobs of the key at once; 0 holds them all, ``None`` is any number."""
    ordered: bool
    place: str | None
    """``in``: it may be claimed, or runs; ``ready``: it waits for a permit; ``later``: it is not
    due; ``None``: it has ended."""
    holders: tuple[str, ...]
    """Ids of jobs that hold permits, at most ten of them."""
    stopped_by: str | None
    """The job that failed, where the key waits until it is retried or deleted."""
    ahead: int
    """Jobs that wait for a permit before it, counted up to 10,000."""
    opens_at: datetime | None
    """When the key admits again, where its rate or a job that pushed it back keeps it closed."""
