"""The records that cross floors. Frozen; instants are integer microseconds UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from .clock import to_datetime
from .states import FINISHED, MOVES, Event, State

R_co = TypeVar("R_co", covariant=True)

SUMMARY_MAX = 200
"""Characters of an error's text that go into one line: a log record, an exception's message."""


class JobLimit(Struct, frozen=True, omit_defaults=True):
    """The key that a new job is limited by, and what it allows."""

    name: str
    """The task, or what several tasks call the limit that they share."""
    key: str
    running: int | None = None
    rate: tuple[int, int, int] | None = None
    """Jobs, microseconds of the period, burst."""
    ordered: bool = False
    stops: bool = False
    """Whether a job that fails for good keeps its permit."""
    kept: bool = False
    """It was given earlier, with a schedule or a callback: a key that is there stays as it is."""

    def __repr__(self) -> str:
        return f"<JobLimit of {self.name!r}>"  # the key comes from arguments


UNIQUE = "\x01"
"""What the keys of unique jobs begin with; those that a user gives have no such character."""


class Hold(Struct, frozen=True, gc=False):
    """For how long a job's key is held, and what the job does when another one holds it."""

    held: str
    """For how long: ``queued`` (until it first starts), ``unfinished`` or ``window``."""
    on_conflict: str
    """``existing``, ``raise``, ``replace`` or ``debounce``."""
    microseconds: int = 0
    """Of a window, from acceptance; or how far a debounced job is pushed back."""
    longest: int = 0
    """Microseconds after acceptance up to which it is pushed back."""


class NewJob(Struct, Generic[R_co], frozen=True, gc=False):
    """One job, checked and ready to be enqueued, as often as one likes: the id makes it one row.

    Made by ``task.job(...)`` or ``task.options(...).job(...)``.
    """

    id: str
    task: str
    arguments: str
    queue: str
    created_at: int
    run_at: int | None = None
    """``None`` means "at once": the store puts the instant at which it accepted the job."""
    delay: int | None = None
    """Microseconds after the store accepted the job. Not together with ``run_at``."""
    priority: int = 0
    max_crashes: int = 3
    key: str | None = None
    trigger: str = "api"
    tags: tuple[str, ...] = ()
    meta: str | None = None
    options: str | None = None
    expires: int | None = None
    """Microseconds after the store accepted the job: not started by then, it is cancelled."""
    expires_at: int | None = None
    """The same as an instant. Not together with ``expires``."""
    own_retention: bool = False
    """Whether its task says how long it stays."""
    limit: JobLimit | None = None
    hold: Hold | None = None
    """Of a unique job: its key, which begins with :data:`UNIQUE`, is not held by its row."""

    def __repr__(self) -> str:
        return f"<NewJob {self.id} of task {self.task!r}>"


class Accepted(NamedTuple):
    """The job that was there already when one was enqueued with its id, its key or its hold."""

    job_id: str
    conflict: bool
    """True when nothing was enqueued, and that is an error: the key's job has other arguments."""
    replaced: bool = False
    """True when that job waits, and has taken over what the new one brought."""


class Claimed(Struct, frozen=True, gc=False):
    """A job this instance may now run: the claim is on disk."""

    seq: int
    id: str
    task: str
    queue: str
    claim: int
    attempt: int
    crashes: int
    snoozes: int
    trigger: str
    tags: str | None
    options: str | None
    payload: str | None
    """Arguments and meta as two lines of JSON; ``None`` when there are none."""
    run_at: int
    max_crashes: int
    expires_at: int | None = None

    @property
    def on_probation(self) -> bool:
        """Whether one more crash would end it: see ``Claim.probation``."""
        return self.crashes > 0 and self.crashes + 1 >= self.max_crashes

    @property
    def arguments(self) -> str | None:
        """The arguments as JSON; ``None`` when there are none."""
        return None if self.payload is None else self.payload.partition("\n")[0]

    @property
    def meta(self) -> str | None:
        """The meta as JSON; ``None`` when there is none."""
        return None if self.payload is None else self.payload.partition("\n")[2] or None

    def __repr__(self) -> str:
        # Short on purpose: asyncio and aiosqlite log what passes through them.
        return f"<Claimed job {self.id} of task {self.task!r}, claim {self.claim}>"


class ErrorRecord(Struct, frozen=True, gc=False):
    """An exception as data."""

    type: str
    message: str
    traceback: str = ""
    place: str = ""
    """Where in the user's own code it came from, as ``module:function:line``."""

    @property
    def summary(self) -> str:
        """Type and message in one line of at most :data:`SUMMARY_MAX` characters."""
        return in_one_line(f"{self.type}: {self.message}" if self.message else self.type)


class RunUsage(Struct, frozen=True, gc=False):
    """What one run has used, and what it wrote to its standard streams, where that can be told."""

    cpu_seconds: float | None = None
    peak_rss: int | None = None
    """Bytes."""
    output: str = ""
    """The last 64 KiB."""
    loop_blocks: int = 0
    """How often it was seen holding the event loop for too long."""

    def __repr__(self) -> str:
        return f"<RunUsage {self.cpu_seconds} CPU seconds, {self.peak_rss} bytes>"


class ProgressValue(NamedTuple):
    """What a run said of how far it is."""

    number: int
    """Rises with each value of a run, so that an older one never takes the place of a newer."""
    done: int | float
    total: int | float | None
    note: str | None


class LogEntry(NamedTuple):
    """A line that a run logged."""

    number: int
    """Counts the run's lines from 1; where one is missing, it was dropped."""
    at: int
    level: str
    logger: str
    text: str

    @property
    def size(self) -> int:
        """Bytes that count towards the job's limit."""
        text = self.text
        return (len(text) if text.isascii() else len(text.encode())) + len(self.logger)


class Note(Struct, frozen=True, gc=False):
    """What a run has said of itself and is not known to be on disk."""

    seq: int
    claim: int
    attempt: int
    progress: ProgressValue | None = None
    lines: Sequence[LogEntry] = ()

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        weight = sum(len(line.text) + 64 for line in self.lines)
        return weight + 64 + len(self.progress.note or "") if self.progress else weight

    def __repr__(self) -> str:
        return f"<Note of job {self.seq}, claim {self.claim}>"


class Callback(Struct, frozen=True, omit_defaults=True):
    """The job that is to follow another one's outcome."""

    task: str
    parameter: str
    """Which of its parameters takes the outcome."""
    queue: str = "default"
    priority: int = 0
    max_crashes: int = 3
    options: msgspec.Raw = msgspec.Raw(b"null")
    """What is kept with its own row, its own callbacks among it. As it is, for text in text in text
    would double its backslashes with every callback of a callback."""
    expires: int | None = None
    own_retention: bool = False
    limit: JobLimit | None = None


class Occurrence(Struct, frozen=True, omit_defaults=True):
    """What a job knows of the schedule that made it; kept with its stored options."""

    name: str
    at: int
    """The time that it is for."""
    by_hand: bool = False


class JobOutcome(Struct, frozen=True, kw_only=True):
    """How a job ended: the argument of ``on_complete`` and ``on_failure`` tasks."""

    job_id: str
    task: str
    state: State
    """``completed``, ``failed`` or ``cancelled``."""
    reason: str | None = None
    result: Any = None
    """As plain JSON."""
    result_left_out: bool = False
    """True for a result of more than 512 KiB: ``runner.handle(job_id)`` has it."""
    error: ErrorRecord | None = None

    def __repr__(self) -> str:
        return f"<JobOutcome of job {self.job_id}, task {self.task!r}: {self.state}>"


class Transition(Struct, frozen=True, gc=False):
    """One decided move of a running job. The store writes it if the fence still holds."""

    seq: int
    claim: int
    queue: str
    task: str
    event: Event
    at: int
    run_at: int | None = None
    """Due time of the next run; ``None`` when there is none."""
    reason: str | None = None
    uncharge: bool = False
    """True gives the attempt back: snoozes, releases and crashes use up none."""
    result: str | None = None
    error: ErrorRecord | None = None
    usage: RunUsage | None = None
    note: Note | None = None
    """What the run said last: written with the outcome, so that it is not lost."""
    followed: bool = False
    """Whether another job may follow the outcome."""
    limited: bool = False
    """Whether the job has a limit, so that others may wait for its end."""
    key_opens_at: int | None = None
    """Before which no other job of the limit's key is to start."""

    @property
    def state(self) -> State:
        """The state that the event leads to."""
        state = MOVES[self.event][1]
        assert state is not None
        return state

    def __repr__(self) -> str:
        return f"<Transition of job {self.seq}, claim {self.claim}: {self.event}>"


class Outcome(Struct, frozen=True, gc=False):
    """How a job ended: what an awaited handle is resolved with."""

    task: str
    state: State
    reason: str | None = None
    result: str | None = None
    error: ErrorRecord | None = None

    def __repr__(self) -> str:
        return f"<Outcome of a job of task {self.task!r}: {self.state}>"


class Attempt(Struct, frozen=True, kw_only=True):
    """One run of a job, as ``registry.attempts`` shows it."""

    number: int
    """The charged attempt, from 1. A run that crashed, was snoozed or released repeats it."""
    claim: int
    event: Event | None
    """How it ended; ``None`` while it runs."""
    reason: str | None
    instance: str
    started_at: datetime
    finished_at: datetime | None
    error: ErrorRecord | None = None
    cpu_seconds: float | None = None
    """This and the next two only of runs in workers: the executors ``process`` and ``isolated``."""
    peak_rss: int | None = None
    """Bytes."""
    output: str = ""
    """What it wrote to its standard output and error: the last 64 KiB."""
    loop_blocks: int = 0
    """How often it held the event loop for longer than ``loop_block_seconds``."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a job said it is."""

    done: int | float
    total: int | float | None
    """``None`` where the job does not know."""
    note: str | None
    at: datetime
    """When it was written: within a fifth of a second after the job said it."""


class Job(Struct, frozen=True, kw_only=True):
    """A snapshot of one row of the registry."""

    seq: int
    id: str
    task: str
    queue: str
    state: State
    reason: str | None
    priority: int
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    instance: str | None
    claim: int
    attempt: int
    crashes: int
    snoozes: int
    max_crashes: int
    key: str | None
    trigger: str
    tags: tuple[str, ...]
    cancel_reason: str | None
    expires_at: datetime | None
    """Not started by then, it is cancelled; a first start is all that it takes."""
    fingerprint: str | None
    """Of a failed job: what it shares with others that failed alike."""
    status: str
    """The state, or the derived one: ``scheduled`` (due later), ``retrying`` (failed before)."""
    arguments: Mapping[str, Any] | None
    """As plain JSON values, by parameter name. ``None`` in a listing when over 8 KiB."""
    meta: Mapping[str, Any]
    result: Any = None
    """As plain JSON, not in listings; ``await handle`` gives it back typed. ``None`` and the reason
    ``result_not_kept`` where ``keep_result=False`` left it out."""
    error: ErrorRecord | None = None
    """Of the last attempt that failed, if any did; in listings without the traceback."""
    progress: Progress | None = None
    """What the last run that said anything said last."""

    @property
    def finished(self) -> bool:
        """True in ``completed``, ``failed`` and ``cancelled``."""
        return self.state in FINISHED

    @property
    def duration(self) -> timedelta | None:
        """How long the last run took; ``None`` before its end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at

    def __repr__(self) -> str:
        return f"<Job {self.id} of task {self.task!r}: {self.status}>"


def derived_state(state: State, *, attempt: int, run_at: int, now: int) -> str:
    """The state to show: a queued job is ``retrying`` or ``scheduled`` when that says more."""
    if state is State.QUEUED:
        if attempt > 0:
            return "retrying"
        if run_at > now:
            return "scheduled"
    return state.value


def optional_datetime(instant: int | None) -> datetime | None:
    """``instant`` as a datetime, ``None`` as ``None``."""
    return None if instant is None else to_datetime(instant)


def tags_from_json(tags: str | None) -> tuple[str, ...]:
    """Tags as stored, as a tuple."""
    return () if tags is None else msgspec.json.decode(tags, type=tuple[str, ...])


def in_one_line(text: str, most: int = SUMMARY_MAX) -> str:
    """Users' text for a log record or a message: escaped, at most ``most`` characters long."""
    line = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return line if len(line) <= most else line[: most - 1] + "…"
