"""One run of a runner, from opening the database to closing it: what is alive in between.

Everything lives in a background task of its own, so that ``async with runner`` may begin and end
in different tasks, as fixtures, lifespans and notebooks do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import (
    AsyncJobsError,
    RunnerClosed,
    RunnerFailed,
    RunnerNotStarted,
)
from ..records import Accepted, NewJob
from ..running.context import Run, RunnableTask
from ..running.files import FileFolder
from ..running.logbook import logbook
from ..running.mailbox import Mailboxes
from ..running.resources import Resource, ResourceSet
from ..store.base import Join, Leave
from ..store.group_commit import GroupCommit
from ..store.schedules import Declared
from ..store.sqlite.store import MEMORY, SQLiteStore
from .base import only, repeat
from .canceller import Canceller
from .completer import Completer
from .dispatcher import Dispatcher
from .doorbell import Doorbell, Ring
from .expirer import Expirer
from .feed import Feed
from .instance import Instance, Neighbours, make_folder, new_instance_id
from .joiner import Joiner
from .pruner import RETAIN_SECONDS, Pruner
from .rescuer import Rescuer
from .resolver import Resolver
from .scheduler import Scheduler
from .settings import Settings
from .sharing import warn_of_different_limits
from .standstill import Standstill
from .steps import StepWatch
from .sweeper import Sweeper
from .workers import Workers

if TYPE_CHECKING:
    from ..running.executors.process.errands import Errand

TICK_SECONDS = 1.0
CLOSE_SECONDS = 0.5
"""How long a stopping runner tries to write its last outcomes past a database that fails."""

log = logging.getLogger("asyncjobs")


class Engine:
    """The live parts of a started runner."""

    def __init__(
        self,
        settings: Settings,
        tasks: Mapping[str, RunnableTask],
        errand: Errand,
        resources: Iterable[Resource[Any]] = (),
        schedules: Sequence[Declared] = (),
        *,
        client: bool = False,
    ) -> None:
        self.settings = settings
        self.client = client
        """True when nothing is run here, nobody rescued, nothing pruned."""
        self.store = SQLiteStore(
            settings.path,
            durability=settings.durability,
            shared=settings.shared,
            clock=settings.clock,
        )
        self.mailboxes = Mailboxes()
        self.bell = Doorbell(self._rung)
        self.commit: GroupCommit[Run] = GroupCommit(self.store)
        self.files = FileFolder(lambda: self.store.path)
        self.sweeper = Sweeper(self.files, self.store, self.commit)
        self.feed = Feed(self.store, on_listening=self.bell.tell_listens)
        self.commit.on_written = self._written_here
        self.resolver = Resolver(self.store, self.mailboxes, self.commit)
        self.standstill = Standstill(self.store)
        self.joiner = Joiner(self.store, self.resolver, self.committed_outside)
        self.dispatcher: Dispatcher
        self.workers = Workers(
            settings.pool, tasks=tasks, resources=resources, random=settings.random,
            lease_seconds=settings.lease_seconds, errand=errand,
        )  # fmt: skip
        self.failure: BaseException | None = None
        self._tasks = tasks
        self._resources = ResourceSet(resources)
        self._setup = anyio.CancelScope()
        """Around what the application does before the start, which may take as long as it likes."""
        self._instance: Instance | None = None
        self._neighbours: Neighbours | None = None
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()
        """Set when others have taken our file away."""
        self._main: asyncio.Task[None] | None = None
        self._stubborn = False
        self._logs = contextlib.ExitStack()
        self._has_company = True
        self._canceller = Canceller(self.store, lambda: self.dispatcher)
        self.scheduler = Scheduler(schedules, self.commit, settings.clock, self._fired)

    # Starting

    async def start(self) -> None:
        """Open, set up what jobs share, recover, and begin to run jobs.

        Raises:
            StoreUnavailable: and its children; nothing is left behind.
            ResourceFailed: a resource could not be set up; the others are torn down.
            RunnerClosed: it was stopped meanwhile.
        """
        warn_of_different_limits(self._tasks.values())
        self._main = asyncio.create_task(self._run(), name="asyncjobs")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait([self._main, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.give_up_starting()
            await self._ended()
            raise
        finally:
            ready.cancel()
        if isinstance(self.failure, AsyncJobsError):
            raise self.failure
        if self.failure is not None:
            raise self._failed()
        if not self._ready.is_set():
            raise RunnerClosed(f"the runner on {self.settings.path} was stopped while it started")

    def give_up_starting(self) -> None:
        """Stop as soon as the start is over; the application's own setup is cut short."""
        self._stopping.set()
        self._setup.cancel()

    async def _run(self) -> None:
        try:
            await self.store.open()
            try:
                with self._setup:
                    await self._resources.open()
                if not self._setup.cancelled_caught:
                    self._put_up_instance()
                    await self._serve()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._take_down()
        except BaseException as error:
            self.failure = only(error)
            failed = self._failed()
            self.commit.abandon(failed)
            self.mailboxes.fail_all(failed)
            if isinstance(error, asyncio.CancelledError):
                raise
            if self._ready.is_set():
                log.exception("the runner's own task died")

    async def _take_down(self) -> None:
        """Leave nothing behind; jobs still run here only when the engine failed."""
        self.scheduler.stop()
        dispatcher: Dispatcher | None = getattr(self, "dispatcher", None)
        if dispatcher is not None and not dispatcher.stopped:
            self._stubborn = bool(await dispatcher.stop(0.0))
        instance = self._instance
        if instance is not None and dispatcher is not None and self._stubborn:
            # Code of ours runs on, and nobody may start its jobs a second time before it returns.
            dispatcher.on_last_return = lambda: instance.stop(unfinished=True)
        elif instance is not None:
            instance.stop(unfinished=dispatcher is not None and bool(dispatcher.held()))
        await self.joiner.close()
        self.bell.close()
        await self.resolver.close()
        await self.feed.close()
        self._logs.close()
        try:
            await self.store.close()
        finally:
            await self._resources.close()  # last: a teardown that hangs holds up nothing of ours

    def _put_up_instance(self) -> None:
        if self.store.path != MEMORY:
            self._instance = Instance(self.store.path, self.settings.lease_seconds)
            self._neighbours = Neighbours(self._instance.folder, self.settings.lease_seconds)
            make_folder(self._instance.folder)
            self.bell.open(self._instance.id, self._instance.folder)
            self._instance.start(self._lost.set, self.bell.address)
            self.workers.pool.guard(self._instance.descriptor)
            self._meet_neighbours()
            self.bell.tell_hello()
        self.dispatcher = self._new_dispatcher()
        self.commit.serve(self.dispatcher)

    def _new_dispatcher(self) -> Dispatcher:
        settings = self.settings
        return Dispatcher(
            tasks=self._tasks,
            slots={
                "coroutine": settings.concurrency,
                "thread": settings.threads,
                **self.workers.slots,
            },
            executors=self.workers.executors,
            queues=settings.queues,
            instance=self._instance.id if self._instance else new_instance_id(),
            commit=self.commit,
            mailboxes=self.mailboxes,
            bell=self.bell,
            files=self.files,
            completer=Completer(self.store, self.resolver, self.bell, settings.clock),
            clock=settings.clock,
            random=settings.random,
            state=settings.state,
            loop_block_seconds=settings.loop_block_seconds,
        )

    async def _serve(self) -> None:
        self.dispatcher.draining = True  # until the dead are buried
        ended_elsewhere = self.dispatcher.ended_elsewhere
        self._expirer = Expirer(self.store, self.commit, self.settings.clock, ended_elsewhere)
        self._rescuer = Rescuer(
            own=lambda: self.dispatcher.instance,
            neighbours=self._neighbours,
            store=self.store,
            commit=self.commit,
            on_rescued=ended_elsewhere,
        )
        self.pruner = Pruner(
            keep_seconds=self.settings.keep_seconds,
            keep_journal_seconds=self.settings.keep_journal_seconds,
            clock=self.settings.clock, store=self.store, commit=self.commit, tasks=self._tasks,
            started=lambda: self.dispatcher.tally.started,
        )  # fmt: skip
        if not self.client:
            await self.workers.open()  # before anything says that this instance has lived
        async with anyio.create_task_group() as group:
            group.start_soon(self.commit.run, name="asyncjobs-commit")
            await self.commit.execute(self._join())
            if not self.client:
                self._logs.enter_context(logbook())
                await self._rescuer.rescue_at_start()
                await self.scheduler.start(self.dispatcher.instance, self._others())
                self.dispatcher.draining = False
                self.dispatcher.wake()
                group.start_soon(repeat, self.pruner.prune_old, self.pruner.seconds)
                group.start_soon(repeat, self.pruner.prune_retained, RETAIN_SECONDS)
                group.start_soon(self.sweeper.run)
            self._steps = StepWatch(self.settings.clock)
            group.start_soon(self._renew_when_lost, name="asyncjobs-renew")
            group.start_soon(self._canceller.run, name="asyncjobs-cancel")
            group.start_soon(repeat, self._tick, TICK_SECONDS)
            self.commit.open = True
            self._ready.set()
            await self._stopping.wait()
            await self._stop()
            group.cancel_scope.cancel()

    def _note(self, operation: Join | Leave) -> None:
        """Write a note on the instance, or not: nothing hangs on it."""
        self.commit.execute(operation).add_done_callback(lambda done: done.exception())

    def _join(self) -> Join:
        takes = None if self.client else self.dispatcher.takes()
        return Join(self.dispatcher.instance, os.getpid(), socket.gethostname(), takes)

    # Once a second

    async def _tick(self) -> None:
        self._meet_neighbours()
        if self.feed.listening:
            self.bell.tell_listens()
        if not self.client:
            await self._rescuer.rescue()
            await self.scheduler.heed_neighbours(self.dispatcher.instance, self._others())
        if self._steps.stepped() or await self._changed_elsewhere():
            self.dispatcher.wake()
            self.scheduler.look()
            self.resolver.refresh()
            self.feed.wake()
            self.store.expiry_written = True
            await self._canceller.heed()
        await self._expirer.expire()

    async def _changed_elsewhere(self) -> bool:
        """Whether others may have written: while they are there, and once after they are gone."""
        had_company, self._has_company = self._has_company, bool(self._others())
        if not (had_company or self._has_company):
            return False
        return await self.store.changed_elsewhere()

    def _fired(self, written: bool) -> None:
        self.dispatcher.wake()
        if written:
            self.bell.tell_jobs()

    # Other processes

    def _others(self) -> frozenset[str]:
        """Who is there besides this process."""
        if self._neighbours is None:
            return frozenset()
        return self._neighbours.all(but=self.dispatcher.instance)

    def _meet_neighbours(self) -> None:
        if self._neighbours is not None and self._instance is not None:
            self.bell.meet(self._neighbours.bells(but=self._instance.id))

    def _rung(self, ring: Ring) -> None:
        """Another process has written something that may matter here."""
        if ring.hello:
            self._meet_neighbours()
            if self.feed.listening:
                self.bell.tell_listens()
        if ring.moved:
            self.feed.wake()
        if ring.jobs:
            self.dispatcher.wake()
        if ring.schedules or ring.everything:
            self.scheduler.look()
        if ring.everything:
            self.resolver.refresh()
        for job_id in ring.ended:
            self.resolver.refresh_one(job_id)
        if ring.cancels:
            self._canceller.wake()

    def _written_here(self) -> None:
        self.feed.wake()
        self.bell.tell_moved()

    async def _renew_when_lost(self) -> None:
        """Others took us for dead and rescued our jobs: go on as a new instance.

        Where that fails, as on a full disk, the runner fails: nobody could tell it from a dead one.
        """
        while True:
            await self._lost.wait()
            self._lost.clear()
            if self._instance is not None and not self._stopping.is_set():
                await self._renew(self._instance)

    async def _renew(self, former: Instance) -> None:
        log.error("instance %s was taken for dead; its runs are given up", former.id)
        former.stop()
        self._rescuer.abandon(former.id)
        self.dispatcher.disown_all()
        self._instance = Instance(self.store.path, self.settings.lease_seconds)
        self._instance.start(self._lost.set, self.bell.address)
        self.bell.tell_hello()
        self.dispatcher.instance = self._instance.id
        self.workers.pool.guard(self._instance.descriptor)
        self._note(self._join())
        self.dispatcher.wake()

    # Stopping

    async def stop(self) -> None:
        """Drain for the grace time, release the rest, close everything. Survives cancellation.

        Raises:
            RunnerFailed: the runner's own task had died.
        """
        self.give_up_starting()
        await self._ended()
        if self.failure is not None:
            raise self._failed()

    async def _ended(self) -> None:
        """Wait for the background task, also under cancellation; cancellation goes on after it."""
        main = self._main
        assert main is not None
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not main.done():
                try:
                    await asyncio.wait([main])
                except asyncio.CancelledError as error:
                    # A native cancel breaks through the shield: the stop is bounded, so finish it.
                    cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _stop(self) -> None:
        self.scheduler.stop()
        stubborn = await self.dispatcher.stop(self.settings.grace_seconds)
        self._stubborn = bool(stubborn)
        self._note(Leave(self.dispatcher.instance, "stop"))
        self.commit.close()
        await self._written()
        await self.resolver.close()  # it may be about to say how the last ones ended
        self.mailboxes.fail_all(RunnerClosed("the runner has stopped; the job is safe on disk"))

    async def _written(self) -> None:
        """Wait until the writer has nothing left, at most :data:`CLOSE_SECONDS` past a failure."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.commit.finished.wait(), CLOSE_SECONDS)
            return
        self.commit.give_up()
        await self.commit.finished.wait()

    def hurry(self) -> None:
        """End the grace time now, or whatever still holds up the start."""
        self.give_up_starting()
        if hasattr(self, "dispatcher"):
            self.dispatcher.hurry()

    # For the faces

    async def until(self, waiting: asyncio.Task[Any]) -> None:
        """Return when ``waiting`` is done, or the background task has died."""
        assert self._main is not None
        await asyncio.wait([waiting, self._main], return_when=asyncio.FIRST_COMPLETED)

    def check_open(self) -> None:
        """Raise if nothing can be written now.

        Raises:
            RunnerNotStarted, RunnerClosed, RunnerFailed: which of them it is.
        """
        if self.commit.open:
            return
        if self._stopping.is_set() and self.failure is None:
            raise self.settings.closed()
        if self.failure is None and not self._ready.is_set():
            raise RunnerNotStarted(f"the runner on {self.settings.path} has not started yet")
        raise self._failed()

    def check_loop(self) -> None:
        """Raise in another event loop than the runner's.

        Raises:
            WrongEventLoop: it is another one.
        """
        self.mailboxes.check_loop()

    async def enqueue_in(
        self, connection: Any, jobs: Sequence[NewJob[Any]]
    ) -> list[Accepted | None]:
        """Write new jobs in the transaction that the application has open, all or none."""
        self.check_loop()
        return await self.joiner.enqueue(connection, jobs)

    @contextlib.asynccontextmanager
    async def transaction(self, connection: Any) -> AsyncIterator[None]:
        """A write transaction on the application's connection; wakes runners at its end."""
        self.check_loop()
        begun = False
        try:
            async with self.store.transaction(connection):
                begun = True
                yield
        finally:
            if begun:  # else it may be in the transaction of another task
                self.joiner.ended(connection)

    def committed_outside(self) -> None:
        """The application has ended a transaction that may have brought jobs."""
        if not self.dispatcher.stopped:
            self.dispatcher.wake()
            self.bell.tell_jobs()
            self.store.expiry_written = True
            self._written_here()

    def _failed(self) -> RunnerFailed:
        failed = RunnerFailed(f"the runner's own task died: {self.failure!r}")
        failed.__cause__ = self.failure
        return failed

    def is_alive(self, instance: str) -> bool:
        """Whether a runner process holds its lock; asked of those that have not ended."""
        if instance == self.dispatcher.instance:
            return True
        return self._neighbours is not None and self._neighbours.is_alive(instance)

    async def idle(self) -> None:
        """Return once nothing runs, is due, or waits to be written here."""
        await self.joiner.look()  # the application may have committed jobs just now
        await self._expirer.expire()
        while not (self.commit.quiet if self.client else self.dispatcher.idle):
            self.check_open()
            await self.commit.flushed()
