"""The runner: what an application embeds."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from random import Random
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar

from .clock import Clock, SystemClock, check_clock, to_seconds
from .errands import run_errand
from .errors import (
    InvalidOption,
    RunnerAlreadyStarted,
    RunnerNotStarted,
)
from .handle import JobHandle, key_conflict
from .intake import check_job, check_jobs
from .program import run_until_signalled
from .records import Accepted, NewJob
from .registrars import TaskRegistrar, Tasks
from .registry import Registry
from .rules.carrying import check_carry
from .rules.limits import (
    CONCURRENCY_MAX,
    check_choice,
    check_flag,
    check_integer,
    check_queues,
    check_random,
    check_text,
    check_url,
    unknown_option,
)
from .running.catalogue import check_not_importing
from .running.executors.process.settings import pool_settings
from .running.mailbox import Mailbox
from .running.resources import Resource
from .scheduling import Schedules, check_declared
from .services.engine import Engine
from .services.instance import LEASE_SECONDS
from .services.resolver import GONE
from .services.settings import Settings, check_threads, keep_seconds
from .services.tally import Tally
from .store.schedules import Declared
from .tasks import Task
from .watching import EventSource

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite

    from .store.sqlite.joining import AppConnection

R = TypeVar("R")
ConnectionT = TypeVar("ConnectionT", "aiosqlite.Connection", "sqlite3.Connection")

DAY = 86_400.0


class Runner(TaskRegistrar, EventSource):
    """A job runner inside an asyncio application, with its jobs in one SQLite file.

    Making one opens nothing. ``async with runner:`` opens the file (a relative path resolves
    then), takes over what a crash left behind, and runs jobs until the block ends.

    Args:
        url: path of the database file, ``sqlite:///path``, or ``:memory:``.
        concurrency: coroutine jobs that run at once; 1 to 100,000.
        threads: thread jobs that run at once; 1 to 100,000, by default min(32, CPUs + 4).
        processes: ``process`` jobs that run at once, and ``isolated`` ones; by default as many each
            as there are CPUs, up to 1,000.
        processes_min: workers that are kept ready when there is no work; from 0.
        process_start: ``fork`` from a clean server that has imported the tasks, or ``spawn``.
        max_jobs, max_age, max_rss: a worker is replaced after so many jobs, so long (seconds or
            timedelta), or when it has more than so many bytes of memory. By default never.
        queues: take jobs only from these; by default from all.
        durability: ``full``: an accepted job survives power loss (one fsync a shared commit);
            ``normal``: it survives a crash of the process, not always one of the machine.
        shared: put the tables into a database that has others.
        grace: seconds or timedelta that running jobs get to finish when the runner stops; from 0.
        keep_completed, keep_failed, keep_cancelled: how long finished jobs stay (seconds or
            timedelta, never a number of jobs, which a task can say): 7, 30, 7 days.
        keep_journal: how long the journal of events stays, at least as long as its jobs.
        lease_seconds: a process that is stopped (not dead) for longer is taken for dead; from 0.1.
        loop_block_seconds: a coroutine job that holds the loop for longer is logged; from 0.01.
        state: anything; jobs find it as ``current_job().state``.
        carry: context variables whose text travels from where a job is enqueued into the job, such
            as a request's id or its ``traceparent``.
        clock, random: for tests.

    Raises:
        InvalidOption: naming the option and its value.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        concurrency: int = 100,
        threads: int | None = None,
        processes: int | None = None,
        processes_min: int = 1,
        process_start: str = "fork",
        max_jobs: int | None = None,
        max_age: float | timedelta | None = None,
        max_rss: int | None = None,
        queues: Iterable[str] | None = None,
        durability: str = "full",
        shared: bool = False,
        grace: float | timedelta = 8.0,
        keep_completed: float | timedelta = 7 * DAY,
        keep_failed: float | timedelta = 30 * DAY,
        keep_cancelled: float | timedelta = 7 * DAY,
        keep_journal: float | timedelta = 7 * DAY,
        lease_seconds: float = LEASE_SECONDS,
        loop_block_seconds: float = 0.25,
        state: Any = None,
        carry: Iterable[ContextVar[Any]] = (),
        clock: Clock | None = None,
        random: Random | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option(unknown, Runner.__init__, "Runner")
        super().__init__()
        self.clock = SystemClock() if clock is None else check_clock(clock)
        self._settings = Settings(
            path=check_url(url),
            durability=check_choice(durability, "durability", ("full", "normal")),
            shared=check_flag(shared, "shared"),
            concurrency=check_integer(concurrency, "concurrency", least=1, most=CONCURRENCY_MAX),
            threads=check_threads(threads),
            queues=check_queues(queues),
            grace_seconds=to_seconds(grace, "grace"),
            lease_seconds=to_seconds(lease_seconds, "lease_seconds", at_least=0.1),
            loop_block_seconds=to_seconds(loop_block_seconds, "loop_block_seconds", at_least=0.01),
            keep_seconds=keep_seconds(
                completed=keep_completed, failed=keep_failed, cancelled=keep_cancelled
            ),
            keep_journal_seconds=to_seconds(keep_journal, "keep_journal"),
            clock=self.clock,
            random=Random() if random is None else check_random(random),
            state=state,
            pool=pool_settings(
                processes=processes, processes_min=processes_min, process_start=process_start,
                max_jobs=max_jobs, max_age=max_age, max_rss=max_rss,
            ),
        )  # fmt: skip
        self.carry = check_carry(carry)
        """The context variables that travel with jobs, by name."""
        self.registry = Registry(self)
        self.schedules = Schedules(self)
        self._engine: Engine | None = None
        self._was_started = False

    # Tasks

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The tasks of this runner, by name."""
        return MappingProxyType(self._tasks)

    def include(self, tasks: Tasks | Task[Any, Any]) -> None:
        """Add the tasks, resources and schedules of a module, or one task.

        Raises:
            TaskExists, ScheduleExists: another one has one of the names; no task is added.
            InvalidOption: it is no Tasks and no task; or the runner is running, and there is a
                resource or schedule that it does not have, or an annotation that cannot be
                resolved.
        """
        if not isinstance(tasks, (Task, Tasks)):
            raise InvalidOption(f"include takes Tasks or one task, got {type(tasks).__name__}")
        some = [tasks] if isinstance(tasks, Task) else list(tasks)
        for task in some:
            self._check_name(task)
        if isinstance(tasks, Tasks):
            for schedule in tasks.schedules:
                self._add_schedule(schedule)
            for resource in tasks.resources:
                self._add_resource(resource)
        for task in some:
            self._add_task(task)

    def _add_task(self, task: Task[Any, Any]) -> None:
        self._check_name(task)
        if task.name in self._tasks:
            return
        if self._engine is not None:
            task.start(self)  # before it is kept: its annotations may not resolve
            self._engine.dispatcher.learn(task)  # pyright: ignore[reportArgumentType]
            self._engine.workers.learn(task)  # pyright: ignore[reportArgumentType]
        super()._add_task(task)
        task.join(self)

    def _add_resource(self, resource: Resource[Any]) -> None:
        if self._engine is not None and resource not in self._resources:
            raise InvalidOption(
                f"{resource!r} comes too late: resources are set up when the runner starts; "
                "declare or include it before that"
            )
        super()._add_resource(resource)

    def _add_schedule(self, schedule: Declared) -> None:
        if self._engine is not None and schedule.name not in self._schedules:
            raise InvalidOption(
                f"schedule {schedule.name!r} comes too late: declare or include it before the "
                "runner starts, or say await runner.schedules.create(...)"
            )
        super()._add_schedule(schedule)

    # Enqueueing

    async def enqueue(
        self, job: NewJob[R], *arguments: Never, tx: AppConnection | None = None
    ) -> JobHandle[R]:
        """Store one job; it is on disk when this returns. Enqueueing it again changes nothing.

        Args:
            tx: an aiosqlite or sqlite3 connection of yours on the same file, with a transaction
                open: the job is part of it, and exists once you have committed. Rolled back means
                that it never existed, and its handle says ``ResultGone``. Awaiting the handle
                before the commit waits for the commit: in the very task that is to make it, for
                ever.

        Raises:
            UnfitConnection: ``tx`` is closed, in no transaction, on another file, ...
            KeyConflict: its key belongs to a job with other arguments.
            UnknownTask: its task does not belong to this runner.
            InvalidOption: it is no job, such as a task with its arguments.
            RunnerNotStarted, RunnerClosed, RunnerFailed: nobody would write it.
            StoreBusy, StoreFull, StoreError: not known to be stored; the same NewJob may be
                enqueued again.
        """
        engine = self.engine()
        if arguments:
            raise InvalidOption("enqueue takes one job: pass task.job(...) with its arguments")
        check_job(job, self._tasks)
        box = engine.mailboxes.open(job.id, local=True)
        if tx is None:
            accepted = await engine.commit.enqueue(job)
        else:
            (accepted,) = await engine.enqueue_in(tx, [job])
        if accepted is None and box.outcome is None:
            return JobHandle(self, job.id, box)
        return self._handle_of(job, box, accepted)

    async def enqueue_many(
        self, jobs: Iterable[NewJob[R]], *, tx: AppConnection | None = None
    ) -> list[JobHandle[R]]:
        """Store up to 10,000 jobs in one commit, all or none; handles in the same order.

        Args:
            tx: a connection with a transaction open, as in :meth:`enqueue`.

        Raises:
            UnfitConnection: as :meth:`enqueue`.
            KeyConflict: a job's key belongs to a job with other arguments; none is stored.
            InvalidOption: more than 10,000 jobs.
            UnknownTask, RunnerNotStarted, StoreError: as :meth:`enqueue`.
        """
        engine = self.engine()
        jobs = check_jobs(jobs, self._tasks)
        if not jobs:
            return []
        boxes = [engine.mailboxes.open(job.id, local=True) for job in jobs]
        if tx is None:
            answers = await engine.commit.enqueue_many(jobs)
        else:
            answers = await engine.enqueue_in(tx, jobs)
        for job, accepted in zip(jobs, answers, strict=True):
            if accepted is not None and accepted.conflict:
                raise key_conflict(job, accepted)
        return [
            self._handle_of(job, box, accepted)
            for job, box, accepted in zip(jobs, boxes, answers, strict=True)
        ]

    @contextlib.asynccontextmanager
    async def transaction(self, connection: ConnectionT) -> AsyncIterator[ConnectionT]:
        """A write transaction on your own connection: committed, or after an error rolled back.

        Waits for its turn among the processes of the database without holding up the event loop,
        begins with BEGIN IMMEDIATE, and wakes runners when jobs were enqueued in it. Others cannot
        write meanwhile, so keep it short: an ``enqueue`` without ``tx=`` that is awaited inside
        waits for itself, and raises ``StoreBusy`` after 5 s.

        ``async with runner.transaction(connection) as tx: await runner.enqueue(job, tx=tx)``

        Args:
            connection: an aiosqlite or sqlite3 connection on the runner's file, used by one task
                at a time. Its automatic checkpoints are switched off.

        Raises:
            UnfitConnection: it is closed, in a transaction already, on another file, ...
            InvalidOption: it is no such connection.
            StoreBusy: somebody else held the write lock for 5 s.
            StoreError: it could not be committed.
            RunnerNotStarted, RunnerClosed, RunnerFailed, WrongEventLoop: as :meth:`enqueue`.
        """
        async with self.engine().transaction(connection):
            yield connection

    def handle(self, job_id: str) -> JobHandle[Any]:
        """The handle of a job by its id, from any process, after any restart. Looks nothing up.

        Raises:
            RunnerNotStarted: there is no database to ask.
        """
        check_text(job_id, "job_id")
        return JobHandle(self, job_id, self.engine().mailboxes.open(job_id, local=False))

    def _handle_of(self, job: NewJob[R], box: Mailbox, accepted: Accepted | None) -> JobHandle[R]:
        if accepted is None:
            if box.outcome is GONE:  # deleted, and now enqueued again
                box.outcome = None
            return JobHandle(self, job.id, box)
        if accepted.conflict:
            raise key_conflict(job, accepted)
        there = self.engine().mailboxes.open(accepted.job_id, local=False)
        there.local = False  # also the one just opened for it: its end may be long past
        return JobHandle(self, accepted.job_id, there, existing=True)

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the database, set up the resources, take over what a crash left, run jobs.

        Raises:
            RunnerAlreadyStarted: it is running.
            StoreUnavailable: and its children: the place, the file, the version.
            InvalidOption: the annotations of a task cannot be resolved.
            UnknownTask: the task of a schedule is not this runner's.
            ResourceFailed: the setup of a resource raised; those before it are torn down again.
            WorkersFailed: a task is for workers, and they cannot import it.
        """
        await self._start(client=False)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Self]:
        """The runner without running jobs: ``async with runner.client():``.

        Inside the block this process enqueues, awaits and queries; other processes on the same
        file run the jobs. It rescues nobody, prunes nothing and sets up no resources.

        Raises as :meth:`start` and :meth:`stop` do.
        """
        await self._start(client=True)
        try:
            yield self
        finally:
            await self.stop()

    async def _start(self, *, client: bool) -> None:
        check_not_importing()
        if self._engine is not None:
            raise RunnerAlreadyStarted(
                f"the runner on {self._settings.path} is started already; stop it first, or "
                "make a second Runner"
            )
        # pyright does not see that a cached property is read like a property.
        engine = Engine(
            self._settings,
            self._tasks,  # pyright: ignore[reportArgumentType]
            partial(run_errand, self),
            () if client else self._resources,
            () if client else check_declared(self._schedules.values(), self._tasks),
            client=client,
        )
        self._engine = engine
        try:
            for task in self._tasks.values():
                task.start(self)
            await engine.start()
        except BaseException:
            if self._engine is engine:  # else somebody has stopped it, and started another
                self._forget_engine()
            raise
        self._was_started = True

    async def reload_workers(self) -> None:
        """Import the modules of workers' tasks anew; each worker is replaced after its job.

        Raises:
            WorkersFailed: they cannot be imported; the former workers go on.
            RunnerNotStarted: there are none.
        """
        await self.engine().workers.open()

    async def stop(self) -> None:
        """Stop: let running jobs finish for ``grace`` seconds, give the rest back, close.

        Nothing more is claimed; what is given back to the queue is not charged with an attempt.

        Then the resources are torn down. Ends within ``grace`` + 2 seconds whatever the jobs do,
        also when it is cancelled; a resource whose teardown hangs adds 5.5 seconds.

        Raises:
            RunnerFailed: the runner's own task had died; the cause is attached.
        """
        engine = self._engine
        if engine is None:
            return
        try:
            await engine.stop()
        finally:
            if self._engine is engine:  # who stopped beside us may have started it again
                self._forget_engine()

    def _forget_engine(self) -> None:
        self._engine = None
        for task in self._tasks.values():
            task.stop(self)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """An ASGI lifespan: ``Starlette(lifespan=runner.lifespan)``, ``FastAPI(lifespan=...)``."""
        async with self:
            yield

    async def run(self) -> None:
        """Run jobs until SIGTERM or SIGINT: a whole program, ``asyncio.run(runner.run())``.

        The first signal drains within ``grace``, a second one stops at once. Only here does the
        runner install signal handlers. Cancelling it stops the runner as :meth:`stop` does.

        Raises:
            RunnerAlreadyStarted, StoreUnavailable, InvalidOption: as :meth:`start`.
            RunnerFailed: as :meth:`stop`.
        """
        await run_until_signalled(self, lambda: self._engine)

    def engine(self) -> Engine:
        """The live parts; for this package's own floors.

        Raises:
            RunnerNotStarted, RunnerClosed, RunnerFailed: there are none.
        """
        engine = self._engine
        if engine is None:
            raise self.not_running()
        if not engine.commit.open:
            engine.check_open()
        return engine

    def not_running(self) -> RunnerNotStarted:
        """What to raise while it is not started; for this package's own floors."""
        if self._was_started:
            return self._settings.closed()
        return RunnerNotStarted(
            f"the runner on {self._settings.path} is not running; use it inside "
            "'async with runner:'"
        )

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it lives in; threads enter it by ``run_coroutine_threadsafe``.

        Raises:
            RunnerNotStarted, RunnerClosed, RunnerFailed: there is none.
        """
        return self.engine().mailboxes.loop

    @property
    def healthy(self) -> bool:
        """True while jobs are run and the last write succeeded: for a health check."""
        engine = self._engine
        return engine is not None and engine.commit.open and engine.commit.failing is None

    @property
    def tally(self) -> Tally:
        """Counts since the start: runs started, late values refused, outcomes refused.

        Raises:
            RunnerNotStarted, RunnerClosed, RunnerFailed: there are none.
        """
        return self.engine().dispatcher.tally

    def __repr__(self) -> str:
        return f"<Runner {self._settings.path!r}>"
