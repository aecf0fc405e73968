"""What all benchmarks share: sizes, interleaved runs, rows with a bar, tables.

The only module here that prints.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

SCALES = ("smoke", "quick", "normal", "full")
"""``smoke`` proves that a benchmark runs, ``quick`` gives a rough figure, ``normal`` is what the
README's table is made of, ``full`` adds what takes minutes."""

T = TypeVar("T")


class Options(Struct, frozen=True):
    """How large the runs are, and where their files stand."""

    scale: str = "normal"
    directory: str | None = None

    def pick(self, *, smoke: T, quick: T, normal: T, full: T | None = None) -> T:
        """The value for the chosen scale; ``full`` is ``normal`` where it is not given."""
        chosen = {"smoke": smoke, "quick": quick, "normal": normal}.get(self.scale, full)
        return normal if chosen is None else chosen

    @property
    def runs(self) -> int:
        """How often each case is run: nine, so that the best one met an idle machine."""
        return self.pick(smoke=1, quick=3, normal=9, full=15)

    def folder(self) -> tempfile.TemporaryDirectory[str]:
        """A fresh directory for database files."""
        return tempfile.TemporaryDirectory(prefix="asyncjobs-bench-", dir=self.directory)


class Bar(Struct, frozen=True):
    """What a figure has to reach. ``of`` says which: the ``ratio`` or the measured ``value``."""

    limit: float
    of: str = "ratio"
    least: bool = True

    def text(self, unit: str) -> str:
        """The bar as the table shows it."""
        sign = "≥" if self.least else "≤"
        return f"{sign} {show(self.limit)} {'x' if self.of == 'ratio' else unit}"

    def met_by(self, value: float, ratio: float | None) -> bool:
        """Whether the figure reaches it."""
        figure = value if self.of == "value" else ratio
        if figure is None:
            return False
        return figure >= self.limit if self.least else figure <= self.limit


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table. A row without a bar is there to explain the others."""

    what: str
    value: float
    unit: str
    floor: float | None = None
    """What the floor took, or whatever else ``what`` says the value is held against."""
    bar: Bar | None = None

    @property
    def ratio(self) -> float | None:
        """Value against floor."""
        return self.value / self.floor if self.floor else None

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing without a bar."""
        if self.bar is None:
            return ""
        return "met" if self.bar.met_by(self.value, self.ratio) else "missed"


class Report(Struct, frozen=True, kw_only=True):
    """What one benchmark found."""

    name: str
    title: str
    seconds: float
    rows: Sequence[Row]

    @property
    def met(self) -> bool:
        """Whether no bar was missed."""
        return all(row.verdict != "missed" for row in self.rows)


class Sample(NamedTuple):
    """One timed run."""

    rate: float
    """Jobs a second."""
    cpu_us: float
    """CPU of the whole process, µs a job."""
    loop_us: float
    """Of it, the event loop's thread."""


async def timed(jobs: int, work: Awaitable[object]) -> Sample:
    """Await ``work`` and say what ``jobs`` jobs took."""
    wall, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
    await work
    wall, cpu, loop = (
        time.perf_counter() - wall,
        time.process_time() - cpu,
        time.thread_time() - loop,
    )
    return Sample(jobs / wall, cpu / jobs * 1e6, loop / jobs * 1e6)


def best(samples: Iterable[Sample]) -> Sample:
    """The best of each figure: noise only ever makes a run slower."""
    rates, cpus, loops = zip(*samples, strict=True)
    return Sample(max(rates), min(cpus), min(loops))


def interleave(
    options: Options,
    *cases: Callable[[Path], Coroutine[Any, Any, T]],
    runs: int | None = None,
) -> list[list[T]]:
    """Run the cases in turn, each on fresh files and a fresh loop; the results of each case.

    Every other round goes backwards, so that no case always follows the same one.
    """
    results: list[list[T]] = [[] for _ in cases]
    for number in range(options.runs if runs is None else runs):
        order = list(enumerate(cases))
        for index, case in order[:: -1 if number % 2 else 1]:
            with options.folder() as folder:
                gc.collect()
                results[index].append(asyncio.run(case(Path(folder))))
    return results


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return percentile(values, 50)


def child(module: str, *arguments: object, cache: str | None = None) -> dict[str, Any]:
    """Run ``benchmarks.children.<module>`` in a fresh interpreter; what it reports.

    ``cache`` is where it keeps compiled modules, whatever the environment says about that.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = cache
    done = subprocess.run(
        child_command(module, *arguments), stdout=subprocess.PIPE, check=True, env=environment
    )
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    return found


def child_command(module: str, *arguments: object) -> list[str]:
    """The command line of a child."""
    return [sys.executable, "-m", f"benchmarks.children.{module}", *map(str, arguments)]


def machine() -> str:
    """Where the figures come from."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiosqlite", "anyio", "msgspec"))
    return (
        f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs; "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}; "
        f"database files on {_file_system(tempfile.gettempdir())}"
    )


def _file_system(place: str) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    holding = [(mount, kind) for mount, kind in mounts if Path(place).is_relative_to(mount)]
    return max(holding, key=lambda found: len(found[0]))[1]


# Showing

HEADS = ("benchmark", "what", "measured", "floor", "ratio", "bar", "")


def show(value: float) -> str:
    """A figure with three digits or as a whole number."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cells(report: Report, row: Row) -> tuple[str, ...]:
    """One row as text."""
    return (
        report.name,
        row.what,
        f"{show(row.value)} {row.unit}",
        "" if row.floor is None else f"{show(row.floor)} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.bar is None else row.bar.text(row.unit),
        row.verdict,
    )


def as_text(report: Report) -> str:
    """One benchmark as an aligned table."""
    lines = [HEADS[1:], *(cells(report, row)[1:] for row in report.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    body = "\n".join(f"  {line}" for line in table)
    return f"{report.name}: {report.title} ({report.seconds:.0f} s)\n{body}\n"


def as_markdown(reports: Iterable[Report]) -> str:
    """All benchmarks as one table for the README."""
    lines = [HEADS, tuple("---" for _ in HEADS)]
    lines += [cells(report, row) for report in reports for row in report.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_json(reports: Iterable[Report]) -> str:
    """All benchmarks for programs."""
    found = {
        "machine": machine(),
        "reports": [
            {
                "name": report.name,
                "title": report.title,
                "seconds": report.seconds,
                "met": report.met,
                "rows": [
                    {**msgspec.to_builtins(row), "ratio": row.ratio, "verdict": row.verdict}
                    for row in report.rows
                ],
            }
            for report in reports
        ],
    }
    return msgspec.json.format(msgspec.json.encode(found)).decode()


def say(text: str) -> None:
    """Print a line."""
    print(text, flush=True)
