"""When a job is too late to be started."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..clock import to_instant, to_microseconds, to_seconds
from ..errors import InvalidOption, shown


def is_expired(expires_at: int | None, claims: int, now: int) -> bool:
    """Whether a waiting job may no longer be started; ``claims``: how often it was until now.

    What has been started once goes its way to an outcome: a retry, or a run after a crash, comes
    late because the job was tried in time. A retry by hand is somebody's wish to have it now.
    """
    return expires_at is not None and claims == 0 and expires_at <= now


def check_expires(value: object) -> int:
    """The option of a task: microseconds from enqueue.

    Raises:
        InvalidOption: also for an instant, which would be the same for all of its jobs.
    """
    if isinstance(value, datetime):
        raise InvalidOption(
            "expires of a task is a time from enqueue on, in seconds or as a timedelta; an instant "
            "belongs to a job: task.options(expires=...)"
        )
    return _from_enqueue(value)


def check_job_expires(value: object) -> tuple[int | None, int | None]:
    """The option of a job: microseconds from enqueue, or an instant; the other one is ``None``.

    Raises:
        InvalidOption: naming the option and its value.
    """
    if isinstance(value, datetime):
        return None, to_instant(value, "expires")
    return _from_enqueue(value), None


def check_order(
    expires: int | None,
    expires_at: int | None,
    *,
    run_at: int | None,
    delay: int | None,
    now: int,
    by: str,
) -> None:
    """Refuse a job that could never be started; ``by`` is the option that says when it is due.

    Raises:
        InvalidOption: it expires before it is due.
    """
    if run_at is None and delay is None:
        return
    due = now + (delay or 0) if run_at is None else run_at
    end = expires_at if expires is None else now + expires
    if end is not None and end <= due:
        raise InvalidOption(
            f"expires and {by} contradict each other: the job would expire "
            f"{(due - end) / 1e6:g} s before it is due; give a later expires"
        )


def _from_enqueue(value: object) -> int:
    if not isinstance(value, (int, float, timedelta)):
        raise InvalidOption(
            f"expires must be seconds (int, float), a timedelta or an aware datetime, "
            f"got {shown(value)}"
        )
    microseconds = to_microseconds(to_seconds(value, "expires"))
    if microseconds == 0:
        raise InvalidOption("expires=0 would cancel every job at once; leave it out for never")
    return microseconds
