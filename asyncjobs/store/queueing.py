"""What is set for queues at run time."""

from __future__ import annotations

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
    weight: int | UnsetType | None = UNSET
    ageing: int | UnsetType | None = UNSET
    """Microseconds after which a waiting job counts one priority higher."""


class QueueSettings(Struct, frozen=True):
    """What is set for a queue."""

    paused: bool = False
    running: int | None = None
    pace: Pace | None = None
    spent: float = 0.0
    weight: int | None = None
    ageing: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether the queue is as any other."""
        limits = (self.running, self.pace, self.weight, self.ageing)
        return not self.paused and all(limit is None for limit in limits)
