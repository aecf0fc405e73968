"""The schema's version: fresh files are migrated from nothing, so fresh equals migrated."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import ForeignDatabase, NewerSchema
from .transaction import STATEMENTS


def migrations() -> list[tuple[int, str]]:
    """``(version, SQL)`` of every migration, oldest first."""
    folder = Path(__file__).with_name("migrations")
    found = [
        (int(file.name.split("_")[0]), file.read_text("utf-8")) for file in folder.glob("*.sql")
    ]
    return sorted(found)


def version_of(connection: sqlite3.Connection) -> int | None:
    """The file's schema version, 0 for an empty file, ``None`` for somebody else's database."""
    tables = {name for (name,) in connection.execute(STATEMENTS["tables"])}
    if "asyncjobs_meta" not in tables:
        return 0 if not tables else None
    row = connection.execute(STATEMENTS["schema_version"]).fetchone()
    return int(row[0]) if row else None


def check_version(connection: sqlite3.Connection, path: str, *, shared: bool) -> int:
    """The version to migrate from. Reads only, so that a refused file stays as it is.

    Raises:
        ForeignDatabase: it has other tables, and ``shared`` is false.
        NewerSchema: a newer asyncjobs wrote it.
    """
    version = version_of(connection)
    if version is None:
        if shared:
            return 0
        raise ForeignDatabase(
            f"{path} is a database of something else; give a path of its own, or "
            "Runner(..., shared=True) to put the asyncjobs_ tables beside the others"
        )
    newest = migrations()[-1][0]
    if version > newest:
        raise NewerSchema(
            f"{path} has schema version {version}, this asyncjobs knows {newest}; "
            "install the newer asyncjobs again. The file was not changed"
        )
    return version


def migrate(
    connection: sqlite3.Connection, version: int, steps: Sequence[tuple[int, str]] | None = None
) -> None:
    """Bring the file to the newest version in one transaction; nothing to do is nothing done.

    ``steps`` stands in for :func:`migrations` in tests.
    """
    steps = migrations() if steps is None else steps
    todo = [(number, sql) for number, sql in steps if number > version]
    if not todo:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        found = version_of(connection) or 0
        for number, sql in todo:
            if number > found:
                _run_migration(connection, number, sql)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _run_migration(connection: sqlite3.Connection, number: int, sql: str) -> None:
    # Not ``executescript``: it commits the open transaction first.
    for statement in split_statements(sql):
        connection.execute(statement)
    if number == 1:
        connection.executemany(
            STATEMENTS["add_fact"],
            [("database_id", os.urandom(8).hex()), ("schema_version", 0)],
        )
    connection.execute(STATEMENTS["set_schema_version"], (number,))


def split_statements(sql: str) -> Iterator[str]:
    """The statements of a script, by SQLite's own idea of where one ends."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
