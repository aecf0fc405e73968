"""The SQLite engine: one writing connection, one reading connection, one file."""

from __future__ import annotations

import builtins
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from ...clock import Clock, SystemClock, to_instant
from ...errors import StoreUnavailable, UnfitConnection
from ...inventory import AuditEntry, LimitStanding, Queue
from ...locks import FileLock
from ...records import Attempt, Job, Outcome
from ..base import Filter, Operation, Order, Page, Places, Violation
from ..failures import Failure
from ..journal import JournalEnd, JournalPage, JournalQuery, LogPage, Place, log_place_of
from ..overview import InstanceRow, Surroundings
from ..retention import Rule
from ..schedules import Schedule
from . import explaining, failing, journal, overview, reads, retaining, schedules
from .backup import back_up
from .check import violations
from .connection import CHECKPOINT_PAGES, Connection, connect, set_up
from .joining import (
    TURN_WAIT_SECONDS,
    Home,
    Line,
    run_here,
    run_in,
    transaction,
    write_joined,
    write_lock_is_free,
)
from .listing import count, count_rows, list_jobs, places
from .migrate import check_version, migrate, migrations
from .operations import WRITES
from .transaction import STATEMENTS, Transaction, TryCarefully, to_json

T = TypeVar("T")

MEMORY = ":memory:"


class SQLiteStore:
    """A store in one SQLite file, or in memory for one process (``:memory:``)."""

    def __init__(
        self,
        path: str,
        *,
        durability: str = "full",
        shared: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.path = path
        self._durability = durability
        self._shared = shared
        self._clock = clock or SystemClock()
        self._turn: FileLock | None = None
        self._line = Line()
        self._checkpoints = True
        self._data_version: int | None = None
        self._newest_schema = migrations()[-1][0]
        self.database_id = ""
        self.expiry_written = True
        """Whether a job that expires may have been written since somebody looked."""

    def now(self) -> int:
        """The store's clock, in microseconds UTC."""
        return self._clock.now()

    async def open(self) -> None:
        """Open or create the file, migrate it, and assert every setting.

        Raises:
            StoreUnavailable: and its children; the file is left as it was.
        """
        if self.path != MEMORY:
            self.path = os.path.realpath(self.path)
        self._writer = await connect(self.path)
        try:
            await self._writer.run(self._prepare)
            self._reader = self._writer
            if self.path != MEMORY:
                self._reader = await connect(self.path)
                await self._reader.run(partial(set_up, durability=self._durability, writer=False))
        except BaseException:
            await self.close()
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = check_version(connection, self.path, shared=self._shared)
        if self.path != MEMORY:
            self._take_up_turn()
        try:
            if version == 0:
                # Before the first table, or it is ignored.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != ("memory" if self.path == MEMORY else "wal"):
                raise StoreUnavailable(f"{self.path}: SQLite did not take WAL mode, but {mode}")
            set_up(connection, self._durability, writer=True)
            migrate(connection, version)
            self.database_id = connection.execute(STATEMENTS["database_id"]).fetchone()[0]
        finally:
            if self._turn:
                self._turn.release()

    def _take_up_turn(self) -> None:
        try:
            self._turn = FileLock(f"{self.path}-turn")
        except OSError as error:
            raise StoreUnavailable(
                f"cannot create {self.path}-turn: {error.strerror}; the directory of the database "
                "must be writable"
            ) from error
        self._turn.acquire(TURN_WAIT_SECONDS)

    async def close(self) -> None:
        """Close both connections. The last one out copies the log back."""
        reader = getattr(self, "_reader", None)
        if reader is not None and reader is not self._writer:
            await reader.close()
        held = self._turn is not None and self._turn.try_acquire()
        await self._writer.close()
        if self._turn is not None:
            if held:
                self._turn.release()
            self._turn.close()
            self._turn = None

    async def write(self, operations: Sequence[Operation]) -> list[Any]:
        """Run the operations in one transaction and one hop; one result each."""
        with self._line.flush():
            return await self._writer.run(partial(self._transact, operations))

    def _transact(
        self, operations: Sequence[Operation], connection: sqlite3.Connection
    ) -> list[Any]:
        held = self._turn is not None and self._turn.acquire(TURN_WAIT_SECONDS)
        try:
            self._allow_checkpoints(connection, held or self._turn is None)
            try:
                return self._try(operations, connection, careful=False)
            except (sqlite3.IntegrityError, TryCarefully):
                # An id that is there already, a fence that no longer holds: rare, so only the
                # second try looks for them.
                return self._try(operations, connection, careful=True)
        finally:
            if held and self._turn is not None:
                self._turn.release()

    def _try(
        self, operations: Sequence[Operation], connection: sqlite3.Connection, *, careful: bool
    ) -> list[Any]:
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, self._clock.now(), careful=careful)
        try:
            results = [WRITES[type(operation)](tx, operation) for operation in operations]
            tx.finish()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:  # also of a COMMIT that failed: it may have happened
            self.expiry_written = self.expiry_written or tx.expiring
        return results

    def _allow_checkpoints(self, connection: sqlite3.Connection, allowed: bool) -> None:
        """Checkpoint only while holding the turn: two at once can damage the file.

        That is the WAL-reset bug of SQLite before 3.51.3.
        """
        if allowed != self._checkpoints:
            pages = CHECKPOINT_PAGES if allowed else 0
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
            self._checkpoints = allowed

    # In transactions of the application

    async def write_in(self, connection: Any, operations: Sequence[Operation]) -> list[Any]:
        """Run the operations in the open transaction of an aiosqlite or sqlite3 connection."""
        write = self._write_joined(operations)
        return await run_in(connection, write, self._home())

    def write_here(self, connection: Any, operations: Sequence[Operation]) -> list[Any]:
        """The same in the calling thread, for a sqlite3 connection of its own."""
        return run_here(connection, self._write_joined(operations), self._home())

    def _write_joined(
        self, operations: Sequence[Operation]
    ) -> Callable[[sqlite3.Connection], list[Any]]:
        home, now = self._home(), self._clock.now()
        return lambda connection: write_joined(connection, home, operations, now)

    @contextlib.asynccontextmanager
    async def transaction(self, connection: Any) -> AsyncIterator[None]:
        """A write transaction on the application's connection, begun when it can be."""
        async with transaction(connection, self._home(), self._line):
            yield

    async def settled(self, ids: Sequence[str]) -> set[str]:
        """Which of the jobs were written in a transaction that has ended by now.

        One that has written holds the write lock until its end: who gets the lock after it, if
        only for a moment, knows that it has ended, whatever became of it and of its connection.
        """

        def look(connection: sqlite3.Connection) -> set[str]:
            rows = connection.execute(STATEMENTS["existing_ids"], (to_json(list(ids)).decode(),))
            there = {job_id for (job_id,) in rows}
            if len(there) < len(ids) and write_lock_is_free(connection):
                return set(ids)
            return there

        return await self._reader.run(look)

    def _home(self) -> Home:
        if self.path == MEMORY:
            raise UnfitConnection(
                "the jobs are in memory, where no connection of the application can be; give the "
                "runner a file",
                reason="other_file",
            )
        return Home(self.path, self._durability, self._newest_schema)

    # Reading

    async def outcomes(self, ids: Sequence[str]) -> dict[str, Outcome | None]:
        """Per id that exists: its outcome, or ``None`` while it is unfinished."""
        return await self._reader.run(lambda connection: reads.outcomes(connection, ids))

    async def get(self, job_id: str) -> Job | None:
        """One job, whole."""
        return await self._reader.run(lambda connection: reads.get(connection, job_id, self.now()))

    async def glance(self, job_id: str) -> Job | None:
        """One job without what may be long; as its result only the record of a file."""
        return await self._reader.run(
            lambda connection: reads.glance(connection, job_id, self.now())
        )

    async def list(
        self,
        what: Filter,
        *,
        order: Order | None = None,
        limit: int,
        cursor: str | None,
        scan: bool = False,
    ) -> Page:
        """Jobs that pass the filter, in the given order or the one that suits the filter."""
        return await self._search(
            partial(list_jobs, what=what, order=order, limit=limit, cursor=cursor, scan=scan), scan
        )

    async def places(
        self, what: Filter, *, limit: int, cursor: str | None, scan: bool = False
    ) -> Places:
        """The same in the filter's own order, but only where the jobs stand."""
        return await self._search(
            partial(places, what=what, limit=limit, cursor=cursor, scan=scan), scan
        )

    async def _search(self, function: Callable[..., T], scan: bool) -> T:
        """Run a search as of one instant. A scan may take long: it must not hold up the rest."""
        if not scan or self.path == MEMORY:
            return await self._reader.run(partial(self._at_one_instant, function))
        connection = await self._connect_apart()
        try:
            return await connection.run(partial(self._at_one_instant, function))
        finally:
            await connection.close()

    async def _connect_apart(self) -> Connection:
        """One more connection that only reads, for what takes long."""
        connection = await connect(self.path)
        try:
            await connection.run(partial(set_up, durability=self._durability, writer=False))
        except BaseException:
            await connection.close()
            raise
        return connection

    def _at_one_instant(self, function: Callable[..., T], connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN")
        try:
            return function(connection, now=self.now())
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

    async def count(self, states: Sequence[str], *, queue: str | None, task: str | None) -> int:
        """How many jobs, from the counter rows as of one instant; no states mean any."""
        return await self._reader.run(lambda connection: count(connection, states, queue, task))

    async def count_rows(self, what: Filter, *, most: int | None, scan: bool = False) -> int:
        """How many pass the filter, counted row by row up to ``most``."""
        return await self._search(partial(count_rows, what=what, most=most, scan=scan), scan)

    async def last_seq(self) -> int:
        """The seq of the job that was accepted last."""
        return await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["last_seq"]).fetchone()[0]
        )

    async def queues(self, *, most: int) -> builtins.list[Queue]:
        """Queues with jobs or settings, by name; derived states are counted up to ``most``."""
        return await self._search(partial(overview.queues, most=most), False)

    async def limit_of(self, job_id: str) -> LimitStanding | None:
        """How a job stands in the line of its limit; ``None`` without a limit, or a job."""
        return await self._search(partial(overview.limit_of, job_id=job_id), False)

    async def instances(self, *, limit: int) -> builtins.list[InstanceRow]:
        """Runner processes: first those that have not ended, then the newest."""
        return await self._reader.run(lambda connection: overview.instances(connection, limit))

    async def surroundings(self, job: Job, *, most: int) -> Surroundings:
        """What stands around a waiting job; those before it are counted up to ``most``."""
        return await self._search(partial(explaining.surroundings, job=job, most=most), False)

    async def audit(self, *, limit: int, before: int | None) -> builtins.list[AuditEntry]:
        """Entries of the audit, newest first, from those before a position."""
        return await self._reader.run(lambda connection: overview.audit(connection, limit, before))

    async def backup(self, path: str) -> None:
        """Write a consistent copy of the database to a new file."""
        if self.path == MEMORY:
            await back_up(self._writer, path, shared=True)
            return
        connection = await connect(self.path)
        try:
            await back_up(connection, path)
        finally:
            await connection.close()

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """A job's runs, oldest first."""
        return await self._reader.run(lambda connection: reads.attempts(connection, job_id))

    async def running_instances(self) -> builtins.list[str]:
        """Instances that some running row names."""
        rows = await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["running_instances"]).fetchall()
        )
        return [instance for (instance,) in rows]

    async def cancels_of(self, instance: str) -> builtins.list[tuple[int, int, str]]:
        """Runs of the instance, as (seq, claim), that somebody has asked to cancel, and why."""
        return await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["cancels_of"], (instance,)).fetchall()
        )

    async def schedules(
        self, *, limit: int, after: str, task: str | None = None, status: str | None = None
    ) -> builtins.list[Schedule]:
        """Schedules by name, from those after one on; of a task, or that stand so."""
        return await self._reader.run(
            lambda connection: schedules.schedules(connection, limit, after, task, status)
        )

    async def schedule(self, name: str) -> Schedule | None:
        """One schedule."""
        return await self._reader.run(lambda connection: schedules.schedule(connection, name))

    async def failures(
        self, *, limit: int, fingerprint: str | None = None
    ) -> builtins.list[Failure]:
        """Kinds of failures that have failed jobs, or one of them; what failed last first."""
        return await self._reader.run(
            lambda connection: failing.failures(connection, limit, fingerprint)
        )

    async def retention(self) -> builtins.list[Rule]:
        """Every rule of a task on how long its jobs stay."""
        return await self._reader.run(retaining.rules)

    async def edge_of(self, rule: Rule) -> tuple[int, int] | None:
        """Where those begin that the newest leave behind; ``None`` when there are none."""
        return await self._reader.run(lambda connection: retaining.edge_of(connection, rule))

    async def first_prunable(
        self, state: str, *, since: tuple[int, int], before: int
    ) -> tuple[int, int] | None:
        """The first place (end, seq), from one on, of a job that nothing keeps."""
        now = self._clock.now()
        return await self._reader.run(
            lambda connection: retaining.first_prunable(connection, state, since, before, now)
        )

    async def used_pages(self) -> int:
        """How many pages of the file hold something."""
        return await self._search(retaining.used_pages, False)

    async def next_expiry(self) -> int | None:
        """When the next waiting job expires; ``None`` when none will."""
        row = await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["next_expiry"]).fetchone()
        )
        return None if row[0] is None else int(row[0])

    async def check(self) -> builtins.list[Violation]:
        """Every invariant as a query; what does not hold."""
        return await self._reader.run(violations)

    async def seq_of(self, job_id: str) -> int | None:
        """The job's row, also of one that is deleted, as long as the journal knows it."""
        row = await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["seq_of"], (job_id, job_id)).fetchone()
        )
        return None if row is None else int(row[0])

    async def subscriber_place(self, name: str) -> Place | None:
        """Where a named subscriber goes on; ``None`` for one that never was."""
        row = await self._reader.run(
            lambda connection: connection.execute(
                STATEMENTS["subscriber_place"], (name,)
            ).fetchone()
        )
        return None if row is None else Place(*row)

    async def gone_files(self, limit: int) -> builtins.list[str]:
        """Files of jobs that were deleted or start anew."""
        rows = await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["gone_files"], (limit,)).fetchall()
        )
        return [file for (file,) in rows]

    async def orphaned_files(self, files: Sequence[str]) -> builtins.list[str]:
        """Which of these files no job has, nor may a run that goes on be about to report."""
        listed = to_json(list(files)).decode()
        rows = await self._reader.run(
            lambda connection: connection.execute(
                STATEMENTS["orphaned_files"], (listed,)
            ).fetchall()
        )
        return [file for (file,) in rows]

    async def logs(self, job_id: str, *, after: str | None, limit: int) -> LogPage:
        """Lines of a job's log, oldest first."""
        place = (0, 0) if after is None else log_place_of(after)
        return await self._reader.run(
            lambda connection: journal.read_log(connection, job_id, place, limit)
        )

    async def standing(self, seq: int) -> tuple[str, int] | None:
        """The state and the claim number of a job's row, without all that hangs on it."""
        row: tuple[str, int] | None = await self._reader.run(
            lambda connection: connection.execute(STATEMENTS["standing"], (seq,)).fetchone()
        )
        return row

    async def read_journal(self, what: JournalQuery) -> JournalPage:
        """The next events that pass, in commit order."""
        return await self._reader.run(
            lambda connection: journal.read_journal(connection, self.database_id, what)
        )

    async def journal_end(self) -> JournalEnd:
        """How far the journal reaches."""
        return await self._reader.run(journal.journal_end)

    async def journal_place_at(self, instant: datetime) -> Place:
        """Before the first event of that instant or later."""
        wanted = to_instant(instant, "instant")
        return await self._reader.run(lambda connection: journal.place_at(connection, wanted))

    async def changed_elsewhere(self) -> bool:
        """True when the file has changed since the last call, by whomever, and at the first."""
        if self.path == MEMORY:
            return False
        version = await self._reader.run(
            lambda connection: connection.execute("PRAGMA data_version").fetchone()[0]
        )
        changed: bool = self._data_version != version
        self._data_version = version
        return changed
