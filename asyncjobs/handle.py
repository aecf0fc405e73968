"""Handles: a job to wait for, look at, cancel or retry, from any process and after any restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .clock import to_seconds
from .errors import (
    DuplicateJob,
    JobCancelled,
    JobCrashed,
    JobError,
    JobExpired,
    JobFailed,
    JobTimedOut,
    KeyConflict,
    ResultGone,
    ResultNotKept,
)
from .records import Accepted, Job, NewJob, Outcome, Progress, in_one_line
from .rules.codec import decode_plain
from .rules.files import MARK
from .running.context import Run, current_run
from .running.mailbox import Mailbox
from .services.resolver import GONE
from .states import NOT_KEPT, State
from .store.journal import Event, LogLine
from .watching import follow_job, follow_log

if TYPE_CHECKING:
    from .runner import Runner

R = TypeVar("R")


class JobHandle(Generic[R]):
    """One job, by its id. ``await handle`` gives its result, or raises why there is none."""

    __slots__ = ("_box", "_runner", "existing", "id")

    def __init__(
        self, runner: Runner, job_id: str, box: Mailbox, *, existing: bool = False
    ) -> None:
        self.id = job_id
        self.existing = existing
        """True when ``enqueue`` found this job by its id, its key or as the same: no new one."""
        self._runner = runner
        self._box = box

    def __await__(self) -> Generator[Any, None, R]:
        box = self._box
        if (
            box.outcome is None
            and box.local
            and current_run.get(None) is None
            and box.boxes is self._runner.engine().mailboxes
        ):
            # The way of most awaits, without a coroutine between the future and its awaiter.
            future = box.join()
            try:
                outcome = yield from future
            except asyncio.CancelledError:
                box.leave(future)
                raise
            return self._value(outcome)
        value: R = yield from self.result().__await__()
        return value

    async def result(self, timeout: float | timedelta | None = None) -> R:
        """The job's value: always a decoded copy. Cancelling the wait leaves the job alone.

        Args:
            timeout: seconds to wait; the job goes on when they are over.

        Raises:
            JobFailed: it raised, timed out (``JobTimedOut``) or crashed (``JobCrashed``), and no
                attempt is left.
            JobCancelled: somebody cancelled it, or it expired (``JobExpired``).
            ResultGone: there is no such row.
            ResultNotKept: ``keep_result=False``, and this handle was not held where the job ended.
            TimeoutError: it is not finished yet.
            InvalidOption: the timeout is no duration.
            RunnerClosed: this process's runner stopped first.
        """
        return self._value(await self.outcome(timeout))

    async def wait(self, timeout: float | timedelta | None = None) -> Job:
        """The finished job as a snapshot; raises nothing for a job that failed.

        Raises:
            ResultGone, TimeoutError, RunnerClosed: as :meth:`result`.
        """
        await self.outcome(timeout)
        return await self.job()

    async def job(self) -> Job:
        """A snapshot of the row as it is now.

        Raises:
            ResultGone: there is no such row.
        """
        job = await self._runner.registry.find(self.id)
        if job is None:
            raise error_of(self.id, GONE)
        return job

    async def progress(self) -> Progress | None:
        """How far the job said it is; ``None`` when it has said nothing.

        Raises:
            ResultGone: there is no such row.
        """
        return (await self.job()).progress

    async def events(
        self, after: str | None = None, kinds: Iterable[str] | None = None
    ) -> AsyncIterator[Event]:
        """What happened to the job and what happens, in commit order, up to its outcome.

        Args:
            after: the cursor of an event; by default it begins with the job, as far as the journal
                remembers.
            kinds: only these.

        Raises:
            ResultGone: there is no such row.
            CursorTooOld: the journal no longer holds what comes after the cursor.
            InvalidOption: an unknown kind, or a cursor that is none, or of another database.
        """
        async for event in follow_job(self._runner.engine(), await self.job(), after, kinds):
            yield event

    async def logs(self, after: str | None = None) -> AsyncIterator[LogLine]:
        """What the job logged and logs, line by line, up to its outcome.

        Args:
            after: the cursor of a page of ``registry.logs``; by default the oldest line kept.

        Raises:
            ResultGone: there is no such row.
            InvalidOption: ``after`` is not the cursor of a page.
        """
        async for line in follow_log(self._runner.engine(), await self.job(), after):
            yield line

    async def cancel(self, reason: str = "") -> str:
        """Cancel the job.

        Returns:
            ``cancelled`` when it had not started; ``requested`` when it runs: a coroutine is
            cancelled now, a thread sees ``current_job().stop_requested`` and runs on until it
            looks, a process is asked and then killed; ``finished`` when it was too late.

        Raises:
            UnknownJob: there is no such row.
        """
        return await self._runner.registry.cancel(self.id, reason)

    async def retry(self) -> None:
        """Run a finished job again, from its first attempt.

        Raises:
            IllegalMove: it is not finished.
            UnknownJob: there is no such row.
        """
        await self._runner.registry.retry(self.id)

    async def outcome(self, timeout: float | timedelta | None) -> Outcome:
        """How the job ended; for this package's own floors.

        Raises:
            ResultGone, TimeoutError, RunnerClosed: as :meth:`result`.
        """
        seconds = None if timeout is None else to_seconds(timeout, "timeout")
        outcome = self._box.outcome
        if outcome is None:
            engine = self._runner.engine()
            if self._box.boxes is not engine.mailboxes:  # the runner was restarted meanwhile
                self._box = engine.mailboxes.open(self.id, local=False)
            try:
                async with asyncio.timeout(seconds):
                    outcome = await self._wait(self._box)
            except TimeoutError:
                raise TimeoutError(
                    f"job {self.id} is not finished after {seconds:g} s; it goes on"
                ) from None
        if outcome is GONE:
            raise error_of(self.id, GONE)
        return outcome

    def _value(self, outcome: Outcome) -> R:
        # Here as well as in has_value(): a call less a job.
        if outcome.state is State.COMPLETED and (outcome.result or outcome.reason != NOT_KEPT):
            value: Any = None if outcome.result is None else self._decode(outcome)
            return cast("R", value)
        raise error_of(self.id, outcome) from self._box.cause

    async def _wait(self, box: Mailbox) -> Outcome:
        engine = self._runner.engine()
        if not box.local:
            box.boxes.check_loop()
            engine.resolver.ask(self.id, box)
        run = current_run.get(None)
        if run is None or run.host is not engine.dispatcher:
            return await box
        if not run.limited or run.ended:
            return await _wait_inside(run, box)
        with engine.standstill.waiting(run, self.id):
            return await _wait_inside(run, box)

    def error(self, outcome: Outcome) -> JobError:
        """The exception that tells why the job has no value."""
        return error_of(self.id, outcome)

    def _decode(self, outcome: Outcome) -> Any:
        assert outcome.result is not None
        if outcome.result.startswith(MARK):
            return self._runner.engine().files.stored(outcome.result)
        task = self._runner.tasks.get(outcome.task)
        if task is None:
            return decode_plain(outcome.result)
        return task.codec.decode_result(outcome.result)

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"


async def _wait_inside(run: Run, box: Mailbox) -> Outcome:
    """Wait in a job, which lends its slot meanwhile."""
    if run.task.executor == "thread":
        return await box
    outcome: Outcome = await run.host.wait_lending_slot(run, box)
    return outcome


def has_value(outcome: Outcome) -> bool:
    """Whether the job completed, and its value is known here."""
    completed = outcome.state is State.COMPLETED
    return completed and (outcome.result is not None or outcome.reason != NOT_KEPT)


def key_conflict(job: NewJob[Any], accepted: Accepted) -> KeyConflict | DuplicateJob:
    """The exception that tells why a job was not enqueued."""
    if job.hold is not None:
        return DuplicateJob(
            f"job {accepted.job_id} of task {job.task!r} counts as the same, and its time is not "
            "over; wait for it, or choose another Unique(on_conflict)",
            job_id=accepted.job_id,
        )
    return KeyConflict(
        f"key {job.key!r} of task {job.task!r} belongs to job {accepted.job_id}, which has other "
        "arguments; use another key, or that job",
        job_id=accepted.job_id,
    )


def error_of(job_id: str, outcome: Outcome) -> JobError:
    """The exception that tells why a job has no value."""
    if outcome is GONE:
        return ResultGone(
            f"job {job_id} is not in the database: pruned by retention, deleted, rolled back with "
            "the transaction that enqueued it, or never enqueued here",
            job_id=job_id,
            reason="gone",
        )
    if outcome.state is State.COMPLETED:
        return ResultNotKept(
            f"job {job_id} of task {outcome.task!r} completed, but keep_result=False stored "
            "nothing of what it returned: only handles held in the process where it ended have "
            "that; leave the option out, or let the job store its result itself",
            job_id=job_id,
            reason=outcome.reason,
        )
    error = outcome.error
    details: dict[str, Any] = {
        "job_id": job_id,
        "reason": outcome.reason,
        "error_type": error.type if error else None,
        "error_message": error.message if error else None,
        "traceback": error.traceback if error else None,
    }
    if outcome.state is State.CANCELLED:
        kind = JobExpired if outcome.reason == "expired" else JobCancelled
        return kind(f"job {job_id} was cancelled: {in_one_line(outcome.reason or '')}", **details)
    failed = {"timeout": JobTimedOut, "crash": JobCrashed}.get(outcome.reason or "", JobFailed)
    why = error.summary if error else "unknown"
    return failed(f"job {job_id} of task {outcome.task!r} failed: {why}", **details)
