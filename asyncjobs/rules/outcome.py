"""The one decision: a running job, what happened to it, and the time, make a transition."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ..clock import to_microseconds
from ..records import ErrorRecord, Transition
from ..states import Event


class Run(Protocol):
    """What a decision needs to know of a run: a claimed job, or a row of a dead instance."""

    @property
    def seq(self) -> int:
        """The job's row."""
        ...

    @property
    def claim(self) -> int:
        """The fence's number."""
        ...

    @property
    def queue(self) -> str:
        """Its queue."""
        ...

    @property
    def task(self) -> str:
        """Its task."""
        ...

    @property
    def attempt(self) -> int:
        """The charged attempt, from 1."""
        ...


class Returned(Struct, frozen=True, gc=False):
    """The job returned; its value as JSON, ``None`` for None."""

    result: str | None

    def __repr__(self) -> str:
        # Without the value: in debug mode asyncio logs what a thread hands to the loop.
        return "<Returned>"


class Raised(NamedTuple):
    """The job raised, ran out of time, or returned what cannot be stored."""

    error: ErrorRecord
    retry_in: float | None
    """Seconds until the next attempt by its retry policy; ``None`` when there is none."""
    reason: str = "error"
    key_closed_for: float | None = None
    """Seconds for which no other job of its limit's key is to start."""


class Snoozed(NamedTuple):
    """The job asked to be run again later, without using up an attempt."""

    seconds: float
    key_closed_for: float | None = None
    """Seconds for which no other job of its limit's key is to start."""


class Cancelled(NamedTuple):
    """The job was cancelled, by somebody or by itself."""

    reason: str
    """``user``, or what the job itself gave: its own text, ``job`` when it gave none."""


class Released(NamedTuple):
    """The run was given back unfinished: the runner stops."""

    reason: str = "shutdown"


class Crashed(NamedTuple):
    """The process that ran the job is gone."""

    detail: str
    crashes: int
    """Before this one."""
    max_crashes: int
    output: str = ""
    """What the process has written last, where that is known."""


Happened = Returned | Raised | Snoozed | Cancelled | Released | Crashed


def decide(run: Run, happened: Happened, now: int, *, cancel_requested: bool = False) -> Transition:
    """What becomes of ``run``. Pure: the same question always gets the same answer.

    Where somebody asked to cancel the job, only its completion comes before that.
    """
    if isinstance(happened, Returned):
        return Transition(
            run.seq, run.claim, run.queue, run.task, Event.COMPLETED, now, None, None, False,
            happened.result,
        )  # fmt: skip
    if cancel_requested:
        return _transition(run, Event.CANCELLED, now, reason="user")
    match happened:
        case Raised(error, retry_in, reason, key_closed_for):
            transition = _after_error(run, error, retry_in, reason, now)
            return _closing(transition, key_closed_for, now)
        case Snoozed(seconds, key_closed_for):
            due = now + to_microseconds(seconds)
            transition = _back_to_queue(run, Event.SNOOZED, now, run_at=due, reason="snooze")
            return _closing(transition, key_closed_for, now)
        case Cancelled(reason):
            return _transition(run, Event.CANCELLED, now, reason=reason)
        case Released(reason):
            return _back_to_queue(run, Event.RELEASED, now, run_at=now, reason=reason)
        case Crashed(
            detail, crashes, max_crashes, output
        ):  # pragma: no branch - nothing else is left
            error = ErrorRecord("asyncjobs.JobCrashed", detail, output)
            if crashes + 1 >= max_crashes:
                return _transition(run, Event.FAILED, now, reason="crash",
                                  uncharge=True, error=error)  # fmt: skip
            return _back_to_queue(run, Event.RESCUED, now, run_at=now, reason="crash", error=error)


def _closing(transition: Transition, seconds: float | None, now: int) -> Transition:
    if seconds is None:
        return transition
    return replace(transition, key_opens_at=now + to_microseconds(seconds))


def cancelled_instead(transition: Transition) -> Transition:
    """What becomes of a job that was to run again, when somebody has asked to cancel it."""
    return replace(
        transition, event=Event.CANCELLED, run_at=None, reason="user", uncharge=False, error=None
    )


def _after_error(
    run: Run, error: ErrorRecord, retry_in: float | None, reason: str, now: int
) -> Transition:
    if retry_in is None:
        if reason == "error" and run.attempt > 1:
            reason = "retries_exhausted"
        return _transition(run, Event.FAILED, now, reason=reason, error=error)
    due = now + to_microseconds(retry_in)
    return _transition(run, Event.RETRYING, now, run_at=due, reason=reason, error=error)


def _back_to_queue(
    run: Run, event: Event, now: int, *, run_at: int, reason: str, error: ErrorRecord | None = None
) -> Transition:
    return _transition(run, event, now, run_at=run_at, reason=reason, uncharge=True, error=error)


def _transition(
    run: Run,
    event: Event,
    now: int,
    *,
    run_at: int | None = None,
    reason: str | None = None,
    uncharge: bool = False,
    error: ErrorRecord | None = None,
) -> Transition:
    return Transition(
        run.seq, run.claim, run.queue, run.task, event, now, run_at, reason, uncharge, None, error
    )
