"""A host whose jobs wait at a gate, to be stopped while they run.

``gated DATABASE LEDGERS JOBS``: for each line "jobs" on its input it enqueues
JOBS jobs, and prints "running" once all have begun. A line "open" lets them end; it prints how many
outcomes were refused, and the instance that it goes on as, after one more job ended there. A line
"block" blocks its event loop for some leases.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
import threading
import time
from pathlib import Path

from asyncjobs import Runner, current_job
from asyncjobs.testing import run_until_idle
from tests.oracles import AckLedger, EffectLedger

LEASE_SECONDS = 0.3
BLOCK_SECONDS = 2.5
"""Long enough for a neighbour to look twice, a second apart."""


class Gated:
    """A runner whose jobs begin, then wait until the gate is open, then return their claim."""

    def __init__(self, database: Path, ledgers: Path, jobs: int, *, gate_is_open: bool) -> None:
        self.jobs = jobs
        self.acks = AckLedger(ledgers / "acks")
        self.effects = EffectLedger(ledgers / "effects")
        self.runner = Runner(database, concurrency=jobs, threads=jobs, lease_seconds=LEASE_SECONDS)
        self._begun = 0
        self.all_begun = asyncio.Event()
        self._gate = asyncio.Event()
        self._thread_gate = threading.Event()
        if gate_is_open:
            self.open()
        self._loop = asyncio.get_running_loop()

        @self.runner.task(name="coroutine")
        async def coroutine() -> int:
            job = current_job()
            fence = job.fence
            self.effects.start(job.id, fence)
            self._begin()
            await self._gate.wait()
            self.effects.end(job.id, fence)
            return fence[1]

        @self.runner.task(name="thread")
        def thread() -> int:
            job = current_job()
            fence = job.fence
            self.effects.start(job.id, fence)
            self._loop.call_soon_threadsafe(self._begin)
            self._thread_gate.wait()
            self.effects.end(job.id, fence)
            return fence[1]

        self.coroutine, self.thread = coroutine, thread

    def _begin(self) -> None:
        self._begun += 1
        if self._begun == self.jobs:
            self.all_begun.set()

    async def enqueue(self) -> None:
        """Enqueue a fresh batch, a quarter of it for threads; the gate is closed again."""
        self._gate.clear()
        self._thread_gate.clear()
        self.all_begun.clear()
        self._begun = 0
        for number in range(self.jobs):
            task = self.coroutine if number % 4 else self.thread
            self.acks.ack("job", (await task.enqueue()).id)
        await self.all_begun.wait()

    def open(self) -> None:
        """Let jobs end."""
        self._gate.set()
        self._thread_gate.set()

    def close(self) -> None:
        """Close the ledgers."""
        self.acks.close()
        self.effects.close()


async def main(database: Path, ledgers: Path, jobs: int) -> None:
    """Do as the lines on standard input say, until it ends."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    gated = Gated(database, ledgers, jobs, gate_is_open=False)
    async with gated.runner:
        say("ready")
        while line := (await lines.readline()).decode().strip():
            if line == "jobs":
                await gated.enqueue()
                say("running")
            elif line == "block":
                say("blocking")
                time.sleep(BLOCK_SECONDS)
                say("unblocked")
            else:
                gated.open()
                await run_until_idle(gated.runner)
                last = await gated.coroutine.enqueue()
                gated.acks.ack("job", last.id)
                await last
                instance = (await gated.runner.registry.get(last.id)).instance
                say(f"{gated.runner.tally.lost_reports} {instance}")
    transport.close()
    gated.close()


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300, exit=True)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
