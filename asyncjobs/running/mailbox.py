"""Who waits for which job. One delivery resolves every awaiter; nobody polls."""

from __future__ import annotations

import asyncio
import weakref

from ..records import Outcome


class Mailbox:
    """The outcome of one job, once it is known, and those who wait for it.

    Shared by all handles of a job in this process, and gone with the last of them.
    """

    __slots__ = ("__weakref__", "cause", "local", "outcome", "waiters")

    def __init__(self, *, local: bool) -> None:
        self.outcome: Outcome | None = None
        self.cause: BaseException | None = None
        """The exception itself, when the job raised it in this process."""
        self.local = local
        """True when this process accepted the job, so that its end cannot have been missed."""
        self.waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return once the outcome is there. Cancelling leaves the job alone."""
        if self.outcome is not None:
            return
        future = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        try:
            await future
        finally:
            if not future.done() or future.cancelled():
                self.waiters = [waiter for waiter in self.waiters if waiter is not future]

    def deliver(self, outcome: Outcome, cause: BaseException | None = None) -> None:
        """Put the outcome in and wake everybody."""
        self.outcome = outcome
        self.cause = cause
        self._wake(None)

    def fail(self, error: BaseException) -> None:
        """Tell everybody that no outcome will come through here."""
        self._wake(error)

    def _wake(self, error: BaseException | None) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class Mailboxes:
    """All mailboxes that somebody holds, by job id."""

    def __init__(self) -> None:
        self._boxes: weakref.WeakValueDictionary[str, Mailbox] = weakref.WeakValueDictionary()

    def open(self, job_id: str, *, local: bool) -> Mailbox:
        """The job's mailbox, a new one if nobody holds one."""
        box = self._boxes.get(job_id)
        if box is None:
            self._boxes[job_id] = box = Mailbox(local=local)
        return box

    def find(self, job_id: str) -> Mailbox | None:
        """The job's mailbox, if somebody holds it."""
        return self._boxes.get(job_id)

    def deliver(self, job_id: str, outcome: Outcome, cause: BaseException | None = None) -> None:
        """Resolve the job's awaiters, if it has any."""
        box = self._boxes.get(job_id)
        if box is not None:
            box.deliver(outcome, cause)

    def forget(self, job_id: str) -> None:
        """The job starts anew: what was known of its end no longer holds."""
        box = self._boxes.get(job_id)
        if box is not None:
            box.outcome = box.cause = None

    def awaited(self) -> list[str]:
        """Ids that somebody waits for right now."""
        return [job_id for job_id, box in self._boxes.items() if box.waiters]

    def fail_all(self, error: BaseException) -> None:
        """Nobody will deliver any more."""
        for box in list(self._boxes.values()):
            box.fail(error)
