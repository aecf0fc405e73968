"""What a job knows of itself: ``current_job()``."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from asyncjobs import Retry, Runner, current_job
from asyncjobs.testing import ManualClock, run_until_idle


def seen() -> dict[str, Any]:
    job = current_job()
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "attempt": job.attempt,
        "fence": list(job.fence),
        "idempotency_key": job.idempotency_key,
        "trigger": job.trigger,
        "tags": list(job.tags),
        "meta": dict(job.meta),
    }


@pytest.mark.parametrize("executor", ["coroutine", "thread"])
async def test_job_knows_what_it_was_enqueued_with(runner: Runner, executor: str) -> None:
    @runner.task(name="job", queue="mail", executor=executor)
    def job() -> dict[str, Any]:
        return seen()

    handle = await job.options(tags=["a"], meta={"b": [1]}, trigger="hook").enqueue()
    known = await handle

    row = await handle.job()
    assert known == {
        "id": handle.id,
        "task": "job",
        "queue": "mail",
        "attempt": 1,
        "fence": [row.instance, row.claim],
        "idempotency_key": handle.id,
        "trigger": "hook",
        "tags": ["a"],
        "meta": {"b": [1]},
    }


async def test_attempt_and_fence_rise_with_every_run_and_the_rest_stays(
    runner: Runner, clock: ManualClock
) -> None:
    runs: list[dict[str, Any]] = []

    @runner.task(retry=Retry(attempts=3, base=1, jitter=False))
    async def job() -> None:
        runs.append(seen())
        raise ValueError

    await job.enqueue()
    for seconds in (1, 2, 0):
        await run_until_idle(runner)
        clock.advance(seconds)

    assert [run["attempt"] for run in runs] == [1, 2, 3]
    assert [run["fence"][1] for run in runs] == [1, 2, 3]
    assert len({run["idempotency_key"] for run in runs}) == 1


async def test_asyncio_tasks_and_threads_that_a_job_starts_know_it(runner: Runner) -> None:
    @runner.task
    async def job() -> list[str]:
        async def ask() -> str:
            return current_job().id

        return [
            await asyncio.create_task(ask()),
            await asyncio.to_thread(lambda: current_job().id),
            current_job().id,
        ]

    handle = await job.enqueue()

    assert await handle == [handle.id] * 3


def test_outside_a_job_there_is_none() -> None:
    with pytest.raises(LookupError, match="inside a job"):
        current_job()


@pytest.mark.parametrize("runner", [{"state": {"database": "the pool"}}], indirect=True)
async def test_job_finds_the_state_of_the_application(runner: Runner) -> None:
    @runner.task
    async def job() -> str:
        value: str = current_job().state["database"]
        return value

    assert await (await job.enqueue()) == "the pool"


async def test_logger_of_a_job_carries_its_id_task_and_attempt(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    @runner.task(name="job")
    async def job() -> None:
        current_job().logger.info("hello")

    with caplog.at_level(logging.INFO, "asyncjobs.job"):
        handle = await job.enqueue()
        await handle

    (record,) = [record for record in caplog.records if record.getMessage() == "hello"]
    assert (vars(record)["job_id"], vars(record)["task"], vars(record)["attempt"]) == (
        handle.id,
        "job",
        1,
    )


async def test_repr_of_a_context_names_the_job_and_no_argument(runner: Runner) -> None:
    @runner.task(name="job")
    async def job(secret: str) -> str:
        return repr(current_job())

    text = await (await job.enqueue("hunter2"))

    assert "'job'" in text
    assert "hunter2" not in text
