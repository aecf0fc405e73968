"""``python -m benchmarks [NAMES...]``: run benchmarks and hold them against their bars."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from . import harness
from .harness import Options, Report

NAMES = (
    "floor",
    "throughput",
    "latency",
    "awaiters",
    "bulk",
    "backlog",
    "limits",
    "unique",
    "registry",
    "commands",
    "memory",
    "idle",
    "recovery",
    "processes",
    "workers",
    "seeing",
    "startup",
)


def measure(name: str, options: Options) -> Report:
    """Run one benchmark."""
    module = import_module(f".{name}", __package__)
    began = time.monotonic()
    rows = module.run(options)
    return Report(name=name, title=module.TITLE, seconds=time.monotonic() - began, rows=rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; 1 when ``--check`` finds a bar missed."""
    given = _parser().parse_args(arguments)
    options = Options(given.scale, given.dir)
    text = not (given.json or given.markdown)
    if text:
        harness.say(harness.machine() + "\n")
    reports = []
    for name in given.names or NAMES:
        reports.append(measure(name, options))
        if text:
            harness.say(harness.as_text(reports[-1]))
    if given.json:
        harness.say(harness.as_json(reports))
    if given.markdown:
        harness.say(f"{harness.as_markdown(reports)}\n\n{harness.machine()}")
    return int(given.check and not all(report.met for report in reports))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME",
                        help=f"which: {' '.join(NAMES)}; by default all")  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the result as JSON")
    form.add_argument("--markdown", action="store_true", help="the result as the README's table")
    scale = parser.add_mutually_exclusive_group()
    for name, what in (("smoke", "seconds in all, figures worth nothing"),
                       ("quick", "few and short runs"),
                       ("full", "more runs, a million jobs in memory")):  # fmt: skip
        scale.add_argument(f"--{name}", dest="scale", action="store_const", const=name, help=what)
    parser.set_defaults(scale="normal")
    parser.add_argument("--dir", help="where database files stand; by default the system's "
                        "directory for temporary files")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="end with 1 when a bar is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
