"""One worker as the host sees it: its connection, its output, its job, and its health."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from ....inventory import WorkerInfo
from ....records import RunUsage
from ...context import Run
from .forkserver import ForkServer
from .link import RESET, Link
from .output import Output
from .usage import rss_of
from .wire import Done, FromWorker, GoOn, Message, Recall, Start, Stop, from_worker


class Worker:
    """A subprocess that runs one job at a time."""

    pid: int | None = None
    begun: bool | None = None
    """Whether the first of its runs has begun; ``None`` where it does not say so."""
    begun_at = 0.0
    """By the event loop's clock."""
    recalling = False
    """Whether it is about to give back what it has not begun."""
    jobs = 0
    """Served until now."""
    rss = 0
    peak_rss = 0
    cpu_seconds = 0.0
    ending = False
    """Its successor was made, although it may have some jobs more before it."""
    leaving: str | None = None
    """Why it gets no more jobs."""
    killed: str | None = None
    """Why the pool has killed it, where that was not on behalf of who stops its run."""
    over_limit = False
    """It was killed because its job crossed its memory limit."""
    escalation: asyncio.TimerHandle | None = None
    """Until its job is asked to stop in a harder way."""
    unread = False
    """True when it has gone without having read all that it was sent."""
    spoke = False
    """True once its job has said something: it has been read, whatever else has not."""

    def __init__(
        self,
        number: int,
        server: ForkServer,
        heard: Callable[[Worker, FromWorker], None],
        cut_off: Callable[[Worker, str], None],
        *,
        fresh: bool,
        replaced: str | None,
    ) -> None:
        self.replaced = replaced
        self.runs: deque[Run] = deque()
        """What it runs, and what is to follow."""
        self._mark = b""
        """What stands before the output of each of its runs."""
        self.number = number
        self.server = server
        self.fresh = fresh
        """Made for one job alone."""
        self.born_at = time.monotonic()
        self.idle_since = self.born_at
        self.since = datetime.now(UTC)
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        self._cut_off = cut_off
        self.output = Output(reading)
        self.link = Link(ours, from_worker, lambda message: heard(self, message), self._link_ended)
        server.fork(number, theirs.detach(), writing)
        if server.start_method == "spawn":
            self.tell(server.setup)

    def _link_ended(self, reason: str) -> None:
        self.unread = reason == RESET
        self._cut_off(self, reason)

    def tell(self, message: Message) -> None:
        """Send it a message."""
        self.link.send(message)

    @property
    def run(self) -> Run | None:
        """Its job, which may not have begun yet."""
        return self.runs[0] if self.runs else None

    def give(self, runs: list[Run], log_level: int, mark: bytes) -> None:
        """Have it run jobs, one after the other; with a ``mark`` it says when the first begins."""
        if not self.runs:
            self.output.take()  # what it said between jobs is nobody's
            self.begun = False if mark else None
            self.spoke = False
            self._mark = mark
        self.runs += runs
        self.link.send(
            *(Start(run.job, run.instance, run.task.memory_limit, log_level, mark) for run in runs)
        )

    def go_on(self, run: Run | None) -> None:
        """Let the job of this run say more; the next job is told nothing that it may not read."""
        if self.run is run:
            self.tell(GoOn())

    def ask_to_stop(self, run: Run) -> None:
        """Raise in the job."""
        self.resume()
        self.tell(Stop(run.job.seq, run.job.claim, run.stop_reason or ""))

    def recall(self) -> None:
        """Have it give back what it has not begun."""
        self.recalling = True
        self.resume()
        self.tell(Recall())

    @property
    def has_begun(self) -> bool:
        """Whether its first run has begun, as far as that is known once it has gone."""
        return self.spoke or not self.unread if self.begun is None else self.begun

    def begun_runs(self) -> int:
        """How many of its runs have begun at least, by what it has written, once it has gone.

        What it said may be lost, when somebody has said something else in its place.
        """
        return self.output.count(self._mark) if self._mark else 0

    def take_output(self) -> str:
        """What its first run has written."""
        return self.output.take(self._mark)

    def pause(self) -> None:
        """Hear nothing from it for now."""
        self.link.pause()
        self.output.pause()

    def resume(self) -> None:
        """Hear what it says as it does."""
        self.link.resume()
        self.output.resume()

    def signal(self, number: int) -> None:
        """Send a signal to the worker and to all that it has started."""
        self.server.signal(self.number, number)

    def kill(self, why: str) -> None:
        """End it at once, with all that it has started."""
        self.killed = self.killed or why
        self.leaving = self.leaving or why
        self.signal(signal.SIGKILL)

    def served(self, run: Run, done: Done) -> None:
        """Its first job has ended, and may have gone over into the next one."""
        usage = done.usage
        output = self.take_output()
        run.usage = RunUsage(usage.cpu_seconds, usage.peak_rss, output)
        self.jobs += 1
        self.idle_since = time.monotonic()
        self.cpu_seconds += usage.cpu_seconds
        self.rss = usage.rss
        self.peak_rss = max(self.peak_rss, usage.peak_rss)
        self.relax()

    def relax(self) -> None:
        """Do not ask its job to stop in a harder way."""
        if self.escalation is not None:
            self.escalation.cancel()
            self.escalation = None

    def sample(self) -> None:
        """Look at its memory."""
        rss = None if self.pid is None else rss_of(self.pid)
        if rss is not None:
            self.rss = rss
            self.peak_rss = max(self.peak_rss, rss)

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.born_at

    def leave(self, why: str) -> None:
        """Let it end: it is idle, and gets no more jobs."""
        self.leaving = why
        self.link.close()

    def close(self) -> None:
        """Free what the host holds of it."""
        self.relax()
        self.link.close()
        self.output.close()

    def info(self) -> WorkerInfo:
        """As the registry shows it."""
        run = self.run
        if self.leaving is not None:
            state = "leaving"
        elif run is not None:
            state = "busy"
        else:
            state = "starting" if self.pid is None else "idle"
        return WorkerInfo(
            pid=self.pid,
            executor="isolated" if self.fresh else "process",
            state=state,
            job_id=None if run is None else run.job.id,
            task=None if run is None else run.job.task,
            following=max(0, len(self.runs) - 1),
            jobs=self.jobs,
            rss=self.rss,
            peak_rss=self.peak_rss,
            cpu_seconds=self.cpu_seconds,
            started_at=self.since,
            leaving=self.leaving,
            replaced=self.replaced,
        )
