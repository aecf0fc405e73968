"""Where commands print: aligned text, or JSON. The only place here that writes.

Texts of jobs may hold anything: what does not show as itself (control characters, escape sequences,
marks that turn the direction of writing) is written as Python would spell it in a string.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import msgspec

from ..inventory import Count

GAP = "  "


def clean(text: str) -> str:
    """``text`` in one line of characters that show as themselves."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def clean_lines(text: str) -> list[str]:
    """The lines of ``text``, each cleaned; tabs become spaces."""
    return [clean(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n")]


def cut(text: str, most: int) -> str:
    """At most so many characters of a text, cleaned."""
    line = clean(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def width(text: str) -> int:
    """How many columns a cleaned text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else
        2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )  # fmt: skip


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """The names of columns and the rows under them, cleaned and padded to one width by column."""
    cells = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    return [
        [cell + " " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)]
        for row in cells
    ]


def _plain(value: Any) -> Any:
    """Of a count also whether it was reached by counting to the end."""
    if isinstance(value, Count):
        return {"count": int(value), "exact": value.exact}
    raise NotImplementedError(type(value).__name__)


def to_json(value: Any) -> str:
    """A value in one line of ASCII, so that no terminal is moved by it either."""
    plain = msgspec.to_builtins(value, enc_hook=_plain)
    return json.dumps(plain, ensure_ascii=True)


class Screen:
    """Plain text, for pipes and for terminals without rich."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False) -> None:
        self.out = out
        self.as_json = as_json
        self._err = err

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows under the names of their columns."""
        for row in aligned(columns, rows):
            self.row(*row)

    def title(self, text: str) -> None:
        """The head of a part."""
        self._line("")
        self._line(clean(text))

    def fields(self, fields: Mapping[str, str]) -> None:
        """Names and values, a line each."""
        longest = max(map(len, fields), default=0)
        for name, value in fields.items():
            self._line(f"{name:<{longest}}{GAP}{clean(value)}".rstrip())

    def text(self, text: str) -> None:
        """Text of several lines, indented."""
        for line in clean_lines(text):
            self._line((GAP + line).rstrip())

    def row(self, *cells: str) -> None:
        """One line, its cells not aligned with those of others."""
        self._line(GAP.join(clean(cell) for cell in cells).rstrip())

    def document(self, value: Any) -> None:
        """A value as JSON, in one line."""
        self._line(to_json(value))

    def flush(self) -> None:
        """Let what was printed be seen now."""
        self.out.flush()

    def note(self, text: str) -> None:
        """Something beside what was asked for: on the standard error."""
        self.out.flush()
        self._err.write(clean(text) + "\n")
        self._err.flush()

    def _line(self, text: str) -> None:
        self.out.write(text + "\n")
