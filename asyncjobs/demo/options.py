"""``asyncjobs demo``: the command and its options, without what it takes to run it."""

from __future__ import annotations

import argparse


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the ``demo`` subcommand."""
    parser = commands.add_parser(
        "demo",
        help="index Python's standard library, with a crash half-way",
        description="Index the Python files of a directory, one job a file. Half-way the host "
        "process kills itself with SIGKILL; a second one finds the jobs and finishes.",
    )
    parser.add_argument("--no-crash", action="store_true", help="run through without the crash")
    parser.add_argument("--db", metavar="PATH", default=argparse.SUPPRESS,
                        help="database file (default: a new one)")  # fmt: skip
    parser.add_argument("--path", metavar="DIR", help="what to index (default: standard library)")
    parser.add_argument("--executor", choices=("process", "isolated", "thread"), default="process",
                        help="where files are parsed (default: process)")  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Only here: the demo brings the whole runner along, and other commands start without it.
    from .command import run_demo

    return run_demo(arguments)
