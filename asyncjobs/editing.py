"""What a retry by hand may change: a job's arguments, and how fast many jobs come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import json

from .clock import MICROSECONDS
from .errors import InvalidOption, UnknownTask, shown
from .records import Job
from .store.base import Requeue
from .tasks import Task

RATE_MAX = 1_000_000


def edit_arguments(
    job: Job, changes: Mapping[str, Any], tasks: Mapping[str, Task[Any, Any]]
) -> Requeue:
    """A retry of the job with other values for some of its arguments.

    Raises:
        UnknownTask: nobody here knows what they must be.
        InvalidArguments: naming the argument that does not fit.
        InvalidOption: they have no key for its task's limit.
    """
    task = tasks.get(job.task)
    if task is None:
        raise UnknownTask(
            f"job {job.id} is of task {job.task!r}, which this runner does not have, so that its "
            "arguments cannot be checked: include the task"
        )
    edited = task.codec.edit_arguments(job.arguments or {}, changes)
    return Requeue([job.id], edited, task.limit_of(edited))


def as_edit(job_id: str, changes: Mapping[str, Any]) -> str:
    """A retry with other arguments for the audit: names alone, values go when the job goes."""
    return json.encode({"id": job_id, "arguments": sorted(changes)}).decode()


def check_rate(rate: object) -> int:
    """Jobs a second, as microseconds from one to the next.

    Raises:
        InvalidOption: no number above 0.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise InvalidOption(f"rate must be a number of jobs a second, got {shown(rate)}")
    if not (0 < rate <= RATE_MAX and math.isfinite(1 / rate)) or MICROSECONDS / rate > 2**50:
        raise InvalidOption(
            f"rate={rate:g} is out of range: above 0 to {RATE_MAX:,} jobs a second; leave it out "
            "to have them all at once"
        )
    return round(MICROSECONDS / rate)
