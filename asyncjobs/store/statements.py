"""Loads named SQL statements from ``.sql`` files.

A statement starts at ``-- name: what it is for``, which may go on in further comment lines.
``{rows:N}`` in one stands for a list of tuples of N values, ``{rows:N after M}`` for one whose
tuples begin with M more that all share: :meth:`Statements.rows` writes it for a given number of
them, so that one statement carries many rows and the connection's thread takes the interpreter lock
once, not once a row.
"""

from __future__ import annotations

import re
from pathlib import Path

LARGEST_CHUNK = 128
"""Rows go in chunks of 128, 64, … 1, so that eight prepared statements serve every number of rows.
With at most 19 values a row that stays far below SQLite's limit of 32,766."""

_HEAD = re.compile(r"^-- (\w+): (.+(?:\n-- .+)*)$", re.MULTILINE)
_ROWS = re.compile(r"\{rows:(\d+)(?: after (\d+))?\}")


class Statements:
    """The statements of one file, by name."""

    def __init__(self, path: Path) -> None:
        self.text: dict[str, str] = {}
        self.purpose: dict[str, str] = {}
        self._rows: dict[tuple[str, int], str] = {}
        self._widths: dict[str, int] = {}
        self._shared: dict[str, int] = {}
        # importlib.resources would do it too, and takes a sixth of the time of importing us.
        source = path.read_text("utf-8")
        heads = list(_HEAD.finditer(source))
        for head, following in zip(heads, [*heads[1:], None], strict=True):
            end = following.start() if following else len(source)
            self.text[head[1]] = source[head.end() : end].strip().rstrip(";")
            self.purpose[head[1]] = head[2].replace("\n-- ", " ")
            found = _ROWS.search(self.text[head[1]])
            if found:
                self._widths[head[1]] = int(found[1])
                self._shared[head[1]] = int(found[2] or 0)

    def __getitem__(self, name: str) -> str:
        return self.text[name]

    def width(self, name: str) -> int:
        """How many values a row of the statement has; 0 when it is for one row."""
        return self._widths.get(name, 0)

    def shares(self, name: str) -> bool:
        """Whether its rows have values in common, which come before the rows' own."""
        return self._shared.get(name, 0) > 0

    def rows(self, name: str, count: int) -> str:
        """The statement ``name`` for ``count`` rows."""
        try:
            return self._rows[name, count]
        except KeyError:
            return self._write_rows(name, count)

    def _write_rows(self, name: str, count: int) -> str:
        # Only what is shared has numbers, and so comes first: from 3.12 on Python asks for each
        # value's name, and SQLite goes through all numbers for the answer. With one for each of
        # 128 rows' values, inserting took 9 µs a row in place of 0.4.
        shared = [f"?{number}" for number in range(1, self._shared.get(name, 0) + 1)]
        row = f"({','.join([*shared, *'?' * self.width(name)])})"
        written = _ROWS.sub(",".join([row] * count), self.text[name])
        self._rows[name, count] = written
        return written


def chunks(count: int) -> list[tuple[int, int]]:
    """``count`` rows as ``(start, end)`` ranges whose lengths are powers of two."""
    ranges = []
    start, size = 0, LARGEST_CHUNK
    while start < count:
        while size > count - start:
            size //= 2
        ranges.append((start, start + size))
        start += size
    return ranges
