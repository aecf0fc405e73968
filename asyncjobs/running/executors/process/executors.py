"""Process jobs: in warm workers that serve many, or in a fresh process each."""

from __future__ import annotations

from ...context import Run
from ..base import Setting
from .pool import WorkerPool


class ProcessExecutor:
    """Runs tasks in subprocesses that serve many jobs. A job that does not stop is killed."""

    name = "process"
    fresh = False
    forceful = True

    def __init__(self, setting: Setting, pool: WorkerPool) -> None:
        pool.serve(setting)
        self._pool = pool

    def start(self, run: Run) -> None:
        """Give the job to a worker."""
        self._pool.start(run, fresh=self.fresh)

    def interrupt(self, run: Run) -> None:
        """End the job, the hard way in the end."""
        self._pool.interrupt(run)

    def lent(self) -> None:
        """Go on with jobs that wait for a worker."""
        self._pool.lent()

    async def close(self) -> None:
        """End the workers: those of both executors, at the first call."""
        await self._pool.close()


class IsolatedExecutor(ProcessExecutor):
    """Runs each job in a process of its own: nothing of one is visible to the next."""

    name = "isolated"
    fresh = True
