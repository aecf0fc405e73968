"""What can be given as a schedule's ``when``: ``Cron``, ``Every``, ``At``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from msgspec.structs import force_setattr

from ..clock import to_datetime, to_instant, to_microseconds, to_seconds
from . import cron
from .limits import check_flag
from .options import Option
from .zones import check_zone, zone_of

SHORTEST_SECONDS = 1.0


class Cron(Option, frozen=True, tag="cron"):
    """At the times of a cron expression, as the clocks of a zone show them.

    Five fields: minute, hour, day of the month, month, day of the week; with ``*``, lists, ranges,
    steps, names (``mon-fri``, ``jan``), ``L`` (the last day; ``5L`` the last Friday), ``LW`` (the
    last weekday) and ``mon#1`` (the first Monday). If both days are given without a star, either
    will do. Or ``@hourly``, ``@daily``, ``@midnight``, ``@weekly``, ``@monthly``, ``@yearly``,
    ``@annually``.

    Where clocks are changed: an expression whose minute and hour are both given without a star
    fires once for each of its times, the first time where the clock shows one twice, and right
    after the jump for those that the clock jumps over. Others follow the hands of the clock.

    Attributes:
        expression: see above.
        tz: name of the time zone, such as ``Europe/Berlin``.
        seconds: the expression has six fields, seconds first.

    Raises:
        InvalidOption: it means nothing, can never fire, or the zone is not known.
    """

    expression: str
    tz: str = "UTC"
    seconds: bool = False

    def __post_init__(self) -> None:
        check_flag(self.seconds, "Cron(seconds)")
        checked = cron.check_expression(self.expression, seconds=self.seconds)
        force_setattr(self, "expression", checked)
        check_zone(self.tz, "Cron")

    def times(self, after: int) -> Iterator[int]:
        """The instants after one, in microseconds UTC."""
        zone = zone_of(self.tz, "Cron")
        times = cron.times(self.expression, zone, to_datetime(after))
        return (to_instant(time, "time") for time in times)

    @property
    def sentence(self) -> str:
        """In English."""
        return cron.sentence(self.expression, self.tz)


class Every(Option, frozen=True, tag="every"):
    """Again and again, so many seconds apart.

    Attributes:
        seconds: the period, in seconds or as a timedelta; from 1 second.
        anchor: an aware datetime that is one of the times. By default they are counted from the
            beginning of 1970 in UTC, so that every process and every start means the same ones:
            ``Every(3600)`` is every full hour.

    Raises:
        InvalidOption: naming the attribute and its value.
    """

    seconds: float | timedelta
    anchor: datetime | None = None

    def __post_init__(self) -> None:
        seconds = to_seconds(self.seconds, "Every(seconds)", at_least=SHORTEST_SECONDS)
        force_setattr(self, "seconds", seconds)
        if self.anchor is not None:
            anchor = to_datetime(to_instant(self.anchor, "Every(anchor)"))
            force_setattr(self, "anchor", anchor)

    def times(self, after: int) -> Iterator[int]:
        """The instants after one, in microseconds UTC."""
        anchor = 0 if self.anchor is None else to_instant(self.anchor, "anchor")
        period = to_microseconds(to_seconds(self.seconds, "seconds"))
        time = anchor + ((after - anchor) // period + 1) * period
        while True:
            yield time
            time += period

    @property
    def sentence(self) -> str:
        """In English."""
        said = f"Every {_in_words(to_seconds(self.seconds, 'seconds'))}"
        return said if self.anchor is None else f"{said}, counted from {_shown(self.anchor)}"


class At(Option, frozen=True, tag="at"):
    """Once.

    Attributes:
        time: an aware datetime.

    Raises:
        InvalidOption: it is none.
    """

    time: datetime

    def __post_init__(self) -> None:
        force_setattr(self, "time", to_datetime(to_instant(self.time, "At(time)")))

    def times(self, after: int) -> Iterator[int]:
        """The instant, if it is after this one."""
        time = to_instant(self.time, "time")
        if time > after:
            yield time

    @property
    def sentence(self) -> str:
        """In English."""
        return f"Once, on {_shown(self.time)}"


When = Cron | Every | At


def _in_words(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % size == 0:
            count = int(seconds // size)
            return unit if count == 1 else f"{count} {unit}s"
    return "second" if seconds == 1 else f"{seconds:.15g} seconds"


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(' ')} UTC"
