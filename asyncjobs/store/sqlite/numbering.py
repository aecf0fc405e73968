"""Numbered placeholders (``?1``) on the Pythons that take them for names.

3.12.0 to 3.12.3, which is what Ubuntu 24.04 has, warn of each value that is bound to one: 2 µs a
value, and where warnings are errors no job could be stored. They were wrong, and 3.12.4 does not:
https://github.com/python/cpython/issues/117995. There the statements go without numbers.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

NUMBERS_ARE_NAMES = (3, 12) <= sys.version_info < (3, 12, 4)

_PLACEHOLDER = re.compile(r"'[^']*'|--.*|\?(\d*)")


@lru_cache(maxsize=1024)
def without_numbers(sql: str) -> tuple[str, tuple[int, ...]]:
    """The statement with ``?`` for every ``?N``, and which value each of them stands for."""
    places: list[int] = []

    def nameless(found: re.Match[str]) -> str:
        if not found[0].startswith("?"):
            return found[0]
        # As SQLite counts: one without a number comes after the highest before it.
        places.append(int(found[1]) - 1 if found[1] else max(places, default=-1) + 1)
        return "?"

    return _PLACEHOLDER.sub(nameless, sql), tuple(places)


class Unnumbered:
    """A connection that runs statements without their numbers."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement."""
        text, places = without_numbers(sql)
        return self._connection.execute(text, [values[place] for place in places])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def taking_numbers(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, on those Pythons with something before its ``execute``."""
    if not NUMBERS_ARE_NAMES:
        return connection
    return cast("sqlite3.Connection", Unnumbered(connection))
