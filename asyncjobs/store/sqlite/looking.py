"""Looking at a database from another process than the application's, without leaving a trace.

No connection is open between two looks, so none keeps the application's last one from tidying up.
A database whose log is there is opened read-only. Opened so without a log, SQLite would make one
and leave it behind: then it is opened as a file that does not change, and if it has changed in the
meantime, it is looked at again.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...errors import (
    ForeignDatabase,
    NewerSchema,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from .migrate import migrations, version_of
from .numbering import taking_numbers

BUSY_SECONDS = 2.0
"""How long a look waits for somebody who holds the whole file, as while a crash is recovered."""
YOUNG_NANOSECONDS = 20_000_000
"""Times of files are as coarse as the kernel's tick, 10 ms at most: two writes may share one."""
TRIES = 5

T = TypeVar("T")


class Stamp(NamedTuple):
    """What tells from outside whether a database was written."""

    database: tuple[int, int, int]
    """Inode, size, time of the last write."""
    log: tuple[int, int, int] | None
    """The same of the ``-wal``; ``None`` when there is none."""

    @property
    def young(self) -> bool:
        """Whether the last write is so fresh that one more could bear the same time."""
        newest = max(self.database[2], self.log[2] if self.log else 0)
        return time.time_ns() - newest < YOUNG_NANOSECONDS


class Onlooker:
    """One who looks at a database file, and changes nothing: neither in it nor beside it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._newest_schema = migrations()[-1][0]

    def stamp(self) -> Stamp:
        """How the files stand.

        Raises:
            StoreUnavailable: there is no database.
        """
        return Stamp(self._stat_database(), _stat(f"{self.path}-wal"))

    def look(self, function: Callable[[sqlite3.Connection], T], *, any_version: bool = False) -> T:
        """What ``function`` finds in the database, all seen at one instant.

        With ``any_version`` the schema is not looked at, and no transaction is open.

        Raises:
            StoreUnavailable: and its children: it is not there, cannot be read, is none of ours.
            StoreBusy: another program keeps everybody out.
        """
        for _ in range(TRIES):
            before = self.stamp()
            try:
                return self._look(function, before, any_version=any_version)
            except _Moved:
                continue
        raise StoreBusy(f"{self.path} was opened and closed all the time; try again")

    def _look(
        self, function: Callable[[sqlite3.Connection], T], before: Stamp, *, any_version: bool
    ) -> T:
        still = before.log is None
        try:
            connection = self._open(still=still)
            try:
                answer = self._ask(taking_numbers(connection), function, any_version=any_version)
            finally:
                connection.close()
        except Exception as error:
            if still and self.stamp() != before:
                raise _Moved from error  # whatever it was: what was read may be half of two states
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise
        if still and self.stamp() != before:
            raise _Moved
        return answer

    def _open(self, *, still: bool) -> sqlite3.Connection:
        address = Path(self.path).as_uri() + "?mode=ro" + ("&immutable=1" if still else "")
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_SECONDS)

    def _ask(
        self,
        connection: sqlite3.Connection,
        function: Callable[[sqlite3.Connection], T],
        *,
        any_version: bool,
    ) -> T:
        connection.execute("PRAGMA cell_size_check = 1").fetchall()
        if any_version:
            return function(connection)
        connection.execute("BEGIN")
        self._check_version(version_of(connection))
        return function(connection)

    def _check_version(self, version: int | None) -> None:
        if version is None:
            raise ForeignDatabase(
                f"{self.path} is a database of something else: it has no asyncjobs_ tables; give "
                "the path that the application gives its Runner"
            )
        if version == 0:
            raise StoreUnavailable(
                f"{self.path} is empty: no application has started a Runner on it yet"
            )
        newest = self._newest_schema
        if version > newest:
            raise NewerSchema(
                f"{self.path} has schema version {version}, this asyncjobs knows {newest}; use the "
                "asyncjobs that the application has"
            )
        if version < newest:
            raise StoreUnavailable(
                f"{self.path} has schema version {version}, this asyncjobs needs {newest}; use the "
                "asyncjobs that the application has, or start the application once with this one, "
                "which brings the file up to date"
            )

    def _stat_database(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise StoreUnavailable(
                f"there is no database {self.path}; give the path that the application gives its "
                "Runner, which makes the file when it first starts"
            ) from None
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be opened: {error.strerror}") from error
        if stat.S_ISDIR(found.st_mode):
            raise StoreUnavailable(f"{self.path} is a directory; give the path of the file in it")
        if not stat.S_ISREG(found.st_mode):
            raise StoreUnavailable(f"{self.path} is no file; give the path of a database")
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _explain(self, error: sqlite3.Error) -> StoreError:
        """The error as one of ours, with what to do."""
        code = getattr(error, "sqlite_errorcode", None)
        match code & 0xFF if code is not None else None:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreBusy(
                    f"{self.path} is locked: another program has kept everybody out for "
                    f"{BUSY_SECONDS:g} s; try again, or look for it with fuser"
                )
            case sqlite3.SQLITE_NOTADB:
                return StoreUnavailable(f"{self.path} is not a SQLite database; give another path")
            case sqlite3.SQLITE_CORRUPT:
                return StoreUnavailable(f"{self.path} is damaged ({error}); restore a backup")
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return StoreUnavailable(self._why_not())
            case _:
                return StoreError(f"{self.path}: {error}")

    def _why_not(self) -> str:
        for path in (self.path, f"{self.path}-wal", f"{self.path}-shm"):
            if os.path.exists(path) and not os.access(path, os.R_OK, effective_ids=True):
                return f"{path} may not be read by this user; run this as the owner of the database"
        return (
            f"{self.path} has a -wal whose -shm this user cannot make or open; run this as the "
            "owner of the database, and where it can be written"
        )


class _Moved(Exception):
    """The file was not as still as it was taken for."""


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
