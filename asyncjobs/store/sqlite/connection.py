"""Connections: one hop a transaction, settings that are asserted, errors that can be told apart."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

import aiosqlite

from ...errors import (
    AsyncJobsError,
    SQLiteTooOld,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from .numbering import taking_numbers

OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""
BUSY_TIMEOUT_SECONDS = 0.25
"""How long one try waits for somebody else's lock; the writer tries again."""
CACHED_STATEMENTS = 512
CHECKPOINT_PAGES = 8000
"""The writer copies the log back when it holds 32 MB. Its limit is 64 MB. Copying takes 10 to
50 ms, however many pages it is: at 16 MB more than one claim in a hundred met it."""

T = TypeVar("T")

SYNCHRONOUS = {"full": 2, "normal": 1}


class HopConnection(sqlite3.Connection):
    """A connection whose ``execute`` also takes a :class:`Hop`.

    Through it aiosqlite's public ``execute_fetchall`` runs a whole transaction in one hop to its
    thread.
    """

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        """Run a statement, or a hop's function."""
        if isinstance(sql, Hop):
            return sql.run(taking_numbers(self))
        return super().execute(sql, parameters)


class Hop:
    """A function to run in the connection's thread.

    An object of its own, because aiosqlite logs the repr of what it runs at DEBUG level: a
    job's arguments must not be in there.
    """

    __slots__ = ("_function", "_value")

    def __init__(self, function: Callable[[sqlite3.Connection], Any]) -> None:
        self._function = function

    def run(self, connection: sqlite3.Connection) -> Hop:
        """Run the function; the result waits for :meth:`fetchall`."""
        self._value = self._function(connection)
        return self

    def fetchall(self) -> Any:
        """What ``execute_fetchall`` asks a cursor for."""
        return self._value

    def __repr__(self) -> str:
        return f"<Hop {getattr(self._function, '__name__', 'function')}>"


class Connection:
    """An aiosqlite connection that runs functions in its thread."""

    def __init__(self, database: aiosqlite.Connection, path: str) -> None:
        self._database = database
        self._path = path

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function(connection)`` in the connection's thread, in one hop.

        Cancelling the await does not stop it.

        Raises:
            StoreError: and its children, in place of sqlite3's errors.
        """
        try:
            answer: Any = await self._database.execute_fetchall(cast("str", Hop(function)))
        except (sqlite3.IntegrityError, sqlite3.DataError):
            # One operation is bad, not the database: the writer finds out which.
            raise
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        value: T = answer
        return value

    async def interrupt(self) -> None:
        """Make the statement that runs now fail, if one does."""
        await self._database.interrupt()

    async def close(self) -> None:
        """Close the connection and end its thread."""
        await self._database.close()


async def connect(path: str) -> Connection:
    """Open ``path`` without touching its content.

    Raises:
        SQLiteTooOld: SQLite before 3.35.
        StoreUnavailable: the place cannot be opened or written.
    """
    check_sqlite_version(sqlite3.sqlite_version_info)
    if path != ":memory:":
        create_private_file(path)
    database = aiosqlite.connect(
        path,
        isolation_level=None,
        factory=HopConnection,
        timeout=BUSY_TIMEOUT_SECONDS,
        cached_statements=CACHED_STATEMENTS,
    )
    try:
        # First without aiosqlite: after a failure its thread still reports to the event loop, and
        # prints a traceback when that is closed by then.
        sqlite3.connect(path).close()
        await database
    except sqlite3.Error as error:
        raise translate(error, path) from error
    _stop_at_exit(database)
    return Connection(database, path)


def check_sqlite_version(version: tuple[int, int, int]) -> None:
    """Refuse a library that lacks what the statements need."""
    if version < OLDEST_SQLITE:
        found = ".".join(map(str, version))
        raise SQLiteTooOld(f"asyncjobs needs SQLite 3.35 or newer; this Python has {found}")


def create_private_file(path: str) -> None:
    """Make the file with mode 0600 if there is none, whatever the umask.

    Only when there is none: opening and closing a database by other means drops the locks that
    SQLite holds on it in this process.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if os.path.isdir(path):
            raise StoreUnavailable(
                f"{path} is a directory; give the path of a file in it, such as "
                f"{os.path.join(path, 'jobs.db')}"
            ) from None
        return
    except OSError as error:
        raise StoreUnavailable(
            f"cannot create the database {path}: {error.strerror}; give a path in a directory "
            "that exists and can be written"
        ) from error
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)


def set_up(connection: sqlite3.Connection, durability: str, *, writer: bool) -> None:
    """Give a connection its settings, and assert that SQLite took them."""
    settings: dict[str, int] = {
        "synchronous": SYNCHRONOUS[durability],
        # Another program's automatic checkpoint at the same moment as ours can corrupt the file
        # (SQLite before 3.51.3): only the writer checkpoints, and only while it holds the turn.
        "wal_autocheckpoint": CHECKPOINT_PAGES if writer else 0,
        "query_only": 0 if writer else 1,
        # One MB, half of the default: two connections hold it, and no benchmark is slower for it.
        "cache_size": -1000,
        "cell_size_check": 1,
        "recursive_triggers": 0,
    }
    for name, value in settings.items():
        # ``execute`` of a pragma with a value may answer nothing; asking again always answers.
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
        found = connection.execute(f"PRAGMA {name}").fetchone()
        if found is None or found[0] != value:
            raise StoreUnavailable(f"SQLite did not take PRAGMA {name} = {value}: {found}")


def translate(error: sqlite3.Error, path: str) -> AsyncJobsError:
    """sqlite3's error as one of ours, with what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_IOERR_WRITE:
        # One code for a disk that fails and for EFBIG and EDQUOT, so it cannot be a StoreFull.
        return StoreError(
            f"{path}: cannot be written ({error}): the disk fails, or a quota or the limit of "
            "file sizes (ulimit -f) is reached; raise that, or see the system's log"
        )
    match code & 0xFF if code is not None else None:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"{path}: another program holds the write lock ({error})")
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: the disk or the database is full; make room ({error})")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreUnavailable(f"{path}: cannot be opened for writing ({error})")
        case sqlite3.SQLITE_NOTADB:
            return StoreUnavailable(f"{path} is not a SQLite database; give another path")
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnavailable(f"{path} is damaged ({error}); restore a backup")
        case _:
            return StoreError(f"{path}: {error}")


_live: weakref.WeakSet[aiosqlite.Connection] = weakref.WeakSet()
_guard: threading.Thread | None = None
_guard_lock = threading.Lock()


def _stop_at_exit(database: aiosqlite.Connection) -> None:
    """Let the process end although somebody forgot to close.

    aiosqlite's threads are not daemons: the interpreter would wait for them for ever.
    """
    global _guard
    with _guard_lock:
        _live.add(database)
        if _guard is None or not _guard.is_alive():
            _guard = threading.Thread(target=_stop_all, name="asyncjobs-exit", daemon=True)
            _guard.start()


def _stop_all() -> None:
    threading.main_thread().join()
    for database in list(_live):
        with contextlib.suppress(Exception):  # at interpreter exit nothing can be reported
            database.stop()
