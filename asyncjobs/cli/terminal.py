"""A terminal with colours, by rich. No text of a job is read as rich's markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from .screen import GAP, Screen, aligned, clean

# What a whole cell says -> how it looks.
STYLES = {
    **dict.fromkeys(("completed", "ok", "requeued"), "green"),
    **dict.fromkeys(("failed", "ERROR", "CRITICAL", "wrong"), "red"),
    **dict.fromkeys(("running", "claimed", "progress"), "cyan"),
    **dict.fromkeys(
        ("retrying", "rescued", "blocked", "parked", "paused", "WARNING", "note"), "yellow"
    ),
    **dict.fromkeys(("cancelled", "deleted", "pruned", "DEBUG"), "dim"),
}


def _styled(cell: str) -> tuple[str, str]:
    return clean(cell), STYLES.get(cell.strip(), "")


class Terminal(Screen):
    """The same as plain text, but coloured.

    Nothing is folded: rich's own tables break words and cut ids in a terminal of 80 columns, where
    a line that goes on in the next one can be read and copied.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        super().__init__(out, err)
        self._console = Console(file=out, highlight=False, markup=False, emoji=False)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows under the names of their columns."""
        head, *body = aligned(columns, rows)
        self._print(Text(GAP.join(head).rstrip(), style="bold"))
        for row in body:
            self.row(*row)

    def title(self, text: str) -> None:
        """The head of a part."""
        self._print(Text())
        self._print(Text(clean(text), style="bold"))

    def fields(self, fields: Mapping[str, str]) -> None:
        """Names and values, a line each."""
        longest = max(map(len, fields), default=0)
        for name, value in fields.items():
            head = (f"{name:<{longest}}{GAP}", "dim")
            self._print(Text.assemble(head, _styled(value)))

    def row(self, *cells: str) -> None:
        """One line, its cells not aligned with those of others."""
        line = Text(GAP).join(Text(*_styled(cell)) for cell in cells)
        line.rstrip()
        self._print(line)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)
