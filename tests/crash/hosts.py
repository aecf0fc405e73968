"""Host processes: started, watched, killed, stopped and continued."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).parents[2]
# At the end of the path: nothing here may hide an installed module.
START = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class Host:
    """A Python program of this folder in a process of its own."""

    alive: ClassVar[set[Host]] = set()

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.alive.add(self)

    @classmethod
    async def start(cls, program: str, *arguments: object) -> Host:
        """Start it; returns once it has printed its first line."""
        host = cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", START, str(ROOT), f"tests.crash.{program}",
                *map(str, arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip
        line = await host.line()
        if line != "ready":
            raise AssertionError(f"the host said {line!r}: {(await host.ended())[1]}")
        return host

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def write(self, line: str) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def end_input(self) -> None:
        """Close its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.stdin.wait_closed()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """Wait for its end: return code (negative: the signal) and what it wrote to stderr."""
        _, errors = await self._process.communicate()
        self.alive.discard(self)
        assert self._process.returncode is not None
        return self._process.returncode, errors.decode()

    async def kill(self) -> None:
        """SIGKILL it; fail if it had ended by itself before."""
        if self._process.returncode is None:
            self._process.kill()
        await self.died()

    async def died(self) -> None:
        """Wait for its death by SIGKILL."""
        code, errors = await self.ended()
        assert code == -signal.SIGKILL, f"the host ended by itself ({code}):\n{errors}"

    async def abandon(self) -> None:
        """End it, whatever became of it."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()
