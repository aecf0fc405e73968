"""Host processes: started, watched, killed, stopped and continued."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).parents[2]
# At the end of the path: nothing here may hide an installed module.
START = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module("tests.crash.nursery", run_name="__main__", alter_sys=True)
"""


class Nursery:
    """Where hosts are born; see the program of that name."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(ROOT)], stdin=theirs.fileno()
        )
        theirs.close()

    def bear(self, program: str, *arguments: str) -> tuple[int, list[int]]:
        """A host's standard input, and its output, its errors and its fate, to be read."""
        pipes = [os.pipe() for _ in range(4)]
        theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
        request = json.dumps([program, *arguments]).encode()
        socket.send_fds(self._channel, [request], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        return pipes[0][1], [pipe[0] for pipe in pipes[1:]]

    def close(self) -> None:
        """No more."""
        self._channel.close()
        self._process.wait(10)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


class Host:
    """A Python program of this folder in a process of its own."""

    nursery: ClassVar[Nursery]
    alive: ClassVar[set[Host]] = set()

    def __init__(self, stdin: int, streams: list[asyncio.StreamReader]) -> None:
        self._stdin: int | None = stdin
        self._stdout, self._stderr, self._fate = streams
        self._pid = 0
        self.alive.add(self)

    @classmethod
    async def start(cls, program: str, *arguments: object) -> Host:
        """Start it; returns once it has printed its first line."""
        stdin, outputs = cls.nursery.bear(program, *map(str, arguments))
        host = cls(stdin, [await _reader(output) for output in outputs])
        host._pid = int(await host._fate.readline())
        line = await host.line()
        if line != "ready":
            raise AssertionError(f"the host said {line!r}: {(await host.ended())[1]}")
        return host

    @property
    def pid(self) -> int:
        """Its process."""
        return self._pid

    async def line(self) -> str:
        """The next line that it prints."""
        return (await self._stdout.readline()).decode().strip()

    async def write(self, line: str) -> None:
        """Write a line to its input."""
        assert self._stdin is not None
        os.write(self._stdin, line.encode() + b"\n")

    async def end_input(self) -> None:
        """Close its input."""
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    async def ended(self) -> tuple[int, str]:
        """Wait for its end: return code (negative: the signal) and what it wrote to stderr."""
        _, errors = await asyncio.gather(self._stdout.read(), self._stderr.read())
        code = int(await self._fate.readline())
        await self._fate.read()
        await self.end_input()
        self.alive.discard(self)
        return code, errors.decode()

    async def kill(self) -> None:
        """SIGKILL it; fail if it had ended by itself before."""
        self._kill()
        await self.died()

    async def died(self) -> None:
        """Wait for its death by SIGKILL."""
        code, errors = await self.ended()
        assert code == -signal.SIGKILL, f"the host ended by itself ({code}):\n{errors}"

    async def abandon(self) -> None:
        """End it, whatever became of it."""
        self._kill()
        await self.ended()

    def _kill(self) -> None:
        # What has been told of its end is not read yet: else its number may be another's by now.
        if not self._fate.at_eof() and not self._fate._buffer:  # type: ignore[attr-defined]
            self.send(signal.SIGKILL)
