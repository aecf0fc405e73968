"""Room for running jobs: slots by executor, those that waiting jobs lend, and probation.

A slot is room for one running job of an executor. It is taken when a claim lands and given back
when the job's code has returned.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from ..records import Outcome
from ..running.context import Run
from ..running.mailbox import Mailbox


class Slots:
    """How many jobs may run, and which of those that wait may go on.

    Args:
        room: executor to slots.
        look: asks for a claim, since there is room for jobs that wait.
        wake: says that due jobs may be waiting that no claim has seen.
    """

    def __init__(
        self, room: Mapping[str, int], *, look: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        self.room = dict(room)
        self.total: Mapping[str, int] = dict(room)
        self.waiting: frozenset[str] = frozenset()
        """Executors for which due jobs may be left."""
        self.asked: Mapping[str, int] = {}
        """Room that the claim being written may fill; nobody else may take it meanwhile."""
        self.probation_asked = False
        """Whether that claim may take a job that one more crash would end."""
        self._look = look
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._resuming: dict[str, deque[asyncio.Future[None]]] = {name: deque() for name in room}
        self._on_probation: set[Run] = set()
        """Runs that one more crash would end: one at a time, but for those that wait for a job."""
        self._off_probation: deque[asyncio.Future[None]] = deque()
        """Such runs that have got what they waited for, and wait to be the only one again."""

    # Claims

    @property
    def wanted(self) -> bool:
        """There is room for jobs that are known to wait."""
        return any(self.room[name] > 0 for name in self.waiting)

    def ask(self, room: Mapping[str, int]) -> None:
        """Keep ``room`` for a claim, and a place on probation if there is one."""
        self.asked = room
        self.probation_asked = not (self._on_probation or self._off_probation)

    def answered(self) -> None:
        """The claim has landed, or never will."""
        self.asked = {}
        self.probation_asked = False

    def take(self, run: Run) -> None:
        """The run has a slot from now on."""
        self.room[run.task.executor] -= 1
        if run.job.crashes and run.job.on_probation:
            self._on_probation.add(run)

    def release(self, executor: str) -> None:
        """One slot is free again."""
        self.room[executor] += 1
        if self._resuming[executor]:
            self.resume()
        if executor in self.waiting and self.room[executor] > 0:
            self._look()

    def widen(self, executor: str, slots: int) -> None:
        """Claim for so many slots more, or fewer."""
        self.room[executor] += slots
        self._look()

    def resume(self) -> None:
        """Give free slots back to jobs that lent theirs, before anything is claimed for them."""
        for executor, resuming in self._resuming.items():
            while resuming and self._free(executor):
                waiter = resuming.popleft()
                if not waiter.done():
                    self.room[executor] -= 1
                    waiter.set_result(None)

        while self._off_probation and not self._probation_taken:
            waiter = self._off_probation.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _free(self, executor: str) -> bool:
        return self.room[executor] > self.asked.get(executor, 0)

    # Lending

    async def wait_lending(self, run: Run, box: Mailbox, lent: Callable[[], None]) -> Outcome:
        """Wait for another job; meanwhile this one's slot is free, perhaps for that very job.

        ``lent`` is called once the slot is free.
        """
        if run.ended:  # in an asyncio task that the job has left behind
            return await box
        run.lending += 1
        if run.lending == 1:
            self.leave_probation(run)  # or a child that crashed along with it would never start
            self.release(run.task.executor)
            lent()
            self._look()
        try:
            outcome = await box
        except BaseException:
            # The job ends without waiting for a slot, yet its end gives one back.
            run.lending -= 1
            if run.lending == 0 and not run.ended:
                self.room[run.task.executor] -= 1
                if run.job.on_probation:
                    self._on_probation.add(run)
            raise
        run.lending -= 1
        if run.lending == 0 and not run.ended:
            if run.job.on_probation:
                await self._enter_probation(run)
            await self._take_back(run.task.executor)
        return outcome

    async def _take_back(self, executor: str) -> None:
        if self._free(executor):
            self.room[executor] -= 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._resuming[executor].append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self.room[executor] -= 1
            raise

    # Probation

    def leave_probation(self, run: Run) -> None:
        """The run has ended, or waits: another one may take its place."""
        if run in self._on_probation:
            self._on_probation.discard(run)
            self.resume()
            self._wake()

    @property
    def _probation_taken(self) -> bool:
        # Not by a thread that was given up: it may never return.
        return self.probation_asked or any(not run.given_up for run in self._on_probation)

    async def _enter_probation(self, run: Run) -> None:
        try:
            while self._probation_taken:
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._off_probation.append(waiter)
                await waiter
        except BaseException:
            self.room[run.task.executor] -= 1  # its end gives one back
            raise
        finally:
            if not run.ended:
                self._on_probation.add(run)
