"""The pool: a bounded number of workers, as many as there is work for, replaced in time.

All that happens to a worker is heard from its fork server: its end above all, since a socket may be
closed by a living worker, and be held open by a process that outlives its worker.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Callable
from random import Random

from ....errors import WorkersFailed
from ....records import Note, RunUsage, WorkerInfo
from ....rules.outcome import Happened, Released
from ...context import Run
from ...ending import memory_happened, refusal_happened, stopped_happened, worker_lost
from ...joblog import job_log
from ..base import Setting
from .ahead import Ahead
from .child import CUT_OFF
from .errands import Errand, Errands
from .forkserver import ForkServer
from .link import CLOSED, RESET
from .saying import SAY_SECONDS, hear, log_again
from .server import NOT_BORN
from .settings import PoolSettings
from .supply import Supply
from .wire import (
    Ask,
    Born,
    Done,
    Exited,
    FromServer,
    FromWorker,
    Garbage,
    GoOn,
    Log,
    Ready,
    Said,
    Setup,
    Unready,
    happened_of,
)
from .worker import Worker

SAMPLE_SECONDS = 2.0
LIMIT_SAMPLE_SECONDS = 0.1
"""How often the memory of a job with a limit is looked at."""
IDLE_SECONDS = 30.0
"""After which a worker that is not among the fewest goes."""
TERMINATE_SECONDS = 2.0
"""Between the exception that is raised in a job and SIGTERM; and between that and SIGKILL."""
HURRIED_SECONDS = 0.4
"""The same when the runner stops, whose own grace is over by then, and for who asks twice."""
STALE_SECONDS = 0.1
"""How long a job that was claimed ahead may wait for a worker before it is given back."""
UNEXPLAINED_SECONDS = 0.2
"""Until a worker that has closed its connection, but has not ended, is killed."""
UNHEARD_SECONDS = 1.0
"""Until a server that does not report the end of a killed worker is killed itself."""
LEAVE_SECONDS = 6.0
"""How long a worker may take to end by itself: the teardown of its resources."""
BIRTHS_MAX = 5
"""How often a job is given to a worker that ends before it has read it."""

log = logging.getLogger("asyncjobs")


class WorkerPool:
    """Gives jobs to workers. Everything here runs in the event loop, and nothing waits for long."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        random: Random,
        errand: Errand,
    ) -> None:
        self._settings = settings
        self._random = random
        self._ended: Callable[[Run, Happened], None]
        self._ahead: Ahead
        self._loop = asyncio.get_running_loop()
        self._supply = Supply(self._heard_from_server, self._server_ended, self._supplied)
        self._workers: dict[int, Worker] = {}
        self._idle: list[Worker] = []
        """The one that was busy last stands last, and is taken first."""
        self._alone: Worker | None = None
        """The next isolated job's: fresh, but already there."""
        self._waiting: deque[tuple[Run, bool]] = deque()
        self._of_run: dict[Run, Worker] = {}
        self._births: dict[Run, int] = {}
        self._errands = Errands(errand)
        self._numbers = 0
        self._sampler: asyncio.TimerHandle | None = None
        self._limits: asyncio.TimerHandle | None = None
        self._closing = False
        self._changed = asyncio.Event()
        self._last_recycled: str | None = None

    def serve(self, setting: Setting) -> None:
        """Say to whom the ends of runs are told."""
        self._ended = setting.ended
        self._ahead = Ahead(self._settings.processes, setting.widen)

    # Opening

    async def open(self, setup: Setup) -> None:
        """Start the fork server, have it import the tasks, and make the first workers.

        Also later, with other tasks or with modules that have changed: every worker is replaced
        once its job has ended.

        Raises:
            WorkersFailed: the tasks cannot be had; former workers go on.
        """
        await self._supply.open(setup)

    def open_later(self, setup: Callable[[], Setup | None]) -> None:
        """Do that in the background, once, when all is said that comes at the same time.

        Jobs wait for it. Where it fails, that is logged, and jobs of what is not there fail.
        """
        self._supply.open_later(setup, self._not_supplied)

    def guard(self, lock: int) -> None:
        """Have the workers keep this lock held from now on: it is that of a new instance."""
        self._supply.guard(lock)

    def _supplied(self, former: ForkServer | None) -> None:
        """There is a new fork server: work with that."""
        if self._sampler is None:
            self._sampler = self._loop.call_later(SAMPLE_SECONDS, self._sample)
        for worker in list(self._workers.values()):
            if worker.server is former:
                self._retire(worker, "its modules were loaded anew")
        while self._warm < self._settings.processes_min:
            self._idle.append(self._make(fresh=False))
        self.serve_waiting()

    def _take_warm(self) -> Worker:
        return self._idle.pop() if self._idle else self._make(fresh=False)

    def _take_alone(self) -> Worker:
        alone, self._alone = self._alone, None
        return alone or self._make(fresh=True)

    @property
    def _has_room(self) -> bool:
        """Whether one more warm worker may be busy, beside those whose job waits for another."""
        busy = sum(not (w.fresh or run.lending) for run, w in self._of_run.items())
        return busy < self._settings.processes

    def serve_waiting(self) -> None:
        """Start what waits for a worker, as far as there is room."""
        if self._supply.server is None:
            return
        for _ in range(len(self._waiting)):
            run, fresh = self._waiting.popleft()
            if fresh or self._has_room:
                self.start(run, fresh=fresh)
            else:
                self._waiting.append((run, fresh))

    def _give_back(self, run: Run) -> None:
        """A job that was claimed ahead of its worker waits too long: somebody else may run it."""
        if self._supply.server is None or all(waiting is not run for waiting, _ in self._waiting):
            return
        self._waiting = deque(item for item in self._waiting if item[0] is not run)
        self._ahead.stop()
        self._ended(run, Released("no_worker"))

    def _not_supplied(self, error: WorkersFailed) -> None:
        """There is no other fork server: go on with the former, if there is one."""
        if self._supply.server is not None:
            self.serve_waiting()
            return
        while self._waiting:
            run, _ = self._waiting.popleft()
            self._ended(run, refusal_happened(run, error, "no_workers"))

    # Jobs

    def start(self, run: Run, *, fresh: bool) -> None:
        """Have a worker run it; ``fresh`` means one of its own."""
        if self._supply.server is None or not (fresh or self._has_room):
            self._waiting.append((run, fresh))
            if self._supply.server is not None:
                self._loop.call_later(STALE_SECONDS, self._give_back, run)
            return
        worker = self._take_alone() if fresh else self._take_warm()
        self._of_run[run] = worker
        worker.begin(run, job_log.getEffectiveLevel())
        if fresh:
            self._alone = self._make(fresh=True)
        elif self._is_last_job(worker):
            self._spare()
        if run.task.memory_limit is not None and self._limits is None:
            self._limits = self._loop.call_later(LIMIT_SAMPLE_SECONDS, self._check_limits)

    def _make(self, *, fresh: bool) -> Worker:
        server = self._supply.server
        assert server is not None
        self._numbers += 1
        worker = Worker(
            self._numbers, server, self._heard, self._cut_off,
            fresh=fresh, replaced=self._last_recycled,
        )  # fmt: skip
        self._workers[worker.number] = worker
        return worker

    def _is_last_job(self, worker: Worker) -> bool:
        """Whether it is going to be replaced after the job that it gets now."""
        settings = self._settings
        if settings.max_jobs is not None and worker.jobs + 1 >= settings.max_jobs:
            return True
        return settings.max_age is not None and worker.age >= settings.max_age

    @property
    def _warm(self) -> int:
        """How many workers there are that serve one job after the other."""
        return sum(not (w.fresh or w.leaving) for w in self._workers.values())

    def _spare(self) -> None:
        """Make a successor, so that it is warm when it is needed."""
        if not self._idle and self._supply.server is not None:
            self._idle.append(self._make(fresh=False))

    def interrupt(self, run: Run) -> None:
        """End a run for ``run.stop_reason``: by an exception in it, by SIGTERM, by SIGKILL.

        Each a while after the other; a shorter one when this is called again, or the runner stops.
        """
        worker = self._of_run.get(run)
        if worker is None:
            if any(waiting is run for waiting, _ in self._waiting):
                self._waiting = deque(item for item in self._waiting if item[0] is not run)
                self._ended(run, stopped_happened(run, self._random))
            return
        hurried = run.stop_reason == "shutdown" or worker.escalation is not None
        worker.relax()
        worker.ask_to_stop(run.stop_reason or "")
        seconds = HURRIED_SECONDS if hurried else TERMINATE_SECONDS
        worker.escalation = self._loop.call_later(seconds, self._terminate, worker, seconds)

    def _terminate(self, worker: Worker, seconds: float) -> None:
        worker.signal(signal.SIGTERM)
        worker.escalation = self._loop.call_later(seconds, self._kill, worker)

    def _kill(self, worker: Worker) -> None:
        worker.leaving = worker.leaving or "its job did not stop"
        worker.signal(signal.SIGKILL)
        worker.escalation = self._loop.call_later(UNHEARD_SECONDS, worker.server.kill)

    # What workers say

    def _heard(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case Done():
                self._done(worker, message)
            case Ask():
                self._errands.ask(worker, message)
            case Said(note):
                self._said(worker, note)
            case Log():
                if worker.run is not None:
                    log_again(worker.run, message)
            case Ready():
                pass
            case Unready(text):
                log.error("a worker could not be made ready: %s", text)

    def _done(self, worker: Worker, done: Done) -> None:
        run = worker.run
        try:
            happened = happened_of(done.outcome)
        except Garbage as error:
            self._cut_off(worker, f"garbage ({error})")
            return
        if run is None:
            self._cut_off(worker, "garbage (an outcome without a job)")
            return
        self._forget(worker, run)
        worker.served(done.usage)
        run.usage = RunUsage(done.usage.cpu_seconds, done.usage.peak_rss, worker.output.take())
        why = "its job is done" if worker.fresh else done.spent or self._too_old(worker)
        if worker.leaving is not None or why is not None:
            self._retire(worker, worker.leaving or why or "")
        elif self._idle and self._warm > self._settings.processes:
            self._retire(worker, "more than needed")
        else:
            self._idle.append(worker)
        if self._waiting:
            self.serve_waiting()
        if not worker.fresh:
            self._ahead.took(worker.busy_seconds)
        self._ended(run, happened)

    def _too_old(self, worker: Worker) -> str | None:
        settings = self._settings
        if settings.max_jobs is not None and worker.jobs >= settings.max_jobs:
            return f"it has served {worker.jobs} jobs (max_jobs)"
        if settings.max_rss is not None and worker.rss > settings.max_rss:
            return f"its memory is {worker.rss} bytes (max_rss)"
        if settings.max_age is not None and worker.age >= settings.max_age:
            return f"it is {worker.age:.0f} s old (max_age)"
        return None

    def _retire(self, worker: Worker, why: str) -> None:
        """Let a worker go: now when it is idle, else after its job."""
        self._set_aside(worker)
        if worker.run is not None:
            worker.leaving = why
            return
        worker.leave(why)
        worker.escalation = self._loop.call_later(LEAVE_SECONDS, worker.kill, "it did not leave")
        if not worker.fresh and why != "more than needed":
            self._last_recycled = why
            if self._warm < self._settings.processes_min:
                self._spare()

    def _set_aside(self, worker: Worker) -> None:
        """It gets no job any more."""
        if worker is self._alone:
            self._alone = None
        if worker in self._idle:
            self._idle.remove(worker)

    def _said(self, worker: Worker, note: Note) -> None:
        if worker.run is not None:
            hear(worker.run, note)
        self._loop.call_later(SAY_SECONDS, worker.tell, GoOn())

    # The end of a worker

    def _cut_off(self, worker: Worker, reason: str) -> None:
        """Its connection is at its end, or not to be trusted: so is the worker."""
        if worker.number not in self._workers or worker.leaving is not None:
            return
        self._set_aside(worker)
        if reason in (CLOSED, RESET):  # most likely it has ended, and its server is about to say so
            why = "it had closed its connection"
            worker.relax()
            worker.leaving = why
            worker.escalation = self._loop.call_later(UNEXPLAINED_SECONDS, worker.kill, why)
        else:
            worker.kill(f"it sent {reason}")

    def _heard_from_server(self, server: ForkServer, message: FromServer) -> None:
        worker = self._workers.get(message.worker)  # type: ignore[union-attr]
        if worker is None:
            return
        if isinstance(message, Born):
            worker.pid = message.pid
        elif isinstance(message, Exited):
            while worker.link.read():  # what it said last
                pass
            self._gone(worker, _how(message.status), born=message.status != NOT_BORN)

    def _gone(self, worker: Worker, how: str, *, born: bool = True) -> None:
        """A worker has ended; the run that it still had has crashed, unless it was stopped."""
        self._workers.pop(worker.number, None)
        self._set_aside(worker)
        run = worker.run
        output = worker.output.take()
        worker.close()
        self._changed.set()
        if run is None:
            return
        self._forget(worker, run)
        unread = worker.unread and run.stop_reason is None and self._born_again(run)
        if unread or not born:
            # It never began: the job is as it was.
            self._loop.call_later(0.0 if born else 0.5, self.start_again, run, worker.fresh)
            return
        run.usage = RunUsage(worker.cpu_seconds, worker.peak_rss, output)
        limit = run.task.memory_limit
        if worker.over_limit and limit is not None:
            self._ended(run, memory_happened(run, limit, self._random))
            return
        if worker.killed is not None:
            how = f"was killed, since {worker.killed}"
        detail = f"its worker (process {worker.pid}) {how}"
        self._ended(run, worker_lost(run, detail, output, self._random))

    def start_again(self, run: Run, fresh: bool) -> None:
        """Start a run whose worker had ended before it could read the job."""
        if run.stop_reason is not None or self._closing:
            self._ended(run, stopped_happened(run, self._random))
        else:
            self.start(run, fresh=fresh)

    def _born_again(self, run: Run) -> bool:
        births = self._births[run] = self._births.get(run, 0) + 1
        return births <= BIRTHS_MAX

    def _forget(self, worker: Worker, run: Run) -> None:
        """A run is no longer the worker's."""
        del self._of_run[run]
        self._births.pop(run, None)
        worker.run = None
        worker.relax()
        self._errands.drop(worker)

    def _server_ended(self, server: ForkServer) -> None:
        for worker in [w for w in self._workers.values() if w.server is server]:
            while worker.link.read():
                pass
            self._gone(worker, "was ended along with its fork server")

    # Health

    def _sample(self) -> None:
        self._sampler = self._loop.call_later(SAMPLE_SECONDS, self._sample)
        self.look()

    def look(self) -> None:
        """At every worker: who has grown too large or too old, and who is not needed."""
        now = self._loop.time()
        for worker in list(self._workers.values()):
            worker.sample()
            if worker.fresh or worker.leaving is not None:
                continue
            why = self._too_old(worker)
            if why is not None and worker.run is not None:
                self._spare()
            if why is not None:
                self._retire(worker, why)
        while (
            self._idle
            and self._warm > self._settings.processes_min
            and now - self._idle[0].idle_since > IDLE_SECONDS
        ):
            self._retire(self._idle[0], "more than needed")

    def _check_limits(self) -> None:
        """Kill workers whose job has more memory than it may, where the system did not stop it."""
        self._limits = None
        limited = [(run, w) for run, w in self._of_run.items() if run.task.memory_limit]
        if limited:
            self._limits = self._loop.call_later(LIMIT_SAMPLE_SECONDS, self._check_limits)
        for run, worker in limited:
            limit = run.task.memory_limit or 0
            worker.sample()
            if worker.rss > limit and not worker.over_limit:
                worker.over_limit = True
                worker.kill(f"it had {worker.rss} bytes")

    def workers(self) -> list[WorkerInfo]:
        """All there are, oldest first."""
        return [worker.info() for worker in self._workers.values()]

    # Closing

    async def close(self) -> None:
        """End all workers, and wait until they are gone."""
        self._closing = True
        for timer in (self._sampler, self._limits):
            if timer is not None:
                timer.cancel()
        for worker in list(self._workers.values()):
            if worker.run is None and worker.leaving is None:
                self._retire(worker, "the runner stops")
        deadline = self._loop.time() + LEAVE_SECONDS
        while any(w.leaving and not w.run for w in self._workers.values()):
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0, deadline - self._loop.time()))
            except TimeoutError:
                break
        await self._supply.close()
        for worker in list(self._workers.values()):
            self._gone(worker, "was ended along with the runner")


def _how(status: int) -> str:
    if status == CUT_OFF:
        return "was cut off: the job closed its connection, or wrote to it"
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:
        name = ""
    return f"was killed by signal {-status}{name}"
