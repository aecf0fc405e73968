"""``keep_result=False``: who is there when the job ends gets the value, and nobody else."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import (
    File,
    InvalidOption,
    JobFailed,
    JobOutcome,
    ResultNotKept,
    Runner,
    Tasks,
    current_job,
)
from asyncjobs.testing import run_until_idle


def add_to(runner: Runner, **options: Any) -> Any:
    @runner.task(**{"name": "add", "keep_result": False, **options})
    async def add(left: int, right: int) -> int | None:
        return left + right or None

    return add


async def test_handle_that_was_held_gives_the_value_as_often_as_it_is_asked(runner: Runner) -> None:
    handle = await add_to(runner).enqueue(1, 2)

    assert await handle == 3
    assert await handle.result() == 3


async def test_handle_that_comes_later_is_told_that_nothing_was_kept(runner: Runner) -> None:
    handle = await add_to(runner).enqueue(1, 2)
    job = await handle.wait()
    job_id = handle.id
    del handle

    assert (job.state, job.reason, job.result) == ("completed", "result_not_kept", None)
    with pytest.raises(ResultNotKept, match=rf"{job_id}.*'add'.*keep_result=False") as caught:
        await runner.handle(job_id)
    assert (caught.value.job_id, caught.value.reason) == (job_id, "result_not_kept")
    assert (await runner.handle(job_id).wait()).reason == "result_not_kept"
    (listed,) = (await runner.registry.list(task="add")).jobs
    assert listed.reason == "result_not_kept"


async def test_nothing_of_it_is_on_disk(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "app.db")

    @runner.task(keep_result=False)
    async def work() -> str:
        return "hunter2"

    async with runner:
        handle = await work.enqueue()
        assert await handle == "hunter2"
        assert await runner.registry.check() == []

    assert not [path for path in tmp_path.rglob("app.db*") if b"hunter2" in read(path)]
    async with Runner(tmp_path / "app.db").client() as other:
        with pytest.raises(ResultNotKept):
            await other.handle(handle.id)


def read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


async def test_job_without_a_result_leaves_nothing_to_keep(runner: Runner) -> None:
    handle = await add_to(runner).enqueue(0, 0)
    job = await handle.wait()
    job_id = handle.id
    del handle

    assert job.reason is None
    assert await runner.handle(job_id) is None


async def test_one_call_says_otherwise_than_its_task(runner: Runner) -> None:
    dropping = add_to(runner)
    kept = await dropping.options(keep_result=True).enqueue(1, 2)
    keeping = add_to(runner, name="other", keep_result=True)
    dropped = await keeping.options(keep_result=False).enqueue(1, 2)

    assert (await kept.wait()).result == 3
    assert (await dropped.wait()).reason == "result_not_kept"
    again = await dropping.options(delay=0).enqueue(1, 2)
    assert (await again.wait()).reason == "result_not_kept"


async def test_retried_job_starts_with_a_clean_slate(runner: Runner) -> None:
    runs = []

    @runner.task(keep_result=False)
    async def work() -> int:
        runs.append(current_job().attempt)
        if len(runs) == 2:
            raise ValueError("the second time")
        return len(runs)

    handle = await work.enqueue()
    assert await handle == 1
    await handle.retry()
    with pytest.raises(JobFailed, match="the second time"):
        await handle
    await handle.retry()
    assert await handle == 3


async def test_callback_gets_the_value_which_its_own_job_keeps(runner: Runner) -> None:
    told: list[JobOutcome] = []

    @runner.task(name="tell")
    async def tell(outcome: JobOutcome) -> None:
        told.append(outcome)

    handle = await add_to(runner, on_complete=tell).enqueue(1, 2)
    await handle
    await run_until_idle(runner)

    (outcome,) = told
    assert (outcome.state, outcome.reason, outcome.result) == ("completed", None, 3)
    assert (await handle.job()).reason == "result_not_kept"


async def test_waiting_job_in_another_slot_gets_the_value(runner: Runner) -> None:
    child = add_to(runner)

    @runner.task
    async def parent() -> int:
        return int(await (await child.enqueue(1, 2)))

    assert await (await parent.enqueue()) == 3


async def test_thread_hands_the_value_over_too(runner: Runner) -> None:
    @runner.task(keep_result=False)
    def work() -> str:
        return "by a thread"

    assert await (await work.enqueue()) == "by a thread"


async def test_lookup_that_sees_the_row_first_does_not_outrun_the_value(runner: Runner) -> None:
    # A doorbell's lookup may find the commit before the writer has told of it.
    add = add_to(runner)
    for number in range(200):
        handle = await add.enqueue(number, 1)
        waiting = asyncio.ensure_future(handle.result())
        while not waiting.done():
            runner.engine().resolver.refresh()
            await asyncio.sleep(0)
        assert waiting.result() == number + 1


async def test_value_given_to_complete_in_is_for_nobody(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "app.db", shared=True)

    @runner.task(keep_result=False)
    def work() -> str:
        connection = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        current_job().complete_in_thread(connection, "hunter2")
        connection.execute("COMMIT")
        connection.close()
        return "hunter2"

    async with runner:
        handle = await work.enqueue()
        with pytest.raises(ResultNotKept):
            await handle
        assert await runner.registry.check() == []


async def test_file_contradicts_it_and_stays_where_it_is(tmp_path: Path) -> None:
    runner, path = Runner(tmp_path / "app.db"), tmp_path / "export.csv"

    @runner.task(keep_result=False)
    async def export() -> Any:
        path.write_text("row")
        return File(path)

    async with runner:
        with pytest.raises(JobFailed, match="keep_result=False contradicts") as caught:
            await (await export.enqueue())
    assert caught.value.reason == "invalid_result"
    assert path.read_text() == "row"


async def test_task_whose_annotation_is_a_file_is_refused_at_the_start(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "app.db")

    @runner.task(name="export", keep_result=False)
    async def export() -> File:
        raise NotImplementedError

    with pytest.raises(InvalidOption, match=r"'export'.*keep_result=False"):
        await runner.start()


@pytest.mark.parametrize("value", [None, 0, 1, "no"])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="keep_result must be True or False"):
        Tasks().task(keep_result=value)(print)
    if value is not None:
        with pytest.raises(InvalidOption, match="keep_result must be True or False"):
            Tasks().task(print).options(keep_result=value)
