"""Group commit: one writer a process, which users cannot cancel.

The first operation is flushed at once; what comes while that flush is under way goes together in
the next. Latency is one commit when idle, and batches grow by themselves under load. Futures are
resolved after the commit.

In a flush outcomes come first, so that nothing newer can overtake them; then what is done by hand,
then new jobs, then the claim, which may take those very jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ..errors import AsyncJobsError, RunnerClosed, StoreBusy, StoreError, WrongEventLoop
from ..records import Accepted, NewJob, Transition
from ..rules.limits import FLUSH_BYTES_MAX, FLUSH_ROWS_MAX
from .base import Claim, ClaimResult, Disown, Insert, Operation, Store
from .batch import Batch, Waiting, fitting, weight_of
from .journal import FindEnd

BUSY_SECONDS = 5.0
"""How long an enqueue waits for another program's write lock."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0

log = logging.getLogger("asyncjobs")

RunT = TypeVar("RunT")
RunT_contra = TypeVar("RunT_contra", contravariant=True)


class Source(Protocol[RunT_contra]):
    """Who runs the jobs: asks for claims, gets them, and learns which outcomes landed."""

    instance: str

    def claim_request(self, *, new_jobs: bool) -> Claim | None:
        """What to claim in the flush that is being made; ``None`` for nothing."""
        ...

    def claimed(self, result: ClaimResult) -> None:
        """The claim is on disk: start the jobs."""
        ...

    def missed(self) -> None:
        """Jobs were written that no claim has looked for, or a claim was not written."""
        ...

    def landed(
        self, reports: Sequence[tuple[Transition, RunT_contra]], answers: Sequence[str]
    ) -> None:
        """What became of the outcomes: each of them in one of the words of ``Report``.

        Or ``unstorable``: the database refused its value, nothing is written, report another.
        """
        ...

    def held(self) -> frozenset[int]:
        """Seqs of the runs that this process holds."""
        ...


class GroupCommit(Generic[RunT]):
    """Gathers what is to be written, and writes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._source: Source[RunT] | None = None
        self._reports: list[tuple[Transition, RunT]] = []
        self._operations: list[Waiting] = []
        self._inserts: list[Waiting] = []
        self._alone: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._awake = False
        """Whether ``_wake`` is set: asking the event costs more than a job can spare."""
        self._look = False
        self._writing = False
        self._closing = False
        self._giving_up = False
        self._pause = 0.0
        self._in_doubt = False
        """A claim failed that may be on disk: to be disowned, whatever else is written first."""
        self._deadlines: dict[asyncio.Future[Any], float] = {}
        """Loop time after which a caller hears ``StoreBusy``; for all, once the lock was met."""
        self.failing: StoreError | None = None
        """The error of the last write, ``None`` once one succeeds. Nothing is claimed meanwhile."""
        self.open = False
        """Whether somebody may write: set by the owner at start, gone when the writer ends."""
        self.flushes = 0
        self.on_written: Callable[[], None] = _nothing
        """Called after each commit."""
        self._flushed = asyncio.Event()
        self.finished = asyncio.Event()
        """Set once :meth:`run` has returned after :meth:`close`."""

    def serve(self, source: Source[RunT]) -> None:
        """Say who runs the jobs."""
        self._source = source

    def enqueue(self, job: NewJob[Any]) -> asyncio.Future[Accepted | None]:
        """Write one new job with the next flush."""
        future = self._future()
        self._inserts.append((job, future))
        if not self._awake:
            self._rouse()
        return future

    def enqueue_many(self, jobs: Sequence[NewJob[Any]]) -> asyncio.Future[list[Accepted | None]]:
        """Write many new jobs in a commit of their own, all or nothing."""
        return self.alone(Insert(jobs, together=True))

    def execute(self, operation: Operation) -> asyncio.Future[Any]:
        """Run one operation with the next flush."""
        future = self._future()
        self._operations.append((operation, future))
        self._rouse()
        return future

    def alone(self, operation: Operation) -> asyncio.Future[Any]:
        """Run one large operation in a commit of its own, between two flushes."""
        future = self._future()
        self._alone.append((operation, future))
        self._rouse()
        return future

    def _future(self) -> asyncio.Future[Any]:
        if asyncio.get_running_loop() is not self._loop:
            raise WrongEventLoop(
                "the runner lives in another event loop; from a thread, or from a job in a thread, "
                "use asyncio.run_coroutine_threadsafe(..., runner.loop)"
            )
        return self._loop.create_future()

    def report(self, transition: Transition, run: RunT) -> None:
        """Write a run's outcome with the next flush. Kept until it is written."""
        self._reports.append((transition, run))
        if not self._awake:
            self._rouse()

    def look(self) -> None:
        """Flush soon, so that the source is asked for a claim."""
        self._look = True
        self._rouse()

    def _rouse(self) -> None:
        self._awake = True
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Nothing waits to be written."""
        return not (self._reports or self._inserts or self._operations or self._alone or self._look)

    @property
    def quiet(self) -> bool:
        """Nothing waits to be written, and nothing is being written."""
        return self.idle and not self._writing

    async def flushed(self) -> None:
        """Return after the next flush."""
        self._flushed.clear()
        await self._flushed.wait()

    def close(self) -> None:
        """Take nothing more, and let :meth:`run` return once everything is written."""
        self.open = False
        self._closing = True
        self._rouse()

    def give_up(self) -> None:
        """Let :meth:`run` return after one more try, written or not."""
        self._giving_up = True
        self.close()

    async def run(self) -> None:
        """The writer. Ends after :meth:`close`, when nothing is left to write."""
        try:
            await self._write_until_closed()
            self.abandon(self.failing or RunnerClosed("the runner has stopped"))
        finally:
            self.open = False
            self.finished.set()
            self._flushed.set()

    async def _write_until_closed(self) -> None:
        while not (self._closing and self.idle):
            await self._wake.wait()
            self._wake.clear()
            self._awake = False
            if self._pause:
                await self._rest()
            self._writing = True
            while not self.idle:
                await self._write_alone()
                await self._flush()
                if self.failing is not None:
                    break
            self._writing = False
            self._flushed.set()
            if self.failing is not None:
                if self._giving_up:
                    break
                # Also when nothing waits: only another try can tell that writing succeeds again.
                self._look = not self._closing
                self._rouse()

    async def _rest(self) -> None:
        """Wait before the next try after a failure; a closing writer still tries."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed_for_good(), self._pause)

    async def _closed_for_good(self) -> None:
        while not self._giving_up:
            await self._wake.wait()
            self._wake.clear()
            self._awake = False

    async def _write_alone(self) -> None:
        # Whoever began to listen before a bulk was enqueued shall hear of it.
        if not self._alone or any(isinstance(wish, FindEnd) for wish, _ in self._operations):
            return
        waiting = self._alone.popleft()
        try:
            (result,) = await self._store.write([waiting[0]])
        except StoreBusy as error:
            self._alone.appendleft(waiting)
            self._busy(error)
        except asyncio.CancelledError:
            self._alone.appendleft(waiting)
            raise
        except StoreError as error:
            self._troubled(error)
            _fail([waiting], error)
        except Exception as error:
            _fail([waiting], error)
        else:
            self._succeeded()
            _resolve(waiting[1], result)
            if isinstance(waiting[0], Insert):
                self._missed()

    async def _flush(self) -> None:
        batch = self._gather()
        operations = batch.to_write(self._source.instance if self._source else "")
        if not operations:
            self.failing = None
            return
        try:
            results = await self._store.write(operations)
        except StoreBusy as error:
            self._put_back(batch)
            self._busy(error)
        except asyncio.CancelledError:
            self._keep(batch)
            raise
        except StoreError as error:
            self._troubled(error, batch.claim)
            self._reports[:0] = batch.reports
            _fail([*batch.operations, *batch.inserts], error)
            self._missed()
        except Exception as error:
            await self._replay(batch, error)
        else:
            self._succeeded()
            self._settle(batch, results)

    def _gather(self) -> Batch[RunT]:
        batch: Batch[RunT] = Batch()
        self._look = False
        rows, room = FLUSH_ROWS_MAX, FLUSH_BYTES_MAX
        # Most have neither: asking here spares a call a job.
        weights = [
            weight_of(t) if t.result is not None or t.error is not None or t.note is not None else 0
            for t, _ in self._reports
        ]
        count, room = fitting(weights, rows, room)
        batch.reports, self._reports = self._reports[:count], self._reports[count:]
        rows -= count
        batch.operations, self._operations = self._operations[:rows], self._operations[rows:]
        if room > 0:
            count, _ = fitting([len(job.arguments) for job, _ in self._inserts], rows, room)
            batch.inserts, self._inserts = self._inserts[:count], self._inserts[count:]
        if self._source is not None:
            if self.failing is not None or self._in_doubt:
                batch.disown = Disown(self._source.instance, self._source.held())
            else:
                batch.claim = self._source.claim_request(new_jobs=bool(batch.inserts))
        return batch

    def _settle(self, batch: Batch[RunT], results: list[Any]) -> None:
        answers = iter(results)
        if batch.reports and self._source is not None:
            self._source.landed(batch.reports, next(answers))
        if batch.disown is not None:
            self._in_doubt = False
            next(answers)
            self.look()
        for _, future in batch.operations:
            _resolve(future, next(answers))
        inserted, claimed = [], None
        if batch.inserts and batch.claim is not None:
            inserted, claimed = next(answers)
        elif batch.inserts:
            inserted = next(answers)
            if self._source is not None:
                self._source.missed()
        elif batch.claim is not None:
            claimed = next(answers)
        for (_, future), accepted in zip(batch.inserts, inserted, strict=True):
            if not future.done():  # its awaiter may have been cancelled
                future.set_result(accepted)
        if claimed is not None and self._source is not None:
            self._source.claimed(claimed)

    async def _replay(self, batch: Batch[RunT], error: Exception) -> None:
        """One operation is bad: run each by itself, so that only that one fails."""
        singles = self._singles(batch)
        if len(singles) == 1:
            self._reject(singles[0], error)
            return
        for place, single in enumerate(singles):
            instance = self._source.instance if self._source else ""
            try:
                results = await self._store.write(single.to_write(instance))
            except asyncio.CancelledError:
                for unknown in singles[place:]:
                    self._keep(unknown)
                raise
            except StoreBusy as busy:
                self._put_back(single)
                self._busy(busy)
            except StoreError as trouble:
                self._troubled(trouble, single.claim)
                self._reports += single.reports
                _fail([*single.operations, *single.inserts], trouble)
                self._missed()
            except Exception as bad:
                self._reject(single, bad)
            else:
                self._settle(single, results)

    def _singles(self, batch: Batch[RunT]) -> list[Batch[RunT]]:
        singles = []
        for lane in ("reports", "operations", "inserts"):
            for item in getattr(batch, lane):
                single: Batch[RunT] = Batch()
                getattr(single, lane).append(item)
                singles.append(single)
        if batch.claim is not None:
            single = Batch()
            single.claim = batch.claim
            singles.append(single)
        return singles

    def _reject(self, single: Batch[RunT], error: Exception) -> None:
        if single.claim is not None:
            raise error  # a claim has no user's data in it: a fault of ours ends the runner
        for transition, run in single.reports:
            log.error("outcome of job %d cannot be stored: %r", transition.seq, error)
            assert self._source is not None
            self._source.landed([(transition, run)], ["unstorable"])
        refused = error
        if not isinstance(error, AsyncJobsError):
            refused = StoreError(f"the database refused the value: {type(error).__name__}")
            refused.__cause__ = error
        _fail([*single.operations, *single.inserts], refused)

    def _busy(self, error: StoreBusy) -> None:
        if self.failing is None:
            log.warning("%s; trying again", error)
        self.failing = error
        self._operations = self._wait_on(self._operations, error)
        self._inserts = self._wait_on(self._inserts, error)
        self._alone = deque(self._wait_on(self._alone, error))

    def _troubled(self, error: StoreError, claim: Claim | None = None) -> None:
        if self.failing is None or isinstance(self.failing, StoreBusy):
            log.error("writing failed, nothing is claimed until it succeeds: %s", error)
        self.failing = error
        self._in_doubt = self._in_doubt or claim is not None
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    def _succeeded(self) -> None:
        self.flushes += 1
        self.on_written()
        if self.failing is not None:
            log.info("writing succeeds again")
            self.failing = None
            self._pause = 0.0
            self._deadlines.clear()
            self._missed()

    def _keep(self, batch: Batch[RunT]) -> None:
        """The writer is cancelled during a write: leave its callers to :meth:`abandon`."""
        self._reports += batch.reports
        self._operations += batch.operations
        self._inserts += batch.inserts

    def _missed(self) -> None:
        if self._source is not None:
            self._source.missed()
        self.look()

    def _put_back(self, batch: Batch[RunT]) -> None:
        self._missed()
        self._reports[:0] = batch.reports
        self._operations[:0] = batch.operations
        self._inserts[:0] = batch.inserts

    def _wait_on(self, some: Iterable[Waiting], error: StoreBusy) -> list[Waiting]:
        """Those that may go on waiting for the lock; the others hear of it."""
        now = self._loop.time()
        over: list[Waiting] = []
        waiting: list[Waiting] = []
        for item in some:
            deadline = self._deadlines.setdefault(item[1], now + BUSY_SECONDS)
            (waiting if deadline > now else over).append(item)
        _fail(over, _too_busy(error))
        return waiting

    def abandon(self, error: AsyncJobsError) -> None:
        """At the end, or when the owner has died: nobody is left waiting for ever."""
        self.open = False
        if self._reports:
            log.error("%d outcomes could not be written; those jobs are rescued at the next start",
                      len(self._reports))  # fmt: skip
        _fail([*self._operations, *self._inserts, *self._alone], error)
        self._flushed.set()


def _nothing() -> None:
    """Nobody wants to know."""


def _too_busy(error: StoreBusy) -> StoreBusy:
    return StoreBusy(
        f"{error}; waited {BUSY_SECONDS:g} s. If this call is awaited inside the application's own "
        "open write transaction on the same file, it waits for itself: commit first"
    )


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():  # its awaiter may have been cancelled
        future.set_result(result)


def _fail(some: Sequence[Waiting], error: BaseException) -> None:
    for _, future in some:
        if not future.done():
            future.set_exception(error)
