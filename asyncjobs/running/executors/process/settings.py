"""How many workers a runner has, and when they are replaced."""

from __future__ import annotations

import os
from datetime import timedelta

from msgspec import Struct

from ....clock import to_seconds
from ....errors import InvalidOption
from ....rules.limits import PROCESSES_MAX, check_choice, check_integer

MAIN = "__asyncjobs_main__"
"""What the application's script is called in workers: its main guard must not hold there."""
EXECUTORS = ("process", "isolated")
LARGEST = 2**53
NEAR = 0.875
"""The share of ``max_rss`` from which on any job may be the last: a worker that grows by less than
an eighth of it in one job has a warm successor when it crosses it."""


class PoolSettings(Struct, frozen=True, kw_only=True):
    """What was given to the runner, checked."""

    processes: int
    processes_min: int
    start: str
    max_jobs: int | None
    max_age: float | None
    max_rss: int | None

    def why_replace(self, *, jobs: int, rss: int, age: float) -> str | None:
        """Why a worker that has served so many jobs gets no more; ``None`` when it may."""
        if self.max_jobs is not None and jobs >= self.max_jobs:
            return f"it has served {jobs} jobs (max_jobs)"
        if self.max_rss is not None and rss > self.max_rss:
            return f"its memory is {rss} bytes (max_rss)"
        if self.max_age is not None and age >= self.max_age:
            return f"it is {age:.0f} s old (max_age)"
        return None

    def may_end(self, *, jobs: int, rss: int, age: float) -> bool:
        """Whether a worker that has these jobs to do may have to be replaced after them."""
        near = self.max_rss is not None and rss > NEAR * self.max_rss
        return near or self.why_replace(jobs=jobs, rss=rss, age=age) is not None


def pool_settings(
    *,
    processes: int | None,
    processes_min: int,
    process_start: str,
    max_jobs: int | None,
    max_age: float | timedelta | None,
    max_rss: int | None,
) -> PoolSettings:
    """The options of ``Runner`` that are about workers.

    Raises:
        InvalidOption: naming the option and its value.
    """
    most = os.cpu_count() or 1
    least = check_integer(processes_min, "processes_min", least=0, most=PROCESSES_MAX)
    if processes is not None:
        most = check_integer(processes, "processes", least=1, most=PROCESSES_MAX)
        if least > most:
            raise InvalidOption(
                f"processes_min={least} is more than processes={most}: no more are ever made"
            )
    return PoolSettings(
        processes=most,
        processes_min=min(least, most),
        start=check_choice(process_start, "process_start", ("fork", "spawn")),
        max_jobs=_optional(max_jobs, "max_jobs"),
        max_age=None if max_age is None else to_seconds(max_age, "max_age", at_least=1.0),
        max_rss=_optional(max_rss, "max_rss"),
    )


def _optional(value: int | None, option: str) -> int | None:
    return None if value is None else check_integer(value, option, least=1, most=LARGEST)
