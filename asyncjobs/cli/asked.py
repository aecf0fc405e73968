"""What a command is given."""

from __future__ import annotations

import argparse
import sqlite3
from typing import NamedTuple

from ..clock import SystemClock
from ..errors import InvalidOption, UnknownJob
from ..store.sqlite.looking import Onlooker
from ..store.sqlite.reads import ids_from
from .screen import Screen

CANDIDATES = 4
"""So many ids are named when a beginning fits several, all but the last."""


class Asked(NamedTuple):
    """One call of a command."""

    arguments: argparse.Namespace
    database: Onlooker
    screen: Screen

    @property
    def now(self) -> int:
        """The instant, in microseconds UTC."""
        return SystemClock().now()


def whole_id(connection: sqlite3.Connection, beginning: str) -> str:
    """The id of the only job whose id is this or begins with it.

    Raises:
        UnknownJob: there is none.
        InvalidOption: there are several, or it is empty.
    """
    wanted = beginning.strip().lower()
    if not wanted:
        raise InvalidOption("an id is empty: is the variable set that it should come from?")
    # No id is anything but ASCII, and not all other text could be bound to a statement.
    found = ids_from(connection, wanted, CANDIDATES) if wanted.isascii() else []
    if not found:
        raise UnknownJob(
            f"no job {beginning} is in the database: pruned, deleted, or in another one"
        )
    if len(found) > 1 and found[0] != wanted:
        more = " and more" if len(found) == CANDIDATES else ""
        raise InvalidOption(
            f"{beginning} is the beginning of {', '.join(found[: CANDIDATES - 1])}{more}; "
            "give more of it"
        )
    return found[0]
