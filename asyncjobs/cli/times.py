"""Instants and amounts as people write and read them. Times are local, as ``TZ`` says."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"(\+?)((?:[0-9]{1,9}(?:\.[0-9]{1,6})?[smhdw])+)", re.ASCII)
_PART = re.compile(r"([0-9.]+)([smhdw])", re.ASCII)


def instant(text: str) -> datetime:
    """``2h``, ``1d12h`` (ago), ``+30m`` (from now), or a date and time, local unless it says.

    Raises:
        ArgumentTypeError: it is none of these.
    """
    relative = _RELATIVE.fullmatch(text)
    try:
        if relative:
            seconds = sum(float(many) * _UNITS[unit] for many, unit in _PART.findall(relative[2]))
            return datetime.now(UTC) + timedelta(seconds=seconds if relative[1] else -seconds)
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{text!a} is no time: give 2h, 30m or 7d (ago), +1h (from now), or a date as in "
            "2026-11-26T15:00"
        ) from None


def when(at: datetime | None) -> str:
    """A local date and time, to the second."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def when_exactly(at: datetime) -> str:
    """A local date and time, to the millisecond."""
    local = at.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03}"


def amount(seconds: float) -> str:
    """A duration in two units at most."""
    if seconds < 0:
        return "-" + amount(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3_600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86_400:
        return f"{seconds // 3_600:.0f} h {seconds % 3_600 // 60:.0f} min"
    return f"{seconds // 86_400:.0f} d {seconds % 86_400 // 3_600:.0f} h"


def took(duration: timedelta | None) -> str:
    """The same of a timedelta."""
    return "" if duration is None else amount(duration.total_seconds())


def size(count: float) -> str:
    """So many bytes."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
