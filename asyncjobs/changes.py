"""What people do to jobs by hand: cancel, retry and delete them, one or many."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from msgspec import json

from .clock import new_id
from .editing import as_edit, check_rate, edit_arguments
from .errors import IllegalMove, InvalidOption, UnknownJob
from .filters import JobFilter, applicable, as_json, check_fingerprint, to_filter
from .inventory import BulkResult
from .records import Job
from .rules.limits import KEY_MAX, check_flag, check_text
from .services.by_hand import change_all, change_by_hand
from .store.base import ByHand, Cancel, Change, Delete, Requeue
from .store.overview import AuditNote

if TYPE_CHECKING:
    from .runner import Runner


class Changes:
    """The part of ``runner.registry`` that changes something."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def get(self, job_id: str) -> Job:
        """One job, with arguments, result and last error.

        Raises:
            UnknownJob: there is no such row.
        """
        job = await self._runner.engine().store.get(check_id(job_id))
        if job is None:
            raise unknown_job(job_id)
        return job

    async def cancel(self, job_id: str, reason: str = "", *, actor: str | None = None) -> str:
        """Cancel a job: ``cancelled``, ``requested`` (it runs) or ``finished`` (too late).

        Args:
            reason: stands on the job, and in the error that its awaiters get; without one
                ``user``.
            actor: who asks, for the audit.

        Raises:
            UnknownJob: there is no such row.
        """
        change = Cancel([check_id(job_id)], _check_reason(reason))
        return await self._change_one(job_id, change, actor)

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
                job, and belongs to the new arguments from then on; a job with a limit moves to the
                key that its task's limit gives them.
            actor: who asks, for the audit.

        Raises:
            IllegalMove: it is not finished.
            UnknownJob: there is no such row.
            InvalidArguments: the arguments do not fit its task.
            InvalidOption: they have no key for its task's limit.
            UnknownTask: its task does not belong to this runner, which cannot check them.
        """
        change, note = Requeue([check_id(job_id)]), self._note_of(job_id, actor)
        if arguments is not None:
            change = edit_arguments(await self.get(job_id), arguments, self._runner.tasks)
            note = self._note(actor, as_edit(job_id, arguments))
        answer = await self._make_one(job_id, change, note)
        if answer != "requeued":
            raise IllegalMove(
                f"job {job_id} is {answer}; only finished jobs can be retried: cancel it first"
            )

    async def delete(self, job_id: str, *, actor: str | None = None) -> None:
        """Delete a job with all that hangs on it.

        Raises:
            IllegalMove: it is running; cancel it first.
            UnknownJob: there is no such row.
        """
        answer = await self._change_one(job_id, Delete([check_id(job_id)]), actor)
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

        Jobs are retried in the order of their acceptance; all are found before the first is.

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


def check_id(job_id: object) -> str:
    """An id, as given by the application."""
    return check_text(job_id, "job_id")


def unknown_job(job_id: str) -> UnknownJob:
    """What to raise for an id that no job has."""
    return UnknownJob(
        f"no job {job_id} is in the database: pruned by retention, deleted, or never enqueued here"
    )
