"""Real servers in processes of their own, asked over real HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 25.0
"""How long a test waits for what must happen before it calls that a hang."""


class Server:
    """A server, its workers, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log

    def client(self) -> httpx.AsyncClient:
        """Asks over a new connection each time: a worker that was killed takes none along."""
        once = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_SECONDS, limits=once)

    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text("utf-8")

    def answers(self) -> bool:
        """Whether it takes connections."""
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(httpx.TransportError):
            httpx.get(self.url, timeout=PATIENCE_SECONDS)
            return True
        return False

    def until(self, condition: Callable[[], object]) -> None:
        """Ask again and again until it holds: other processes set no event of ours."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.005)

    def terminate(self) -> None:
        """Ask it to end as a process manager does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.until(lambda: self.process.poll() is not None)

    def stop(self) -> None:
        """The same, and see that it did so in order and that nothing of it is left."""
        self.terminate()
        # uvicorn raises the signal again once it has shut down in order.
        assert self.process.returncode in (0, -signal.SIGTERM), self.log()
        self.until(lambda: not self.has_processes())
        assert "Traceback" not in self.log(), self.log()

    def has_processes(self) -> bool:
        """Whether anything of its process group is alive."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextlib.contextmanager
def serving(folder: Path, port: int, *command: str) -> Iterator[Server]:
    """Start ``python -m COMMAND`` in ``folder`` and wait until it answers on ``port``."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        server.until(server.answers)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
