"""Windows: the hours of the day in which jobs may start, as the clocks of a zone show them.

All that counts is what the clock on the wall shows: a time that it shows twice is open twice, one
that it jumps over is not open at all, and a window that begins in a jump opens right after it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from ..clock import to_datetime, to_instant
from ..errors import InvalidOption, shown
from .limits import check_text
from .options import Option
from .zones import check_zone, first_change, offset_at, zone_of

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
_MARK = '"window":'
"""What stands in the stored options of each job that has one, and of hardly any other."""


class Window(Option, frozen=True, omit_defaults=True):
    """The hours in which jobs may start: from ``opens`` until just before ``closes``.

    What has started goes on after the window has closed. Where clocks are changed, it is open
    whenever the clock on the wall shows one of its times.

    Attributes:
        opens: ``HH:MM`` or ``HH:MM:SS``.
        closes: the same; a time before ``opens`` is one of the next day, ``00:00`` its end.
        tz: name of the time zone, such as ``Europe/Berlin``.
        days: those on which it opens, such as ``mon-fri`` or ``sat,sun``; by default all.

    Raises:
        InvalidOption: naming the attribute and its value; also for a window that is always open.
    """

    opens: str
    closes: str
    tz: str = "UTC"
    days: str | None = None

    def __post_init__(self) -> None:
        _check_time(self.opens, "Window(opens)")
        _check_time(self.closes, "Window(closes)")
        check_zone(self.tz, "Window")
        if self.days is not None:
            days = check_text(self.days, "Window(days)").replace(" ", "").lower()
            force_setattr(self, "days", None if len(_weekdays(days)) == len(DAYS) else days)
        if _time(self.opens) == _time(self.closes) and self.days is None:
            raise InvalidOption(
                f"Window({self.opens!r}, {self.closes!r}) is never closed: leave it out, or give "
                "days= on which it is open for the whole day"
            )

    def opening(self, after: int) -> int:
        """The first instant from ``after`` on at which it is open: that one if it is open then."""
        try:
            return self._opening(after)
        except OverflowError:  # at the end of time
            return after

    def _opening(self, after: int) -> int:
        zone = zone_of(self.tz, "Window")
        moment = to_datetime(after)
        if self._shows(moment.astimezone(zone)):
            return after
        # Opens at a full second, as clocks are changed at one.
        moment = moment.replace(microsecond=0)
        while True:
            # Between two changes of the clock it simply runs along with UTC.
            offset = offset_at(zone, moment)
            opens = self._next_start((moment + offset).replace(tzinfo=None))
            instant = opens.replace(tzinfo=UTC) - offset
            changed = first_change(zone, moment, instant, offset)
            if changed is None:
                return to_instant(instant, "opening")
            if self._shows(changed.astimezone(zone)):
                return to_instant(changed, "opening")
            moment = changed

    def _shows(self, wall: datetime) -> bool:
        """Whether it is open while the clock shows this."""
        now, opens, closes = wall.time(), _time(self.opens), _time(self.closes)
        if opens < closes:
            return opens <= now < closes and self._opens_on(wall.weekday())
        if now >= opens:
            return self._opens_on(wall.weekday())
        return now < closes and self._opens_on((wall.weekday() - 1) % len(DAYS))

    def _next_start(self, wall: datetime) -> datetime:
        """When it opens next by a clock that nobody changes."""
        starts = (
            datetime.combine(wall.date() + timedelta(days=days), _time(self.opens))
            for days in range(len(DAYS) + 1)
        )
        return next(t for t in starts if t > wall and self._opens_on(t.weekday()))

    def _opens_on(self, weekday: int) -> bool:
        return self.days is None or weekday in _weekdays(self.days)

    @property
    def sentence(self) -> str:
        """In English."""
        days = "" if self.days is None else f", {self.days}"
        return f"From {self.opens} to {self.closes}{days} ({self.tz})"


def check_window(value: object) -> Window:
    """A window.

    Raises:
        InvalidOption: it is none.
    """
    if not isinstance(value, Window):
        raise InvalidOption(
            "window must be a Window such as Window('22:00', '06:00', tz='Europe/Berlin'), got "
            f"{shown(value)}"
        )
    return value


class _Windowed(Struct):
    """Of a job's stored options, its window."""

    window: Window | None = None


_decode = msgspec.json.Decoder(_Windowed).decode


def window_of(options: str | None) -> Window | None:
    """The window among a job's stored options; ``None`` also in what somebody else wrote there."""
    if options is None or _MARK not in options:
        return None
    return _read(options)


@lru_cache(maxsize=256)
def _read(options: str) -> Window | None:
    # Jobs of one task mostly share their options.
    try:
        return _decode(options).window
    except msgspec.MsgspecError:
        return None


def closed_until(options: str | None, now: int) -> int | None:
    """When the window of a job opens, by its stored options; ``None`` when it may start now."""
    window = window_of(options)
    if window is None:
        return None
    opens_at = _opening(window, now)
    return None if opens_at == now else opens_at


@lru_cache(maxsize=256)
def _opening(window: Window, after: int) -> int:
    # One claim asks it of a thousand jobs.
    return window.opening(after)


def due_in_window(options: str | None, run_at: int, now: int) -> int:
    """When a job is due that was to be due at ``run_at``: then, or when its window opens."""
    opens_at = closed_until(options, max(run_at, now))
    return run_at if opens_at is None else opens_at


def _check_time(value: object, option: str) -> None:
    text = check_text(value, option)
    if not _TIME.fullmatch(text):
        hint = "; the end of a day is '00:00'" if text.startswith("24") else ""
        raise InvalidOption(f"{option}={text!r} must be a time such as '22:00'{hint}")


@lru_cache(maxsize=256)
def _time(text: str) -> time:
    return time.fromisoformat(text)


@lru_cache(maxsize=256)
def _weekdays(days: str) -> frozenset[int]:
    found: set[int] = set()
    for part in days.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS or part.endswith("-"):
            raise InvalidOption(
                f"Window(days)={days!r} must name days such as 'mon-fri' or 'sat,sun'"
            )
        begin = DAYS.index(first)
        span = (DAYS.index(last or first) - begin) % len(DAYS)
        found.update((begin + day) % len(DAYS) for day in range(span + 1))
    return frozenset(found)
