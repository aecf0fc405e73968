"""Everything ends before a deadline; a hang becomes the stacks of all threads, and a failure."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import sys
from collections.abc import AsyncIterator

from asyncjobs import Job, ResultGone, Runner
from asyncjobs.states import FINISHED

DUMP_AFTER = 1.0
"""Seconds past the deadline: a hung event loop cannot raise, but its stacks can be shown."""

_stderr = 2


def show_stacks_at(descriptor: int) -> None:
    """Say where stacks go when pytest has taken standard error for itself."""
    global _stderr
    _stderr = descriptor


@contextlib.asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Fail with all stacks when the block takes longer.

    The whole process is ended when the event loop itself hangs: nothing else could end it.
    """
    faulthandler.dump_traceback_later(seconds + DUMP_AFTER, exit=True, file=_stderr)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        faulthandler.dump_traceback(file=_stderr)
        for task in asyncio.all_tasks():
            task.print_stack(file=sys.stderr)
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


async def unfinished_ended(runner: Runner) -> list[Job]:
    """Wait until no job is left unfinished; the jobs that were waited for."""
    ended: list[Job] = []
    # A listing may miss what moves from one state to another meanwhile; what has ended stays so.
    while not await _all_ended(runner):
        waiting = [
            job.id
            for state in ("running", "queued", "blocked")
            async for job in runner.registry.iterate(state=state)
        ]
        for job_id in waiting:
            with contextlib.suppress(ResultGone):  # somebody has deleted it meanwhile
                ended.append(await runner.handle(job_id).wait())
    return ended


async def _all_ended(runner: Runner) -> bool:
    jobs = await runner.registry.count()
    ended = [await runner.registry.count(state=state) for state in sorted(FINISHED)]
    return sum(ended) >= jobs
