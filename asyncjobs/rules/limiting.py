"""Rates, and what they leave room for: the generic cell rate algorithm, as pure functions.

All that is kept of a rate is one instant, ``spent``: from it on nothing of the rate is used up. A
start moves it by one interval, so it cannot drift, and a clock that steps back costs one burst.
"""

from __future__ import annotations

from datetime import timedelta
from math import ceil, floor

from msgspec import Struct

from ..clock import to_microseconds, to_seconds
from ..errors import InvalidOption
from .limits import check_integer

RATE_MAX = 1_000_000
RUNNING_MAX = 1_000_000


class Rate(Struct, frozen=True):
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

    def rate(self) -> Rate:
        """The rate as people give it."""
        return Rate(self.jobs, self.per / 1_000_000, self.burst)

    def room(self, spent: float, now: int) -> int:
        """How many may start now."""
        # Half a microsecond: instants of today have no finer grain as floats.
        used = max(0.0, self._bounded(spent, now) - now - 0.5)
        return floor(self.burst - used / self.interval)

    def after(self, spent: float, now: int, jobs: int) -> float:
        """What ``spent`` becomes when so many start now."""
        return max(self._bounded(spent, now), float(now)) + jobs * self.interval

    def next_at(self, spent: float, now: int) -> int:
        """When the next may start; in the past when there is room."""
        return ceil(self._bounded(spent, now) - (self.burst - 1) * self.interval)

    def _bounded(self, spent: float, now: int) -> float:
        # Later only when the clock was set back, or the rate changed.
        return min(spent, now + self.burst * self.interval)


def check_running(value: object, option: str = "running") -> int:
    """Jobs at once, from 0, which means paused."""
    return check_integer(value, option, least=0, most=RUNNING_MAX)


def check_rate(value: object, option: str = "rate") -> Rate:
    """A rate."""
    if not isinstance(value, Rate):
        raise InvalidOption(
            f"{option} must be a Rate such as Rate(10, per=60), got {type(value).__name__}"
        )
    return value
