"""What a runner is made of, once its options are checked."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from msgspec import Struct

from ..clock import Clock
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
