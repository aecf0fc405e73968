"""What a job in a worker asks of its host: to enqueue, to wait for another job, to cancel one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import InvalidOption
from .handle import JobHandle, has_value
from .records import NewJob
from .rules.files import MARK, File
from .running.context import Run

if TYPE_CHECKING:
    from .runner import Runner


async def run_errand(runner: Runner, run: Run, what: str, subject: Any) -> Any:
    """Do it for ``run``, as if it ran here; the answer as plain values or records.

    Raises:
        AsyncJobsError: what the call in the host raises.
        TimeoutError: the same.
    """
    if what == "enqueue":
        jobs = msgspec.convert(subject, list[NewJob[Any]])
        if len(jobs) == 1:
            handles = [await runner.enqueue(jobs[0])]
        else:
            handles = await runner.enqueue_many(jobs)
        return [(handle.id, False) if handle.existing else None for handle in handles]
    if what == "keep":
        return await asyncio.to_thread(runner.engine().files.take, run, File(*subject))
    job_id, detail = subject
    handle: JobHandle[Any] = runner.handle(job_id)
    match what:
        case "result":
            outcome = await handle.outcome(detail)
            if not has_value(outcome):
                raise handle.error(outcome)
            return (outcome.task, outcome.result, _file_of(runner, outcome.result or ""))
        case "wait":
            return await handle.wait(detail)
        case "job":
            return await handle.job()
        case "cancel":
            return await handle.cancel(detail)
        case "retry":
            return await handle.retry()
    raise InvalidOption(f"a worker asks for {what!r}, which nobody here can do")


def _file_of(runner: Runner, result: str) -> tuple[str, str, str, int] | None:
    """What a file's handle is made of, when the job has returned one."""
    if not result.startswith(MARK):
        return None
    file = runner.engine().files.stored(result)
    return (file.path, file.name, file.media_type, file.size)
