"""Which worker gets which job: one at a time, or several ahead while jobs are short."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ....rules.outcome import Released
from ...context import Run
from ...joblog import job_log
from ..base import Setting
from .ahead import Ahead
from .settings import PoolSettings
from .worker import Worker

SUCCESSOR_SECONDS = 0.002
"""After which the next isolated job's worker is made: making it beside a short job doubled what
that one took."""
STALE_SECONDS = 0.1
"""How long a job that was claimed ahead may wait for a worker before it is given back."""


class _Waiting(NamedTuple):
    run: Run
    since: float


class Workshop(Protocol):
    """Where workers come from."""

    @property
    def ready(self) -> bool:
        """Whether they can be had now."""
        ...

    def make(self, *, fresh: bool) -> Worker:
        """One more; ``fresh`` means for one job alone."""
        ...

    def given(self, worker: Worker) -> None:
        """The worker has got more jobs."""
        ...

    def stopped(self, run: Run) -> None:
        """The run is not going to begin: it was asked to stop before."""
        ...


class Assigner:
    """The jobs that wait for a worker, and the workers that wait for one."""

    def __init__(
        self,
        settings: PoolSettings,
        setting: Setting,
        workers: Mapping[int, Worker],
        workshop: Workshop,
    ) -> None:
        self._settings = settings
        self._setting = setting
        self._workers = workers
        self._workshop = workshop
        self._loop = asyncio.get_running_loop()
        self._ahead = Ahead(settings.processes, setting.widen)
        self._mark = secrets.token_bytes(16)
        """What stands between the outputs of jobs that a worker runs in one go."""
        self._warm: deque[_Waiting] = deque()
        self._fresh: deque[_Waiting] = deque()
        self.of_run: dict[Run, Worker] = {}
        self.idle: list[Worker] = []
        """The one that was busy last stands last, and is taken first."""
        self._alone: Worker | None = None
        """The next isolated job's: fresh, but already there."""
        self._making: asyncio.TimerHandle | None = None
        self._unheard: list[Worker] = []
        self._hearing: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._serving: asyncio.Handle | None = None
        self._asking: set[str] = set()
        """Tasks whose jobs ask the host for something, and are heard at once."""

    # Giving

    def start(self, run: Run, *, fresh: bool) -> None:
        """Have a worker run it: now, or once there is one."""
        if fresh:
            if self._workshop.ready:
                self._start_alone(run)
            else:
                self._fresh.append(_Waiting(run, self._loop.time()))
        elif self._workshop.ready and not self._warm and self._has_room:
            self._give(self._take_warm(), [run])
        else:
            self._warm.append(_Waiting(run, self._loop.time()))
            if self._serving is None:  # once for all that were claimed together
                self._serving = self._loop.call_soon(self.serve)

    def serve(self) -> None:
        """Start what waits, as far as there is room, and give busy workers what is to follow."""
        self._serving = None
        if not self._workshop.ready:
            return
        while self._fresh:
            self._start_alone(self._fresh.popleft().run)
        while self._warm and self._has_room:
            self._give(self._take_warm(), [self._warm.popleft().run])
        if self._warm and self._ahead.depth:
            self._give_ahead()
        self._watch()

    def _start_alone(self, run: Run) -> None:
        worker, self._alone = self._alone or self._workshop.make(fresh=True), None
        self._give(worker, [run])
        if self._making is None:
            self._making = self._loop.call_later(SUCCESSOR_SECONDS, self._make_alone)

    def _make_alone(self) -> None:
        """Have the next isolated job's worker there before that job comes."""
        self._making = None
        if self._alone is None and self._workshop.ready:
            self._alone = self._workshop.make(fresh=True)

    def _take_warm(self) -> Worker:
        return self.idle.pop() if self.idle else self._workshop.make(fresh=False)

    @property
    def _has_room(self) -> bool:
        """Whether one more warm worker may be busy, beside those whose job waits for another."""
        busy = 0
        for worker in self._workers.values():
            if worker.runs and not worker.fresh and not worker.runs[0].lending:
                busy += 1
        return busy < self._settings.processes

    def _give(self, worker: Worker, runs: list[Run]) -> None:
        for run in runs:
            self.of_run[run] = worker
        if not worker.runs:
            self._setting.begins(runs[0])
        mark = self._mark if self._ahead.depth and not worker.fresh else b""
        worker.give(runs, job_log.getEffectiveLevel(), mark)
        self._workshop.given(worker)

    # Giving ahead

    def _give_ahead(self) -> None:
        """Fill up the workers that have the least before them."""
        depth = self._ahead.depth
        shares = {w: list[Run]() for w in self._workers.values() if self._takes_more(w)}

        def load(worker: Worker) -> int:
            return len(worker.runs) + len(shares[worker])

        while self._warm and shares:
            worker = min(shares, key=load)
            jobs_max = self._settings.max_jobs
            if load(worker) > depth or (jobs_max and worker.jobs + load(worker) >= jobs_max):
                break
            shares[worker].append(self._warm.popleft().run)
        for worker, runs in shares.items():
            if runs:
                self._give(worker, runs)

    def _takes_more(self, worker: Worker) -> bool:
        """Whether it is sure to run what it has, and has little of that."""
        return (
            worker.begun is True
            and worker.leaving is None
            and not worker.recalling
            and 0 < len(worker.runs) <= self._ahead.depth // 2 + 1
            and not worker.runs[0].lending
            and worker.runs[0].stop_reason is None
        )

    def took(self, worker: Worker, seconds: float) -> None:
        """One of its jobs has taken so long."""
        if not worker.fresh:
            self._ahead.took(seconds)

    def begun(self, worker: Worker) -> None:
        """Its first job has begun, and it may get more."""
        worker.begun = True
        worker.begun_at = self._loop.time()
        self._setting.begins(worker.runs[0])

    def comes_next(self, worker: Worker) -> None:
        """It has only to begin its first job, whose time runs even if the worker is frozen."""
        self._setting.begins(worker.runs[0])

    def hear_later(self, worker: Worker) -> None:
        """It goes on with its next job: let what it says gather, while it has enough to do."""
        if len(worker.runs) < 2 or worker.recalling:
            return
        if self._asking and any(run.task.name in self._asking for run in worker.runs):
            return
        if worker not in self._unheard:
            worker.pause()
            self._unheard.append(worker)
        if self._hearing is None:
            seconds = self._ahead.hear_in(len(worker.runs))
            self._hearing = self._loop.call_later(seconds, self._hear)

    def _hear(self) -> None:
        self._hearing = None
        unheard, self._unheard = self._unheard, []
        for worker in unheard:
            worker.link.read()
            if worker not in self._unheard:
                worker.resume()
        self.serve()

    def asks(self, run: Run) -> None:
        """It has asked the host for something."""
        self._asking.add(run.task.name)

    # Taking back

    def recall(self, worker: Worker) -> None:
        """Have a worker give back what it has not begun; :meth:`recalled` comes of it."""
        if len(worker.runs) > 1 and not worker.recalling:
            worker.recall()

    def recalled(self, worker: Worker, jobs: int) -> None:
        """A worker will not begin the last so many of its jobs."""
        worker.recalling = False
        taken = [worker.runs.pop() for _ in range(min(jobs, len(worker.runs)))]
        for run in taken:
            del self.of_run[run]
            self._take_back(run)
        self.serve()

    def _take_back(self, run: Run) -> None:
        if run.stop_reason is not None:
            self._workshop.stopped(run)
        else:
            if run.timer is not None:  # its worker was about to begin it
                run.timer.cancel()
            self._warm.appendleft(_Waiting(run, self._loop.time()))

    def lent(self) -> None:
        """A job waits for another one: it must not be one that is to follow in its worker."""
        for worker in self._workers.values():
            if worker.runs and worker.runs[0].lending:
                self.recall(worker)
        self.serve()

    def withdraw(self, run: Run) -> bool:
        """Take a run away that waits for a worker; False when it does not."""
        for waiting in (self._warm, self._fresh):
            for item in waiting:
                if item.run is run:
                    waiting.remove(item)
                    return True
        return False

    def withdraw_all(self) -> list[Run]:
        """Take all away that wait for a worker."""
        runs = [waiting.run for waiting in (*self._fresh, *self._warm)]
        self._fresh.clear()
        self._warm.clear()
        return runs

    def _watch(self) -> None:
        followed = any(len(worker.runs) > 1 for worker in self._workers.values())
        if self._looking is None and (self._warm or followed):
            self._looking = self._loop.call_later(STALE_SECONDS, self._look)

    def _look(self) -> None:
        """Give back what has waited too long for its worker: somebody else may run it."""
        self._looking = None
        stale = self._loop.time() - STALE_SECONDS
        for worker in self._workers.values():
            if len(worker.runs) > 1 and worker.begun_at <= stale:
                self._ahead.stop()
                self.recall(worker)
        while self._workshop.ready and self._warm and self._warm[0].since <= stale:
            self._ahead.stop()
            self._setting.ended(self._warm.popleft().run, Released("no_worker"))
        self._watch()

    # Workers

    def forget(self, worker: Worker) -> None:
        """It gets no job any more."""
        if worker is self._alone:
            self._alone = None
        if worker in self.idle:
            self.idle.remove(worker)

    def close(self) -> None:
        """Wait for nothing any more."""
        for timer in (self._making, self._hearing, self._looking, self._serving):
            if timer is not None:
                timer.cancel()
