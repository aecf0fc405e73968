"""The registry: what ran, what runs, what will; and doing something about it."""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Unpack, get_args

from msgspec import json

from .clock import new_id, to_datetime
from .editing import as_edit, check_rate, edit_arguments
from .errors import IllegalMove, InvalidOption, UnknownJob
from .filters import (
    COUNT_MAX,
    JobFilter,
    applicable,
    as_json,
    check_fingerprint,
    is_counted,
    to_filter,
)
from .records import (
    Attempt,
    AuditEntry,
    BulkResult,
    Count,
    InstanceInfo,
    Job,
    Queue,
    WorkerInfo,
    optional_datetime,
)
from .rules.limits import (
    KEY_MAX,
    PAGE_MAX,
    check_choice,
    check_flag,
    check_integer,
    check_text,
)
from .scheduling import unknown_schedule
from .services.by_hand import change_all, change_by_hand
from .store.base import (
    AuditNote,
    ByHand,
    Cancel,
    Change,
    Delete,
    Order,
    Page,
    Requeue,
    Violation,
)
from .store.failures import Failure
from .store.journal import LogPage
from .store.schedules import Schedule

if TYPE_CHECKING:
    from .runner import Runner

_ORDERS = get_args(Order)


class Registry:
    """``runner.registry``: the query API. Reads see what was committed when they began."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def get(self, job_id: str) -> Job:
        """One job, with arguments, result and last error.

        Raises:
            UnknownJob: there is no such row.
        """
        job = await self.find(job_id)
        if job is None:
            raise unknown_job(job_id)
        return job

    async def find(self, job_id: str) -> Job | None:
        """One job, or ``None``."""
        return await self._runner.engine().store.get(_check_id(job_id))

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
        """Every queue that has jobs, by name: how many in which state, and since when one waits."""
        return await self._runner.engine().store.queues(most=COUNT_MAX)

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
        runs = await self._runner.engine().store.attempts(_check_id(job_id))
        if not runs and await self.find(job_id) is None:
            raise unknown_job(job_id)
        return runs

    async def schedules(
        self, *, limit: int = 1_000, after: str | None = None
    ) -> builtins.list[Schedule]:
        """Schedules by name: last run and its outcome, next run, missed, paused or not.

        Args:
            limit: 1 to 1,000 schedules.
            after: a name: those behind it, for the next page.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        after = "" if after is None else check_text(after, "after")
        return await self._runner.engine().store.schedules(limit=limit, after=after)

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
        page = await self._runner.engine().store.logs(_check_id(job_id), after=after, limit=limit)
        if not page.lines and await self.find(job_id) is None:
            raise unknown_job(job_id)
        return page

    async def check(self) -> builtins.list[Violation]:
        """Check every invariant of the database; an empty list when all is well.

        Reads the whole database once, about a second for 100,000 jobs.
        """
        return await self._runner.engine().store.check()

    async def cancel(self, job_id: str, reason: str = "", *, actor: str | None = None) -> str:
        """Cancel a job: ``cancelled``, ``requested`` (it runs) or ``finished`` (too late).

        Args:
            reason: stands on the job, and in the error that its awaiters get; without one
                ``user``.
            actor: who asks, for the audit.

        Raises:
            UnknownJob: there is no such row.
        """
        change = Cancel([_check_id(job_id)], _check_reason(reason))
        return await self._change_one(job_id, change, actor)

    async def failures(self, *, limit: int = 100) -> builtins.list[Failure]:
        """Failed jobs, grouped by what they failed of: what failed last first.

        Alike are those of one task, with one type of exception, from one line of the user's own
        code. A job leaves its group when it is retried, deleted or pruned.

        Args:
            limit: 1 to 1,000 groups.
        """
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        return await self._runner.engine().store.failures(limit=limit)

    async def retry_one(self, fingerprint: str, *, actor: str | None = None) -> str:
        """Run one of the jobs again that failed alike, the last one: to see before all the others.

        Returns its id.

        Raises:
            UnknownJob: no failed job has this fingerprint.
            InvalidOption: it is no fingerprint.
        """
        kind = check_fingerprint(fingerprint)
        while True:
            groups = await self._runner.engine().store.failures(limit=1, fingerprint=kind)
            if not groups:
                raise UnknownJob(
                    f"no failed job has fingerprint {kind}: all were retried, deleted or pruned, "
                    "or there was none"
                )
            (group,) = groups
            # Somebody may have retried or deleted it just now: then it is another one's turn.
            with contextlib.suppress(IllegalMove, UnknownJob):
                await self.retry(group.job_id, actor=actor)
                return group.job_id

    async def retry(
        self,
        job_id: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        actor: str | None = None,
    ) -> None:
        """Run a finished job again, from its first attempt; its history stays.

        Args:
            arguments: other values for some of its arguments, by name; checked as at enqueue.
                Their names are noted in the audit, their values are not. A ``key`` stays with the
                job, and belongs to the new arguments from then on.
            actor: who asks, for the audit.

        Raises:
            IllegalMove: it is not finished.
            UnknownJob: there is no such row.
            InvalidArguments: the arguments do not fit its task.
            UnknownTask: its task does not belong to this runner, which cannot check them.
        """
        change, note = Requeue([_check_id(job_id)]), self._note_of(job_id, actor)
        if arguments is not None:
            edited = edit_arguments(await self.get(job_id), arguments, self._runner.tasks)
            change = Requeue([job_id], edited)
            note = self._note(actor, as_edit(job_id, arguments))
        answer = await self._make_one(job_id, change, note)
        if answer != "requeued":
            raise IllegalMove(f"job {job_id} is {answer}; only finished jobs can be retried")

    async def delete(self, job_id: str, *, actor: str | None = None) -> None:
        """Delete a job with all that hangs on it.

        Raises:
            IllegalMove: it is running; cancel it first.
            UnknownJob: there is no such row.
        """
        answer = await self._change_one(job_id, Delete([_check_id(job_id)]), actor)
        if answer == "running":
            raise IllegalMove(f"job {job_id} is running; cancel it and wait for its end")

    async def _change_one(self, job_id: str, change: Change, actor: str | None) -> str:
        return await self._make_one(job_id, change, self._note_of(job_id, actor))

    async def _make_one(self, job_id: str, change: Change, note: AuditNote | None) -> str:
        result = await change_by_hand(self._runner.engine(), ByHand(change, note))
        (answer,) = result.answers
        if answer.outcome == "missing":
            raise unknown_job(job_id)
        return answer.outcome

    async def cancel_all(
        self,
        reason: str = "",
        *,
        dry_run: bool = True,
        actor: str | None = None,
        scan: bool = False,
        **filters: Unpack[JobFilter],
    ) -> BulkResult:
        """Cancel every unfinished job that passes; those that run are asked to stop.

        The rest is as in :meth:`retry_all`, but without a filter it only counts.

        Raises:
            InvalidOption: also for ``dry_run=False`` without a filter.
        """
        change = Cancel((), _check_reason(reason))
        return await self._change_all(change, filters, dry_run=dry_run, actor=actor, scan=scan)

    async def retry_all(
        self,
        *,
        dry_run: bool = True,
        rate: float | None = None,
        actor: str | None = None,
        scan: bool = False,
        **filters: Unpack[JobFilter],
    ) -> BulkResult:
        """Run every job again that passes: the failed ones, or with ``state`` other finished ones.

        Only counts them, unless ``dry_run=False``.

        Done in slices, each a transaction, of 10 to 200 jobs: as many as take about 10 ms before
        the commit, so that others get their turn. Each job is looked at again in its own: what no
        longer passes is skipped. Jobs accepted after the call are left alone. Cancelling the call
        stops it between two slices. The audit says what was done, with the slices.

        Args:
            dry_run: count only, which is the default: a filter is easily wider than meant.
            rate: so many a second: each is due that much later than the one before, from now on.
                By default all at once.
            actor: who asks, for the audit.
            scan: look at every job if need be.
            filters: see ``JobFilter``.

        Raises:
            ScanRequired, InvalidOption: as :meth:`list`; also for a state that cannot be changed.
            StoreBusy, StoreFull, StoreError: some slices may be done; the audit says how many jobs.
        """
        change = Requeue(())
        if rate is not None:
            change = Requeue((), first_at=self._runner.clock.now(), gap=check_rate(rate))
        return await self._change_all(change, filters, dry_run=dry_run, actor=actor, scan=scan)

    async def delete_all(
        self,
        *,
        dry_run: bool = True,
        actor: str | None = None,
        scan: bool = False,
        **filters: Unpack[JobFilter],
    ) -> BulkResult:
        """Delete every job that passes and does not run.

        The rest is as in :meth:`retry_all`, but without a filter it only counts.

        Raises:
            InvalidOption: also for ``dry_run=False`` without a filter.
        """
        change = Delete(())
        return await self._change_all(change, filters, dry_run=dry_run, actor=actor, scan=scan)

    async def _change_all(
        self,
        change: Change,
        filters: JobFilter,
        *,
        dry_run: bool,
        actor: str | None,
        scan: bool,
    ) -> BulkResult:
        check_flag(dry_run, "dry_run")
        check_flag(scan, "scan")
        given = to_filter(filters)
        if not dry_run and not given.given() and not isinstance(change, Requeue):
            raise InvalidOption(
                "no filter is given, so every job would be changed: give one at least, such as "
                "state= or created_before="
            )
        what = applicable(given, change)
        note = self._note(actor, as_json(what))
        engine = self._runner.engine()
        return await change_all(engine, change, what, None if dry_run else note, scan=scan)

    def _note_of(self, job_id: str, actor: str | None) -> AuditNote | None:
        return None if actor is None else self._note(actor, json.encode({"id": job_id}).decode())

    def _note(self, actor: str | None, what: str) -> AuditNote:
        if actor is not None:
            check_text(actor, "actor")
        return AuditNote(new_id(self._runner.clock.now()), actor, what)


def _check_reason(reason: str) -> str:
    return check_text(reason, "reason", longest=KEY_MAX) if reason else "user"


def _check_id(job_id: object) -> str:
    return check_text(job_id, "job_id")


def unknown_job(job_id: str) -> UnknownJob:
    """What to raise for an id that no job has."""
    return UnknownJob(
        f"no job {job_id} is in the database: pruned by retention, deleted, or never enqueued here"
    )
