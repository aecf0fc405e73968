"""What may be enqueued: jobs of tasks that the runner has."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, TypeVar

from .errors import InvalidOption, UnknownTask
from .records import NewJob
from .rules.limits import BULK_MAX

R = TypeVar("R")


def check_job(
    job: NewJob[Any], tasks: Container[str], place: int | None = None, *, what: str = "enqueue"
) -> None:
    """One job of one of ``tasks``; ``what`` is for the message.

    Raises:
        UnknownTask: it is another one's.
        InvalidOption: it is no job, such as a task with its arguments.
    """
    if isinstance(job, NewJob) and job.task in tasks:
        return
    what = what if place is None else f"jobs[{place}] of enqueue_many"
    if not isinstance(job, NewJob):
        raise InvalidOption(f"{what}: needs what task.job(...) gives, got {type(job).__name__}")
    raise UnknownTask(
        f"{what}: task {job.task!r} does not belong to this runner; call runner.include(tasks)"
    )


def check_jobs(jobs: Iterable[NewJob[R]], tasks: Container[str]) -> list[NewJob[R]]:
    """Several such jobs, not too many for one commit.

    Raises:
        UnknownTask, InvalidOption: as :func:`check_job`, naming the place.
    """
    if isinstance(jobs, NewJob) or not isinstance(jobs, Iterable):
        raise InvalidOption(
            f"enqueue_many takes what task.job(...) gives, several of them, got "
            f"{type(jobs).__name__}"
        )
    jobs = list(jobs)
    if len(jobs) > BULK_MAX:
        raise InvalidOption(f"{len(jobs)} jobs in one enqueue_many; at most {BULK_MAX}: split them")
    for place, job in enumerate(jobs):
        check_job(job, tasks, place)
    return jobs
