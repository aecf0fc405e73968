"""Limits that several tasks share: what a start warns of."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..records import JobLimit
from ..running.context import RunnableTask

log = logging.getLogger("asyncjobs")


def warn_of_different_limits(tasks: Iterable[RunnableTask]) -> None:
    """Say which tasks share their limits' keys and do not agree on what these allow."""
    first: dict[str, tuple[str, JobLimit]] = {}
    for task in tasks:
        if task.limit is None:
            continue
        allowed = task.limit.of_job(task.name, "")
        other, before = first.setdefault(allowed.name, (task.name, allowed))
        if allowed != before:
            log.warning(
                "tasks %r and %r share the limit %r, but give it different values: what was "
                "enqueued last decides for the jobs of both. Give them one Limit, or names of "
                "their own", other, task.name, allowed.name,
            )  # fmt: skip
