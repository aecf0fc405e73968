"""What a runner is made of, once its options are checked."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Any

from msgspec import Struct

from ..clock import Clock, to_seconds
from ..errors import InvalidOption, RunnerClosed
from ..rules.limits import CONCURRENCY_MAX, check_integer
from ..running.executors.process.settings import PoolSettings

log = logging.getLogger("asyncjobs")

COUNT_LIKE = 3_600
"""A whole number below it is rather meant as so many jobs, as on a task, than as seconds."""


class Settings(Struct, frozen=True, kw_only=True):
    """What a runner was configured with, checked."""

    path: str
    durability: str
    shared: bool
    concurrency: int
    threads: int
    queues: tuple[str, ...] | None
    grace_seconds: float
    lease_seconds: float
    loop_block_seconds: float
    keep_seconds: Mapping[str, float]
    keep_journal_seconds: float
    clock: Clock
    random: Random
    state: Any
    pool: PoolSettings

    def closed(self) -> RunnerClosed:
        """What to raise once it has stopped."""
        return RunnerClosed(
            f"the runner on {self.path} has stopped; 'async with runner:' starts it again"
        )


def check_threads(threads: object) -> int:
    """How many jobs may run in threads at a time."""
    if threads is None:
        return min(32, (os.cpu_count() or 1) + 4)
    return check_integer(threads, "threads", least=1, most=CONCURRENCY_MAX)


def keep_seconds(**times: float | timedelta) -> dict[str, float]:
    """How long finished jobs stay, by the state that they ended in."""
    return {state: _keep_seconds(time, f"keep_{state}") for state, time in times.items()}


def _keep_seconds(time: float | timedelta, option: str) -> float:
    said = f"{option} of a Runner is a time, such as timedelta(days=7)"
    number = f"for a number of jobs there is @runner.task({option}=100)"
    try:
        seconds = to_seconds(time, option)
    except InvalidOption as error:
        raise InvalidOption(f"{error}; {said}: {number}") from None
    if isinstance(time, int) and 0 < time < COUNT_LIKE:
        log.warning("%s: %d keeps jobs for %d seconds, and not that many; %s. Where seconds are "
                    "meant, say timedelta(seconds=%d)", said, time, time, number, time)  # fmt: skip
    return seconds
