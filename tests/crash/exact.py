"""A host program whose jobs count in a table of the application, until it is killed.

``exact DATABASE SEED`` prints "ready" and never ends by itself. Orders are enqueued in the very
transaction that notes them; each job raises one counter in the transaction that completes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import random
import sqlite3
import sys
from pathlib import Path

import aiosqlite

from asyncjobs import Runner, current_job

HANG_SECONDS = 60.0
UNLIMITED_CRASHES = 1_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS counter (executor TEXT PRIMARY KEY, n INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES ('coroutine', 0), ('thread', 0);
CREATE TABLE IF NOT EXISTS orders (job TEXT PRIMARY KEY);
"""
COUNT = "UPDATE counter SET n = n + 1 WHERE executor = ?"
ORDER = "INSERT INTO orders VALUES (?)"


class Exact:
    """A runner whose jobs count."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.runner = Runner(database, concurrency=8, threads=2, shared=True)
        task = self.runner.task

        @task(name="coroutine", max_crashes=UNLIMITED_CRASHES)
        async def coroutine() -> int:
            async with (
                aiosqlite.connect(database) as connection,
                self.runner.transaction(connection) as tx,
            ):
                await tx.execute(COUNT, ("coroutine",))
                await current_job().complete_in(tx, current_job().fence[1])
            return 0

        @task(name="thread", max_crashes=UNLIMITED_CRASHES)
        def thread() -> int:
            with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(COUNT, ("thread",))
                current_job().complete_in_thread(connection, current_job().fence[1])
                connection.commit()
            return 0

        self.tasks = (coroutine, thread)

    async def prepare(self) -> None:
        """Make the application's tables; the runner is running."""
        async with aiosqlite.connect(self.database) as connection:
            await connection.executescript(SCHEMA)

    async def produce(self, chance: random.Random) -> None:
        """Note orders together with their jobs, roll some back; for ever."""
        async with aiosqlite.connect(self.database) as connection:
            while True:
                jobs = [chance.choice(self.tasks).job() for _ in range(chance.randrange(1, 4))]
                with contextlib.suppress(ZeroDivisionError):
                    async with self.runner.transaction(connection) as tx:
                        handles = await self.runner.enqueue_many(jobs, tx=tx)
                        await tx.executemany(ORDER, [(job.id,) for job in jobs])
                        if chance.random() < 0.2:
                            raise ZeroDivisionError
                    await handles[-1].wait()

    async def produce_bare(self, chance: random.Random) -> None:
        """The same in transactions that the runner is not told of."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=0)) as connection:
            while True:
                job = chance.choice(self.tasks).job()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:  # another one's turn
                    await asyncio.sleep(0.001)
                    continue
                handle = await self.runner.enqueue(job, tx=connection)
                connection.execute(ORDER, (job.id,))
                if chance.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    await handle.wait()


async def main(database: Path, seed: int) -> None:
    """Count for ever."""
    exact = Exact(database)
    chance = random.Random(seed)
    async with exact.runner:
        await exact.prepare()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(exact.produce(random.Random(chance.random())))
            group.create_task(exact.produce_bare(random.Random(chance.random())))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
