"""Limits by key, and rates: the generic cell rate algorithm, as pure functions.

All that is kept of a rate is one instant, ``spent``: from it on nothing of the rate is used up. A
start moves it by one interval, so it cannot drift, and a clock that steps back costs one burst.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import ceil, floor
from typing import Any

from msgspec import Struct

from ..clock import to_microseconds, to_seconds
from ..errors import InvalidOption, shown
from ..records import JobLimit
from .limits import KEY_MAX, check_choice, check_flag, check_integer, check_text
from .options import Option, check_takes

RATE_MAX = 1_000_000
RUNNING_MAX = 1_000_000
FAIR_RUNNING = 100
"""Jobs of a key that are queued or run at once, where nothing else is said: as many as a runner has
slots for. The others of the key line up behind those of all other keys."""


class Rate(Option, frozen=True):
    """So many starts in a period, evenly spread, but for a burst after quiet times.

    Attributes:
        jobs: starts a period; from 1.
        per: the period in seconds; by default one second.
        burst: starts at once after a quiet time; by default a tenth of ``jobs``, at least 1.

    Raises:
        InvalidOption: naming the attribute and its value.
    """

    jobs: int
    per: float | timedelta = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        check_integer(self.jobs, "Rate(jobs)", least=1, most=RATE_MAX)
        if to_microseconds(to_seconds(self.per, "Rate(per)")) < self.jobs:
            raise InvalidOption(
                f"Rate(per)={self.per} is too short for {self.jobs} jobs: at most one a microsecond"
            )
        if self.burst is not None:
            check_integer(self.burst, "Rate(burst)", least=1, most=RATE_MAX)

    def pace(self) -> Pace:
        """The rate as it is stored."""
        burst = max(1, self.jobs // 10) if self.burst is None else self.burst
        return Pace(self.jobs, to_microseconds(to_seconds(self.per, "Rate(per)")), burst)


class Pace(Struct, frozen=True):
    """A rate in whole microseconds, and its arithmetic."""

    jobs: int
    per: int
    burst: int

    @property
    def interval(self) -> float:
        """Microseconds from one start to the next."""
        return self.per / self.jobs

    def room(self, spent: float, now: int) -> int:
        """How many may start now."""
        # Half a microsecond: instants of today have no finer grain as floats.
        used = max(0.0, self.bounded(spent, now) - now - 0.5)
        return floor(self.burst - used / self.interval)

    def after(self, spent: float, now: int, jobs: int) -> float:
        """What ``spent`` becomes when so many start now."""
        return max(self.bounded(spent, now), float(now)) + jobs * self.interval

    def next_at(self, spent: float, now: int) -> int:
        """When the next may start; in the past when there is room."""
        return ceil(self.bounded(spent, now) - (self.burst - 1) * self.interval)

    def of_starts(self, starts: Iterable[int]) -> float:
        """What ``spent`` is after starts at these instants, were there no others."""
        spent = 0.0
        for at in sorted(starts):
            spent = self.after(spent, at, 1)
        return spent

    def bounded(self, spent: float, now: int) -> float:
        """What counts of ``spent``: later only when the clock was set back, or by an old rate.

        To be kept, or it would be as far away at the next look.
        """
        return min(spent, now + self.burst * self.interval)

    def is_overdrawn(self, spent: float, now: int) -> bool:
        """Whether ``spent`` is later than starts of this rate until now can have made it."""
        # A microsecond: sums of intervals are not exact.
        return spent > self.bounded(spent, now) + 1


def check_running(value: object, option: str = "running") -> int:
    """Jobs at once, from 0, which means paused."""
    return check_integer(value, option, least=0, most=RUNNING_MAX)


def check_rate(value: object, option: str = "rate") -> Rate:
    """A rate."""
    if not isinstance(value, Rate):
        raise InvalidOption(f"{option} must be a Rate such as Rate(10, per=60), got {shown(value)}")
    return value


KeyFunction = Callable[[Mapping[str, Any]], "str | int"]


class Limit(Option, frozen=True, kw_only=True):
    """How many jobs of a key may run at once, or start in a period, in all processes together.

    Attributes:
        key: the parameter of the task that is the key, such as ``"tenant_id"``, or a function of
            the arguments by name; by default all jobs share one key.
        running: jobs of a key at once; 0 holds them all. By default 100, or any number with a rate.
        rate: starts of a key in a period, such as ``Rate(10, per=60)``.
        ordered: one after the other, in the order in which they were enqueued; a job that waits
            for its next attempt, or is delayed, holds up those behind it.
        after_failure: of an ordered key, when a job has failed for good: ``continue`` with the
            next, or ``stop`` until that job is retried or deleted.
        name: tasks that give the same name share their keys; by default the task's own.

    Raises:
        InvalidOption: naming the attribute and its value.
    """

    key: str | KeyFunction | None = None
    running: int | None = None
    rate: Rate | None = None
    ordered: bool = False
    after_failure: str = "continue"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and not callable(self.key):
            check_text(self.key, "Limit(key)")
        if inspect.iscoroutinefunction(self.key):
            raise InvalidOption("Limit(key) must not be an async function: nobody would await it")
        if callable(self.key):
            check_takes(self.key, "Limit(key)", "arguments")
        if self.running is not None:
            check_running(self.running, "Limit(running)")
        if self.rate is not None:
            check_rate(self.rate, "Limit(rate)")
        if self.name is not None:
            check_text(self.name, "Limit(name)")
        check_choice(self.after_failure, "Limit(after_failure)", ("continue", "stop"))
        if check_flag(self.ordered, "Limit(ordered)"):
            if self.running not in (None, 0, 1):
                raise InvalidOption(
                    f"Limit(ordered=True) runs one job of a key at a time; running={self.running} "
                    "contradicts that"
                )
        elif self.after_failure != "continue":
            raise InvalidOption("Limit(after_failure='stop') needs ordered=True")

    def of_job(self, task: str, key: str) -> JobLimit:
        """What a job with this key is stored with."""
        running = self.running
        if running is None and (self.ordered or self.rate is None):
            running = 1 if self.ordered else FAIR_RUNNING
        rate = None if self.rate is None else self.rate.pace()
        return JobLimit(
            self.name or task,
            key,
            running,
            None if rate is None else (rate.jobs, rate.per, rate.burst),
            self.ordered,
            self.after_failure == "stop",
        )


def check_limit(value: object, function: Callable[..., Any], task: str) -> Limit | None:
    """A limit whose key the task has, or none."""
    if value is None:
        return None
    if not isinstance(value, Limit):
        raise InvalidOption(
            f"limit must be a Limit such as Limit(key='tenant_id', running=2), got {shown(value)}"
        )
    if isinstance(value.key, str) and value.key not in inspect.signature(function).parameters:
        raise InvalidOption(f"limit: task {task!r} has no parameter {value.key!r} for the key")
    return value


def key_of(limit: Limit, arguments: Mapping[str, Any], task: str) -> str:
    """The key of a job with these arguments.

    Raises:
        InvalidOption: the key function raised, or the key is no str or int, empty, or too long.
    """
    if limit.key is None:
        return ""
    try:
        key = arguments[limit.key] if isinstance(limit.key, str) else limit.key(arguments)
    except Exception as error:
        raise InvalidOption(
            f"limit: the key function of task {task!r} raised {type(error).__name__}; it is called "
            "with one mapping, of all arguments by name"
        ) from error
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise InvalidOption(
            f"limit: the key of task {task!r} must be a str or an int, got {type(key).__name__}"
        )
    text = str(key)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidOption(f"limit: the key of task {task!r} has unpaired surrogates") from None
    if not 0 < size <= KEY_MAX:
        raise InvalidOption(
            f"limit: the key of task {task!r} takes {size} bytes; from 1 to {KEY_MAX} fit"
        )
    return text
