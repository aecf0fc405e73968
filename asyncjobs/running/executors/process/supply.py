"""Where workers come from: one fork server, a new one when it ends or its modules have changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ....errors import WorkersFailed
from .forkserver import ForkServer
from .wire import FromServer, Setup

RESTART_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before each new fork server, when one after the other fails."""

log = logging.getLogger("asyncjobs")


class Supply:
    """Keeps one fork server running; former ones live until their last worker has ended."""

    def __init__(
        self,
        heard: Callable[[ForkServer, FromServer], None],
        ended: Callable[[ForkServer], None],
        supplied: Callable[[ForkServer | None], None],
    ) -> None:
        self._heard = heard
        self._ended = ended
        self._supplied = supplied
        self._loop = asyncio.get_running_loop()
        self._servers: set[ForkServer] = set()
        self._guard: int | None = None
        self._failures = 0
        self._restart: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.opening = False
        """Whether what stands in ``server`` is about to be replaced by one that knows more."""
        self._closing = False
        self.server: ForkServer | None = None
        """The one that makes workers now."""

    async def open(self, setup: Setup) -> None:
        """Start a server with these tasks; it takes the place of the one before.

        Raises:
            WorkersFailed: the tasks cannot be had.
        """
        server = ForkServer(setup, self._server_heard, self._server_ended)
        self._servers.add(server)
        try:
            ready = await server.ready()
        except BaseException:
            self._servers.discard(server)
            await server.close()
            raise
        if ready.threads:
            log.warning(
                "workers are spawned, not forked: the modules of the tasks start threads when "
                "they are imported (%s), and no process with threads can be forked safely",
                ", ".join(ready.threads),
            )
        if self._guard is not None:
            server.guard(self._guard)
        former, self.server = self.server, server
        self._failures = 0
        self._supplied(former)
        if former is not None:
            former.leaving = True
            self._bury_if_done(former)

    def open_later(
        self, setup: Callable[[], Setup | None], failed: Callable[[WorkersFailed], None]
    ) -> None:
        """Do that in the background, once for all who ask for it at the same time."""
        if not self.opening:
            self.opening = True
            self._do(self._open_later(setup, failed))

    async def _open_later(
        self, setup: Callable[[], Setup | None], failed: Callable[[WorkersFailed], None]
    ) -> None:
        await asyncio.sleep(0)
        self.opening = False
        former = self.server
        self.server = None  # jobs wait until what they need is there
        try:
            wanted = setup()
            if wanted is not None:
                await self.open(wanted)
        except WorkersFailed as error:
            log.error("workers do not have all of their tasks: %s", error)
            self.server = former
            failed(error)

    def guard(self, lock: int) -> None:
        """Have the servers hold this lock, in place of the one before."""
        self._guard = lock
        for server in self._servers:
            server.guard(lock)

    def _server_heard(self, server: ForkServer, message: FromServer) -> None:
        self._heard(server, message)
        self._bury_if_done(server)

    def _bury_if_done(self, server: ForkServer) -> None:
        if server.leaving and not server.workers and server in self._servers:
            self._servers.discard(server)
            self._do(server.close())

    def _server_ended(self, server: ForkServer) -> None:
        self._servers.discard(server)
        self._do(server.close())
        if server is self.server:
            self.server = None
            self._plan_restart(server.setup)
        self._ended(server)

    def _plan_restart(self, setup: Setup) -> None:
        if self._closing:
            return
        log.error("the fork server has ended; another one is started")
        seconds = RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)]
        self._failures += 1
        self._restart = self._loop.call_later(seconds, lambda: self._do(self._try_again(setup)))

    async def _try_again(self, setup: Setup) -> None:
        if self.server is not None:  # somebody has loaded the modules anew meanwhile
            return
        try:
            await self.open(setup)
        except WorkersFailed as failed:
            log.error("there are no workers: %s", failed)
            self._plan_restart(setup)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all servers, and with them their workers; wait until they are gone."""
        self._closing = True
        if self._restart is not None:
            self._restart.cancel()
        await asyncio.gather(*(server.close() for server in self._servers))
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        self._servers.clear()
        self.server = None
