"""Writing through a connection of the application, inside its own open transaction.

What must hold is checked every time, in the connection's own thread: a pragma costs less than a
microsecond, and the application may change it at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import aiosqlite
import anyio

from ...errors import AsyncJobsError, InvalidOption, StoreBusy, StoreError, UnfitConnection
from ...locks import FileLock
from ..base import Operation
from ..group_commit import BUSY_SECONDS
from .connection import SYNCHRONOUS, Hop, translate
from .numbering import taking_numbers
from .operations import WRITES
from .transaction import STATEMENTS, Transaction

AppConnection = aiosqlite.Connection | sqlite3.Connection

TURN_WAIT_SECONDS = 0.25
"""How long one queues for the turn before SQLite's own lock has to do. A stopped process may hold
the turn; it must not stop the others for longer than that."""
FIRST_PAUSE_SECONDS = 0.000_1
LONGEST_PAUSE_SECONDS = 0.005

T = TypeVar("T")


class Home(NamedTuple):
    """The database that a connection must be on, and what the runner promises of it."""

    path: str
    durability: str
    schema: int


# Where the connection lives


async def run_in(
    connection: object,
    function: Callable[[sqlite3.Connection], T],
    home: Home,
    *,
    undo: Callable[[sqlite3.Connection], object] | None = None,
) -> T:
    """Run ``function(connection)`` in the connection's own thread.

    A cancelled await goes on until the function has returned, since only then anybody knows what
    is open on the connection. ``undo`` then takes back what a true answer stands for.

    Raises:
        InvalidOption: it is no connection, or an unfit one.
        StoreError: and its children, in place of sqlite3's errors.
    """
    if isinstance(connection, sqlite3.Connection):
        return run_here(connection, function, home)
    running = asyncio.ensure_future(_hop(connection, partial(_run, function=function, home=home)))
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        return running.result()
    if running.exception() is None and undo is not None and running.result():
        await run_in(connection, undo, home)
    raise cancelled


async def _hop(connection: object, function: Callable[[sqlite3.Connection], T]) -> T:
    if not isinstance(connection, aiosqlite.Connection):
        raise _no_connection(connection)
    try:
        # aiosqlite has no public way to run a function in its thread. Statement by statement
        # through public ones would be a dozen hops, and the loop's other tasks between them.
        execute: Any = connection._execute
        raw = connection._conn
    except AttributeError as error:
        raise StoreError(
            "this release of aiosqlite lets nobody run a function in its thread; give a sqlite3 "
            "connection, or install an aiosqlite that asyncjobs knows (0.22.1)"
        ) from error
    except ValueError as error:
        raise _closed() from error
    try:
        hop = await execute(Hop(function).run, raw)
    except ValueError as error:
        if isinstance(error, AsyncJobsError):
            raise
        raise _closed() from error
    value: T = hop.fetchall()
    return value


def run_here(connection: object, function: Callable[[sqlite3.Connection], T], home: Home) -> T:
    """Run ``function(connection)`` in the calling thread.

    Raises:
        InvalidOption, StoreError: as :func:`run_in`.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise _no_connection(connection, "sqlite3.Connection")
    return _run(connection, function, home)


def _run(
    connection: sqlite3.Connection, function: Callable[[sqlite3.Connection], T], home: Home
) -> T:
    try:
        with _as_ours(connection):
            return function(connection)
    except (UnicodeError, OverflowError) as error:
        raise StoreError(f"the database refused the value: {type(error).__name__}") from error
    except sqlite3.Error as error:
        translated = translate(error, home.path)
        if isinstance(translated, StoreBusy):
            raise StoreBusy(
                f"{translated}; roll the transaction back, and begin it with "
                "runner.transaction(connection) or BEGIN IMMEDIATE, so that it waits for the lock"
            ) from error
        raise translated from error


@contextlib.contextmanager
def _as_ours(connection: sqlite3.Connection) -> Iterator[None]:
    """Rows are tuples and text is str, as our statements expect; then as they were."""
    _check_usable(connection)
    row_factory, text_factory = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = row_factory, text_factory


# What must hold


def _check_usable(connection: sqlite3.Connection) -> None:
    try:
        connection.in_transaction  # noqa: B018 - raises when it is closed, in any thread
    except sqlite3.ProgrammingError as error:
        raise _closed() from error
    try:
        connection.cursor().close()
    except sqlite3.ProgrammingError as error:
        raise UnfitConnection(
            "the sqlite3 connection belongs to another thread; give one that was made in this "
            "thread, or an aiosqlite connection",
            reason="other_thread",
        ) from error


def _check(connection: sqlite3.Connection, home: Home, *, open_already: bool) -> None:
    """It is on our file, as durable as the runner promises, and in a transaction or not."""
    listed = connection.execute("PRAGMA database_list").fetchall()
    file = next((file for _, name, file in listed if name == "main"), None)
    if not _same_file(file, home.path):
        raise UnfitConnection(
            f"the connection is on {file or 'a database in memory'}, the jobs are in {home.path}; "
            "give a connection that was opened on that file (attached to another does not do: "
            "commits over two files are not atomic)",
            reason="other_file",
        )
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    if level < SYNCHRONOUS[home.durability]:
        raise UnfitConnection(
            f"the connection has PRAGMA synchronous = {level}, the runner promises "
            f"durability={home.durability!r}; before the transaction execute "
            f"PRAGMA synchronous = {home.durability.upper()} on it",
            reason="durability",
        )
    _check_transaction(connection, open_already=open_already)
    # Another program's automatic checkpoint at the same moment as ours can corrupt the file
    # (SQLite before 3.51.3).
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()


def _check_transaction(connection: sqlite3.Connection, *, open_already: bool) -> None:
    if open_already and not connection.in_transaction:
        raise UnfitConnection(
            "the connection has no transaction open that could be joined; use "
            "'async with runner.transaction(connection) as tx:', or execute BEGIN IMMEDIATE first",
            reason="no_transaction",
        )
    if connection.in_transaction and not open_already:
        raise UnfitConnection(
            "the connection has a transaction open already, perhaps that of another task or of an "
            "outer runner.transaction; end that one first, or use a connection a task (one made "
            "with autocommit=False always has one open: give it as tx= instead)",
            reason="in_transaction",
        )


def _same_file(file: str | None, path: str) -> bool:
    try:
        return bool(file) and os.path.samefile(str(file), path)
    except OSError:
        return False


def _check_schema(connection: sqlite3.Connection, home: Home) -> None:
    found = connection.execute(STATEMENTS["schema_version"]).fetchone()
    if found is None or found[0] != home.schema:
        raise UnfitConnection(
            f"{home.path} has schema version {found and found[0]}, this runner works with "
            f"{home.schema}; restart it with the asyncjobs that has migrated the file",
            reason="schema",
        )


def _no_connection(
    connection: object, wanted: str = "aiosqlite.Connection or a sqlite3.Connection"
) -> InvalidOption:
    return InvalidOption(f"the connection must be a {wanted}, got {type(connection).__name__}")


def _closed() -> UnfitConnection:
    return UnfitConnection("the connection is closed, or was never opened", reason="closed")


# Writing


def write_joined(
    connection: sqlite3.Connection, home: Home, operations: Sequence[Operation], now: int
) -> list[Any]:
    """Run the operations inside the open transaction, all or none; one result each.

    The savepoint is what makes it none: the application may go on after an error of ours.
    """
    _check(connection, home, open_already=True)
    connection.execute(STATEMENTS["savepoint"])
    try:
        # Looks for what stands in the way instead of running into it: a statement that fails would
        # take the application's transaction with it.
        tx = Transaction(taking_numbers(connection), now, careful=True)
        # A write before anything is read: it waits for the lock, where a transaction that has
        # begun to read is refused at once when somebody else has written since.
        _touch(tx, home)
        _check_schema(connection, home)
        results = [WRITES[type(operation)](tx, operation) for operation in operations]
        tx.finish()
        connection.execute(STATEMENTS["release_savepoint"])
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it
            connection.execute(STATEMENTS["undo_savepoint"])
            connection.execute(STATEMENTS["release_savepoint"])
        raise
    return results


def _touch(tx: Transaction, home: Home) -> None:
    try:
        tx.value("take_seqs", 0)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
        raise UnfitConnection(
            f"the connection does not see the tables of asyncjobs in {home.path}: its transaction "
            "is older than they are, or the file was replaced; begin a new one",
            reason="no_tables",
        ) from error


def write_lock_is_free(connection: sqlite3.Connection) -> bool:
    """Whether nobody writes at this moment. For our reader, which is not allowed to otherwise."""
    with _without_waiting(connection):
        connection.execute("PRAGMA query_only = 0").fetchall()
        try:
            return _begin_now(connection) and _roll_back(connection)
        finally:
            connection.execute("PRAGMA query_only = 1").fetchall()


# A transaction from its beginning to its end


class Line:
    """Where the application's transactions of one process stand in line, and let the writer by.

    A hundred that try for the lock beside each other, each ever more rarely, keep one another and
    the writer from it: a new job waited 600 ms, and some heard ``StoreBusy``.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._served = 0
        self._flush: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def flush(self) -> Iterator[None]:
        """The writer writes, or waits for the lock: the next in line lets it go first."""
        flush: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush = flush
        try:
            yield
        finally:
            if not flush.done():
                flush.set_result(None)

    @contextlib.asynccontextmanager
    async def place(self, path: str) -> AsyncIterator[None]:
        """Be the first in line.

        Raises:
            StoreBusy: the line has not moved for :data:`BUSY_SECONDS`.
        """
        waiting = True
        while waiting:
            served = self._served
            try:
                async with asyncio.timeout(BUSY_SECONDS):
                    waiting = not await self._lock.acquire()
            except TimeoutError:
                if self._served == served:
                    raise _line_stands(path) from None
        try:
            if self._flush is not None:
                # This one alone, or a busy writer would keep everybody waiting.
                await asyncio.wait([self._flush], timeout=TURN_WAIT_SECONDS)
            yield
        finally:
            self._served += 1
            self._lock.release()


def _line_stands(path: str) -> StoreBusy:
    return StoreBusy(
        f"{path}: another runner.transaction of this process has been open for more than "
        f"{BUSY_SECONDS:g} s. If it is one of this very task, it waits for itself: end that first"
    )


@contextlib.asynccontextmanager
async def transaction(connection: object, home: Home, line: Line) -> AsyncIterator[None]:
    """A place in line, the turn, BEGIN IMMEDIATE, and COMMIT in the end, ROLLBACK after an error.

    Raises:
        InvalidOption: it is no connection, an unfit one, or has a transaction open.
        StoreBusy: the write lock was not to be had for :data:`BUSY_SECONDS`.
        StoreError: it could not be committed.
    """
    await run_in(connection, partial(_check, home=home, open_already=False), home)
    async with line.place(home.path):
        turn = FileLock(f"{home.path}-turn")
        try:
            await _take_turn(turn)
            await _begin(connection, home)
            try:
                yield
            except BaseException:
                with contextlib.suppress(UnfitConnection):  # closed meanwhile: nothing is open
                    await run_in(connection, _roll_back, home)
                raise
            await run_in(connection, _commit, home)
        finally:
            turn.close()


async def _take_turn(turn: FileLock) -> None:
    """Queue for the turn without holding up the event loop."""

    async def take() -> bool:
        return turn.try_acquire()

    await _repeat_within(TURN_WAIT_SECONDS, take)


async def _begin(connection: object, home: Home) -> None:
    begin = partial(_try_begin, home=home)

    async def begun() -> bool:
        return await run_in(connection, begin, home, undo=_roll_back)

    if not await _repeat_within(BUSY_SECONDS, begun):
        raise StoreBusy(
            f"{home.path}: somebody else holds the write lock; waited {BUSY_SECONDS:g} s. If that "
            "is another transaction of this very task, it waits for itself: end that one first"
        )


async def _repeat_within(seconds: float, attempt: Callable[[], Awaitable[bool]]) -> bool:
    """Try at once, then after ever longer pauses; false when the time is over."""
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    deadline = loop.time() + seconds
    while not await attempt():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
    return True


def _try_begin(connection: sqlite3.Connection, home: Home) -> bool:
    """Begin if the lock is free; never waits for it, since this may be the loop's thread."""
    _check(connection, home, open_already=False)
    with _without_waiting(connection):
        return _begin_now(connection)


def _begin_now(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


@contextlib.contextmanager
def _without_waiting(connection: sqlite3.Connection) -> Iterator[None]:
    before = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {before}").fetchall()


def _commit(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # else the application has ended it itself
        try:
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise


def _roll_back(connection: sqlite3.Connection) -> bool:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    return True
