"""How long finished jobs of a task stay: the newest so many, or those up to an age."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from ..clock import to_microseconds, to_seconds
from ..errors import InvalidOption, shown
from .limits import check_integer

NEWEST_MAX = 1_000_000


class Keep(NamedTuple):
    """One of the two; the other is ``None``."""

    newest: int | None
    age: int | None
    """Microseconds."""


def check_keeps(**given: object) -> dict[str, Keep]:
    """What a task says, by state, without the states of which it says nothing.

    Raises:
        InvalidOption: naming the option; also for a float, which could mean either.
    """
    return {
        state: _check_keep(value, f"keep_{state}")
        for state, value in given.items()
        if value is not None
    }


def _check_keep(value: object, option: str) -> Keep:
    if isinstance(value, timedelta):
        return Keep(None, to_microseconds(to_seconds(value, option)))
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(
            f"{option} of a task must be an int (that many, the newest) or a timedelta (up to that "
            f"age), got {shown(value)}"
        )
    return Keep(check_integer(value, option, least=0, most=NEWEST_MAX), None)
