"""Durable jobs inside an asyncio application: one import, one file, no server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import Clock as Clock
    from .errors import ArgumentsTooLarge as ArgumentsTooLarge
    from .errors import AsyncJobsError as AsyncJobsError
    from .errors import Cancel as Cancel
    from .errors import CursorTooOld as CursorTooOld
    from .errors import DuplicateJob as DuplicateJob
    from .errors import Fail as Fail
    from .errors import FenceLost as FenceLost
    from .errors import ForeignDatabase as ForeignDatabase
    from .errors import IllegalMove as IllegalMove
    from .errors import InvalidArguments as InvalidArguments
    from .errors import InvalidOption as InvalidOption
    from .errors import InvalidResult as InvalidResult
    from .errors import JobCancelled as JobCancelled
    from .errors import JobCrashed as JobCrashed
    from .errors import JobError as JobError
    from .errors import JobExpired as JobExpired
    from .errors import JobFailed as JobFailed
    from .errors import JobSignal as JobSignal
    from .errors import JobTimedOut as JobTimedOut
    from .errors import KeyConflict as KeyConflict
    from .errors import MissingExtra as MissingExtra
    from .errors import NewerSchema as NewerSchema
    from .errors import ResourceFailed as ResourceFailed
    from .errors import ResultGone as ResultGone
    from .errors import ResultNotKept as ResultNotKept
    from .errors import RetryLater as RetryLater
    from .errors import RunnerAlreadyStarted as RunnerAlreadyStarted
    from .errors import RunnerClosed as RunnerClosed
    from .errors import RunnerFailed as RunnerFailed
    from .errors import RunnerNotStarted as RunnerNotStarted
    from .errors import ScanRequired as ScanRequired
    from .errors import ScheduleExists as ScheduleExists
    from .errors import Snooze as Snooze
    from .errors import SQLiteTooOld as SQLiteTooOld
    from .errors import StoreBusy as StoreBusy
    from .errors import StoreError as StoreError
    from .errors import StoreFull as StoreFull
    from .errors import StoreUnavailable as StoreUnavailable
    from .errors import TaskExists as TaskExists
    from .errors import UnfitConnection as UnfitConnection
    from .errors import UnknownJob as UnknownJob
    from .errors import UnknownSchedule as UnknownSchedule
    from .errors import UnknownTask as UnknownTask
    from .errors import WorkersFailed as WorkersFailed
    from .errors import WrongEventLoop as WrongEventLoop
    from .filters import JobFilter as JobFilter
    from .handle import JobHandle as JobHandle
    from .inventory import AuditEntry as AuditEntry
    from .inventory import BulkResult as BulkResult
    from .inventory import Count as Count
    from .inventory import InstanceInfo as InstanceInfo
    from .inventory import LimitStanding as LimitStanding
    from .inventory import Queue as Queue
    from .inventory import WorkerInfo as WorkerInfo
    from .records import Attempt as Attempt
    from .records import Job as Job
    from .records import JobOutcome as JobOutcome
    from .records import NewJob as NewJob
    from .records import Progress as Progress
    from .registrars import Tasks as Tasks
    from .registry import Registry as Registry
    from .rules.explaining import Explanation as Explanation
    from .rules.files import File as File
    from .rules.files import StoredFile as StoredFile
    from .rules.limiting import Limit as Limit
    from .rules.limiting import Rate as Rate
    from .rules.retry import Retry as Retry
    from .rules.timetable import At as At
    from .rules.timetable import Cron as Cron
    from .rules.timetable import Every as Every
    from .rules.uniqueness import Unique as Unique
    from .rules.window import Window as Window
    from .runner import Runner as Runner
    from .running.context import JobContext as JobContext
    from .running.context import JobStopped as JobStopped
    from .running.context import current_job as current_job
    from .running.resources import Resource as Resource
    from .states import State as State
    from .store.failures import Failure as Failure
    from .store.journal import Event as Event
    from .store.journal import LogLine as LogLine
    from .store.journal import LogPage as LogPage
    from .store.schedules import Schedule as Schedule
    from .store.schedules import ScheduledRun as ScheduledRun
    from .subscribing import Subscriber as Subscriber
    from .tasks import Task as Task

__version__ = "0.1.0"

# Imported at first use: a worker process must not load SQLite, nor a test of errors the engine.
_HOMES = {
    "errors": (
        "ArgumentsTooLarge AsyncJobsError Cancel CursorTooOld DuplicateJob Fail FenceLost "
        "ForeignDatabase IllegalMove "
        "InvalidArguments InvalidOption InvalidResult JobCancelled JobCrashed JobError JobExpired "
        "JobFailed JobSignal JobTimedOut KeyConflict MissingExtra NewerSchema ResourceFailed "
        "ResultGone ResultNotKept "
        "RetryLater RunnerAlreadyStarted RunnerClosed RunnerFailed RunnerNotStarted SQLiteTooOld "
        "ScanRequired ScheduleExists "
        "Snooze StoreBusy StoreError StoreFull StoreUnavailable TaskExists UnfitConnection "
        "UnknownJob UnknownSchedule UnknownTask WorkersFailed WrongEventLoop"
    ),
    "clock": "Clock",
    "filters": "JobFilter",
    "handle": "JobHandle",
    "inventory": "AuditEntry BulkResult Count InstanceInfo LimitStanding Queue WorkerInfo",
    "records": "Attempt Job JobOutcome NewJob Progress",
    "registrars": "Tasks",
    "registry": "Registry",
    "rules.explaining": "Explanation",
    "rules.files": "File StoredFile",
    "rules.limiting": "Limit Rate",
    "rules.retry": "Retry",
    "rules.timetable": "At Cron Every",
    "rules.uniqueness": "Unique",
    "rules.window": "Window",
    "runner": "Runner",
    "running.context": "JobContext JobStopped current_job",
    "running.resources": "Resource",
    "states": "State",
    "store.failures": "Failure",
    "store.journal": "Event LogLine LogPage",
    "store.schedules": "Schedule ScheduledRun",
    "subscribing": "Subscriber",
    "tasks": "Task",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'asyncjobs' has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
