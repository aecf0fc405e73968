"""All that runs jobs: the executors, and the subprocesses behind two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from ..running.context import RunnableTask
from ..running.executors.base import Executor, Setting
from ..running.executors.coroutine import CoroutineExecutor
from ..running.executors.process.settings import EXECUTORS, PoolSettings
from ..running.executors.thread import ThreadExecutor
from ..running.resources import Resource

# What only a started runner needs is imported by the functions that need it: it would double what
# ``from asyncjobs import Runner`` costs.
if TYPE_CHECKING:
    from ..running.executors.process.errands import Errand
    from ..running.executors.process.wire import Setup


class Workers:
    """The pool of subprocesses, and what they must have imported."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        tasks: Mapping[str, RunnableTask],
        resources: Iterable[Resource[Any]],
        lease_seconds: float,
        random: Random,
        errand: Errand,
    ) -> None:
        from ..running.executors.process.pool import WorkerPool

        self.pool = WorkerPool(settings, random=random, errand=errand)
        self.slots = dict.fromkeys(EXECUTORS, settings.processes)
        self._settings = settings
        self._tasks = tasks
        self._resources = resources
        self._lease_seconds = lease_seconds
        self._serving = False
        """True once jobs are run here: a client has no workers."""

    def executors(self, setting: Setting) -> Iterable[Executor]:
        """One of each kind."""
        from ..running.executors.process.executors import IsolatedExecutor, ProcessExecutor

        yield CoroutineExecutor(setting)
        yield ThreadExecutor(setting)
        yield ProcessExecutor(setting, self.pool)
        yield IsolatedExecutor(setting, self.pool)

    async def open(self) -> None:
        """Have the modules of the tasks imported, also anew; nothing when none is for workers.

        Raises:
            WorkersFailed: they cannot be; workers that are there go on.
        """
        self._serving = True
        setup = self._setup()
        if setup is not None:
            await self.pool.open(setup)

    def learn(self, task: RunnableTask) -> None:
        """There is one more task."""
        if self._serving and task.executor in EXECUTORS:
            self.pool.open_later(self._setup)

    def _setup(self) -> Setup | None:
        from ..running.executors.process.setup import setup_for

        return setup_for(
            self._tasks.values(), self._resources, self._settings.start, self._lease_seconds
        )
