"""The run of one job, and what the job itself sees of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from ..clock import to_datetime
from ..errors import JobSignal
from ..records import Claimed, Note, RunUsage, Transition, tags_from_json
from ..rules.carrying import Carry
from ..rules.codec import TaskCodec, decode_plain
from ..rules.joboptions import read_options
from ..rules.limiting import Limit
from ..rules.limits import AMOUNT_MAX
from ..rules.retention import Keep
from ..rules.retry import RetryPolicy
from ..states import NOT_KEPT
from .joblog import JobLogger
from .notes import Notes, check_progress

if TYPE_CHECKING:
    import sqlite3

    from ..store.sqlite.joining import AppConnection


class RunnableTask(Protocol):
    """What running needs to know of a task."""

    name: str
    function: Callable[..., Any]
    executor: str
    is_async: bool
    retry: RetryPolicy
    timeout: float | None
    retry_timeouts: bool
    module: str
    """Where it was made: what a worker imports to have it."""
    memory_limit: int | None
    log_level: int
    carry: Carry
    keep: Mapping[str, Keep]
    """How its finished jobs are kept, by state, where the runner does not say."""

    def start(self, runner: Any) -> None:
        """Its jobs may be enqueued through ``runner`` from now on."""
        ...

    @property
    def limit(self) -> Limit | None:
        """Of its jobs, by key."""
        ...

    @property
    def codec(self) -> TaskCodec:
        """How its arguments and results are stored."""
        ...


log = logging.getLogger("asyncjobs")
_first_word = threading.RLock()


class Run(msgspec.Struct, eq=False):
    """One claimed job while this process runs it.

    A Struct because its fields are read a dozen times a job: CPython 3.11 looks up attributes
    that only the class has the slow way.
    """

    job: Claimed
    task: RunnableTask
    host: Any
    """The dispatcher: lends slots, and knows the runner's state."""
    instance: str
    timeout: float | None
    """Seconds for this attempt."""
    retry: RetryPolicy
    asyncio_task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    """Until its time is up."""
    reminder: asyncio.TimerHandle | None = None
    """Until it is told again to stop."""
    stop_reason: str | None = None
    """Why it was told to stop: ``timeout``, ``user`` or ``shutdown``."""
    given_up: bool = False
    """True once its outcome is decided although it still runs."""
    cancel_reason: str = ""
    """What the user gave as the reason."""
    ended: bool = False
    """True once its code has returned."""
    lending: int = 0
    """How many awaits of other jobs its slot is lent for."""
    completes_in: bool = False
    """True once it has written its completion in a transaction of the application, which may be
    committed or not."""
    cause: BaseException | None = None
    """What it raised."""
    usage: RunUsage | None = None
    """What it has used, where that can be told: in a worker, or when it held the event loop."""
    notes: Notes | None = None
    """What it says of itself; made at its first word."""
    carried: dict[str, str] | None = None
    """What its context variables are to be."""
    followed: bool = False
    """Whether another job may follow its outcome."""
    limited: bool = False
    """Whether its job has a limit, so that others may wait for its end."""
    keep_result: bool = True
    """Whether what it returns is stored."""
    unread: int = 0
    """How many workers have ended before they could read it."""

    def set_carried(self) -> None:
        """Set the context variables that travelled with the job, those that are known here."""
        for name, value in (self.carried or {}).items():
            variable = self.task.carry.get(name)
            if variable is not None:
                variable.set(value)

    @property
    def adds(self) -> bool:
        """Whether its transition is to be complemented: only then, for most jobs add nothing."""
        return (
            self.notes is not None
            or self.usage is not None
            or self.followed
            or self.limited
            or not self.keep_result
        )

    def complement(self, transition: Transition) -> Transition:
        """The run's transition with all that goes to disk along with it."""
        drops = not self.keep_result and transition.result is not None
        return replace(
            transition,
            reason=NOT_KEPT if drops else transition.reason,
            note=self.collect_notes(),
            followed=self.followed,
            usage=self.usage,
            limited=self.limited,
        )

    def collect_notes(self) -> Note | None:
        """What it has said and is not known to be on disk."""
        job = self.job
        return None if self.notes is None else self.notes.collect(job.seq, job.claim, job.attempt)

    @classmethod
    def of(cls, job: Claimed, task: RunnableTask, host: Any) -> Run:
        """The run of ``job``, with its own options in place of its task's."""
        run = cls(job, task, host, host.instance, task.timeout, task.retry)
        if job.options is not None:
            run._apply(job.options)
        return run

    def _apply(self, stored: str) -> None:
        options = read_options(stored)
        if options is None:  # a job that cannot be understood must not end the runner
            log.warning("the options stored with job %s cannot be read; it runs with those of its "
                        "task", self.job.id)  # fmt: skip
            self.limited = True  # for all that is known
            return
        if options.timeout is not UNSET:
            self.timeout = options.timeout
        self.retry = options.retry or self.retry
        self.carried, self.followed = options.carried, options.followed
        self.limited = options.limited
        self.keep_result = options.keep_result

    def start_notes(self) -> Notes:
        """The run's notes, from its first word on, whichever of its threads says it."""
        notes = Notes()  # made first: what the garbage collector runs meanwhile may log as well
        with _first_word:
            if self.notes is None:
                self.notes = notes
            return self.notes

    def __repr__(self) -> str:
        return f"<Run of job {self.job.id}, task {self.task.name!r}>"


current_run: ContextVar[Run] = ContextVar("asyncjobs_current_run")


class JobContext:
    """What a job knows of itself: ``current_job()``."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def id(self) -> str:
        """The job's id, the same in every run."""
        return self._run.job.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._run.job.task

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self._run.job.queue

    @property
    def attempt(self) -> int:
        """Which charged attempt this is, from 1."""
        return self._run.job.attempt

    @property
    def fence(self) -> tuple[str, int]:
        """(instance, claim number): the claim number rises with every run, never repeats."""
        return (self._run.instance, self._run.job.claim)

    @property
    def idempotency_key(self) -> str:
        """The same in every run of this job: give it to services that know such keys."""
        return self._run.job.id

    @property
    def trigger(self) -> str:
        """What caused the job: ``api``, ``job:<id>``, ``schedule:<name>``, or a given text."""
        return self._run.job.trigger

    @property
    def scheduled_for(self) -> datetime | None:
        """The time that a schedule made it for, however late it runs; ``None`` without one."""
        stored = self._run.job.options
        options = None if stored is None else read_options(stored)
        if options is None or options.scheduled is None:
            return None
        return to_datetime(options.scheduled.at)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags given at enqueue."""
        return tags_from_json(self._run.job.tags)

    @property
    def meta(self) -> Mapping[str, Any]:
        """The meta given at enqueue."""
        return decode_plain(self._run.job.meta) or {}

    @property
    def state(self) -> Any:
        """What the application gave as ``Runner(state=...)``."""
        return self._run.host.state

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``job_id``, ``task`` and ``attempt``.

        What it is given from the task's ``log_level`` on is kept with the job, whatever the
        application's logging lets through.
        """
        return JobLogger(self._run)

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the job is: shown by its handle, in the registry and in events.

        Cheap enough for every turn of a loop: at most five values a second are written, and the
        last one always. From any thread. Does not wait.

        Args:
            done: from 0, in units of the job's own.
            total: how many there are, if the job knows.
            note: what it is doing, up to 1,024 characters; more are cut off.

        Raises:
            InvalidOption: a negative number, or none; or a note that is no text.
        """
        if not (
            type(done) is int
            and 0 <= done <= AMOUNT_MAX
            and (total is None or (type(total) is int and 0 <= total <= AMOUNT_MAX))
            and (note is None or type(note) is str)
        ):
            done, total, note = check_progress(done, total, note)
        run = self._run
        notes = run.notes or run.start_notes()
        notes.progress = (done, total, note)
        if not notes.dirty:
            notes.dirty = True
            run.host.notepad.jot(run)

    @property
    def stop_requested(self) -> bool:
        """True once somebody cancelled the job, its time is up, or the runner stops.

        A job in a thread cannot be interrupted: it looks at this and leaves. If it returns, it
        counts as completed; ``check_stop()`` ends it as it was told.
        """
        return self._run.stop_reason is not None

    def check_stop(self) -> None:
        """Leave the job if :attr:`stop_requested`.

        Raises:
            JobStopped: to be let through.
        """
        if self.stop_requested:
            raise JobStopped(self._run.stop_reason or "")

    async def complete_in(self, connection: AppConnection, result: Any = None) -> None:
        """Complete this job in the transaction that the application has open on ``connection``.

        Effect and completion are committed together, so that on this database the effect happens
        exactly once: after a crash the job runs again only if it was rolled back. Return soon
        after the commit. The job has its result by then: what its code returns or raises later is
        disregarded, the latter with a warning in the log. After a rollback it counts as ever.

        Args:
            connection: an aiosqlite or sqlite3 connection on the runner's database.
            result: what ``await handle`` is to give.

        Raises:
            FenceLost: the job was rescued, retried or deleted meanwhile, or this run has ended:
                let it through, so that the transaction is rolled back.
            InvalidResult: the result does not fit the task's annotation.
            UnfitConnection: closed, in no transaction, on another file, less durable, ...
            StoreBusy, StoreError: it could not be written.
        """
        await self._run.host.completer.complete(self._run, connection, result)

    def complete_in_thread(self, connection: sqlite3.Connection, result: Any = None) -> None:
        """:meth:`complete_in` for a ``def`` task: with a sqlite3 connection of its own thread.

        Raises:
            FenceLost, InvalidResult, UnfitConnection, StoreError: as :meth:`complete_in`.
        """
        self._run.host.completer.complete_here(self._run, connection, result)

    def __repr__(self) -> str:
        return f"<JobContext of job {self.id}, task {self.task!r}, attempt {self.attempt}>"


class JobStopped(JobSignal):
    """Raised by ``check_stop()``: the job leaves because it was told to."""

    __module__ = "asyncjobs"  # as those of errors.py


def current_job() -> JobContext:
    """The job that is running here: in its coroutine, its thread, and the tasks it starts.

    Raises:
        LookupError: outside a job.
    """
    run = current_run.get(None)
    if run is None:
        raise LookupError("current_job() works only inside a job")
    return JobContext(run)
