"""How long finished jobs of a task stay: the newest so many, or those up to an age."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from ..clock import to_microseconds, to_seconds
from ..errors import InvalidOption, shown
from .limiting import Limit
from .limits import check_integer

NEWEST_MAX = 1_000_000


class Keep(NamedTuple):
    """One of the two; the other is ``None``."""

    newest: int | None
    age: int | None
    """Microseconds."""


def check_keeps(limit: Limit | None, **given: object) -> dict[str, Keep]:
    """What a task says, by state, without the states of which it says nothing.

    Raises:
        InvalidOption: naming the option; also for a float, which could mean either, and where no
            failed job is to be kept, although each of them stops its key.
    """
    keeps = {
        state: _check_keep(value, f"keep_{state}")
        for state, value in given.items()
        if value is not None
    }
    stops = isinstance(limit, Limit) and limit.after_failure == "stop"
    if stops and keeps.get("failed") == Keep(0, None):
        raise InvalidOption(
            "keep_failed=0 contradicts Limit(after_failure='stop'): a failed job stops its key "
            "until it is retried or deleted; keep at least one"
        )
    return keeps


def _check_keep(value: object, option: str) -> Keep:
    if isinstance(value, timedelta):
        return Keep(None, to_microseconds(to_seconds(value, option)))
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(
            f"{option} of a task must be an int (that many, the newest) or a timedelta (up to that "
            f"age), got {shown(value)}"
        )
    return Keep(check_integer(value, option, least=0, most=NEWEST_MAX), None)
