"""A stopped host that wakes after others took over: its results are refused, and it goes on."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

import pytest

from tests.oracles import deadline, judge, nothing_left, unfinished_ended

from .gated import Gated
from .hosts import Host


async def stop_outside_a_transaction(host: Host, database: Path) -> None:
    """SIGSTOP the host while it does not hold SQLite's write lock."""
    while True:
        host.send(signal.SIGSTOP)
        connection = sqlite3.connect(database, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            host.send(signal.SIGCONT)
            continue
        finally:
            connection.close()
        return


async def take_over(database: Path, ledgers: Path, jobs: int) -> str:
    """Start another instance beside the stopped one; it finishes everything."""
    async with nothing_left():
        gated = Gated(database, ledgers, jobs, gate_is_open=True)
        async with gated.runner:
            ended = await unfinished_ended(gated.runner)
        gated.close()
    assert len(ended) == jobs
    assert {job.crashes for job in ended} == {1}
    (instance,) = {str(job.instance) for job in ended}
    return instance


@pytest.mark.parametrize(
    ("stops", "jobs"), [(1, 20), pytest.param(10, 50, marks=pytest.mark.proof)]
)
async def test_results_of_a_zombie_are_refused_and_counted_and_it_goes_on(
    tmp_path: Path, stops: int, jobs: int
) -> None:
    database = tmp_path / "jobs.db"
    instances = set()
    async with deadline(30 * stops), nothing_left(database):
        host = await Host.start("gated", database, tmp_path, jobs)
        for stop in range(1, stops + 1):
            await host.write("jobs")
            assert await host.line() == "running"
            await stop_outside_a_transaction(host, database)
            instances.add(await take_over(database, tmp_path, jobs))
            # Told before it wakes, so that its jobs end before it looks at its lock file.
            await host.write("open")
            host.send(signal.SIGCONT)
            refused, instance = (await host.line()).split()
            assert int(refused) == stop * jobs
            instances.add(instance)
        await host.end_input()
        code, log = await host.ended()
        assert code == 0
        assert "Traceback" not in log
        assert log.count("is refused") == stops * jobs
    assert len(instances) == 2 * stops
    gated = Gated(database, tmp_path, jobs, gate_is_open=True)
    gated.close()
    verdict = judge(database, gated.acks, gated.effects, overlap=True)
    print(f"{stops * jobs} zombie completions: {verdict}")
    assert verdict.clean, verdict.__dict__
    assert verdict.crashes == stops * jobs


async def test_an_event_loop_that_is_blocked_past_the_lease_is_not_death(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    async with deadline(30), nothing_left(database):
        host = await Host.start("gated", database, tmp_path, 20)
        await host.write("jobs")
        assert await host.line() == "running"
        gated = Gated(database, tmp_path, 20, gate_is_open=True)
        async with gated.runner:
            await host.write("block")
            assert await host.line() == "blocking"
            assert await host.line() == "unblocked"
            assert await gated.runner.registry.count(state="running") == 20
            assert gated.runner.tally.started == 0
        gated.close()
        await host.write("open")
        refused, _ = (await host.line()).split()
        assert refused == "0"
        await host.end_input()
        code, _ = await host.ended()
        assert code == 0
    verdict = judge(database, gated.acks, gated.effects)
    assert verdict.clean, verdict.__dict__
    assert verdict.crashes == 0
