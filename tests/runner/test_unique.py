"""Unique, throttled and debounced jobs, as an application meets them."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest

from asyncjobs import DuplicateJob, JobHandle, ResultGone, Runner, Tasks, Unique
from asyncjobs.testing import ManualClock, run_until_idle

from .support import until

tasks = Tasks()
gates: list[asyncio.Event] = []
ran: list[int] = []


@tasks.task(name="sync", unique=Unique(by=("user_id",)))
async def sync(user_id: int, note: str = "") -> str:
    return note


@tasks.task(name="held", unique=Unique())
async def held() -> None:
    ran.append(1)
    await gates[0].wait()


@tasks.task(name="throttled", throttle=60)
async def throttled(user_id: int) -> int:
    return user_id


@tasks.task(name="index", debounce=5, debounce_max=12, unique=Unique(by=("page",)))
async def index(page: int, text: str) -> str:
    return text


@pytest.fixture(autouse=True)
def included(runner: Runner) -> None:
    gates[:] = [asyncio.Event()]
    ran.clear()
    runner.include(tasks)


async def test_job_that_is_the_same_gives_the_handle_of_the_first(runner: Runner) -> None:
    first = await sync.options(delay=60).enqueue(1, "first")
    again = await sync.enqueue(1, "second")
    other = await sync.enqueue(2, "other")

    assert (again.id, again.existing) == (first.id, True)
    assert (other.existing, await other) == (False, "other")
    assert await runner.registry.count() == 2


async def test_next_one_is_new_when_the_first_has_ended(runner: Runner) -> None:
    first = await sync.enqueue(1, "first")
    await first
    again = await sync.enqueue(1, "second")

    assert (again.existing, await again) == (False, "second")


async def test_existing_handle_is_resolved_by_the_run_that_goes_on(runner: Runner) -> None:
    await held.enqueue()
    await until(lambda: ran)
    again = await held.enqueue()
    assert again.existing

    gates[0].set()

    await again
    assert ran == [1]


async def test_many_at_once_are_one_job(runner: Runner) -> None:
    handles = await asyncio.gather(*(held.enqueue() for _ in range(50)))
    many = await runner.enqueue_many([held.job() for _ in range(50)])

    assert len({handle.id for handle in [*handles, *many]}) == 1
    assert [handle.existing for handle in handles].count(False) == 1
    gates[0].set()
    await handles[0]
    assert ran == [1]


async def test_raise_names_the_job_that_is_there(runner: Runner) -> None:
    first = await sync.options(delay=60).enqueue(1, "first")
    strict = sync.options(unique=Unique(by=("user_id",), on_conflict="raise"))

    with pytest.raises(DuplicateJob, match=first.id) as caught:
        await strict.enqueue(1, "canary")
    with pytest.raises(DuplicateJob):
        await runner.enqueue_many([sync.job(2), strict.job(1)])

    assert caught.value.job_id == first.id
    assert "canary" not in str(caught.value)
    assert await runner.registry.count() == 1


async def test_replaced_job_gives_both_awaiters_what_came_last(runner: Runner) -> None:
    first = await sync.options(delay=60).enqueue(1, "first")
    replacing = sync.options(unique=Unique(by=("user_id",), on_conflict="replace"))

    second = await replacing.enqueue(1, "second")

    assert (second.id, second.existing) == (first.id, True)
    assert [await first, await second] == ["second", "second"]  # due at once by now


async def test_throttle_accepts_one_in_its_time(runner: Runner, clock: ManualClock) -> None:
    first = await throttled.enqueue(1)
    await first
    clock.advance(59)
    again, other = await throttled.enqueue(1), await throttled.enqueue(2)
    clock.advance(1)
    later = await throttled.enqueue(1)

    assert (again.id, await again) == (first.id, 1)
    assert (other.existing, later.existing) == (False, False)


async def test_debounce_runs_once_with_the_last_arguments(
    runner: Runner, clock: ManualClock
) -> None:
    handles: list[JobHandle[str]] = []
    for text in "abc":
        clock.advance(3)
        handles.append(await index.enqueue(1, text))
    clock.advance(4)
    await run_until_idle(runner)
    assert (await runner.registry.get(handles[0].id)).state == "queued"

    clock.advance(1)

    assert [await handle for handle in handles] == ["c", "c", "c"]
    assert await runner.registry.count() == 1


async def test_debounce_waits_no_longer_than_its_maximum(
    runner: Runner, clock: ManualClock
) -> None:
    for text in "abcd":  # at 0, 4, 8 and 12 seconds
        handle = await index.enqueue(1, text)
        if text == "c":
            assert (await handle.job()).run_at == clock.datetime().fromtimestamp(
                clock.now() / 1e6 + 4, clock.datetime().tzinfo
            )
        if text != "d":
            clock.advance(4)
        await run_until_idle(runner)

    assert not handle.existing  # the first one ran at 12 seconds, with what came at 8
    (done,) = [job.id async for job in runner.registry.iterate(state="completed")]
    assert await runner.handle(done) == "c"


async def test_unique_job_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    for existing in (False, True):
        runner = Runner(tmp_path / "again.db", clock=clock)
        runner.include(tasks)
        async with runner:
            job = sync.options(delay=60).job(1)
            assert (await runner.enqueue(job)).existing is existing


async def test_job_in_a_transaction_holds_once_it_is_committed(
    runner: Runner, tmp_path: Path
) -> None:
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    later = sync.options(delay=60)
    with pytest.raises(ZeroDivisionError):
        async with runner.transaction(connection) as tx:
            first = await runner.enqueue(later.job(1), tx=tx)
            assert (await runner.enqueue(later.job(1), tx=tx)).id == first.id
            raise ZeroDivisionError
    with pytest.raises(ResultGone):
        await first

    async with runner.transaction(connection) as tx:
        second = await runner.enqueue(later.job(1), tx=tx)
    connection.close()

    assert not second.existing
    assert (await later.enqueue(1)).id == second.id


async def test_replacing_in_a_transaction_takes_effect_with_its_commit(
    runner: Runner, tmp_path: Path
) -> None:
    first = await sync.options(delay=60).enqueue(1, "first")
    replacing = sync.options(unique=Unique(by=("user_id",), on_conflict="replace"))
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    connection.execute("BEGIN")
    await runner.enqueue(replacing.job(1, "rolled back"), tx=connection)
    connection.execute("ROLLBACK")
    assert (await first.job()).arguments == {"user_id": 1, "note": "first"}

    connection.execute("BEGIN")
    again = await runner.enqueue(replacing.job(1, "second"), tx=connection)
    connection.execute("COMMIT")
    connection.close()

    assert again.id == first.id
    assert await first == "second"


async def test_child_enqueued_by_a_job_is_unique_too(runner: Runner) -> None:
    @runner.task
    async def parent() -> list[str]:
        return [(await sync.options(delay=60).enqueue(1)).id for _ in range(2)]

    one, two = await (await parent.enqueue())

    assert one == two


ENQUEUER = """
import asyncio, sys
from asyncjobs import Runner, Unique
runner = Runner(sys.argv[1])

@runner.task(name="once", unique=Unique())
async def once(number: int) -> None: ...

async def main():
    async with runner.client():
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(50):
            print((await once.enqueue(number)).existing, flush=True)
        if sys.argv[2] == "die":
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_four_processes_at_once_make_one_job_each_and_a_death_frees_nothing(
    tmp_path: Path,
) -> None:
    script = tmp_path / "enqueuer.py"
    script.write_text(ENQUEUER)
    database = tmp_path / "shared.db"
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(database),
            "die" if n == 0 else "stop",
            stdin=pipe,
            stdout=pipe,
        )
        for n in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))

    answers = [line for output, _ in outputs for line in output.split()]
    assert (answers.count(b"False"), answers.count(b"True")) == (50, 150)
    assert sorted(process.returncode or 0 for process in processes) == [-9, 0, 0, 0]
    runner = Runner(database)

    @runner.task(name="once", unique=Unique())
    async def once(number: int) -> None: ...

    async with runner.client():
        assert await runner.registry.count() == 50
        assert await runner.registry.check() == []
        assert (await once.enqueue(0)).existing
