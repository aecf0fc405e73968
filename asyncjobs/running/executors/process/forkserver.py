"""The fork server as the host sees it: a child process at the other end of a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable

from ....errors import WorkersFailed
from .boot import command
from .link import Link
from .wire import Exited, Fork, FromServer, Guard, Kill, Ready, Setup, Unready, from_server

IMPORT_SECONDS = 60.0
"""How long the import of the application's modules may take."""
END_SECONDS = 1.5
"""How long a server gets to end its workers and itself, before it is killed."""


class ForkServer:
    """Calls ``heard`` with what becomes of its workers, and ``ended`` when it is gone."""

    def __init__(
        self,
        setup: Setup,
        heard: Callable[[ForkServer, FromServer], None],
        ended: Callable[[ForkServer], None],
    ) -> None:
        self.setup = setup
        self._heard = heard
        self._ended = ended
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.start_method = setup.start
        self.workers: set[int] = set()
        """Those that it was told to make and that have not ended."""
        self.leaving = False
        """True once it makes no more workers, because another has taken its place."""
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                command("serve", theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # what a terminal sends to us is not for our workers
            )
        except OSError as error:
            ours.close()
            raise WorkersFailed(f"the fork server cannot be started: {error}") from error
        finally:
            theirs.close()
        self._link = Link(ours, from_server, self._hear, self._closed)
        self._link.send(setup)

    async def ready(self) -> Ready:
        """Return once it has imported the tasks.

        Raises:
            WorkersFailed: it cannot.
        """
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), IMPORT_SECONDS)
        except TimeoutError:
            raise WorkersFailed(
                f"the modules {', '.join(self.setup.modules)} were not imported within "
                f"{IMPORT_SECONDS:g} s in the fork server; do they run the whole program? "
                "Put what starts it under if __name__ == '__main__':"
            ) from None

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def fork(self, worker: int, connection: int, output: int) -> None:
        """Make a worker with these descriptors, which are closed here."""
        self.workers.add(worker)
        self._link.send(Fork(worker), descriptors=(connection, output))

    def guard(self, lock: int) -> None:
        """Have it hold the lock as long as there are workers."""
        self._link.send(Guard(), descriptors=(os.dup(lock),))

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to the worker and all that it has started."""
        self._link.send(Kill(worker, number))

    def kill(self) -> None:
        """End it at once; its workers are killed by that."""
        self._process.kill()

    def _hear(self, message: FromServer) -> None:
        match message:
            case Ready(start, _):
                self.start_method = start
                if not self._ready.done():
                    self._ready.set_result(message)
            case Unready(text):
                self._fail(text)
            case Exited(worker, _):
                self.workers.discard(worker)
                self._heard(self, message)
            case _:
                self._heard(self, message)

    def _closed(self, reason: str) -> None:
        self._fail("the fork server ended while it imported the tasks; what it said stands above")
        self._process.kill()
        self._ended(self)

    def _fail(self, text: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(WorkersFailed(text))
            self._ready.exception()  # else asyncio would log it, where nobody waits for it

    async def close(self) -> None:
        """End it and all of its workers, and wait until it is gone."""
        self._fail("the runner stops")
        self._link.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + END_SECONDS
        while self._process.poll() is None:
            if loop.time() > deadline:
                self._process.kill()
            await asyncio.sleep(0.001)
