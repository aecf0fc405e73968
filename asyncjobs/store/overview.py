"""The state of the whole, as a store tells it: queues, processes, what was done by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct

from ..inventory import AuditEntry, Count, LimitStanding, Queue, QueueStanding
from ..records import Job
from ..rules.window import Window

HOLDERS_MAX = 10
"""Jobs that are named where a queue, or a key, runs as many as it may."""


class AuditNote(Struct, frozen=True):
    """Who does something by hand, and to what. One id makes one entry, however many slices."""

    id: str
    actor: str | None
    what: str
    """The filter, the job's id or the schedule's name, as JSON."""


class InstanceRow(NamedTuple):
    """A runner process as the database knows it."""

    id: str
    pid: int
    host: str
    started_at: int
    ended_at: int | None
    ended_by: str | None
    running: int


class TakerRow(NamedTuple):
    """A runner process that takes jobs of some queue, dead or alive."""

    instance: str
    slots: Mapping[str, int]
    """By executor."""
    running: Mapping[str, int]
    """By task."""


class Surroundings(NamedTuple):
    """What stands around a waiting job."""

    takers: list[TakerRow]
    """Processes that have not ended and take jobs of its queue."""
    queue: QueueStanding | None
    """``None`` where nothing is set for its queue."""
    limit: LimitStanding | None
    """``None`` where it has no limit by key."""
    ahead: Count | None
    """How many due jobs of its queue come before it; ``None`` when it is not due."""
    window: Window | None
    """``None`` where it may start at any hour."""


class Overviewed(Protocol):
    """The part of a store that those ask who want to see the whole."""

    async def queues(self, *, most: int) -> list[Queue]:
        """Queues with jobs or settings, by name; derived states are counted up to ``most``.

        Their ``instances`` are those that have not ended, dead or alive.
        """
        ...

    async def limit_of(self, job_id: str) -> LimitStanding | None:
        """How a job stands in the line of its limit; ``None`` without a limit, or a job."""
        ...

    async def instances(self, *, limit: int) -> list[InstanceRow]:
        """Runner processes: first those that have not ended, then the newest."""
        ...

    async def surroundings(self, job: Job, *, most: int) -> Surroundings:
        """What stands around a waiting job; those before it are counted up to ``most``."""
        ...

    async def audit(self, *, limit: int, before: int | None) -> list[AuditEntry]:
        """Entries of the audit, newest first, from those before a position."""
        ...

    async def backup(self, path: str) -> None:
        """Write a consistent copy of the database to a new file.

        Raises:
            InvalidOption: there is a file already.
            StoreError: it cannot be written; nothing is left of it.
        """
        ...
