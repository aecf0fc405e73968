"""Makes the jobs of schedules when their times come. Each process does, and whoever is first has.

Between two ticks it sleeps until the next time, on the monotonic clock. That the wall clock was
stepped, the engine sees within a second and says so; what others have changed, the doorbell tells.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from ..clock import Clock
from ..errors import AsyncJobsError
from ..records import in_one_line
from ..running.context import Run
from ..store.group_commit import GroupCommit
from ..store.schedules import Declare, Declared, Synced, Tick, Ticked

LONGEST_SLEEP_SECONDS = 600.0
RETRY_SECONDS = 1.0
"""After a database that failed."""

log = logging.getLogger("asyncjobs")


class Scheduler:
    """Ticks when a time has come, and when told to look.

    Args:
        on_jobs: called when it has enqueued jobs, and with False just before a tick that will, so
            that they are claimed in the same commit.
    """

    def __init__(
        self,
        declared: Sequence[Declared],
        commit: GroupCommit[Run],
        clock: Clock,
        on_jobs: Callable[[bool], None],
    ) -> None:
        self._declared = declared
        self._commit = commit
        self._clock = clock
        self._on_jobs = on_jobs
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._forget_move: Callable[[], None] | None = None
        self._ticking: asyncio.Future[Ticked] | None = None
        self._again = False
        self._broken: set[str] = set()
        """What cannot be understood here: left to those who can."""
        self._instance = ""
        self._others: frozenset[str] = frozenset()
        """As what this process has declared its schedules, and who else was there."""

    async def start(self, instance: str, others: frozenset[str]) -> None:
        """Declare what this process has in its code, and tick from now on."""
        await self.declare(instance, others)
        self._forget_move = self._clock.on_move(self._due)
        self.look()

    async def declare(self, instance: str, others: frozenset[str]) -> None:
        """Say what this process has in its code, and who else is alive to have others."""
        operation = Declare(instance, self._declared, [*others])
        synced: Synced = await self._commit.execute(operation)
        self._instance, self._others = instance, others
        sentences = {given.name: given.plan.when.sentence for given in self._declared}
        for what, names in (("added", synced.added), ("changed", synced.changed)):
            for name in names:
                log.info("schedule %r of the code is %s: %s", name, what, sentences[name])
        for name in synced.taken:
            log.warning(
                "schedule %r was made at run time; the code declares that name, so its times, job "
                "and options are those of the code now: %s", name, sentences[name],
            )  # fmt: skip
        if synced.added or synced.changed or synced.taken:
            self._on_jobs(True)  # with another limit, jobs that waited may start
        for name in synced.removed:
            log.info("schedule %r is no longer in the code: removed", name)

    async def heed_neighbours(self, instance: str, others: frozenset[str]) -> None:
        """When processes have gone, remove what only they had in their code.

        And declare anew what this one has, should it go on as another instance.
        A process without schedules of its own leaves that to those who have some: it may be a
        worker that goes on while the program with the schedules is started anew.
        """
        if self._declared and (instance != self._instance or self._others - others):
            await self.declare(instance, others)
        self._others = others

    def look(self) -> None:
        """A schedule's next time may be another than it was."""
        if self._forget_move is None:
            return
        if self._ticking is not None:
            self._again = True
            return
        self._ticking = self._commit.execute(Tick(but=sorted(self._broken)))
        self._ticking.add_done_callback(self._ticked)

    def stop(self) -> None:
        """Tick no more."""
        if self._forget_move is not None:
            self._forget_move()
            self._forget_move = None
        self._set_timer(None)

    def _due(self) -> None:
        self._on_jobs(False)
        self.look()

    def _ticked(self, done: asyncio.Future[Ticked]) -> None:
        self._ticking = None
        if done.cancelled() or self._forget_move is None:
            return
        error = done.exception()
        if error is not None:
            if isinstance(error, AsyncJobsError):
                log.warning("schedules are looked at again: %s", error)
            self._set_timer(RETRY_SECONDS)
            return
        ticked = done.result()
        for name, why in ticked.broken.items():
            self._broken.add(name)
            log.error("schedule %r cannot be understood here: %s", name, in_one_line(why))
        if ticked.jobs:
            self._on_jobs(True)
        if self._again:
            self._again = False
            self.look()
        elif ticked.next_at is None:
            self._set_timer(None)
        elif ticked.next_at <= self._clock.now():
            self._due()
        else:
            self._set_timer(self._clock.seconds_until(ticked.next_at))

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(min(seconds, LONGEST_SLEEP_SECONDS), self._due)
