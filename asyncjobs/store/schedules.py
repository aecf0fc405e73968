"""What the store keeps of schedules: the operations on them, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from ..records import NewJob
from ..rules.schedule import Plan
from ..rules.timetable import At, Cron, Every
from ..states import State
from .overview import AuditNote


class Declared(Struct, frozen=True):
    """A schedule as it stands in the code, or is given to be kept."""

    name: str
    plan: Plan
    job: NewJob[Any]
    """What its jobs have in common."""


class Tick(Struct, frozen=True):
    """Enqueue the jobs of schedules whose time has come, at most ``limit``. Result: ``Ticked``."""

    limit: int = 100
    but: Sequence[str] = ()
    """Names of those that cannot be understood here."""


class Ticked(NamedTuple):
    """What a tick did."""

    jobs: int
    next_at: int | None
    """When the next one's time comes, perhaps at once; ``None`` when there is none."""
    broken: Mapping[str, str] = {}
    """Schedules that cannot be understood here, and why."""


class Declare(Struct, frozen=True):
    """Say what ``instance`` has in its code. Result: ``Synced``.

    What is new is added, what is another now is changed. A schedule of the code that neither it
    nor one of the ``others``, who are alive, has in theirs is removed: it neither fires nor shows,
    and goes on as it stood should it be declared again.
    """

    instance: str
    schedules: Sequence[Declared]
    others: Sequence[str] = ()


class Synced(NamedTuple):
    """What a declaration changed, by name."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    taken: list[str]
    """Made at run time under a name that the code declares now."""


class Create(Struct, frozen=True):
    """Keep a new schedule. Result: ``done``, or ``exists``."""

    schedule: Declared
    note: AuditNote | None = None


class Update(Struct, frozen=True):
    """Change some of what a schedule was given. Result: ``done``, ``missing`` or ``code``.

    Raises ``InvalidOption`` when its plan would contradict itself or be over.
    """

    name: str
    options: Mapping[str, Any]
    """Of its plan, checked."""
    job: NewJob[Any] | None = None
    note: AuditNote | None = None


class Pause(Struct, frozen=True):
    """Let a schedule rest; what waits for the end of its last job is given up. As Resume."""

    name: str
    note: AuditNote | None = None


class Resume(Struct, frozen=True):
    """Let it go on with its next time from now. Result: ``done`` or ``missing``."""

    name: str
    note: AuditNote | None = None


class RunNow(Struct, frozen=True):
    """Enqueue a job of a schedule at once. Result: the job's id, ``None`` when it is missing."""

    name: str
    note: AuditNote | None = None


class Remove(Struct, frozen=True):
    """Delete a schedule; its jobs stay. Result: ``done``, ``missing`` or ``code``."""

    name: str
    note: AuditNote | None = None


Scheduling = Tick | Declare | Create | Update | Pause | Resume | RunNow | Remove


class ScheduledRun(Struct, frozen=True, kw_only=True):
    """The last job of a schedule."""

    job_id: str
    scheduled_for: datetime
    """Its nominal time."""
    state: State
    """Where it stands, or how it ended when its row is gone by now."""


STATUSES = ("active", "paused", "finished")


class Schedule(Struct, frozen=True, kw_only=True):
    """A schedule, as ``registry.schedules`` shows it."""

    name: str
    origin: str
    """``code`` or ``runtime``."""
    status: str
    """``active``, ``paused``, or ``finished``: it will not fire again."""
    sentence: str
    """When it fires, in English."""
    when: Cron | Every | At
    task: str
    queue: str
    arguments: Mapping[str, Any]
    """As plain JSON values, by parameter name."""
    catch_up: str
    overlap: str
    jitter: float
    """Seconds."""
    until: datetime | None
    max_runs: int | None
    created_at: datetime
    next_run: datetime | None
    """``None`` while it is paused, and once it is finished."""
    waiting_for: datetime | None
    """The time whose job waits for the end of the last one."""
    last_run: ScheduledRun | None
    runs: int
    """Jobs that it has made by time."""
    missed: int
    """Times that passed without a job since nobody was there, counted up to 10,000 a gap."""
    skipped: int
    """Times that passed without a job since the one before had not finished, or since the job is
    unique and one that is the same was there."""

    def __repr__(self) -> str:
        return f"<Schedule {self.name!r} of task {self.task!r}: {self.status}>"


class Timed(Protocol):
    """The part of a store that shows schedules."""

    async def schedules(
        self, *, limit: int, after: str, task: str | None = None, status: str | None = None
    ) -> list[Schedule]:
        """Schedules by name, from those after one on; of a task, or that stand so."""
        ...

    async def schedule(self, name: str) -> Schedule | None:
        """One schedule."""
        ...
