"""A host that listens, to be killed: ``listener DATABASE HEARD [SUBSCRIBER]``.

It follows all events from the last cursor in the file HEARD on, or from the cursor in its first
line; with a name, as the subscriber of that name. It writes each event with one O_APPEND write a
line: cursor, kind, job, claim. It prints "ready".
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
from pathlib import Path

from asyncjobs import Runner

from .load import HANG_SECONDS


async def main(database: Path, heard: Path, subscriber: str | None) -> None:
    """Listen for ever."""
    cursor = heard.read_text().splitlines()[-1].split()[0]
    file = os.open(heard, os.O_WRONLY | os.O_APPEND)
    runner = Runner(database)
    async with runner.client():
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        events = runner.subscriber(subscriber) if subscriber else runner.events(cursor)
        async for event in events:
            line = f"{event.cursor} {event.kind} {event.job_id} {event.claim}\n"
            os.write(file, line.encode())


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None))
