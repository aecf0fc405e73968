"""Process jobs in warm workers, isolated ones in fresh processes: what a job finds there."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from asyncjobs import InvalidOption, JobCancelled, JobFailed, Runner, current_job

from . import worker_tasks as w
from .support import workers
from .worker_tasks import Point


async def test_plain_and_async_functions_run_in_another_process(tmp_path: Path) -> None:
    async with workers(tmp_path):
        handles = [await w.mirror.enqueue(Point(1, 2)), await w.mirror_later.enqueue(Point(3, 4))]

        assert [await handle for handle in handles] == [Point(2, 1), Point(4, 3)]
        pid, _ = await (await w.warm.enqueue("a"))
        assert pid != os.getpid()


async def test_warm_worker_serves_many_jobs_and_shares_its_globals(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        first, _ = await (await w.warm.enqueue("a"))
        second, words = await (await w.warm.enqueue("b"))

    assert first == second
    assert words == ["a", "b"]


async def test_isolated_jobs_see_nothing_of_each_other(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        runs = [await (await w.alone.enqueue(word)) for word in "abc"]

    assert [words for _, words in runs] == [["a"], ["b"], ["c"]]
    assert len({pid for pid, _ in runs}) == 3


async def test_as_many_jobs_run_at_once_as_there_are_processes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with workers(tmp_path, processes=2, processes_min=0) as runner:
        first = await w.meet.enqueue(str(pipe), first=True)
        second = await w.meet.enqueue(str(pipe), first=False)

        assert [await first, await second] == ["met", "met"]
        assert len(runner.registry.workers()) == 2


async def test_after_each_job_everything_is_put_back(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        before = await (await w.look.enqueue())
        await (await w.disturb.enqueue())
        handle = await w.look.enqueue()
        after = await handle

    assert before.pop("random") != after["random"]
    assert after.pop("random") != 0.13436424411240122  # the first one of seed 1
    assert after == before
    assert after["environment"] == [None, True]


async def test_tasks_that_a_job_left_behind_are_cancelled(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        await (await w.leave_task_behind.enqueue())

        assert await (await w.what_was_left.enqueue()) == (["cancelled"], 1)


async def test_job_sees_all_of_its_context(tmp_path: Path) -> None:
    async with workers(tmp_path):
        handle = await w.who_am_i.options(
            tags=["t"], meta={"m": 1}, trigger="test", queue="q"
        ).enqueue()
        seen = await handle

    assert seen == {
        "id": handle.id, "attempt": 1, "claim": 1, "key": handle.id, "tags": ["t"],
        "meta": {"m": 1}, "trigger": "test", "queue": "q",
        "task": "executors.worker_tasks.who_am_i", "stop": False,
    }  # fmt: skip


async def test_state_of_the_host_is_not_there_and_the_error_says_what_to_use(
    tmp_path: Path,
) -> None:
    async with workers(tmp_path, state=object()):
        assert "@runner.resource" in await (await w.ask_for_state.enqueue())


async def test_transactions_of_the_host_are_not_there_either(tmp_path: Path) -> None:
    async with workers(tmp_path):
        said = await (await w.ask_for_transaction.enqueue())

    assert len(said) == 2
    assert all("this job runs in a worker" in text for text in said)


async def test_log_records_reach_the_hosts_logger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asyncjobs.job")
    async with workers(tmp_path):
        handle = await w.write_log.enqueue("somebody")
        await handle

    records = [record for record in caplog.records if record.name == "asyncjobs.job"]
    assert [record.getMessage() for record in records] == ["somebody said", "with a trace"]
    assert {record.__dict__["job_id"] for record in records} == {handle.id}
    assert "ValueError: inside" in (records[1].exc_text or "")


# Children


async def test_jobs_that_await_their_children_lend_their_slot(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        pids = await asyncio.wait_for((await w.parent.enqueue(3)).result(), 20)

        assert len(set(pids)) == 4
        await (await w.warm.enqueue("a"))
        warm = [info for info in runner.registry.workers() if not info.leaving]
        assert len(warm) == 1


async def test_plain_function_enqueues_with_a_loop_of_its_own(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        assert await (await w.plain_parent.enqueue()) == Point(2, 1)
        assert await (await w.plain_parent.enqueue()) == Point(2, 1)  # the key's job is there


async def test_parent_hears_why_its_child_failed(tmp_path: Path) -> None:
    async with workers(tmp_path):
        said = await (await w.parent_of_failure.enqueue())

    assert said == "executors.worker_tasks.Awkward error"


async def test_parent_may_stop_waiting_and_cancel_its_child(tmp_path: Path) -> None:
    async with workers(tmp_path) as runner:
        path = tmp_path / "child"
        assert await (await w.impatient_parent.enqueue(str(path))) == "requested"
        (child,) = (await runner.registry.list(task=w.wait_forever.name)).jobs
        with pytest.raises(JobCancelled):
            await runner.handle(child.id)


# Outcomes


async def test_exception_of_any_class_arrives_as_data(tmp_path: Path) -> None:
    async with workers(tmp_path):
        with pytest.raises(JobFailed, match="awkward") as caught:
            await (await w.raise_awkward.enqueue())

    assert caught.value.error_type == "executors.worker_tasks.Awkward"
    assert "raise Awkward(1, 2)" in (caught.value.traceback or "")
    assert "asyncjobs/running" not in (caught.value.traceback or "")


async def test_exit_of_a_job_is_its_failure_and_not_its_workers_end(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        pid, _ = await (await w.warm.enqueue("a"))
        with pytest.raises(JobFailed, match="SystemExit: 4"):
            await (await w.exit_system.enqueue())

        assert (await (await w.warm.enqueue("b")))[0] == pid


async def test_retry_function_decides_in_the_worker(tmp_path: Path) -> None:
    async with workers(tmp_path):
        assert await (await w.fail_until.enqueue(2)) == 2
        with pytest.raises(JobFailed, match="ValueError: 2"):
            await (await w.fail_until.enqueue(4))


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("snooze", "scheduled", "snooze"),
        ("cancel", "cancelled", "enough"),
        ("fail", "failed", "fail"),
        ("later", "retrying", "error"),
    ],
)
async def test_what_a_job_says_of_itself_is_heard(
    tmp_path: Path, word: str, status: str, reason: str
) -> None:
    async with workers(tmp_path) as runner:
        handle = await w.say.enqueue(word)
        await runner.engine().idle()
        job = await handle.job()

    assert (job.status, job.reason) == (status, reason)


async def test_result_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        with pytest.raises(JobFailed, match="returned a lock") as caught:
            await (await w.return_lock.enqueue())
        assert caught.value.reason == "invalid_result"


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_result_at_and_above_its_limit(tmp_path: Path, over: int) -> None:
    number = 16 * 1024 * 1024 - 2 + over
    async with workers(tmp_path, processes=1):
        handle = await w.return_bytes.enqueue(number)
        if over <= 0:
            assert len(await handle) == number
        else:
            with pytest.raises(JobFailed, match="16777217 bytes"):
                await handle
        assert await (await w.mirror.enqueue(Point(1, 2))) == Point(2, 1)


async def test_output_of_a_job_is_kept_to_its_last_64_kib(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1) as runner:
        handle = await w.write_much.enqueue(100)
        await asyncio.wait_for(handle.result(), 30)
        (attempt,) = await runner.registry.attempts(handle.id)
        quiet = await w.mirror.enqueue(Point(1, 2))
        await quiet
        (nothing,) = await runner.registry.attempts(quiet.id)

    assert attempt.output.endswith("x\nthe end\n")
    assert len(attempt.output) == 64 * 1024
    assert nothing.output == ""


async def test_fork_in_a_job_leaves_the_worker_as_it_was(tmp_path: Path) -> None:
    async with workers(tmp_path, processes=1):
        pid = await (await w.fork_and_return.enqueue())
        assert await (await w.fork_and_return.enqueue()) == pid


# Options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"processes": 0}, "processes=0"),
        ({"processes_min": -1}, "processes_min=-1"),
        ({"processes": 2, "processes_min": 3}, "processes_min=3 is more than processes=2"),
        ({"process_start": "thread"}, "process_start='thread'"),
        ({"max_jobs": 0}, "max_jobs=0"),
        ({"max_age": 0.5}, "max_age"),
        ({"max_rss": "1 GB"}, "max_rss"),
    ],
)
def test_options_of_workers_are_checked_when_given(
    tmp_path: Path, options: dict[str, object], match: str
) -> None:
    with pytest.raises(InvalidOption, match=match):
        Runner(tmp_path / "jobs.db", **options)  # type: ignore[arg-type]


def test_memory_limit_needs_a_process() -> None:
    with pytest.raises(InvalidOption, match="executor='process'"):
        w.tasks.task(memory_limit=2**30)(len)
    with pytest.raises(InvalidOption, match="memory_limit=1 "):
        w.tasks.task(memory_limit=1, executor="process")(len)


def test_job_context_stays_outside_of_workers() -> None:
    with pytest.raises(LookupError):
        current_job()
