"""The registry: what ran, what runs, what will; and doing something about it."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .clock import to_instant
from .errors import IllegalMove, UnknownJob
from .records import Attempt, Job
from .rules.limits import KEY_MAX, PAGE_MAX, check_choice, check_integer, check_text
from .services.resolver import GONE
from .states import DERIVED_STATES, State
from .store.base import Cancel, Delete, Filter, Page, Requeue, Violation

if TYPE_CHECKING:
    from .runner import Runner
    from .services.engine import Engine

T = TypeVar("T")

DERIVED_COUNT_MAX = 10_000
_STATES = (*State.__members__.values(), *sorted(DERIVED_STATES))


class Count(int):
    """A number of jobs; ``exact`` is false when counting stopped at 10,000 (``str``: "10,000+")."""

    exact: bool

    def __new__(cls, jobs: int, *, exact: bool = True) -> Self:
        """``jobs``, counted to the end or not."""
        count = super().__new__(cls, jobs)
        count.exact = exact
        return count

    def __str__(self) -> str:
        return f"{int(self):,}" + ("" if self.exact else "+")


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
            raise _unknown(job_id)
        return job

    async def find(self, job_id: str) -> Job | None:
        """One job, or ``None``."""
        return await self._runner.engine().store.get(_check_id(job_id))

    async def list(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        trigger: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """One page of jobs, newest first; all conditions given must hold.

        "Newest" is by acceptance; by their end when one finished state is asked for; by creation
        when a time range is.

        Args:
            state: one of the six, or ``scheduled`` or ``retrying``.
            created_after: inclusive. created_before: exclusive. Aware datetimes.
            limit: 1 to 1,000 jobs.
            cursor: of the page before, with the same conditions.

        Raises:
            InvalidOption: an unknown state, a naive datetime, a cursor of another listing.
        """
        what = _filter(
            state=state, task=task, queue=queue, tag=tag, key=key, trigger=trigger,
            created_after=created_after, created_before=created_before,
        )  # fmt: skip
        check_integer(limit, "limit", least=1, most=PAGE_MAX)
        return await self._runner.engine().store.list(what, limit=limit, cursor=cursor)

    async def iterate(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        trigger: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncIterator[Job]:
        """Every job that passes, a page at a time; those that move meanwhile may be missed."""
        cursor = None
        while True:
            page = await self.list(
                state=state, task=task, queue=queue, tag=tag, key=key, trigger=trigger,
                created_after=created_after, created_before=created_before,
                limit=PAGE_MAX, cursor=cursor,
            )  # fmt: skip
            for job in page.jobs:
                yield job
            if page.cursor is None:
                return
            cursor = page.cursor

    async def count(
        self, *, state: str | None = None, queue: str | None = None, task: str | None = None
    ) -> Count:
        """How many jobs. Exact, from counters; ``scheduled`` and ``retrying`` up to 10,000."""
        what = _filter(state=state, queue=queue, task=task)
        store = self._runner.engine().store
        if state in DERIVED_STATES:
            jobs = await store.count_derived(what, most=DERIVED_COUNT_MAX + 1)
            return Count(min(jobs, DERIVED_COUNT_MAX), exact=jobs <= DERIVED_COUNT_MAX)
        return Count(await store.count(state=state, queue=queue, task=task))

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """A job's runs, oldest first: those that failed or crashed, and the last one.

        Raises:
            UnknownJob: there is no such row.
        """
        runs = await self._runner.engine().store.attempts(_check_id(job_id))
        if not runs and await self.find(job_id) is None:
            raise _unknown(job_id)
        return runs

    async def check(self) -> builtins.list[Violation]:
        """Check every invariant of the database; an empty list when all is well.

        Reads the whole database once, about a second for 100,000 jobs.
        """
        return await self._runner.engine().store.check()

    async def cancel(self, job_id: str, reason: str = "") -> str:
        """Cancel a job: ``cancelled``, ``requested`` (it runs) or ``finished`` (too late).

        Raises:
            UnknownJob: there is no such row.
        """
        if reason:
            check_text(reason, "reason", longest=KEY_MAX)
        operation = Cancel([_check_id(job_id)], reason or None)
        return await _whole(self._cancel(self._runner.engine(), job_id, operation))

    async def _cancel(self, engine: Engine, job_id: str, operation: Cancel) -> str:
        (result,) = await engine.commit.execute(operation)
        if result.outcome == "missing":
            raise _unknown(job_id)
        if result.outcome == "requested":
            engine.dispatcher.cancel(result.seq, operation.reason or "")
            engine.bell.tell_cancels()
        if result.outcome == "cancelled":
            engine.resolver.refresh_one(job_id)
            engine.bell.tell_ended(job_id)
        return str(result.outcome)

    async def retry(self, job_id: str) -> None:
        """Run a finished job again, from its first attempt; its history stays.

        Raises:
            IllegalMove: it is not finished.
            UnknownJob: there is no such row.
        """
        operation = Requeue([_check_id(job_id)])
        await _whole(self._retry(self._runner.engine(), job_id, operation))

    async def _retry(self, engine: Engine, job_id: str, operation: Requeue) -> None:
        (answer,) = await engine.commit.execute(operation)
        if answer == "missing":
            raise _unknown(job_id)
        if answer != "requeued":
            raise IllegalMove(f"job {job_id} is {answer}; only finished jobs can be retried")
        engine.mailboxes.forget(job_id)
        engine.dispatcher.wake()
        engine.bell.tell_jobs()

    async def delete(self, job_id: str) -> None:
        """Delete a job with all that hangs on it.

        Raises:
            IllegalMove: it is running; cancel it first.
            UnknownJob: there is no such row.
        """
        operation = Delete([_check_id(job_id)])
        await _whole(self._delete(self._runner.engine(), job_id, operation))

    async def _delete(self, engine: Engine, job_id: str, operation: Delete) -> None:
        (answer,) = await engine.commit.execute(operation)
        if answer == "missing":
            raise _unknown(job_id)
        if answer == "running":
            raise IllegalMove(f"job {job_id} is running; cancel it and wait for its end")
        engine.mailboxes.deliver(job_id, GONE)
        engine.bell.tell_ended(job_id)


async def _whole(call: Coroutine[Any, Any, T]) -> T:
    """Let ``call`` end also when its awaiter is cancelled.

    What it has written must be acted upon: else a run that was asked to stop would never be told,
    and a job that was retried never looked for.
    """
    task = asyncio.ensure_future(call)
    # Its error has been seen: with the awaiter gone, asyncio would log it as never retrieved.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


def _filter(
    *,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    state: str | None = None,
    **names: str | None,
) -> Filter:
    if state is not None:
        check_choice(state, "state", _STATES)
    for option, value in names.items():
        if value is not None:
            check_text(value, option, longest=KEY_MAX)
    return Filter(
        state=None if state is None else str(state),
        created_after=None if created_after is None else to_instant(created_after, "created_after"),
        created_before=(
            None if created_before is None else to_instant(created_before, "created_before")
        ),
        **names,
    )


def _check_id(job_id: object) -> str:
    return check_text(job_id, "job_id")


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(
        f"no job {job_id} is in the database: pruned by retention, deleted, or never enqueued here"
    )
