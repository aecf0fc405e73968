"""One of several processes on one file: ``member DATABASE LEDGERS SEED [OPTIONS]``.

OPTIONS are the runner's, as JSON. It prints "ready", then does what it is told, a line each:
``load`` keeps all kinds of jobs coming, ``run N`` enqueues N jobs and prints "done" when all have
ended, ``stop`` (or SIGTERM) drains and ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from asyncjobs import RunnerClosed

from .load import HANG_SECONDS, Load


async def commands(reader: asyncio.StreamReader) -> AsyncIterator[list[str]]:
    """What stands in the lines of the input; SIGTERM is "stop"."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode().split()
    transport.close()


def say(word: str) -> None:
    """Tell the test."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def until_closed(work: Coroutine[Any, Any, None]) -> None:
    """Let ``work`` go on until the runner stops."""
    with contextlib.suppress(RunnerClosed):
        await work


async def run(load: Load, jobs: int) -> None:
    """Enqueue jobs from fifty producers, each awaiting its own."""

    async def producer(share: int) -> None:
        for _ in range(share):
            handle = await load.quick.enqueue()
            load.acks.ack("job", handle.id)
            load.acks.ack("result", handle.id, await handle)

    await asyncio.gather(*(producer(jobs // 50) for _ in range(50)))
    say("done")


async def main(database: Path, ledgers: Path, seed: int, options: dict[str, Any]) -> None:
    """Serve until told to stop."""
    load = Load(database, ledgers, **options)
    chance = random.Random(seed)
    reader = asyncio.StreamReader()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reader.feed_data, b"stop\n")
    working: list[asyncio.Task[None]] = []
    async with load.runner:
        say("ready")
        async for word, *arguments in commands(reader):
            if word == "stop":
                break
            if word == "load":
                works = [load.produce(random.Random(chance.random())) for _ in range(3)]
                works.append(load.produce_bulks(random.Random(chance.random())))
            else:
                works = [run(load, int(arguments[0]))]
            working += [asyncio.create_task(until_closed(work)) for work in works]
    await asyncio.wait_for(asyncio.gather(*working), HANG_SECONDS)
    load.close()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    asyncio.run(
        main(
            Path(sys.argv[1]),
            Path(sys.argv[2]),
            int(sys.argv[3]),
            json.loads(sys.argv[4]) if sys.argv[4:] else {},
        )
    )
