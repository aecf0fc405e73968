"""What a runner is made of, once its options are checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Any

from msgspec import Struct

from ..clock import Clock, to_seconds
from ..rules.limits import CONCURRENCY_MAX, check_integer
from ..running.executors.process.settings import PoolSettings


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


def check_threads(threads: object) -> int:
    """How many jobs may run in threads at a time."""
    if threads is None:
        return min(32, (os.cpu_count() or 1) + 4)
    return check_integer(threads, "threads", least=1, most=CONCURRENCY_MAX)


def keep_seconds(**times: float | timedelta) -> dict[str, float]:
    """How long finished jobs stay, by the state that they ended in."""
    return {state: to_seconds(time, f"keep_{state}") for state, time in times.items()}
