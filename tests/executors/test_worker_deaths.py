"""What test_deaths does not hold of worker deaths; timeouts, cancels and memory limits."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from asyncjobs import JobCancelled, JobCrashed, JobFailed, JobTimedOut, Runner
from asyncjobs.running.context import Run
from asyncjobs.running.executors.process import pool, worker
from asyncjobs.running.executors.process.wire import GoOn, Message

from . import stillborn_tasks
from . import worker_tasks as w
from .stillborn_tasks import STILLBORN
from .support import following, gone, is_alive, pids_at, server_pid, until, worker_pids, workers
from .worker_tasks import Point


@pytest.fixture
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TERMINATE_SECONDS", 0.1)


async def the_pool_goes_on() -> None:
    assert await (await w.mirror.enqueue(Point(1, 2))) == Point(2, 1)


async def test_crashed_job_runs_again_until_it_has_crashed_too_often(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        handle = await w.die.options(on_crash="retry").enqueue("kill")
        with pytest.raises(JobCrashed):
            await asyncio.wait_for(handle.result(), 10)

        job = await handle.job()
        events = [str(attempt.event) for attempt in await runner.registry.attempts(handle.id)]
    assert (job.crashes, job.attempt, job.claim) == (3, 0, 3)
    assert events == ["rescued", "rescued", "failed"]


async def test_job_that_comes_back_twice_is_one_crash(tmp_path: Path) -> None:
    async with workers(tmp_path):
        with pytest.raises(JobFailed):
            await asyncio.wait_for((await w.die.enqueue("fork")).result(), 10)
        await the_pool_goes_on()


async def test_job_that_no_worker_lives_to_read_crashes_and_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    told.touch()
    monkeypatch.setenv(STILLBORN, str(told))
    async with workers(tmp_path, stillborn_tasks.tasks, processes=1) as runner:
        job = await asyncio.wait_for((await stillborn_tasks.live.enqueue()).wait(), 10)
        assert (job.reason, job.claim) == ("crash", 1)
        assert job.error is not None
        assert job.error.message.endswith("exited with code 9")
        told.unlink()
        assert await (await stillborn_tasks.live.enqueue()) in worker_pids(runner)


async def test_worker_that_is_to_be_replaced_is_killed_when_it_hangs_up_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "UNEXPLAINED_SECONDS", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with workers(tmp_path, processes=1) as runner:
        handle = await w.wait_and_hang_up.enqueue(str(pipe))
        await until(lambda: following(runner, handle) == 0)
        await runner.reload_workers()
        pipe.write_text("now\n")

        assert (await asyncio.wait_for(handle.wait(), 10)).reason == "crash"
        await the_pool_goes_on()


async def test_worker_that_dies_before_it_has_read_its_job_has_not_run_it(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        await the_pool_goes_on()
        (pid,) = worker_pids(runner)
        os.kill(pid, signal.SIGSTOP)
        handle = await w.who_am_i.enqueue()
        listed = runner.registry.workers
        await until(lambda: any(info.state == "busy" for info in listed()), listed)
        os.kill(pid, signal.SIGKILL)

        assert (await handle)["claim"] == 1
        assert (await handle.job()).crashes == 0


async def test_worker_that_dies_just_before_it_is_given_a_job_has_not_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = worker.Worker.give

    def give_too_late(self: worker.Worker, runs: list[Run], log_level: int, mark: bytes) -> None:
        monkeypatch.undo()
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        while is_alive(self.pid):
            pass
        give(self, runs, log_level, mark)

    async with workers(tmp_path, processes=1):
        await the_pool_goes_on()
        monkeypatch.setattr(worker.Worker, "give", give_too_late)
        handle = await w.who_am_i.enqueue()

        assert (await handle)["claim"] == 1
        assert (await handle.job()).crashes == 0


async def test_job_whose_worker_dies_without_having_read_an_answer_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = worker.Worker.tell
    answered = asyncio.Event()

    def tell_and_note(self: worker.Worker, message: Message) -> None:
        tell(self, message)
        if isinstance(message, GoOn):
            answered.set()

    monkeypatch.setattr(worker.Worker, "tell", tell_and_note)
    async with workers(tmp_path, processes=1) as runner:
        handle = await w.say_and_hold_the_gil.enqueue(str(tmp_path / "it"))
        (pid,) = await pids_at(tmp_path / "it")
        await answered.wait()
        os.kill(pid, signal.SIGKILL)

        with pytest.raises(JobCrashed, match="SIGKILL"):
            await asyncio.wait_for(handle.result(), 10)
        assert len((tmp_path / "it").read_text().splitlines()) == 1
        assert await runner.registry.count(state="failed") == 1


async def test_worker_that_dies_before_it_is_ready_has_not_run_its_job(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1, processes_min=0, process_start="spawn") as runner:
        handle = await w.who_am_i.enqueue()
        await until(lambda: worker_pids(runner), runner.registry.workers)
        os.kill(worker_pids(runner)[0], signal.SIGKILL)

        assert (await handle)["claim"] == 1
        assert (await handle.job()).crashes == 0


async def test_job_that_raises_system_exit_does_not_end_its_worker(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        await the_pool_goes_on()
        before = worker_pids(runner)
        with pytest.raises(JobFailed, match="the job raises"):
            await (await w.die.enqueue("exception"))
        assert worker_pids(runner) == before


@pytest.mark.timed
async def test_fork_server_that_dies_is_replaced_and_only_running_jobs_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with workers(tmp_path, processes=2) as runner:
        running = await w.wait_forever.options(on_crash="fail").enqueue(str(tmp_path / "running"))
        (worker,) = await pids_at(tmp_path / "running")
        server = server_pid(runner)
        os.kill(server, signal.SIGKILL)

        with pytest.raises(JobCrashed, match="along with its fork server"):
            await asyncio.wait_for(running.result(), 10)
        await gone(worker, within=2)
        await asyncio.wait_for(the_pool_goes_on(), 10)
        assert server_pid(runner) != server
        assert runner.healthy
    assert "another one is started" in caplog.text


# Timeout and cancel


@pytest.mark.timed
@pytest.mark.parametrize("task", [w.wait_forever, w.wait_forever_async, w.wait_alone])
async def test_timeout_raises_in_the_job_and_the_worker_lives_on(
    tmp_path: Path, task: object
) -> None:
    async with workers(tmp_path, processes=1):
        handle = await task.options(timeout=0.3).enqueue(str(tmp_path / "it"))  # type: ignore[attr-defined]
        (pid,) = await pids_at(tmp_path / "it")
        with pytest.raises(JobTimedOut):
            await asyncio.wait_for(handle.result(), 2)
        if task is not w.wait_alone:
            assert (await (await w.warm.enqueue("a")))[0] == pid


@pytest.mark.timed
@pytest.mark.usefixtures("_hurry")
async def test_job_that_refuses_everything_is_killed_and_its_handle_resolves(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=1):
        handle = await w.refuse.enqueue(str(tmp_path / "it"))
        (pid,) = await pids_at(tmp_path / "it")
        await handle.cancel("too long")
        await gone(pid, within=5)
        with pytest.raises(JobCancelled, match="too long"):
            await asyncio.wait_for(handle.result(), 1)
        await the_pool_goes_on()


@pytest.mark.timed
@pytest.mark.usefixtures("_hurry")
async def test_job_inside_a_c_call_that_holds_the_gil_is_ended_by_its_timeout(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=1):
        handle = await w.hold_the_gil.options(timeout=0.2).enqueue(str(tmp_path / "it"))
        with pytest.raises(JobTimedOut):
            await asyncio.wait_for(handle.result(), 5)
        await the_pool_goes_on()


async def test_cancelled_job_hears_why_and_may_leave_by_itself(tmp_path: Path) -> None:
    async with workers(tmp_path):
        handle = await w.leave_when_told.enqueue(str(tmp_path / "it"))
        await pids_at(tmp_path / "it")
        assert await handle.cancel() == "requested"
        assert await handle == "left: user"


@pytest.mark.timed
@pytest.mark.usefixtures("_hurry")
async def test_what_a_killed_job_has_started_is_killed_also_in_another_session(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=1):
        handle = await w.start_daemon.enqueue(str(tmp_path / "it"))
        pids = await pids_at(tmp_path / "it", 3)
        job = await handle.job()
        assert job.state == "running"
        os.kill(pids[2], signal.SIGKILL)
        await gone(*pids, within=2)
        await handle.cancel()
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(handle.result(), 5)


async def test_daemon_that_a_job_leaves_behind_ends_with_its_worker(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1, max_jobs=1) as runner:
        handle = await w.leave_daemon_behind.enqueue(str(tmp_path / "it"))
        worker = await handle
        (daemon,) = await pids_at(tmp_path / "it")

        await gone(worker, daemon, within=5)
        await the_pool_goes_on()
        assert await runner.registry.count(state="completed") == 2


@pytest.mark.parametrize("how", ["closed", "replaced", "redirected"])
async def test_job_that_takes_its_streams_away_takes_them_from_no_other(
    tmp_path: Path, how: str
) -> None:
    async with workers(tmp_path, processes=1) as runner:
        taking = await w.replace_streams.enqueue(how)
        pid = await taking
        looking = await w.look.enqueue()
        await looking
        (attempt,) = await runner.registry.attempts(looking.id)
        (info,) = [info for info in runner.registry.workers() if not info.leaving]

    assert attempt.output == "seen\n"
    assert (info.pid == pid) == (how != "closed")
    assert how != "closed" or "a standard stream was closed" in (info.replaced or "")


@pytest.mark.timed
async def test_stop_of_the_runner_ends_what_refuses_and_gives_it_back(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        handle = await w.refuse.enqueue(str(tmp_path / "it"))
        (pid,) = await pids_at(tmp_path / "it")
        started = asyncio.get_running_loop().time()
        await runner.stop()
        assert asyncio.get_running_loop().time() - started < 2
        await gone(pid, within=0.1)
    async with Runner(tmp_path / "jobs.db").client() as runner:
        job = await runner.registry.get(handle.id)
    assert (job.state, job.reason, job.attempt) == ("queued", "shutdown", 0)


# Memory


async def test_job_that_crosses_its_memory_limit_fails_alone_with_that_reason(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, processes=1):
        assert await (await w.take.enqueue(8)) == 8 * 1024 * 1024
        with pytest.raises(JobFailed, match="memory_limit of 67108864 bytes") as caught:
            await (await w.take.enqueue(200))
        assert caught.value.reason == "memory_limit"
        await the_pool_goes_on()


async def test_memory_that_the_system_does_not_bound_is_watched(tmp_path: Path) -> None:
    async with workers(tmp_path):
        with pytest.raises(JobFailed, match="memory_limit of 67108864 bytes") as caught:
            await asyncio.wait_for(
                (await w.take_shared.enqueue(str(tmp_path / "it"), 100)).result(), 10
            )
        assert caught.value.reason == "memory_limit"
        await the_pool_goes_on()
