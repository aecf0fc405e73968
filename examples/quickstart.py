"""One job, awaited. Run it: ``python examples/quickstart.py``."""

from __future__ import annotations

import asyncio
import sys

from asyncjobs import Runner

runner = Runner(sys.argv[1] if len(sys.argv) > 1 else "quickstart.db")


@runner.task
async def greet(name: str) -> str:
    """The work: any coroutine, any plain function."""
    return f"hello, {name}"


async def main() -> None:
    """Enqueue, await, look it up."""
    async with runner:
        handle = await greet.enqueue("world")
        print(await handle)
        print(await handle.job())


if __name__ == "__main__":
    asyncio.run(main())
