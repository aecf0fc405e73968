"""Faults in the database at chosen statements, before or after they take effect."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asyncjobs.store.sqlite import connection as connections
from asyncjobs.store.sqlite.connection import HopConnection

Decision = Callable[[str], str | None]
"""Statement to ``before``, ``after`` (its effect) or ``None`` for no fault."""


def input_output_error() -> sqlite3.OperationalError:
    """As SQLite raises it when the disk fails."""
    error = sqlite3.OperationalError("disk I/O error (injected)")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    error.sqlite_errorname = "SQLITE_IOERR"
    return error


class Faults:
    """Says which statement of the writing connection fails; none until told."""

    def __init__(self) -> None:
        self.decide: Decision | None = None
        self.injected = 0
        self.writer: sqlite3.Connection | None = None
        """The connection that has begun a writing transaction last."""

    def execute(self, connection: FaultyConnection, sql: Any, parameters: Any) -> Any:
        run = super(FaultyConnection, connection).execute
        if isinstance(sql, str) and sql.startswith("BEGIN IMMEDIATE"):
            self.writer = connection
        fault = self.decide(sql) if self.decide is not None and isinstance(sql, str) else None
        if fault == "before":
            self.injected += 1
            if sql == "COMMIT":
                # As SQLite does when writing the log fails: the transaction is rolled back.
                run("ROLLBACK")
            raise input_output_error()
        answer = run(sql, parameters)
        if fault == "after":
            self.injected += 1
            raise input_output_error()
        return answer


class FaultyConnection(HopConnection):
    """The library's connection, with faults."""

    faults: Faults

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        return self.faults.execute(self, sql, parameters)


@contextmanager
def faults() -> Iterator[Faults]:
    """Connections that are opened inside the block fail as the faults decide."""
    some = Faults()
    kind = type("FaultyConnection", (FaultyConnection,), {"faults": some})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HopConnection", kind)
        yield some
