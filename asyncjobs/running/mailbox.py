"""Who waits for which job. One delivery resolves every awaiter; nobody polls."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from ..errors import WrongEventLoop
from ..records import Outcome

SWEEP_AT = 100
"""Mailboxes that may be gone before their entries are cleaned up."""


class Mailbox:
    """The outcome of one job, once it is known, and those who wait for it: ``await box``.

    Shared by all handles of a job in this process, and gone with the last of them.
    """

    __slots__ = ("__weakref__", "boxes", "cause", "job_id", "local", "outcome", "waiters")

    def __init__(self, boxes: Mailboxes, job_id: str, *, local: bool) -> None:
        self.boxes = boxes
        """Those of one start of the runner."""
        self.job_id = job_id
        self.outcome: Outcome | None = None
        self.cause: BaseException | None = None
        """The exception itself, when the job raised it in this process."""
        self.local = local
        """True when this process accepted the job, so that its end cannot have been missed."""
        self.waiters: Sequence[asyncio.Future[Outcome]] = ()

    def wait(self) -> Generator[Any, None, Outcome]:
        """The outcome, once it is there. Cancelling leaves the job alone."""
        if self.outcome is not None:
            return self.outcome
        future = self.join()
        try:
            return (yield from future)
        except asyncio.CancelledError:
            self.leave(future)
            raise

    __await__ = wait

    def join(self) -> asyncio.Future[Outcome]:
        """One more waiter: a future of the outcome.

        Its own, since a retry by hand may empty the mailbox before the waiter's turn comes.
        """
        boxes = self.boxes
        # The question stands here as well as in check_loop(): a call less a job.
        if asyncio.get_running_loop() is not boxes.loop:
            boxes.check_loop()
        future: asyncio.Future[Outcome] = boxes.loop.create_future()
        if isinstance(self.waiters, list):
            self.waiters.append(future)
        else:
            self.waiters = [future]
        return future

    def leave(self, future: asyncio.Future[Outcome]) -> None:
        """One waiter less."""
        self.waiters = [waiter for waiter in self.waiters if waiter is not future]

    def deliver(self, outcome: Outcome, cause: BaseException | None = None) -> None:
        """Put the outcome in and wake everybody."""
        self.outcome = outcome
        self.cause = cause
        waiters, self.waiters = self.waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Tell everybody that no outcome will come through here."""
        waiters, self.waiters = self.waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def __del__(self) -> None:
        # The collector may call this in any thread: leave a note, the loop's thread cleans up.
        self.boxes.dropped.append(self.job_id)


class Mailboxes:
    """All mailboxes that somebody holds, by job id.

    A plain dict of references that each mailbox cleans up itself: a WeakValueDictionary costs four
    times as much a job.
    """

    def __init__(self) -> None:
        self._boxes: dict[str, weakref.ref[Mailbox]] = {}
        self.dropped: deque[str] = deque()
        """Ids of mailboxes that are gone."""
        self.loop = asyncio.get_running_loop()

    def check_loop(self) -> None:
        """Refuse to be waited on from elsewhere: the awaiter would never be woken.

        Raises:
            WrongEventLoop: this is another event loop than the runner's.
        """
        with contextlib.suppress(RuntimeError):  # in a thread there may be none
            if asyncio.get_running_loop() is self.loop:
                return
        raise WrongEventLoop(
            "the runner lives in another event loop; from a thread, or from a job in a thread, use "
            "asyncio.run_coroutine_threadsafe(..., runner.loop), as with handle.result()"
        )

    def open(self, job_id: str, *, local: bool) -> Mailbox:
        """The job's mailbox, a new one if nobody holds one."""
        if len(self.dropped) > SWEEP_AT:
            self._sweep()
        reference = self._boxes.get(job_id)  # as find(), without a call: once a job
        box = None if reference is None else reference()
        if box is None:
            box = Mailbox(self, job_id, local=local)
            self._boxes[job_id] = weakref.ref(box)
        return box

    def find(self, job_id: str) -> Mailbox | None:
        """The job's mailbox, if somebody holds it."""
        reference = self._boxes.get(job_id)
        return None if reference is None else reference()

    def _sweep(self) -> None:
        while self.dropped:
            job_id = self.dropped.popleft()
            reference = self._boxes.get(job_id)
            if reference is not None and reference() is None:
                del self._boxes[job_id]

    def deliver(self, job_id: str, outcome: Outcome) -> None:
        """Resolve the job's awaiters, if it has any."""
        box = self.find(job_id)
        if box is not None:
            box.deliver(outcome)

    def forget(self, job_id: str) -> None:
        """The job starts anew: what was known of its end no longer holds."""
        box = self.find(job_id)
        if box is not None:
            box.outcome = box.cause = None

    def awaited(self) -> list[str]:
        """Ids that somebody waits for right now."""
        return [box.job_id for box in self._held() if box.waiters]

    def distrust(self) -> None:
        """Jobs may have ended where this process does not see it."""
        for box in self._held():
            box.local = False

    def fail_all(self, error: BaseException) -> None:
        """Nobody will deliver any more."""
        for box in self._held():
            box.fail(error)

    def _held(self) -> list[Mailbox]:
        # A list of the values, since making the pairs of items() may run the garbage collector,
        # and with it a mailbox's __del__, which changes the dict under the iteration.
        references = list(self._boxes.values())
        return [box for box in map(weakref.ref.__call__, references) if box is not None]
