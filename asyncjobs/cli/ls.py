"""List jobs: newest first, finished ones by their end, waiting ones by when they are due."""

from __future__ import annotations

import argparse
from functools import partial
from typing import get_args

from ..filters import COUNT_MAX, is_counted, to_filter
from ..inventory import Count
from ..records import Job
from ..rules.limits import PAGE_MAX, check_integer
from ..store.base import Filter, Order
from ..store.sqlite.listing import count, count_rows, list_jobs
from .asked import Asked
from .filtering import add_filters, filters_of
from .screen import cut
from .times import took, when

NAME = "ls"
HELP = "list jobs, or count them"
LIMIT = 50
NOTE_MAX = 80


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    most = f"at most so many, up to {PAGE_MAX:,}; by default {LIMIT}"
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=most)
    parser.add_argument("--cursor", help="go on where a page ended, with the same filters")
    parser.add_argument("--order", choices=get_args(Order), help="another order")
    parser.add_argument("--count", action="store_true", help="only say how many there are")
    add_filters(parser)


def run(asked: Asked) -> int:
    """List or count."""
    arguments, screen = asked.arguments, asked.screen
    what = to_filter(filters_of(arguments))
    if arguments.count:
        jobs = count_jobs(asked, what, scan=arguments.scan)
        if screen.as_json:
            screen.document({"count": int(jobs), "exact": jobs.exact})
        else:
            screen.row(str(jobs))
        return 0
    check_integer(arguments.limit, "limit", least=1, most=PAGE_MAX)
    page = asked.database.look(
        partial(list_jobs, what=what, now=asked.now, order=arguments.order, limit=arguments.limit,
                cursor=arguments.cursor, scan=arguments.scan)
    )  # fmt: skip
    if screen.as_json:
        screen.document({"jobs": page.jobs, "cursor": page.cursor})
        return 0
    if page.jobs:
        screen.table(
            ("ID", "TASK", "STATUS", "QUEUE", "CREATED", "TOOK", "NOTE"), map(_row, page.jobs)
        )
    if page.cursor is not None:
        screen.note(f"there are more: --cursor {page.cursor}")
    return 0


def count_jobs(asked: Asked, what: Filter, *, scan: bool) -> Count:
    """How many pass, as ``registry.count`` has it."""
    look, now = asked.database.look, asked.now
    if is_counted(what):
        return Count(look(partial(count, states=what.states, queue=what.queue, task=what.task)))
    most = None if scan else COUNT_MAX + 1
    jobs = look(partial(count_rows, what=what, now=now, most=most, scan=scan))
    return Count(jobs) if scan else Count.up_to(jobs, most=COUNT_MAX)


def _row(job: Job) -> tuple[str, ...]:
    duration = took(job.duration)
    return (job.id, job.task, job.status, job.queue, when(job.created_at), duration, _note(job))


def _note(job: Job) -> str:
    """The one thing more that there is to say of a job in its state."""
    match job.status:
        case "failed" | "retrying" if job.error is not None:
            text = f"{job.error.type}: {job.error.message}"
        case "scheduled":
            text = f"due {when(job.run_at)}"
        case "running" if job.progress is not None:
            text = said(job.progress.done, job.progress.total, job.progress.note)
        case "cancelled":
            text = job.cancel_reason or job.reason or ""
        case _:
            text = job.reason or ""
    return cut(text, NOTE_MAX)


def said(done: float, total: float | None, note: str | None) -> str:
    """Progress in words."""
    text = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    return f"{text}: {note}" if note else text
