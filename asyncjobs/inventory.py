"""What there is beside the single job: counts, queues, processes, and what people did by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from .states import FINISHED, State


class Count(int):
    """A number of jobs; ``exact`` is false when counting stopped early (``str``: "10,000+")."""

    exact: bool

    def __new__(cls, jobs: int, *, exact: bool = True) -> Self:
        """``jobs``, counted to the end or not."""
        count = super().__new__(cls, jobs)
        count.exact = exact
        return count

    @classmethod
    def up_to(cls, jobs: int, *, most: int) -> Self:
        """``jobs`` of a count that stops one above ``most``."""
        return cls(min(jobs, most), exact=jobs <= most)

    def __str__(self) -> str:
        return f"{int(self):,}" + ("" if self.exact else "+")


class Queue(Struct, frozen=True, kw_only=True):
    """A queue, as ``registry.queues`` shows it: what waits there, and what is set for it."""

    name: str
    counts: Mapping[State, int]
    """Jobs by state, exact; states without jobs are there too."""
    scheduled: Count
    """Of the queued ones, those that are due later and have not failed."""
    retrying: Count
    """Of the queued ones, those that failed an attempt."""
    oldest_due: datetime | None
    """Since when the job waits that has been due for the longest; ``None`` when none is due."""
    paused: bool = False
    """Whether none of its jobs starts until it is resumed."""
    running_max: int | None = None
    """Jobs that may run at once, in all processes together."""
    rate_jobs: int | None = None
    """How many may start in :attr:`rate_per` seconds."""
    rate_per: float | None = None
    rate_burst: int | None = None
    """How many may start at once after a quiet time."""
    weight: int | None = None
    """Its share of the starts; ``None`` counts as 1 where another queue has one."""
    priority_ageing: float | None = None
    """Seconds of waiting after which a job counts one priority higher."""
    instances: tuple[str, ...] = ()
    """Ids of the live runner processes that take its jobs."""
    unserved: bool = False
    """Whether it has unfinished jobs, and nobody takes them."""

    def among(self, is_alive: Callable[[str], bool]) -> Self:
        """The queue without those of its processes that are dead."""
        living = tuple(filter(is_alive, self.instances))
        unfinished = any(jobs for state, jobs in self.counts.items() if state not in FINISHED)
        return replace(self, instances=living, unserved=unfinished and not living)


class InstanceInfo(Struct, frozen=True, kw_only=True):
    """A runner process, as ``registry.instances`` shows it."""

    id: str
    pid: int
    host: str
    started_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    """``stop`` or ``rescue``: others took its jobs over."""
    running: int
    """Jobs that it runs now."""
    alive: bool
    """Whether its process holds its lock; false with ``ended_at`` unset means: not rescued yet."""


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """One subprocess of this runner, as ``registry.workers`` shows it."""

    pid: int | None
    """``None`` until it is born."""
    executor: str
    """``process``, or ``isolated`` when it is for one job alone."""
    state: str
    """``starting``, ``idle``, ``busy`` or ``leaving``."""
    job_id: str | None
    task: str | None
    following: int
    """How many jobs it was given beside that one, while jobs are short."""
    jobs: int
    """Served until now."""
    rss: int
    """Bytes of memory when it was last looked at: after each job, and every two seconds."""
    peak_rss: int
    cpu_seconds: float
    """Of its jobs."""
    started_at: datetime
    leaving: str | None
    """Why it gets no more jobs."""
    replaced: str | None
    """Why the last worker that was replaced before this one was made had to go."""


class AuditEntry(Struct, frozen=True, kw_only=True):
    """What somebody did by hand, as ``registry.audit`` shows it."""

    position: int
    at: datetime
    actor: str | None
    action: str
    """Of jobs ``retry``, ``cancel`` or ``delete``; of queues and schedules ``pause`` and others."""
    what: Mapping[str, Any]
    """The filter, the job's id, the queue or the schedule; of arguments only names or paths."""
    matched: int
    changed: int

    @property
    def skipped(self) -> int:
        """Jobs whose state did not allow it, or that no longer passed the filter."""
        return self.matched - self.changed


class BulkResult(Struct, frozen=True, kw_only=True):
    """What a bulk operation did, or would do."""

    matched: int
    """Jobs that passed the filter."""
    changed: int
    skipped: int
    """Jobs whose state did not allow it, or that no longer passed the filter in their turn."""
    dry_run: bool


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
    holds_until: datetime | None
    """When the head of an ordered key is due, where it waits for that and so holds its key."""
    ahead: Count
    """Jobs that wait for a permit before it, counted up to 1,000."""
    opens_at: datetime | None
    """When the key admits again, where its rate or a job that pushed it back keeps it closed."""


class QueueStanding(Struct, frozen=True, kw_only=True):
    """What is set for a queue, and how it stands to that."""

    paused: bool
    running_max: int | None
    """Jobs that may run at once, in all processes together."""
    running: int
    holders: tuple[str, ...]
    """Ids of jobs of it that run, at most ten of them; none where any number may run."""
    opens_at: datetime | None
    """When its rate lets the next one start, where it does not now."""
