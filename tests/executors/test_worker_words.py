"""What jobs in workers say of themselves: progress, log lines, files; and what travels to them."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest

from asyncjobs import Every, JobCancelled, JobFailed, Progress, ResultNotKept, Runner
from asyncjobs.running.executors.process import pool

from . import carrying_tasks
from . import worker_tasks as w
from .support import PATIENCE_SECONDS, pids_at, workers


def numbers(progress: Progress | None) -> tuple[object, object, object] | None:
    return None if progress is None else (progress.done, progress.total, progress.note)


async def no_threads_left() -> None:
    """End the event loop's own pool of threads, in which files are moved."""
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_progress_of_a_worker_is_seen_while_its_job_runs(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with workers(tmp_path):
        ours = os.open(pipe, os.O_RDWR)
        handle = await w.count_and_wait.enqueue(str(pipe))
        seen = []
        async for event in handle.events(kinds=["progress", "completed"]):
            seen.append((event.kind, numbers(await handle.progress())))
            if len(seen) == 1:
                os.write(ours, b"go on\n")
        os.close(ours)

    assert seen[0] == ("progress", (1, 3, "one"))
    assert seen[-1] == ("completed", (2, 3, "two"))


async def test_last_value_of_a_worker_is_there_at_its_outcome(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        for upto in (1, 2, 5_000):
            handle = await w.count.enqueue(upto)
            await handle

            assert numbers(await handle.progress()) == (upto, upto, None)


async def test_what_a_worker_said_before_it_died_is_kept(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        handle = await w.count_and_die.enqueue()
        with pytest.raises(JobFailed):
            await handle

        assert numbers(await handle.progress()) == (7, None, None)
        page = await runner.registry.logs(handle.id)
    assert [line.text for line in page.lines] == ["this is the end"]


async def test_log_of_a_worker_is_kept_with_its_job_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "asyncjobs.job")
    async with workers(tmp_path, processes=1) as runner:
        handles = [await w.log_much.enqueue(lines) for lines in (300, 3)]
        for handle in handles:
            await handle
        pages = [await runner.registry.logs(handle.id) for handle in handles]

    for page, lines in zip(pages, (300, 3), strict=True):
        texts = [line.text for line in page.lines]
        assert texts[:-1] == [
            *(f"line {number}" for number in range(lines)),
            "below the level of the application",
        ]
        assert texts[-1].startswith("above both\nTraceback")
        assert "ValueError: inside" in texts[-1]
        assert {line.logger for line in page.lines} == {"shop", "asyncjobs.job"}
        assert page.dropped == 0
    said = [record.getMessage() for record in caplog.records if record.name == "asyncjobs.job"]
    assert said == ["above both", "above both"]


async def test_of_a_long_log_of_a_worker_the_newest_lines_are_kept(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        handle = await w.log_much.enqueue(5_000)
        await handle
        page = await runner.registry.logs(handle.id)

    assert [line.text for line in page.lines][:998] == [f"line {n}" for n in range(4_002, 5_000)]
    assert len(page.lines) == 1_000
    assert page.dropped == 5_002 - 1_000


async def test_job_that_is_stopped_in_the_midst_of_its_words_leaves_a_sound_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TERMINATE_SECONDS", 60.0)  # a killed one would not say its last
    async with workers(tmp_path, processes=1):
        pids = set()
        for number in range(10):
            started = tmp_path / f"started-{number}"
            handle = await w.count_for_ever.enqueue(str(started))
            pids |= set(await pids_at(started))
            await handle.cancel()
            with pytest.raises(JobCancelled):
                await handle.result(PATIENCE_SECONDS)
            progress = await handle.progress()
            assert progress is not None
            assert progress.done >= 100
        after = await w.count.enqueue(9)
        await after

        assert numbers(await after.progress()) == (9, 9, None)
    assert len(pids) == 1


async def test_file_of_a_worker_is_moved_beside_the_database(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    async with workers(tmp_path):
        file = await (await w.make_file.enqueue(str(folder), "content"))

        assert (file.name, file.media_type, file.size) == ("a name.txt", "text/plain", 7)
        assert Path(file.path).read_text() == "content"
        assert Path(file.path).parent == tmp_path / "jobs.db-files"
        assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
        await no_threads_left()
    assert list(folder.iterdir()) == []


async def test_file_that_a_worker_does_not_have_fails_the_job(tmp_path: Path) -> None:
    async with workers(tmp_path):
        handle = await w.make_file.enqueue(str(tmp_path), "")
        with pytest.raises(JobFailed, match=r"made\.txt', returned as a File") as failed:
            await handle
        await no_threads_left()

    assert failed.value.reason == "invalid_result"


async def test_job_in_a_worker_reads_the_file_of_another_one(tmp_path: Path) -> None:
    async with workers(tmp_path):
        said = await (await w.read_childs_file.enqueue(str(tmp_path)))
        await no_threads_left()

    assert said == ["of a child", "a name.txt", "text/plain"]


async def test_job_in_a_worker_sees_progress_of_another_one_but_no_events(tmp_path: Path) -> None:
    async with workers(tmp_path):
        done, said = await (await w.ask_a_child.enqueue())

    assert done == 3
    assert "this job runs in a worker" in said


async def test_context_variables_travel_into_workers_and_on(tmp_path: Path) -> None:
    request_id = carrying_tasks.request_id
    runner = Runner(tmp_path / "jobs.db", processes=1, carry=[request_id])
    for task in (carrying_tasks.tell_request, carrying_tasks.tell_request_of_a_child):
        runner.include(task)
    async with runner:
        assert await (await carrying_tasks.tell_request.enqueue()) == "none"
        token = request_id.set("r-1")
        handles = [
            await carrying_tasks.tell_request.enqueue(),
            await carrying_tasks.tell_request_of_a_child.enqueue(),
        ]
        request_id.reset(token)

        assert [await handle for handle in handles] == ["r-1", "r-1"]
        assert await (await carrying_tasks.tell_request.enqueue()) == "none"


async def test_job_of_a_schedule_in_a_worker_knows_its_time(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        await runner.schedules.create("s", Every(86_400), w.tell_time.job())
        handle = await runner.schedules.run_now("s")
        at = (await runner.registry.schedule("s")).last_run
        assert at is not None
        assert await handle == f"{at.scheduled_for} schedule:s"


async def test_value_that_is_not_to_be_kept_reaches_who_holds_a_handle(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        handle = await w.mirror.options(keep_result=False).enqueue(w.Point(1, 2))
        assert await handle == w.Point(2, 1)
        job_id = handle.id
        del handle
        with pytest.raises(ResultNotKept):
            await runner.handle(job_id)


async def test_worker_that_comes_too_late_is_told_that_nothing_was_kept(tmp_path: Path) -> None:
    async with workers(tmp_path):
        assert await (await w.come_too_late_for_a_value.enqueue()) == "nothing was kept"


async def test_file_of_a_worker_that_is_not_to_be_kept_stays_where_it_is(tmp_path: Path) -> None:
    async with workers(tmp_path):
        handle = await w.make_file.options(keep_result=False).enqueue(str(tmp_path), "content")
        with pytest.raises(JobFailed, match="keep_result=False contradicts"):
            await handle
        await no_threads_left()
    assert (tmp_path / "made.txt").read_text() == "content"
