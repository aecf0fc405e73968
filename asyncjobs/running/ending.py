"""From what a job's code did to what happened, in the words of the rules."""

from __future__ import annotations

import asyncio
import logging
import os
import sysconfig
import traceback
from random import Random
from types import TracebackType

from msgspec.structs import replace

from ..clock import to_seconds
from ..errors import Cancel, Fail, InvalidOption, JobSignal, RetryLater, Snooze
from ..records import ErrorRecord
from ..rules.fingerprint import Frame, place_of
from ..rules.limits import ERROR_MAX, MESSAGE_MAX, NAME_MAX, storable
from ..rules.outcome import Cancelled, Crashed, Happened, Raised, Released, Snoozed
from ..rules.retry import Retry, next_delay
from ..states import Event
from .context import JobStopped, Run

log = logging.getLogger("asyncjobs")

TIMEOUT_ERROR = "asyncjobs.JobTimedOut"

# What is no code of the user's: Python, what is installed, and ourselves.
_LIBRARIES = tuple(
    sorted(
        {
            os.path.join(sysconfig.get_path(name), "")
            for name in ("stdlib", "platstdlib", "purelib", "platlib")
        }
        | {os.path.join(os.path.dirname(os.path.dirname(__file__)), "")}
    )
)


def exception_happened(run: Run, error: BaseException, random: Random) -> Happened:
    """What it means that the job's code raised ``error``."""
    if isinstance(error, JobSignal) and not isinstance(error, JobStopped):
        try:
            return _signal_happened(run, error)
        except InvalidOption as invalid:  # such as raise Snooze(-1)
            error = invalid
    if run.stop_reason is not None:
        return stopped_happened(run, random)
    run.cause = error
    return Raised(error_record(error), _retry_in(run, error, random))


def timeout_happened(run: Run, random: Random) -> Happened:
    """What it means that the job's time is up."""
    timed_out = TimeoutError(f"ran longer than its timeout of {run.timeout:g} s")
    run.cause = timed_out
    retry_in = _retry_in(run, timed_out, random) if run.task.retry_timeouts else None
    return Raised(ErrorRecord(TIMEOUT_ERROR, str(timed_out)), retry_in, "timeout")


def stopped_happened(run: Run, random: Random) -> Happened:
    """What it means that a run came to its end because it was stopped, without a word of its own.

    It has to be one that was told to stop.
    """
    match run.stop_reason:
        case "timeout":
            return timeout_happened(run, random)
        case "user":
            return Cancelled("user")
    return Released("shutdown")


def worker_lost(run: Run, detail: str, output: str, random: Random) -> Happened:
    """What it means that a run's worker has ended: it crashed, unless it was being stopped."""
    if run.stop_reason is not None:
        return stopped_happened(run, random)
    job = run.job
    return Crashed(storable(detail, MESSAGE_MAX), job.crashes, job.max_crashes, output)


def memory_happened(run: Run, limit: int, random: Random) -> Happened:
    """What it means that a run's worker was killed because it crossed the job's memory limit."""
    if run.stop_reason is not None:
        return stopped_happened(run, random)
    error = MemoryError(f"needed more than its memory_limit of {limit} bytes")
    run.cause = error
    return Raised(error_record(error), _retry_in(run, error, random), "memory_limit")


def refusal_happened(run: Run, error: BaseException, reason: str) -> Happened:
    """What it means that arguments or result do not fit: running again would not help."""
    run.cause = error
    return Raised(error_record(error), None, reason)


def log_error(run: Run, error: ErrorRecord, event: Event) -> None:
    """One line for an attempt that failed, without its traceback, which is in the registry."""
    log.warning(
        "job %s of task %r, attempt %d: %s after %s",
        run.job.id, run.job.task, run.job.attempt, event, error.summary,
    )  # fmt: skip


def log_late(run: Run) -> None:
    """A value that comes after the outcome was decided."""
    log.warning(
        "job %s of task %r returned after its outcome was decided; its value is refused",
        run.job.id, run.job.task,
    )  # fmt: skip


def log_keyless(run: Run) -> None:
    """A job without a limit that wanted its whole key to wait."""
    log.warning(
        "job %s of task %r raised whole_key=True, but has no limit: it alone waits. Give the task "
        "one, such as Limit(key='tenant_id'). This is said once for the task",
        run.job.id, run.job.task,
    )  # fmt: skip


def log_unstoppable(run: Run) -> None:
    """Code that was told to stop, again and again."""
    log.error(
        "job %s of task %r does not stop (%s); it runs on",
        run.job.id, run.task.name, run.stop_reason,
    )  # fmt: skip


def log_stubborn(run: Run) -> None:
    """Code that a stopping runner has to leave behind."""
    log.error(
        "job %s of task %r did not stop within its grace; it runs on, and is given back to the "
        "queue once this process has ended", run.job.id, run.job.task,
    )  # fmt: skip


def _signal_happened(run: Run, signal: JobSignal) -> Happened:
    match signal:
        case Snooze():
            seconds = to_seconds(signal.delay, f"{type(signal).__name__}(delay)")
            return Snoozed(seconds, seconds if signal.whole_key else None)
        case Cancel():
            return Cancelled(storable(_text(signal), MESSAGE_MAX) or "job")
        case RetryLater():
            run.cause = signal
            seconds = to_seconds(signal.delay, f"{type(signal).__name__}(delay)")
            closed_for = seconds if signal.whole_key else None
            if isinstance(run.retry, Retry) and run.job.attempt >= run.retry.attempts:
                record = error_record(signal)
                message = storable(f"no attempt is left: {record.message}", MESSAGE_MAX)
                last = replace(record, message=message)
                return Raised(last, None, "retries_exhausted", closed_for)
            return Raised(error_record(signal), seconds, key_closed_for=closed_for)
        case Fail():
            run.cause = signal
            return Raised(error_record(signal), None, "fail")
    run.cause = signal
    return Raised(error_record(signal), None)


def _retry_in(run: Run, error: BaseException, random: Random) -> float | None:
    if isinstance(error, (asyncio.CancelledError, SystemExit)):
        # Not a failure that its author foresaw; running again would hide it.
        return None
    try:
        return next_delay(run.retry, run.job.attempt, error, random)
    except Exception as wrong:  # the user's own retry function
        log.error("the retry function of task %r raised %s; job %s is not retried",
                  run.task.name, error_record(wrong).summary, run.job.id)  # fmt: skip
        return None


def error_record(error: BaseException) -> ErrorRecord:
    """An exception as data: type, text, traceback; no local variables, each cut to its limit."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else (
        f"{kind.__module__}.{kind.__qualname__}"
    )  # fmt: skip
    return ErrorRecord(
        storable(name, NAME_MAX),
        storable(_text(error), MESSAGE_MAX),
        storable(_traceback(error), ERROR_MAX),
        storable(place_of(_frames(error), _LIBRARIES), MESSAGE_MAX),
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a user's __str__ may raise anything
        return "<its __str__ raised>"


def _begin(error: BaseException) -> TracebackType | None:
    """Its traceback from the task's function on."""
    own = __name__.rpartition(".")[0]
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(own):
        frames = frames.tb_next
    return frames


def _frames(error: BaseException) -> list[Frame]:
    frames = []
    step = _begin(error)
    while step is not None:
        code = step.tb_frame.f_code
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        frames.append(Frame(module, code.co_qualname, step.tb_lineno, code.co_filename))
        step = step.tb_next
    return frames


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.TracebackException(
            type(error), error, _begin(error), capture_locals=False, compact=True
        ).format()
        return "".join(lines)
    except Exception:  # a user's exception may break the formatting too
        return f"<the traceback of a {type(error).__name__} could not be formatted>"
