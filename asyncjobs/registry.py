"""The registry: what ran, what runs, what will; and doing something about it."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterator
from functools import cache
from typing import Unpack, get_args

from .changes import check_id, unknown_job
from .clock import to_datetime
from .errors import InvalidOption
from .facts import gather_facts
from .filters import (
    COUNT_MAX,
    JobFilter,
    is_counted,
    to_filter,
)
from .inventory import AuditEntry, Count, InstanceInfo, Queue, WorkerInfo
from .queue_control import QueueControl
from .records import Attempt, Job, optional_datetime
from .rules.explaining import Explanation, explain
from .rules.limits import (
    PAGE_MAX,
    check_choice,
    check_flag,
    check_integer,
    check_text,
)
from .scheduling import unknown_schedule
from .store.base import (
    Order,
    Page,
    Violation,
)
from .store.failures import Failure
from .store.journal import LogPage
from .store.schedules import STATUSES, Schedule

_ORDERS = get_args(Order)


class Registry(QueueControl):
    """``runner.registry``: the query API, and changes by hand.

    Reads see what was committed when they began.
    """

    async def find(self, job_id: str) -> Job | None:
        """One job, or ``None``."""
        return await self._runner.engine().store.get(check_id(job_id))

    async def list(
        self,
        *,
        order: Order | None = None,
        limit: int = 100,
        cursor: str | None = None,
        scan: bool = False,
        **filters: Unpack[JobFilter],
    ) -> Page:
        """One page of jobs that pass all filters.

        Args:
            order: ``newest`` or ``oldest`` by acceptance, ``created`` (latest first), ``run_at``
                (waiting jobs, soonest due first), ``finished_at`` (finished jobs, latest first).
                By default, whichever comes first: with a key or tags newest first; a range of
                creation by that; finished states by their end; waiting ones by due time (but
                ``retrying`` alone newest first); the rest newest first.
            limit: 1 to 1,000 jobs.
            cursor: of the page before, with the same filters and order.
            scan: look at every job if need be, on a connection of its own.
            filters: see ``JobFilter``.

        Raises:
            ScanRequired: no index bounds what it would read; the message says what would.
            InvalidOption: an unknown filter or value, a naive datetime, a range that is empty, an
                order that the jobs do not have, a cursor of another listing.
        """
        what = to_filter(filters)
        if order is not None:
            check_choice(order, "order", _ORDERS)
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        check_flag(scan, "scan")
        store = self._runner.engine().store
        return await store.list(what, order=order, limit=limit, cursor=cursor, scan=scan)

    async def iterate(
        self,
        *,
        order: Order | None = None,
        scan: bool = False,
        **filters: Unpack[JobFilter],
    ) -> AsyncIterator[Job]:
        """Every job that passes, a page at a time; those that move meanwhile may be missed.

        Raises:
            ScanRequired, InvalidOption: as :meth:`list`.
        """
        cursor = None
        while True:
            page = await self.list(order=order, limit=PAGE_MAX, cursor=cursor, scan=scan, **filters)
            for job in page.jobs:
                yield job
            if page.cursor is None:
                return
            cursor = page.cursor

    async def count(self, *, scan: bool = False, **filters: Unpack[JobFilter]) -> Count:
        """How many jobs pass.

        Exact and from counters by ``queue``, ``task`` and stored states. With other filters, and
        for ``scheduled`` and ``retrying``, they are counted up to 10,000; to the end with ``scan``.

        Raises:
            ScanRequired, InvalidOption: as :meth:`list`.
        """
        what = to_filter(filters)
        check_flag(scan, "scan")
        store = self._runner.engine().store
        if is_counted(what):
            return Count(await store.count(what.states, queue=what.queue, task=what.task))
        if scan:
            return Count(await store.count_rows(what, most=None, scan=True))
        return Count.up_to(await store.count_rows(what, most=COUNT_MAX + 1), most=COUNT_MAX)

    async def queues(self) -> builtins.list[Queue]:
        """Every queue with jobs or settings, by name.

        How many jobs in which state, since when one waits, what is set for it, and which live
        runner processes take its jobs.
        """
        engine = self._runner.engine()
        is_alive = cache(engine.is_alive)
        return [queue.among(is_alive) for queue in await engine.store.queues(most=COUNT_MAX)]

    async def instances(self, *, limit: int = 100) -> builtins.list[InstanceInfo]:
        """Runner processes on this database: those that have not ended, then the newest.

        Past ones are kept as long as the journal.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        engine = self._runner.engine()
        return [
            InstanceInfo(
                id=row.id,
                pid=row.pid,
                host=row.host,
                started_at=to_datetime(row.started_at),
                ended_at=optional_datetime(row.ended_at),
                ended_by=row.ended_by,
                running=row.running,
                alive=row.ended_at is None and engine.is_alive(row.id),
            )
            for row in await engine.store.instances(limit=limit)
        ]

    async def audit(
        self, *, limit: int = 100, before: int | None = None
    ) -> builtins.list[AuditEntry]:
        """What was done by hand, newest first: every bulk operation, and what named its ``actor``.

        A dry run is not noted, nor a change of one job that changed nothing.

        Args:
            limit: 1 to 1,000 entries.
            before: the ``position`` of the last entry of the page before.

        Entries are never pruned. They hold no argument of a job.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        if before is not None:
            check_integer(before, "before", least=1, most=2**63 - 1)
        return await self._runner.engine().store.audit(limit=limit, before=before)

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the database to a new file while it is in use; readable by its owner alone.

        The file appears when it is complete. A runner started on it goes on from there: what ran
        at that moment counts as crashed. Cancelling gives the copy up. Files that jobs returned are
        not in it: copy the folder ``<database>-files`` after it.

        Raises:
            InvalidOption: the file is there already.
            StoreError: it cannot be written; nothing is left of it.
        """
        target = os.fspath(path)
        if not isinstance(target, str) or not target or "\x00" in target:
            raise InvalidOption(f"path={path!r} names no file")
        await self._runner.engine().store.backup(target)

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """A job's runs, oldest first: those that failed or crashed, and the last one.

        Raises:
            UnknownJob: there is no such row.
        """
        runs = await self._runner.engine().store.attempts(check_id(job_id))
        if not runs and await self.find(job_id) is None:
            raise unknown_job(job_id)
        return runs

    async def schedules(
        self,
        *,
        task: str | None = None,
        status: str | None = None,
        limit: int = 1_000,
        after: str | None = None,
    ) -> builtins.list[Schedule]:
        """Schedules by name: last run and its outcome, next run, missed, paused or not.

        Args:
            task: only those of this task.
            status: only those that are ``active``, ``paused`` or ``finished``.
            limit: 1 to 1,000 schedules.
            after: a name: those behind it, for the next page.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        after = "" if after is None else check_text(after, "after")
        if task is not None:
            check_text(task, "task")
        if status is not None:
            check_choice(status, "status", STATUSES)
        store = self._runner.engine().store
        return await store.schedules(limit=limit, after=after, task=task, status=status)

    async def schedule(self, name: str) -> Schedule:
        """One schedule.

        Raises:
            UnknownSchedule: there is none of the name.
        """
        found = await self._runner.engine().store.schedule(check_text(name, "name"))
        if found is None:
            raise unknown_schedule(name)
        return found

    def workers(self) -> builtins.list[WorkerInfo]:
        """The subprocesses of this runner that run ``process`` and ``isolated`` jobs.

        Raises:
            RunnerNotStarted: there are none.
        """
        return self._runner.engine().workers.pool.workers()

    async def logs(self, job_id: str, after: str | None = None, *, limit: int = 1_000) -> LogPage:
        """What a job logged, oldest first: the newest 1,000 lines, or 256 KiB, of all its runs.

        Args:
            after: the ``cursor`` of a page, to get what was logged after it.
            limit: 1 to 1,000 lines.

        Raises:
            UnknownJob: there is no such row.
            InvalidOption: ``after`` is not the cursor of a page.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        page = await self._runner.engine().store.logs(check_id(job_id), after=after, limit=limit)
        if not page.lines and await self.find(job_id) is None:
            raise unknown_job(job_id)
        return page

    async def explain(self, job_id: str) -> Explanation:
        """Why a job is not running: one sentence, a code for programs, and data.

        Looks at the job, at who takes its queue, and at up to 1,000 jobs before it. What it says
        of slots is about tasks that this runner has.

        Raises:
            UnknownJob: there is no such row.
        """
        return explain(await gather_facts(self._runner, await self.get(job_id)))

    async def check(self) -> builtins.list[Violation]:
        """Check every invariant of the database; an empty list when all is well.

        Reads the whole database once, about a second for 100,000 jobs.
        """
        return await self._runner.engine().store.check()

    async def failures(self, *, limit: int = 100) -> builtins.list[Failure]:
        """Failed jobs, grouped by what they failed of: what failed last first.

        Alike are those of one task, with one type of exception, from one line of the user's own
        code. A job leaves its group when it is retried, deleted or pruned.

        Args:
            limit: 1 to 1,000 groups.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        return await self._runner.engine().store.failures(limit=limit)
