"""Time zones: their names, and when their clocks are changed."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from ..errors import InvalidOption
from .limits import check_text

# Imported by the function that needs it: it would add to what importing the package costs.
if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


def check_zone(name: object, owner: str) -> str:
    """The name of a time zone that is known here; ``owner`` is whose option it is.

    Raises:
        InvalidOption: it is none.
    """
    zone = check_text(name, f"{owner}(tz)")
    zone_of(zone, owner)
    return zone


def zone_of(name: str, owner: str) -> ZoneInfo:
    """The zone of that name, from the system or from the package tzdata.

    Raises:
        InvalidOption: there is none.
    """
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError) as error:
        raise InvalidOption(
            f"{owner}(tz={name!r}) is no time zone that this machine knows; names look like "
            "'Europe/Berlin'. Where the system has no time zones at all, install tzdata"
        ) from error


def offset_at(zone: tzinfo, instant: datetime) -> timedelta:
    """How far the zone's clock is ahead of UTC."""
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def first_change(
    zone: tzinfo, after: datetime, until: datetime, offset: timedelta
) -> datetime | None:
    """The first instant of the span at which the clock is not ``offset`` from UTC, if any is.

    Looks once a day: no zone has ever put its clock forth and back within one.
    """
    while after < until:
        day = min(after + _DAY, until)
        if offset_at(zone, day) != offset:
            return change_between(zone, after, day, offset)
        after = day
    return None


def change_between(
    zone: tzinfo, before: datetime, later: datetime, offset: timedelta | None = None
) -> datetime:
    """The instant at which the clock was changed, once between the two."""
    offset = offset_at(zone, before) if offset is None else offset
    while later - before > _SECOND:
        middle = before + (later - before) // _SECOND // 2 * _SECOND
        if offset_at(zone, middle) == offset:
            before = middle
        else:
            later = middle
    return later
