"""A parent that fans out to children and awaits them, in a pool of four.

The parent lends its slot while it waits, so the pool cannot lock up, however deep this goes.
"""

from __future__ import annotations

import asyncio
import sys

from asyncjobs import Retry, Runner, current_job

runner = Runner(sys.argv[1] if len(sys.argv) > 1 else "pipeline.db", concurrency=4)


@runner.task(retry=Retry(attempts=3, base=0.01))
async def count_words(text: str) -> int:
    """One child. Fails at its first attempt now and then, as networks do."""
    if current_job().attempt == 1 and len(text) % 3 == 0:
        raise ConnectionError("try again")
    return len(text.split())


@runner.task
async def count_all(texts: list[str]) -> int:
    """The parent: its children name it as their trigger."""
    children = await runner.enqueue_many(count_words.job(text) for text in texts)
    return sum(await asyncio.gather(*(child.result() for child in children)))


async def main() -> None:
    """Run one pipeline and show what ran because of it."""
    texts = [f"the quick brown fox {'jumps ' * n}" for n in range(12)]
    async with runner:
        handle = await count_all.enqueue(texts)
        print(f"{await handle} words")
        page = await runner.registry.list(trigger=f"job:{handle.id}")
        again = sum(job.attempt > 1 for job in page.jobs)
        print(f"{len(page.jobs)} children, {again} of them at a second attempt")


if __name__ == "__main__":
    asyncio.run(main())
