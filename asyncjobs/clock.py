"""Where time comes from. Instants are integer microseconds UTC; durations are seconds."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol, cast

from .errors import InvalidOption, shown

MICROSECONDS = 1_000_000
LONGEST_SECONDS = 100 * 365 * 86_400
"""A century: longer durations are mistakes, and would overflow what SQLite and datetime hold."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a datetime in UTC can show again. Other zones reach half a day further.
_EARLIEST, _LATEST = (
    (end.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    for end in (datetime.min, datetime.max)
)


class Clock(Protocol):
    """The store's clock. Tests inject one that they move by hand."""

    def now(self) -> int:
        """The instant, in microseconds UTC."""
        ...

    def seconds_until(self, instant: int) -> float | None:
        """Real seconds to wait before looking again; ``None`` when only a move can bring it."""
        ...

    def on_move(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` whenever the clock is moved by hand. Returns how to stop that."""
        ...


def check_clock(clock: object) -> Clock:
    """Something that has what a clock has."""
    for method in ("now", "seconds_until", "on_move"):
        if not callable(getattr(clock, method, None)):
            kind = type(getattr(clock, method, None)).__name__
            raise InvalidOption(f"clock's {method}() must be callable, got {kind}")
    return cast("Clock", clock)


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        """The instant, in microseconds UTC."""
        return time.time_ns() // 1000

    def seconds_until(self, instant: int) -> float | None:
        """Seconds to wait, never negative."""
        return max(0.0, (instant - self.now()) / MICROSECONDS)

    def on_move(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Nobody moves this clock by hand."""
        return lambda: None


def to_instant(value: datetime, option: str) -> int:
    """``value`` as microseconds UTC.

    Raises:
        InvalidOption: not a datetime, or one without a time zone.
    """
    if not isinstance(value, datetime):
        raise InvalidOption(f"{option} must be a datetime, got {shown(value)}")
    if value.utcoffset() is None:
        raise InvalidOption(
            f"{option}={value.isoformat()} has no time zone; "
            "use datetime.now(timezone.utc) or attach a ZoneInfo"
        )
    # Integer arithmetic: a float timestamp would lose microseconds.
    instant = (value - _EPOCH) // timedelta(microseconds=1)
    if not _EARLIEST <= instant <= _LATEST:
        raise InvalidOption(f"{option}={value.isoformat()} is out of range: years 1 to 9999 in UTC")
    return instant


def to_datetime(instant: int) -> datetime:
    """``instant`` as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


def to_seconds(value: float | timedelta, option: str, *, at_least: float = 0.0) -> float:
    """A duration as seconds.

    Raises:
        InvalidOption: not a number or timedelta, not finite, below ``at_least``, over a century.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = _to_float(value)
    else:
        raise InvalidOption(
            f"{option} must be seconds (int, float) or a timedelta, got {shown(value)}"
        )
    if not at_least <= seconds <= LONGEST_SECONDS:
        raise InvalidOption(
            f"{option}={seconds:g} is out of range: from {at_least:g} to {LONGEST_SECONDS} seconds"
        )
    return seconds


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer with hundreds of digits
        return math.inf if value > 0 else -math.inf


def to_microseconds(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return round(seconds * MICROSECONDS)


# Unguessable ids are not promised, unequal ones are: seeded from the system once a process, since
# asking the system for each id costs as much as the rest of it.
_random = Random(os.urandom(32))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))
_getrandbits = _random.getrandbits


def new_id(instant: int) -> str:
    """A UUIDv7 for ``instant``: 48 bits of milliseconds, 12 of sub-millisecond, 62 random.

    The standard library's ``uuid`` costs 2.9 µs an id; formatting two integers costs under one.
    Layout: RFC 9562, section 5.7, with method 3 (fraction of the millisecond) for ``rand_a``.
    """
    milliseconds, rest = divmod(instant, 1000)
    high = (milliseconds << 16) | 0x7000 | (rest * 4096 // 1000)
    text = (high << 64 | 0x8000000000000000 | _getrandbits(62)).to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id_at(instant: int) -> str:
    """The smallest id that :func:`new_id` can make at ``instant``: a bound for searching ids."""
    milliseconds, rest = divmod(instant, 1000)
    text = f"{(milliseconds << 16) | 0x7000 | (rest * 4096 // 1000):016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-8000-000000000000"


def instant_of_id(job_id: str) -> int:
    """When an id was made, in microseconds UTC, to about a quarter of a microsecond."""
    milliseconds = int(job_id[:8] + job_id[9:13], 16)
    # Rounded up, so that the instant put in comes out again (4096 steps are finer than 1000).
    return milliseconds * 1000 + -(-int(job_id[15:18], 16) * 1000 // 4096)
