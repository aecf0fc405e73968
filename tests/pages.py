"""The README and the guides, as their readers have them: pages, headings, sections, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every block of code in a language, with the page it stands on."""
    for page, text in PAGES.items():
        for block in re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            yield page, block


def headings_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Where each heading begins, its level and its words; comments in code are none."""
    for found in re.finditer(r"^```.*?^```$|^(#+) ([^\n]*)$", text, re.DOTALL | re.MULTILINE):
        if found[1]:
            yield found.start(), len(found[1]), found[2]


def anchors_of(text: str) -> list[str]:
    """What a link to each heading says after its ``#``."""
    words = (words.lower() for _, _, words in headings_of(text))
    return [re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in words]


def section(heading: str) -> str:
    """What stands under the heading, on whichever page, up to the next one of its level."""
    (found,) = (
        (text, start, level)
        for text in PAGES.values()
        for start, level, words in headings_of(text)
        if words == heading
    )
    text, start, level = found
    ends = (at for at, other, _ in headings_of(text) if at > start and other <= level)
    return text[start : next(ends, len(text))]


def table_after(words: str) -> list[str]:
    """The rows of the table that follows these words, wherever they stand once."""
    (rest,) = (text.split(words)[1] for text in PAGES.values() if words in text)
    return rest.split("\n\n")[1].splitlines()[2:]
