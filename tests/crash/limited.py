"""A host whose files may not grow for a while: ``limited DATABASE``."""

from __future__ import annotations

import asyncio
import faulthandler
import resource
import sys
from pathlib import Path

from asyncjobs import Runner, StoreError

SOFT_BYTES = 200_000


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(database: Path) -> None:
    """Fill the limit, show what is refused and what is kept, lift it, and finish."""
    async with Runner(database) as runner:
        gate = asyncio.Event()

        @runner.task(name="large")
        async def large() -> str:
            await gate.wait()
            return "x" * 1_000_000

        @runner.task(name="store")
        async def store(text: str) -> None: ...

        outcome = await large.enqueue()
        say("ready")
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SOFT_BYTES, hard))
        gate.set()
        accepted = []
        try:
            for _ in range(100):
                accepted.append(await store.enqueue("y" * 10_000))
        except StoreError as error:
            if "ulimit -f" in str(error):
                say("refused")
        if (await runner.registry.get(outcome.id)).state != "running":
            raise AssertionError("the outcome cannot have been written")
        say("kept")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert len(await outcome) == 1_000_000
        for handle in accepted:
            await handle
        await (await store.enqueue("room"))
        say("room")
        assert await runner.registry.check() == []
        say("clean")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(60, exit=True)
    asyncio.run(main(Path(sys.argv[1])))
