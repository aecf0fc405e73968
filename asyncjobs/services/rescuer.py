"""Gives the jobs of dead instances back to the queue, or ends them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..records import Outcome
from ..running.context import Run
from ..store.base import Leave, Rescue, Rescued, Store
from ..store.group_commit import GroupCommit
from .instance import Neighbours

log = logging.getLogger("asyncjobs")


class Rescuer:
    """Looks at the other instances' files once a second."""

    def __init__(
        self,
        *,
        own: Callable[[], str],
        neighbours: Neighbours | None,
        store: Store,
        commit: GroupCommit[Run],
        on_rescued: Callable[[list[tuple[str, Outcome]]], None],
    ) -> None:
        self._own = own
        self._neighbours = neighbours
        self._store = store
        self._commit = commit
        self._on_rescued = on_rescued
        self._abandoned: list[str] = []

    async def rescue_at_start(self) -> None:
        """Also rescues runs whose instance has left no file at all."""
        await self.rescue()
        for instance in await self._store.running_instances():
            here = self._neighbours is not None and self._neighbours.exists(instance)
            if instance != self._own() and not here:
                await self._rescue(instance, "its process is gone and left no lock file")

    def abandon(self, instance: str) -> None:
        """Rescue this former instance of ours as well, at the next look.

        Others took it for dead, and its file away, but a claim that was being written meanwhile
        came after their rescue, and no file is left that would make anybody look again.
        """
        self._abandoned.append(instance)

    async def rescue(self) -> None:
        """One look at every file."""
        if self._neighbours is None:
            return
        while self._abandoned:
            await self._rescue(self._abandoned[0], "it was taken for dead, and goes on as another")
            self._abandoned.pop(0)
        monotonic = asyncio.get_running_loop().time()
        for instance, lock in self._neighbours.dead(monotonic, but=self._own()):
            try:
                if lock is not None:
                    await self._rescue(instance, "its process died")
                    self._neighbours.bury(lock)
                else:
                    await self._rescue(instance, "its process was stopped for longer than a lease")
                    self._neighbours.remove(instance)
            finally:
                if lock is not None:
                    lock.close()

    async def _rescue(self, instance: str, detail: str) -> None:
        jobs = 0
        while True:
            rescued: Rescued = await self._commit.alone(Rescue(instance, detail))
            if rescued.jobs == 0:
                break
            jobs += rescued.jobs
            self._on_rescued(rescued.ended)
        # Also when it ran nothing: what it enqueued just before its end, nobody has told us of.
        self._on_rescued([])
        await self._commit.execute(Leave(instance, "rescue"))
        log.warning("instance %s is gone (%s): %d jobs were taken over", instance, detail, jobs)
