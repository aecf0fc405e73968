"""Every error of this library, in one tree.

AsyncJobsError
├── InvalidOption            an option that cannot mean anything; also a ValueError
│   ├── ScanRequired         a listing that would read too much; scan=True allows it
│   ├── TaskExists           a second task of one name
│   ├── ScheduleExists       a second schedule of one name
│   └── UnfitConnection      the application's connection cannot be joined; says why
├── InvalidArguments         a job's arguments do not fit its task; also a TypeError
│   └── ArgumentsTooLarge
├── InvalidResult            what a job returned cannot be stored (recorded on the job)
├── UnknownTask              a task that this runner was never told about
├── UnknownJob               no such job in this database; also a LookupError
├── UnknownSchedule          no such schedule; also a LookupError
├── KeyConflict              the idempotency key belongs to a job with other arguments
├── DuplicateJob             a job that counts as the same is there, and on_conflict="raise"
├── FenceLost                this run no longer holds its job: roll back
├── CursorTooOld             the journal no longer holds what comes after; also a LookupError
├── MissingExtra             a part that needs a package that is not installed; an ImportError
├── IllegalMove              the job's state does not allow it; says which state
├── RunnerNotStarted
│   └── RunnerClosed         it was started once, and has stopped
├── RunnerAlreadyStarted
├── RunnerFailed             the runner's own task died; carries the cause
├── ResourceFailed           a resource's setup raised, or it ended too early; carries the cause
├── WorkersFailed            subprocess workers cannot be had: a module does not import there
├── WrongEventLoop           the runner lives in another event loop than the caller
├── StoreError               the database, not the job
│   ├── StoreUnavailable     it cannot be opened: place, rights, not a database, foreign
│   │   ├── ForeignDatabase
│   │   ├── NewerSchema
│   │   └── SQLiteTooOld
│   ├── StoreBusy            somebody else held the write lock for too long
│   └── StoreFull            the disk or the size limit is reached
└── JobError                 an awaited job did not complete
    ├── JobFailed
    │   ├── JobTimedOut
    │   └── JobCrashed
    ├── JobCancelled
    │   └── JobExpired
    ├── ResultNotKept        it completed, but keep_result=False and this handle was not there
    └── ResultGone           the row is no longer here: pruned, deleted, never was

JobSignal is apart: what a job raises to say something other than "it failed".
No message ever holds the value of a job's argument.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

__all__ = [
    "ArgumentsTooLarge",
    "AsyncJobsError",
    "Cancel",
    "CursorTooOld",
    "DuplicateJob",
    "Fail",
    "FenceLost",
    "ForeignDatabase",
    "IllegalMove",
    "InvalidArguments",
    "InvalidOption",
    "InvalidResult",
    "JobCancelled",
    "JobCrashed",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobSignal",
    "JobTimedOut",
    "KeyConflict",
    "MissingExtra",
    "NewerSchema",
    "ResourceFailed",
    "ResultGone",
    "ResultNotKept",
    "RetryLater",
    "RunnerAlreadyStarted",
    "RunnerClosed",
    "RunnerFailed",
    "RunnerNotStarted",
    "SQLiteTooOld",
    "ScanRequired",
    "ScheduleExists",
    "Snooze",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "TaskExists",
    "UnfitConnection",
    "UnknownJob",
    "UnknownSchedule",
    "UnknownTask",
    "WorkersFailed",
    "WrongEventLoop",
]


SHOWN_MAX = 50
"""Characters of a wrong value that a message repeats."""
_PLAIN = (bool, int, float, str, timedelta, datetime, date)


def shown(value: object) -> str:
    """A wrong option for a message: its type, and its value where that is plain and short."""
    kind = type(value)
    if value is None or kind not in _PLAIN:
        return "None" if value is None else kind.__name__
    try:
        text = ascii(value) if kind is str else str(value)
    except ValueError:  # an integer of thousands of digits
        return kind.__name__
    return f"{kind.__name__} {text}" if len(text) <= SHOWN_MAX else kind.__name__


class AsyncJobsError(Exception):
    """The root: catch it to catch everything that asyncjobs raises on its own account."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from ``args`` alone; keyword-only data would be lost on the way
        # through a process pool of the application.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[Exception], args: tuple[Any, ...], data: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(data)
    return error


class InvalidOption(AsyncJobsError, ValueError):
    """An option has a value that cannot mean anything. The message names both."""


class ScanRequired(InvalidOption):
    """No index bounds what these filters would read. The message says which filter would help.

    With ``scan=True`` it is read all the same, on a connection of its own.
    """


class TaskExists(InvalidOption):
    """Two different tasks were given one name."""


class ScheduleExists(InvalidOption):
    """There is a schedule of that name."""


class UnfitConnection(InvalidOption):
    """``tx=``, ``transaction`` or ``complete_in`` was given a connection that cannot serve.

    ``reason`` says why in a word: ``closed``, ``other_thread``, ``other_file``, ``durability``,
    ``no_transaction``, ``in_transaction``, ``no_tables``, ``schema``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidArguments(AsyncJobsError, TypeError):
    """The arguments do not fit the task's signature, or would not come back equal.

    Raised at enqueue, before anything is stored. Names the argument, never its value.
    """


class ArgumentsTooLarge(InvalidArguments):
    """The arguments take more than 1 MiB as JSON. Store the data, pass a reference."""


class InvalidResult(AsyncJobsError):
    """A job returned what its annotation forbids, or what cannot be stored.

    The job fails with this as its recorded error; only ``complete_in`` raises it.
    """


class UnknownTask(AsyncJobsError, LookupError):
    """A task belongs to no runner, or to another one: call ``runner.include`` first."""


class UnknownJob(AsyncJobsError, LookupError):
    """No job with this id is in the database."""


class UnknownSchedule(AsyncJobsError, LookupError):
    """No schedule of this name is in the database."""


class KeyConflict(AsyncJobsError):
    """The idempotency key is in use by a job of the same task with other arguments."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class DuplicateJob(AsyncJobsError):
    """A job that counts as the same stands in the way; ``job_id`` names it. See ``Unique``."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class FenceLost(AsyncJobsError):
    """``complete_in`` came too late: the job is no longer this run's to complete.

    Let it through, so that the transaction is rolled back, and with it the run's effect.
    """


class CursorTooOld(AsyncJobsError, LookupError):
    """The events after this cursor are past the journal's retention: some would be missed."""


class MissingExtra(AsyncJobsError, ImportError):
    """A part of the library needs a package that is not installed; the message names the extra."""


class IllegalMove(AsyncJobsError):
    """The job is in a state that does not allow what was asked, such as retrying a running one."""


class RunnerNotStarted(AsyncJobsError, RuntimeError):
    """The runner was never started: use it inside ``async with runner:``."""


class RunnerClosed(RunnerNotStarted):
    """The runner was started once and has stopped."""


class RunnerAlreadyStarted(AsyncJobsError, RuntimeError):
    """One runner object runs once at a time."""


class RunnerFailed(AsyncJobsError, RuntimeError):
    """The runner's own task died. ``__cause__`` says of what. Accepted jobs are safe on disk."""


class ResourceFailed(AsyncJobsError, RuntimeError):
    """A resource could not be set up, or has ended while the runner ran on.

    ``__cause__`` is what its function raised.
    """


class WorkersFailed(AsyncJobsError, RuntimeError):
    """Subprocess workers cannot be had; the message says why.

    A module of a task does not import there, has no such task, or starts a runner when it is
    imported.
    """


class WrongEventLoop(AsyncJobsError, RuntimeError):
    """The call came from another event loop than the runner's, as from a job in a thread.

    ``asyncio.run_coroutine_threadsafe(..., runner.loop)`` brings it there.
    """


class StoreError(AsyncJobsError):
    """The database refused or failed. What was asked may be repeated with the same ``NewJob``."""


class StoreUnavailable(StoreError):
    """The database cannot be opened, or what is there is no asyncjobs database."""


class ForeignDatabase(StoreUnavailable):
    """A database with tables of somebody else, and ``shared=True`` was not given."""


class NewerSchema(StoreUnavailable):
    """The database was written by a newer asyncjobs. It is left untouched."""


class SQLiteTooOld(StoreUnavailable):
    """The SQLite library that Python was built with is older than 3.35."""


class StoreBusy(StoreError):
    """Another program held the write lock for longer than an enqueue waits (5 s)."""


class StoreFull(StoreError):
    """The disk is full, or the database reached its size limit."""


class JobError(AsyncJobsError):
    """An awaited job did not complete.

    Attributes:
        job_id: the job's id.
        reason: why it ended as it did: ``error``, ``timeout``, ``crash``, ``user`` …
        error_type: qualified name of the exception that the job raised, if it raised one.
        error_message: that exception's text.
        traceback: its traceback as text (at most 64 KiB), from where the job ran.

    When the exception happened in this very process it is also the ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        reason: str | None = None,
        error_type: str | None = None,
        error_message: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.reason = reason
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback


class JobFailed(JobError):
    """The job raised, and its retry policy is used up. Not raised while a retry is to come."""


class JobTimedOut(JobFailed):
    """The last attempt ran longer than its timeout."""


class JobCrashed(JobFailed):
    """The process that ran the job died, more often than ``max_crashes`` allows."""


class JobCancelled(JobError):
    """Somebody cancelled the job, or it cancelled itself with ``raise Cancel(...)``.

    Not raised when the *awaiter* is cancelled: that is ``asyncio.CancelledError`` as ever,
    and leaves the job alone.
    """


class JobExpired(JobCancelled):
    """The job was not started before its ``expires`` time."""


class ResultNotKept(JobError):
    """The job completed and returned something, which ``keep_result=False`` did not store.

    Not raised by handles that were held in the process where the job ended: they have it.
    """


class ResultGone(JobError):
    """The job's row is not in the database: pruned by retention, deleted, or never there."""


class JobSignal(Exception):
    """What a job may raise to say something other than "it failed"."""

    def __reduce__(self) -> tuple[Any, ...]:
        # As of AsyncJobsError: by ``args`` the message would come back as the delay.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _seconds(delay: float | timedelta, option: str) -> float:
    # Here, at the line that is wrong; whether it is in range is asked by who knows the range.
    if isinstance(delay, timedelta):
        return delay.total_seconds()
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise InvalidOption(
            f"{option} must be seconds (int, float) or a timedelta, got {shown(delay)}"
        )
    return delay


def _flag(value: object, option: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(f"{option} must be True or False, got {shown(value)}")
    return value


class RetryLater(JobSignal):
    """Run this job again after ``delay`` seconds; uses up an attempt.

    When no attempt is left the job fails with reason ``retries_exhausted``. So after an answer "429
    Too Many Requests", which is no failure of the job, use :class:`Snooze`.

    With ``whole_key`` no other job of its limit's key starts before that either; what runs goes on.
    Without a limit it means nothing more, and a warning says so.
    """

    def __init__(
        self, delay: float | timedelta, reason: str = "", *, whole_key: bool = False
    ) -> None:
        seconds = _seconds(delay, "RetryLater(delay)")
        super().__init__(reason or f"retry in {seconds:g} s")
        self.delay = delay
        self.whole_key = _flag(whole_key, "RetryLater(whole_key)")


class Snooze(JobSignal):
    """Run this job again after ``delay`` seconds; uses up no attempt.

    With ``whole_key`` no other job of its limit's key starts before that either, as after an
    answer "429 Too Many Requests"; what runs goes on. Without a limit it means nothing more, and a
    warning says so.
    """

    def __init__(
        self, delay: float | timedelta, reason: str = "", *, whole_key: bool = False
    ) -> None:
        seconds = _seconds(delay, "Snooze(delay)")
        super().__init__(reason or f"snooze for {seconds:g} s")
        self.delay = delay
        self.whole_key = _flag(whole_key, "Snooze(whole_key)")


class Cancel(JobSignal):
    """End this job as cancelled, with a reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Fail(JobSignal):
    """End this job as failed, with a reason and without further attempts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


# They show under the name that one catches them by, in tracebacks and as a job's error_type.
for _name in __all__:
    globals()[_name].__module__ = "asyncjobs"
