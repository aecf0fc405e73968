"""What a job costs the database: statements and hops to its thread, for a thousand jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from asyncjobs import Runner
from asyncjobs.store.sqlite.connection import Connection

JOBS = 1_000

# Measured: 2 and 30, 2,000 and 12,000, 3 and 59. The room above is for a tick of the runner's
# services, and for a machine that is slow enough for a batch to fall into two.
HOPS_AT_ONCE, STATEMENTS_AT_ONCE = 4, 50
HOPS_IN_TURN, STATEMENTS_IN_TURN = 2_020, 12_100
HOPS_OF_BULK, STATEMENTS_OF_BULK = 6, 90


class Meter:
    """Counts while it is on: hops of all connections, statements of the writer."""

    def __init__(self, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        store: Any = runner.engine().store
        self._writer = store._writer
        self._monkeypatch = monkeypatch
        self.hops = 0
        self.statements: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        await self._writer.run(lambda c: c.set_trace_callback(self._count))
        run = Connection.run

        async def counting(connection: Connection, function: Callable[..., Any]) -> Any:
            self.hops += 1
            return await run(connection, function)

        self._monkeypatch.setattr(Connection, "run", counting)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._monkeypatch.undo()
        await self._writer.run(lambda c: c.set_trace_callback(None))
        self.total = sum(self.statements.values())
        print(f"{self.hops} hops, {self.total} statements:", self.statements.most_common(12))

    def _count(self, statement: str) -> None:
        self.statements[" ".join(statement.split()[:3])] += 1


@pytest.fixture
def plain_runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "jobs.db", concurrency=1_000)


async def test_thousand_awaited_jobs_at_once(
    plain_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @plain_runner.task
    async def nothing() -> None: ...

    async def one() -> None:
        await (await nothing.enqueue())

    async with plain_runner:
        await one()
        async with Meter(plain_runner, monkeypatch) as meter:
            await asyncio.gather(*[one() for _ in range(JOBS)])
    assert meter.hops <= HOPS_AT_ONCE
    assert meter.total <= STATEMENTS_AT_ONCE


async def test_thousand_awaited_jobs_one_after_the_other(
    plain_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @plain_runner.task
    async def nothing() -> None: ...

    async with plain_runner:
        await (await nothing.enqueue())
        async with Meter(plain_runner, monkeypatch) as meter:
            for _ in range(JOBS):
                await (await nothing.enqueue())
    assert meter.hops <= HOPS_IN_TURN
    assert meter.total <= STATEMENTS_IN_TURN


async def test_thousand_jobs_in_one_bulk(
    plain_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    @plain_runner.task
    async def nothing(number: int) -> int:
        return number

    meters = []
    async with plain_runner:
        for _ in range(3):  # the runner's services look in one of them, not in all
            async with Meter(plain_runner, monkeypatch) as meter:
                handles = await plain_runner.enqueue_many([nothing.job(n) for n in range(JOBS)])
                assert await asyncio.gather(*handles) == list(range(JOBS))
            meters.append(meter)
    assert min(meter.hops for meter in meters) <= HOPS_OF_BULK
    assert min(meter.total for meter in meters) <= STATEMENTS_OF_BULK
