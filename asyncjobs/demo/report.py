"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

from .source import FileFacts

TOP = 25
CSS = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2f7d5b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2.5rem auto;
       padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0; opacity: .75; }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0; }
dl div { background: var(--soft); border-radius: .5rem; padding: .6rem 1rem; min-width: 6rem; }
dt { font-size: .8rem; opacity: .75; }
dd { font-size: 1.35rem; margin: 0; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-size: .8rem; opacity: .75; }
td { overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; width: 5rem; }
td.bar { width: 25%; }
td.bar i { display: block; height: .6rem; border-radius: .3rem; background: var(--accent); }
"""


@dataclass
class Contents:
    """What the report is made of."""

    run: str
    directory: str
    files: list[FileFacts] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason."""
    restarted: int = 0


def render(contents: Contents) -> str:
    """The page. Every text that comes from files is escaped."""
    title = f"Python files of {contents.directory}"
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}</style>
<h1>{escape(title)}</h1>
<p>Indexed by Python {platform.python_version()}, one job a file, run {escape(contents.run)}.
{contents.restarted} jobs were cut off by a crash and started again.</p>
{_totals(contents)}
<h2>Largest files</h2>
{_largest(contents)}
<h2>Longest function of each file</h2>
{_longest(contents)}
<h2>Failed files</h2>
{_failed(contents)}
</html>
"""


def _totals(contents: Contents) -> str:
    files = contents.files
    totals = {
        "files": len(files),
        "lines": sum(file.lines for file in files),
        "functions": sum(file.functions for file in files),
        "classes": sum(file.classes for file in files),
        "failed": len(contents.failed),
    }
    boxes = (f"<div><dt>{name}</dt><dd>{total:,}</dd></div>" for name, total in totals.items())
    return f"<dl>{''.join(boxes)}</dl>"


def _largest(contents: Contents) -> str:
    largest = sorted(contents.files, key=lambda file: (-file.lines, file.path))[:TOP]
    most = max((file.lines for file in largest), default=1)
    rows = (
        f"<tr><td>{_name(contents, file.path)}{_number(file.functions)}{_number(file.classes)}"
        f"{_number(file.lines)}{_bar(file.lines, most)}"
        for file in largest
    )
    return _table("file functions classes lines", rows)


def _longest(contents: Contents) -> str:
    longest = sorted(contents.files, key=lambda file: (-file.longest_lines, file.path))[:TOP]
    most = max((file.longest_lines for file in longest), default=1)
    rows = (
        f"<tr><td>{escape(file.longest)}<td>{_name(contents, file.path)}"
        f"{_number(file.longest_lines)}{_bar(file.longest_lines, most)}"
        for file in longest
        if file.longest
    )
    return _table("function file lines", rows)


def _failed(contents: Contents) -> str:
    if not contents.failed:
        return "<p>None.</p>"
    rows = (
        f"<tr><td>{_name(contents, path)}<td>{escape(reason)}"
        for path, reason in sorted(contents.failed)
    )
    return _table("file reason", rows)


def _table(columns: str, rows: Iterable[str]) -> str:
    heads = "".join(f"<th>{column}" for column in columns.split())
    body = "\n".join(rows)
    return f"<table><thead><tr>{heads}</thead>\n<tbody>\n{body}\n</tbody></table>"


def _name(contents: Contents, path: str) -> str:
    return escape(os.path.relpath(path, contents.directory))


def _number(value: int) -> str:
    return f'<td class="number">{value:,}'


def _bar(value: int, most: int) -> str:
    return f'<td class="bar"><i style="width: {100 * value / max(most, 1):.1f}%"></i>'
