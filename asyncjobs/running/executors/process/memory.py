"""Memory limits of running jobs, where the system alone does not hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .worker import Worker

LOOK_SECONDS = 0.1
"""How often the memory of jobs with a limit is looked at."""


class MemoryWatch:
    """Kills workers whose job has more memory than it may; looks only while there are limits."""

    def __init__(self, workers: Mapping[int, Worker]) -> None:
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, worker: Worker) -> None:
        """The worker has got jobs."""
        if self._timer is None and _has_limit(worker):
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        for worker in list(self._workers.values()):
            self.watch(worker)  # also for those of its jobs that follow
            run = worker.run
            limit = None if run is None else run.task.memory_limit
            if limit is None or worker.over_limit:
                continue
            worker.link.read()  # it may have gone over into another job
            worker.sample()
            if worker.run is run and worker.rss > limit:
                worker.over_limit = True
                worker.kill(f"it had {worker.rss} bytes")

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def _has_limit(worker: Worker) -> bool:
    return any(run.task.memory_limit is not None for run in worker.runs)
