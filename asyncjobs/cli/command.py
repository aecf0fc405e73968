"""The table of commands, what they have in common, and which errors end in which exit code."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from types import ModuleType
from typing import NoReturn

from ..errors import AsyncJobsError, InvalidOption, RunnerFailed, ScanRequired, StoreError
from ..rules.limits import check_url
from ..store.sqlite.looking import Onlooker
from . import audit, cancel, delete, doctor, failures, ls, queues, retry, schedules, show, tail
from .asked import Asked
from .screen import Screen, clean

COMMANDS: tuple[ModuleType, ...] = (
    ls, show, tail, failures, retry, cancel, delete, schedules, queues, audit, doctor,
)  # fmt: skip

DONE, NOT_SO, WRONG_USE, NO_DATABASE = 0, 1, 2, 3
"""Exit codes: done; it is not there, not possible, or not well; a wrong option; the database."""

DATABASE = "ASYNCJOBS_DB"


class Parser(argparse.ArgumentParser):
    """One whose complaints show as themselves, whatever was typed."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong, and end the process."""
        super().error(clean(message))


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add all of them."""
    for module in COMMANDS:
        parser = commands.add_parser(module.NAME, help=module.HELP, description=module.__doc__)
        add_database(parser, default=argparse.SUPPRESS)
        parser.add_argument("--json", action="store_true", help="print JSON")
        module.add_options(parser)
        parser.set_defaults(run=partial(run_command, module))


def add_database(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the option that says which database; before the command it means the same as behind."""
    which = f"the database file; by default {DATABASE} in the environment"
    parser.add_argument("--db", metavar="PATH", default=default, help=which)


def run_command(module: ModuleType, arguments: argparse.Namespace) -> int:
    """Run one of them; its exit code."""
    screen = _screen(as_json=arguments.json)
    try:
        code: int = module.run(Asked(arguments, _database(arguments.db), screen))
    except AsyncJobsError as error:
        return explain(error, screen)
    return code


def explain(error: AsyncJobsError, screen: Screen) -> int:
    """Say what went wrong in one line; the exit code."""
    text = str(error)
    if isinstance(error, ScanRequired):
        text += " (here: --scan, and filters as --state=)"
    screen.note(f"asyncjobs: {text}")
    match error:
        case InvalidOption():
            return WRONG_USE
        case StoreError() | RunnerFailed():
            return NO_DATABASE
        case _:
            return NOT_SO


def _screen(*, as_json: bool) -> Screen:
    """What suits the standard output: colours only on a terminal, where rich is installed."""
    if not as_json and sys.stdout.isatty():
        try:
            from .terminal import Terminal
        except ImportError:  # without the extra [cli]
            pass
        else:
            return Terminal(sys.stdout, sys.stderr)
    return Screen(sys.stdout, sys.stderr, as_json=as_json)


def _database(given: str | None) -> Onlooker:
    path = given if given is not None else os.environ.get(DATABASE)
    if not path:
        raise InvalidOption(f"no database is named: give --db PATH, or set {DATABASE}")
    if path == ":memory:":
        raise InvalidOption(":memory: is inside another process; give the path of a file")
    return Onlooker(check_url(path))


def print_anything() -> None:
    """Let texts through that the terminal's encoding does not know, such as names of files.

    And where the shell has closed a stream (``>&-``), let them go nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
