"""Queues, runner processes, and backups."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asyncjobs import InvalidOption, Runner, State, StoreError, Tasks
from asyncjobs.store.sqlite import backup
from asyncjobs.testing import ManualClock, run_until_idle

from .support import census, nothing_left, run_script, until

tasks = Tasks()


@tasks.task(name="good", queue="a")
async def good(number: int = 0) -> int:
    return number


@tasks.task(name="again", queue="b", retry=lambda attempt, error: 3600)
async def again() -> None:
    raise ValueError("later")


@tasks.task(name="held", queue="c")
async def held() -> None:
    await asyncio.Event().wait()


@pytest_asyncio.fixture
async def runner(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Runner]:
    """One that does not wait for held jobs at its end."""
    async with Runner(tmp_path / "jobs.db", clock=clock, grace=0) as runner:
        runner.include(tasks)
        yield runner


async def test_queues_are_counted_by_state(runner: Runner, clock: ManualClock) -> None:
    await good.enqueue()
    await again.enqueue()
    await run_until_idle(runner)
    await good.options(delay=60).enqueue()
    await good.options(delay=60, priority=5).enqueue()
    await held.enqueue()
    await until(lambda: runner.tally.started == 3)

    a, b, c = await runner.registry.queues()

    assert [queue.name for queue in (a, b, c)] == ["a", "b", "c"]
    assert a.counts == {**dict.fromkeys(State, 0), State.COMPLETED: 1, State.QUEUED: 2}
    assert (a.scheduled, a.retrying, a.oldest_due) == (2, 0, None)
    assert (b.scheduled, b.retrying, b.counts[State.QUEUED]) == (0, 1, 1)
    assert c.counts[State.RUNNING] == 1


async def test_queue_says_since_when_a_job_waits(tmp_path: Path, clock: ManualClock) -> None:
    async with Runner(tmp_path / "jobs.db", clock=clock, queues=["other"]) as runner:
        runner.include(tasks)
        first = clock.datetime()
        await good.enqueue()
        clock.advance(10)
        await good.options(priority=9).enqueue()
        (queue,) = await runner.registry.queues()
    assert queue.oldest_due == first


async def test_queues_count_derived_states_up_to_ten_thousand(runner: Runner) -> None:
    later = good.options(delay=60)
    await runner.enqueue_many([later.job() for _ in range(10_000)])
    (exact,) = await runner.registry.queues()
    await later.enqueue()
    (more,) = await runner.registry.queues()
    assert (str(exact.scheduled), str(more.scheduled)) == ("10,000", "10,000+")
    assert more.counts[State.QUEUED] == 10_001


async def test_derived_counts_of_queues_hold_beside_many_that_failed(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncjobs.registry.COUNT_MAX", 2)
    await runner.enqueue_many([again.job() for _ in range(4)])
    await run_until_idle(runner)
    await again.options(delay=60).enqueue()
    (queue,) = await runner.registry.queues()
    assert (str(queue.scheduled), queue.retrying.exact) == ("1", False)


async def test_instances_say_who_lives_and_what_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with Runner(path, grace=0):
        pass
    async with Runner(path, grace=0) as here:
        here.include(tasks)
        async with Runner(path, queues=["none"]) as other:
            await held.enqueue()
            await until(lambda: here.tally.started == 1)
            seen = await other.registry.instances()
        here_id = here.engine().dispatcher.instance
        after = {row.id: row for row in await here.registry.instances()}

    assert [(row.alive, row.ended_by) for row in seen] == [
        (True, None), (True, None), (False, "stop"),
    ]  # fmt: skip
    assert {row.id: row.running for row in seen if row.alive}[here_id] == 1
    assert {row.pid for row in seen} == {os.getpid()}
    assert after[here_id].alive
    ended = [row for row in after.values() if not row.alive]
    assert len(ended) == 2
    assert all(row.ended_at is not None and row.ended_at >= row.started_at for row in ended)


async def test_queues_name_the_live_processes_that_take_their_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with (
        Runner(path, queues=["a"], grace=0) as one,
        Runner(path, queues=["a", "b"], grace=0) as two,
        Runner(path, queues=["c"]).client() as client,  # which takes nothing
    ):
        first, second = (runner.engine().dispatcher.instance for runner in (one, two))
        one.include(tasks)
        await (await good.enqueue())
        await one.enqueue_many([again.job(), held.job()])
        seen = {queue.name: queue for queue in await client.registry.queues()}
        await two.stop()
        left = {queue.name: queue for queue in await client.registry.queues()}
    assert {name: queue.instances for name, queue in seen.items()} == {
        "a": (first, second), "b": (second,), "c": (),
    }  # fmt: skip
    assert [name for name, queue in seen.items() if queue.unserved] == ["c"]
    assert {name: queue.instances for name, queue in left.items()} == {
        "a": (first,), "b": (), "c": (),
    }  # fmt: skip
    assert [name for name, queue in left.items() if queue.unserved] == ["b", "c"]


async def test_queue_is_unserved_as_soon_as_the_only_process_that_takes_it_is_dead(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jobs.db"
    async with Runner(path, queues=["elsewhere"]) as runner:
        runner.include(tasks)
        takes = '{"queues":null,"slots":{"coroutine":100}}'
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(
            "INSERT INTO asyncjobs_instances (id, pid, host, started_at, takes)"
            " VALUES ('gone', 1, 'h', 0, ?)",
            (takes,),
        )
        connection.close()
        await good.enqueue()
        (queue,) = await runner.registry.queues()
    assert (queue.instances, queue.unserved) == ((), True)


async def test_process_that_is_gone_is_not_alive_before_it_is_rescued(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with Runner(path) as runner:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(
            "INSERT INTO asyncjobs_instances (id, pid, host, started_at) VALUES ('gone', 1, 'h', 0)"
        )
        connection.close()
        (gone,) = [row for row in await runner.registry.instances() if row.id == "gone"]
    assert (gone.alive, gone.ended_at) == (False, None)


async def test_instances_of_a_database_in_memory(clock: ManualClock) -> None:
    async with Runner(":memory:", clock=clock) as runner:
        (row,) = await runner.registry.instances()
    assert row.alive


# Backups


async def test_runner_goes_on_from_a_backup(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with Runner(tmp_path / "jobs.db", grace=0) as runner:
        runner.include(tasks)
        done = await good.enqueue(5)
        assert await done == 5
        waiting = await good.options(delay=3600, key="k").enqueue(6)
        running = await held.enqueue()
        await until(lambda: runner.tally.started == 2)
        await runner.registry.backup(copy)

    other = Tasks()
    again_held = other.task(name="held")(good.function)
    other_good = other.task(name="good", queue="a")(good.function)
    runner = Runner(copy)
    runner.include(other)
    async with runner:
        assert await runner.handle(done.id) == 5
        assert await runner.handle(running.id) == 0  # ran at the time of the backup: rescued
        runs = await runner.registry.attempts(running.id)
        assert [str(run.event) for run in runs] == ["rescued", "completed"]
        existing = await other_good.options(key="k").enqueue(6)
        assert (existing.existing, existing.id) == (True, waiting.id)
        assert await runner.registry.check() == []
    assert again_held.name == "held"


async def test_backup_is_restored_as_the_readme_says(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import asyncio, os
        from asyncjobs import Runner

        runner = Runner("jobs.db")

        @runner.task(name="good")
        async def good(number: int) -> int:
            return number

        async def main():
            await runner.start()
            await (await good.enqueue(1))
            await runner.registry.backup("copy.db")
            await (await good.enqueue(2))
            os._exit(0)  # leaves the log with what came after the backup

        asyncio.run(main())
        """)
    )
    run_script(program)
    assert (tmp_path / "jobs.db-wal").stat().st_size > 0

    for side in ("-wal", "-shm"):
        (tmp_path / f"jobs.db{side}").unlink()
    shutil.copy(tmp_path / "copy.db", tmp_path / "jobs.db")

    async with Runner(tmp_path / "jobs.db") as restored:
        (job,) = (await restored.registry.list()).jobs
        assert job.arguments == {"number": 1}
        assert await restored.registry.check() == []


async def test_backup_is_private_whole_and_keeps_the_vacuum_mode(
    runner: Runner, tmp_path: Path
) -> None:
    await runner.enqueue_many([good.options(delay=60).job(n) for n in range(1_000)])
    before = set(tmp_path.iterdir())
    umask = os.umask(0)
    try:
        await runner.registry.backup(tmp_path / "copy.db")
    finally:
        os.umask(umask)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "copy.db"}
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM asyncjobs_jobs").fetchone() == (1_000,)
    connection.close()


async def test_backup_under_load_holds_exactly_what_was_accepted_at_an_instant(
    runner: Runner, tmp_path: Path
) -> None:
    stop = asyncio.Event()
    accepted: list[str] = []

    async def load() -> None:
        while not stop.is_set():
            accepted.append((await good.enqueue(len(accepted))).id)

    loading = asyncio.create_task(load())
    await until(lambda: len(accepted) > 20)
    before = list(accepted)
    await runner.registry.backup(tmp_path / "copy.db")
    after = len(accepted)
    stop.set()
    await loading
    async with Runner(tmp_path / "copy.db", queues=["none"]) as copy:
        found = [job.id async for job in copy.registry.iterate(order="oldest")]
        assert await copy.registry.check() == []
    assert found[: len(before)] == before
    assert found == accepted[: len(found)]
    assert len(found) <= after + 1


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_backup_overwrites_nothing(runner: Runner, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = set(tmp_path.iterdir())
    with pytest.raises(InvalidOption, match="exists already"):
        await runner.registry.backup(path)
    assert set(tmp_path.iterdir()) == before
    assert kind != "file" or path.read_text() == "mine"


async def test_file_that_comes_while_the_backup_is_written_is_not_overwritten(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copy.db"
    link = os.link

    def somebody_else_first(source: str, target: str) -> None:
        path.write_text("mine")
        link(source, target)

    monkeypatch.setattr(os, "link", somebody_else_first)
    with pytest.raises(InvalidOption, match="exists already"):
        await runner.registry.backup(path)
    assert path.read_text() == "mine"
    assert [found.name for found in tmp_path.glob(".copy.db*")] == []


@pytest.mark.parametrize("place", ["no-such-folder/copy.db", "jobs.db/copy.db"])
async def test_backup_to_where_nothing_can_be_written_says_so(
    runner: Runner, tmp_path: Path, place: str
) -> None:
    with pytest.raises(StoreError, match=r"cannot write the backup .*copy\.db"):
        await runner.registry.backup(tmp_path / place)


@pytest.mark.parametrize("path", ["", "a\x00b", b"copy.db"])
async def test_path_that_names_no_file_is_refused(runner: Runner, path: Any) -> None:
    with pytest.raises(InvalidOption, match="path="):
        await runner.registry.backup(path)


async def test_backup_that_fails_or_is_cancelled_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    async with Runner(tmp_path / "jobs.db") as runner:
        runner.include(tasks)
        later = good.options(delay=60)
        for _ in range(3):
            await runner.enqueue_many([later.job(n) for n in range(10_000)])
        before = census(tmp_path)
        loop, written = asyncio.get_running_loop(), asyncio.Event()
        sync = backup._sync

        def full(path: str) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(backup, "_sync", full)
        with pytest.raises(StoreError, match="No space left"):
            await runner.registry.backup(folder / "copy.db")
        assert list(folder.iterdir()) == []

        def told(path: str) -> None:
            loop.call_soon_threadsafe(written.set)
            sync(path)

        monkeypatch.setattr(backup, "_sync", told)
        for signal in ("begun", "written"):
            written.clear()
            copying = asyncio.create_task(runner.registry.backup(folder / "copy.db"))
            if signal == "begun":
                await until(lambda: list(folder.iterdir()))
            else:
                await written.wait()
            copying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await copying
            assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
            assert signal == "written" or list(folder.iterdir()) == []
        await nothing_left(before, tmp_path)
        assert await (await good.enqueue(1)) == 1


async def test_database_in_memory_is_backed_up_to_a_file(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with Runner(":memory:", clock=clock) as runner:
        runner.include(tasks)
        handle = await good.enqueue(3)
        assert await handle == 3
        await runner.registry.backup(tmp_path / "copy.db")
    async with Runner(tmp_path / "copy.db", clock=clock) as copy:
        assert await copy.handle(handle.id) == 3
