"""A host with many schedules, to be killed around their times: ``scheduled DATABASE``.

Each fires once a second, one after the other all through it, so that there is no moment that is not
about a time. Every time is to be made up for, also those that nobody was there for.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asyncjobs import Every, Runner

SCHEDULES = 25
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def scheduled(database: Path) -> Runner:
    """The runner, the same in every process."""
    runner = Runner(database)

    @runner.task(name="nothing")
    async def nothing(number: int) -> int:
        return number

    for number in range(SCHEDULES):
        anchor = BEGIN + timedelta(seconds=number / SCHEDULES)
        overlap = "allow" if number % 2 else "queue"
        job = nothing.job(number)
        runner.schedule(f"s{number}", Every(1, anchor), job, catch_up="all", overlap=overlap)
    return runner


async def main(database: Path) -> None:
    """Serve until killed."""
    async with scheduled(database):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300, exit=True)
    asyncio.run(main(Path(sys.argv[1])))
