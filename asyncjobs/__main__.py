"""The command line: ``asyncjobs`` and ``python -m asyncjobs``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .cli.command import DATABASE, NOT_SO, Parser, add_commands, add_database, print_anything
from .demo.options import add_demo

INTERRUPTED = 130
"""What shells expect of a program that ended by Ctrl-C: 128 + SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 done, 1 not found, not possible or not well, 2 asked for wrongly, 3 the database cannot be
    used, 130 interrupted.
    """
    print_anything()
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has left with what it wanted (``| head``)
        _print_nothing_more()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise  # only what works on a file names it
        _print_nothing_more()
        sys.stderr.write(f"asyncjobs: what was found cannot be written: {error.strerror}\n")
        return NOT_SO
    return code


def _print_nothing_more() -> None:
    """Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="asyncjobs",
        description="Look at the jobs of a database, and act on them, while applications use it.",
        epilog="Exit codes: 0 done, 1 not found, not possible or not well, 2 wrong use, "
        f"3 the database cannot be used. The database may also be named by {DATABASE}.",
    )
    _add_all(parser)
    return parser


def _add_all(parser: argparse.ArgumentParser) -> None:
    add_database(parser, default=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_commands(commands)
    add_demo(commands)


if __name__ == "__main__":
    sys.exit(main())
