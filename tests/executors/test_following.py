"""What becomes of the jobs that follow another one in its worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncjobs import JobFailed, JobHandle, NewJob, Runner
from asyncjobs.running.executors.process import assigner, memory, pool, worker
from asyncjobs.running.executors.process.wire import Message, Recall

from . import worker_tasks as w
from .support import PATIENCE_SECONDS, following, gone, until, worker_pids, workers
from .test_ahead import become_quick


@asynccontextmanager
async def followed(
    folder: Path, first: Any, others: Sequence[NewJob[Any]], **options: Any
) -> AsyncIterator[tuple[Runner, Path, JobHandle[Any], list[JobHandle[Any]]]]:
    """A job of ``first``, which waits for a word at a pipe, and ``others`` behind it."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    async with workers(folder, processes=1, **options) as runner:
        await become_quick()
        leader, *behind = await runner.enqueue_many([first.job(str(pipe)), *others])
        await until(lambda: following(runner, leader) == len(others))
        yield runner, pipe, leader, behind


@pytest.mark.usefixtures("_patient")
async def test_jobs_that_follow_one_that_spends_its_worker_run_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    others = [w.note.job(str(notes)) for _ in range(8)]
    async with followed(tmp_path, w.wait_and_spend_the_worker, others) as (_, pipe, first, behind):
        pipe.write_text("end\n")
        assert await first == "end"
        assert [await other for other in behind] == [1] * 8

    assert len(notes.read_text().splitlines()) == 8


@pytest.mark.usefixtures("_patient")
async def test_worker_that_hears_of_a_recall_when_it_is_idle_is_idle_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = worker.Worker.tell
    late: list[tuple[worker.Worker, Message]] = []
    recalled = assigner.Assigner.recalled
    heard: asyncio.Future[assigner.Assigner] = asyncio.get_running_loop().create_future()

    def tell_late(self: worker.Worker, message: Message) -> None:
        if isinstance(message, Recall):
            late.append((self, message))
        else:
            tell(self, message)

    def recalled_and_note(self: assigner.Assigner, worker: worker.Worker, jobs: int) -> None:
        recalled(self, worker, jobs)
        heard.set_result(self)

    async with followed(tmp_path, w.wait_for_word, [w.mirror.job(w.Point(1, 2))]) as (
        runner, pipe, first, behind,
    ):  # fmt: skip
        monkeypatch.setattr(worker.Worker, "tell", tell_late)
        monkeypatch.setattr(assigner.Assigner, "recalled", recalled_and_note)
        await behind[0].cancel()
        pipe.write_text("end\n")
        await first
        await behind[0].wait()
        tell(*late[0])

        assert [idle.pid for idle in (await heard).idle] == worker_pids(runner)


@pytest.mark.usefixtures("_quick")
async def test_job_behind_a_long_one_is_not_forgotten_when_other_workers_have_nothing_to_do(
    tmp_path: Path,
) -> None:
    pipes = [tmp_path / name for name in ("long", "other")]
    for pipe in pipes:
        os.mkfifo(pipe)
    async with workers(tmp_path, processes=2) as runner:
        await become_quick()
        long, other, *behind = await runner.enqueue_many(
            [
                *(w.wait_for_word.job(str(pipe)) for pipe in pipes),
                *(w.mirror.job(w.Point(1, 2)) for _ in range(2)),  # one for each of them
            ]
        )
        await until(lambda: following(runner, long) >= 0 and following(runner, other) >= 0)
        pipes[1].write_text("end\n")

        async with asyncio.timeout(PATIENCE_SECONDS):
            for handle in (other, *behind):
                await handle
        assert (await long.job()).state == "running"
        pipes[0].write_text("end\n")
        assert await long == "end"


@pytest.mark.usefixtures("_patient")
async def test_memory_of_a_job_that_follows_another_is_watched_where_the_system_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.01)
    async with followed(tmp_path, w.wait_for_word, [w.take_unbound.job()]) as (
        _, pipe, first, behind,
    ):  # fmt: skip
        await asyncio.sleep(0.05)  # as many looks as make no difference
        pipe.write_text("end\n")
        await first

        with pytest.raises(JobFailed, match="memory_limit") as caught:
            await asyncio.wait_for(behind[0].result(), 10)
        assert caught.value.reason == "memory_limit"


@pytest.mark.usefixtures("_patient")
async def test_jobs_that_follow_one_that_does_not_stop_are_taken_back_before_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TERMINATE_SECONDS", 60.0)
    async with followed(tmp_path, w.refuse, [w.note.job(str(tmp_path / "it"))]) as (
        runner, pipe, first, behind,
    ):  # fmt: skip
        with open(pipe) as said:
            pid = int(said.readline())
        await first.cancel()
        await until(lambda: following(runner, first) == 0)
        assert (await first.job()).state == "running"
        os.kill(pid, signal.SIGKILL)

        assert (await first.wait()).state == "cancelled"
        assert await behind[0] == 1


@pytest.mark.usefixtures("_patient")
async def test_job_that_has_begun_behind_one_that_sends_garbage_does_not_begin_again(
    tmp_path: Path,
) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    others = [w.note_and_wait.job(str(begun)), w.note.job(str(tmp_path / "last"))]
    async with followed(tmp_path, w.wait_and_send_garbage, others) as (_, pipe, first, behind):
        pipe.write_text("end\n")
        # The event loop hears nothing until the second one has begun in the same worker.
        (pid,) = begun.read_text().splitlines()

        for handle in (first, behind[0]):
            job = await asyncio.wait_for(handle.wait(), 10)
            assert (job.state, job.reason, job.claim) == ("failed", "crash", 1)
            assert job.error is not None
            assert job.error.message.startswith(f"its worker (process {pid}) was killed, since it")
        assert await behind[1] == 1
        assert (await behind[1].job()).crashes == 0


@pytest.mark.usefixtures("_patient")
async def test_time_limit_holds_for_a_job_that_a_frozen_worker_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TERMINATE_SECONDS", 0.05)
    async with followed(tmp_path, w.freeze_afterwards, []) as (runner, pipe, first, _):
        (pid,) = worker_pids(runner)
        os.mkfifo(f"{pipe}-sent")
        pipe.write_text("end\n")
        with open(f"{pipe}-sent", "w") as word:  # it has ended, and has found nothing else to do
            late = await w.note.options(timeout=0.05).enqueue(str(tmp_path / "notes"))
            await until(lambda: following(runner, first) == 1)
            word.write("sent\n")
        await first

        job = await asyncio.wait_for(late.wait(), 10)
        assert (job.reason, job.claim) == ("timeout", 1)
        assert not (tmp_path / "notes").exists()
        await gone(pid, within=5)
