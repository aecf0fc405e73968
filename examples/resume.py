"""A long run that may be interrupted at any moment, also by SIGKILL, and started again.

The key makes each piece of work one job, however often the script enqueues it. Start it, press
Ctrl-C or kill it, start it again: what is done stays done.
"""

from __future__ import annotations

import asyncio
import sys

from asyncjobs import Runner

runner = Runner(sys.argv[1] if len(sys.argv) > 1 else "resume.db", concurrency=2)
PIECES = 40


@runner.task
async def digest(piece: int) -> int:
    """One piece of work."""
    await asyncio.sleep(0.02)
    return piece * piece


async def main() -> None:
    """Enqueue everything, again if need be, and wait for all of it."""
    async with runner:
        handles = await runner.enqueue_many(
            digest.options(key=f"piece-{piece}").job(piece) for piece in range(PIECES)
        )
        known = sum(handle.existing for handle in handles)
        print(f"{known} of {PIECES} pieces were enqueued before", flush=True)
        print(f"sum {sum(await asyncio.gather(*(handle.result() for handle in handles)))}")


if __name__ == "__main__":
    asyncio.run(main())
