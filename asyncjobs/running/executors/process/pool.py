"""The pool: a bounded number of workers, as many as there is work for, replaced in time.

All that happens to a worker is heard from its fork server: its end above all, since a socket may be
closed by a living worker, and be held open by a process that outlives its worker.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from random import Random

from ....errors import WorkersFailed
from ....inventory import WorkerInfo
from ....records import Note, RunUsage
from ....rules.outcome import Happened
from ...context import Run
from ...ending import memory_happened, refusal_happened, stopped_happened, worker_lost
from ..base import Setting
from .assigner import Assigner
from .child import CUT_OFF
from .errands import Errand, Errands
from .forkserver import ForkServer
from .link import CLOSED, RESET
from .memory import MemoryWatch
from .saying import SAY_SECONDS, hear, log_again
from .server import NOT_BORN
from .settings import PoolSettings
from .supply import Supply
from .wire import (
    Ask,
    Begun,
    Born,
    Done,
    Exited,
    FromServer,
    FromWorker,
    Garbage,
    Log,
    Ready,
    Recalled,
    Said,
    Setup,
    Unready,
    happened_of,
)
from .worker import Worker

SAMPLE_SECONDS = 2.0
IDLE_SECONDS = 30.0
"""After which a worker that is not among the fewest goes."""
TERMINATE_SECONDS = 2.0
"""Between the exception that is raised in a job and SIGTERM; and between that and SIGKILL."""
HURRIED_SECONDS = 0.4
"""The same when the runner stops, whose own grace is over by then, and for who asks twice."""
UNEXPLAINED_SECONDS = 0.2
"""Until a worker that has closed its connection, but has not ended, is killed."""
UNHEARD_SECONDS = 5.0
"""Until a server that does not report the end of a killed worker is killed itself, and all jobs of
its workers with it: on a busy machine it may be a second late."""
LEAVE_SECONDS = 6.0
"""How long a worker may take to end by itself: the teardown of its resources."""
UNREAD_MAX = 5
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
        self._assigner: Assigner
        self._loop = asyncio.get_running_loop()
        self._supply = Supply(self._heard_from_server, self._server_ended, self._supplied)
        self._workers: dict[int, Worker] = {}
        self._errands = Errands(errand)
        self._numbers = 0
        self._sampler: asyncio.TimerHandle | None = None
        self._memory = MemoryWatch(self._workers)
        self._closing = False
        self._changed = asyncio.Event()
        self._last_recycled: str | None = None

    def serve(self, setting: Setting) -> None:
        """Say to whom the ends of runs are told."""
        self._ended = setting.ended
        self._assigner = Assigner(self._settings, setting, self._workers, self)

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
            self._assigner.idle.append(self.make(fresh=False))
        self._assigner.serve()

    def _not_supplied(self, error: WorkersFailed) -> None:
        """There is no other fork server: go on with the former, if there is one."""
        if self._supply.server is not None:
            self._assigner.serve()
            return
        for run in self._assigner.withdraw_all():
            self._ended(run, refusal_happened(run, error, "no_workers"))

    # Jobs

    def start(self, run: Run, *, fresh: bool) -> None:
        """Have a worker run it; ``fresh`` means one of its own."""
        self._assigner.start(run, fresh=fresh)

    def lent(self) -> None:
        """A job waits for another one, and its worker counts for nothing meanwhile."""
        self._assigner.lent()

    @property
    def ready(self) -> bool:
        """Whether workers can be made."""
        return self._supply.server is not None

    def make(self, *, fresh: bool) -> Worker:
        """A new worker; ``fresh`` means for one job alone."""
        server = self._supply.server
        assert server is not None
        self._numbers += 1
        worker = Worker(
            self._numbers, server, self._heard, self._cut_off,
            fresh=fresh, replaced=self._last_recycled,
        )  # fmt: skip
        self._workers[worker.number] = worker
        return worker

    def given(self, worker: Worker) -> None:
        """The worker has got jobs."""
        self._foresee(worker)
        self._memory.watch(worker)

    def _foresee(self, worker: Worker) -> None:
        """Make a successor when one of the jobs that it has may be its last."""
        if worker.fresh or worker.leaving is not None:
            return
        jobs = worker.jobs + len(worker.runs)
        if not self._settings.may_end(jobs=jobs, rss=worker.rss, age=worker.age):
            return
        worker.ending = True
        idle = self._assigner.idle
        if self.ready and sum(not w.ending for w in idle) < self._successors:
            idle.insert(0, self.make(fresh=False))  # it is taken last

    @property
    def _warm(self) -> int:
        """How many workers there are that serve one job after the other."""
        return sum(not (w.fresh or w.leaving) for w in self._workers.values())

    @property
    def _successors(self) -> int:
        """How many may be there already: one for each that works, and may have to go then."""
        return sum(w.ending and w.run is not None for w in self._workers.values())

    def interrupt(self, run: Run) -> None:
        """End a run for ``run.stop_reason``: by an exception in it, by SIGTERM, by SIGKILL.

        Each a while after the other; a shorter one when this is called again, or the runner stops.
        """
        worker = self._assigner.of_run.get(run)
        if worker is None:
            if self._assigner.withdraw(run):
                self.stopped(run)
            return
        if worker.run is not run:
            self._assigner.recall(worker)
            return
        hurried = run.stop_reason == "shutdown" or worker.escalation is not None
        worker.relax()
        worker.ask_to_stop(run)
        self._assigner.recall(worker)  # what comes next for this one must not meet another
        seconds = HURRIED_SECONDS if hurried else TERMINATE_SECONDS
        worker.escalation = self._loop.call_later(seconds, self._terminate, worker, seconds)

    def stopped(self, run: Run) -> None:
        """A run was asked to stop before it had begun."""
        self._ended(run, stopped_happened(run, self._random))

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
                self._ask(worker, message)
            case Said(note):
                self._said(worker, note)
            case Log():
                if worker.run is not None:
                    log_again(worker.run, message)
            case Begun():
                self._begun(worker)
                self._assigner.serve()
            case Recalled(jobs):
                self._recalled(worker, jobs)
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
        worker.served(run, done)
        self._assigner.took(worker, done.usage.seconds)
        self._go_on(worker, done)
        self._ended(run, happened)

    def _go_on(self, worker: Worker, done: Done) -> None:
        """Its job is done: leave it its next one, give it another, or let it go."""
        why = "its job is done" if worker.fresh else done.spent or self._too_old(worker)
        if done.spent is not None:  # it begins nothing any more
            self._assigner.recalled(worker, len(worker.runs))
        if not worker.runs:
            self._free(worker, why)
            return
        worker.begun = False
        self._foresee(worker)
        if why is not None:
            self._retire(worker, why)
        if done.goes_on:
            self._begun(worker)
            self._assigner.hear_later(worker)
        else:
            self._assigner.comes_next(worker)

    def _begun(self, worker: Worker) -> None:
        """Its first job has begun, of several."""
        run = worker.run
        if run is not None:
            self._assigner.begun(worker)
            if run.stop_reason is not None:
                self.interrupt(run)

    def _recalled(self, worker: Worker, jobs: int) -> None:
        """It has given jobs back."""
        if worker.recalling:
            self._assigner.recalled(worker, jobs)
            if jobs and not worker.runs:  # else it was freed before it had heard of the recall
                worker.relax()  # who was to stop has not begun, and the next is another
                self._free(worker, None)

    def _free(self, worker: Worker, why: str | None) -> None:
        """It has nothing to do."""
        if worker.leaving is not None or why is not None:
            self._retire(worker, worker.leaving or why or "")
        elif self._assigner.idle and self._warm > (
            self._settings.processes + self._successors + worker.ending
        ):
            self._retire(worker, "more than needed")
        else:
            self._assigner.idle.append(worker)
        self._assigner.serve()

    def _ask(self, worker: Worker, ask: Ask) -> None:
        worker.spoke = True
        if worker.run is not None:
            self._assigner.asks(worker.run)
        self._errands.ask(worker, ask)

    def _too_old(self, worker: Worker) -> str | None:
        return self._settings.why_replace(jobs=worker.jobs, rss=worker.rss, age=worker.age)

    def _retire(self, worker: Worker, why: str) -> None:
        """Let a worker go: now when it is idle, else after its job."""
        self._assigner.forget(worker)
        if worker.run is not None:
            worker.leaving = why
            self._assigner.recall(worker)
            return
        worker.leave(why)
        worker.escalation = self._loop.call_later(LEAVE_SECONDS, worker.kill, "it did not leave")
        if not worker.fresh and why != "more than needed":
            self._last_recycled = why
            if self._warm < self._settings.processes_min and self.ready and not self._closing:
                self._assigner.idle.append(self.make(fresh=False))

    def _said(self, worker: Worker, note: Note) -> None:
        worker.spoke = True
        if worker.run is not None:
            hear(worker.run, note)
        self._loop.call_later(SAY_SECONDS, worker.go_on, worker.run)

    # The end of a worker

    def _cut_off(self, worker: Worker, reason: str) -> None:
        """Its connection is at its end, or not to be trusted: so is the worker."""
        going = worker.leaving is not None and worker.escalation is not None
        if worker.number not in self._workers or going:
            return
        self._assigner.forget(worker)
        if reason in (CLOSED, RESET):  # most likely it has ended, and its server is about to say so
            why = "it had closed its connection"
            worker.relax()
            worker.leaving = why
            worker.escalation = self._loop.call_later(UNEXPLAINED_SECONDS, worker.kill, why)
        else:
            worker.link.close()
            worker.kill(f"it sent {reason}")

    def _heard_from_server(self, server: ForkServer, message: FromServer) -> None:
        worker = self._workers.get(message.worker)  # type: ignore[union-attr]
        if worker is None:
            return
        if isinstance(message, Born):
            worker.pid = message.pid
        elif isinstance(message, Exited):
            worker.link.hear_out()
            how = _how(message.status)
            if worker.killed is not None and message.status in (-signal.SIGKILL, CUT_OFF):
                how = f"was killed, since {worker.killed}"  # and not by its own doing
            self._gone(worker, how, born=message.status != NOT_BORN)

    def _gone(self, worker: Worker, how: str, *, born: bool = True) -> None:
        """A worker has ended; the run that it still had has crashed, unless it was stopped."""
        self._workers.pop(worker.number, None)
        self._assigner.forget(worker)
        self._changed.set()
        begun = worker.begun_runs()
        self._assigner.recalled(worker, len(worker.runs) - max(begun, 1))
        while len(worker.runs) > 1:  # they have begun, and nobody heard how they ended
            self._crashed(worker, how)
        run = worker.run
        if run is not None:
            unread = not (begun or worker.has_begun) and run.stop_reason is None
            run.unread += unread
            if not born or (unread and run.unread <= UNREAD_MAX):  # the job is as it was
                self._forget(worker, run)
                self._loop.call_later(0.0 if born else 0.5, self.start_again, run, worker.fresh)
            else:
                self._crashed(worker, how)
        worker.close()

    def _crashed(self, worker: Worker, how: str) -> None:
        """The first of its runs has ended along with it."""
        run = worker.runs[0]
        output = worker.take_output()
        self._forget(worker, run)
        run.usage = RunUsage(worker.cpu_seconds, worker.peak_rss, output)
        limit = run.task.memory_limit
        if worker.over_limit and limit is not None:
            self._ended(run, memory_happened(run, limit, self._random))
            return
        detail = f"its worker (process {worker.pid}) {how}"
        self._ended(run, worker_lost(run, detail, output, self._random))

    def start_again(self, run: Run, fresh: bool) -> None:
        """Start a run whose worker had ended before it could read the job."""
        if run.stop_reason is not None or self._closing:
            self.stopped(run)
        else:
            self.start(run, fresh=fresh)

    def _forget(self, worker: Worker, run: Run) -> None:
        """A run is no longer the worker's."""
        del self._assigner.of_run[run]
        worker.runs.popleft()
        worker.relax()
        self._errands.drop(worker)

    def _server_ended(self, server: ForkServer) -> None:
        for worker in [w for w in self._workers.values() if w.server is server]:
            worker.link.hear_out()
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
            if worker.run is not None:
                self._foresee(worker)
            why = self._too_old(worker)
            if why is not None:
                self._retire(worker, why)
        while (
            len(idle := self._assigner.idle) > self._successors
            and self._warm > self._settings.processes_min
            and now - idle[0].idle_since > IDLE_SECONDS
        ):
            self._retire(idle[0], "more than needed")

    def workers(self) -> list[WorkerInfo]:
        """All there are, oldest first."""
        return [worker.info() for worker in self._workers.values()]

    # Closing

    async def close(self) -> None:
        """End all workers, and wait until they are gone."""
        self._closing = True
        self._assigner.close()
        self._memory.close()
        if self._sampler is not None:
            self._sampler.cancel()
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
