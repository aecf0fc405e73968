"""Look for what is wrong: the file, its content, its settings, versions, processes, disk."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator

from ..errors import StoreError
from ..store.base import Violation
from ..store.overview import InstanceRow
from ..store.sqlite.check import INTACT, damage, settings, violations
from ..store.sqlite.looking import Onlooker
from ..store.sqlite.migrate import migrations, version_of
from ..store.sqlite.overview import instances as instances_of
from . import checkup
from .asked import Asked
from .checkup import Finding, note, ok, wrong

NAME = "doctor"
HELP = "look for what is wrong"
INSTANCES = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("--quick", action="store_true",
                        help="do not read the whole database: 1 s for 100,000 jobs")  # fmt: skip


def run(asked: Asked) -> int:
    """Look; 1 when something is wrong."""
    findings = list(_examine(asked.database, quick=asked.arguments.quick))
    well = all(finding.level != "wrong" for finding in findings)
    if asked.screen.as_json:
        asked.screen.document({"well": well, "findings": findings})
    else:
        for finding in findings:
            asked.screen.row(f"{finding.level:<5}", f"{finding.subject:<9}", finding.text)
    return 0 if well else 1


def _examine(database: Onlooker, *, quick: bool) -> Iterator[Finding]:
    path = database.path
    version, found = database.look(_kind, any_version=True)
    yield from checkup.versions(sqlite3.sqlite_version_info)
    yield checkup.schema(version)
    known = version == migrations()[-1][0]
    if version:  # else it is none of ours, and what it is set to is not our business
        yield checkup.file_settings(found)
    yield from checkup.files(path)
    yield from checkup.disk(path)
    if known:
        live, findings = checkup.instances(path, database.look(_instances))
        yield from findings
        yield checkup.log_file(path, live=live)
    if quick:
        yield note("content", "not looked at: leave out --quick")
    else:
        yield from _content(database, known=known)


def _kind(connection: sqlite3.Connection) -> tuple[int | None, dict[str, int]]:
    return version_of(connection), settings(connection)


def _instances(connection: sqlite3.Connection) -> list[InstanceRow]:
    return instances_of(connection, INSTANCES)


def _content(database: Onlooker, *, known: bool) -> Iterator[Finding]:
    """Everything that is in the file; of a version that is not known only whether it is intact."""
    try:
        found = database.look(violations if known else damage, any_version=True)
    except StoreError as error:
        yield wrong("content", str(error))
        return
    for violation in found:
        yield wrong("content", _broken(violation))
    if not found:
        yield ok("content", "intact, and every invariant holds" if known else "intact")


def _broken(violation: Violation) -> str:
    places = ", ".join(violation.examples)
    if violation.rule == INTACT:
        return f"SQLite finds the file damaged ({places}); stop all runners and restore a backup"
    return f"does not hold: {violation.rule} ({places}); restore a backup, or report it"
