"""Show one job whole: arguments, result, error, runs, what happened when, log and output."""

from __future__ import annotations

import argparse
import sqlite3
import time
from functools import partial
from typing import Any

import msgspec

from ..clock import to_instant
from ..errors import UnknownJob
from ..records import Job
from ..rules.files import FileRecord, is_key
from ..rules.limits import PAGE_MAX
from ..states import Event as Kind
from ..store.journal import LAST_KINDS, OUTCOME_KINDS, Event, JournalQuery
from ..store.sqlite.journal import place_at, read_journal, read_log
from ..store.sqlite.reads import attempts, database_id, get
from .asked import Asked, whole_id
from .portrait import Timeline, Whole, draw
from .why import why

NAME = "show"
HELP = "show one job whole"
TIMELINE_SECONDS = 0.3
"""CPU seconds that the journal is searched for. It has no index by job: what happened in all others
between a job's beginning and its end is read on the way."""
_SHOWN = frozenset(kind.value for kind in Kind) - {Kind.PROGRESS.value, Kind.LOGGED.value}
_ENDS = OUTCOME_KINDS | LAST_KINDS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("id", metavar="ID", help="the job, or the beginning of its id")
    parser.add_argument("--whole-timeline", action="store_true",
                        help="search the journal for as long as it takes")  # fmt: skip


def run(asked: Asked) -> int:
    """Show."""
    seconds = float("inf") if asked.arguments.whole_timeline else TIMELINE_SECONDS
    look = partial(
        _see,
        database=asked.database.path,
        beginning=asked.arguments.id,
        now=asked.now,
        seconds=seconds,
    )
    whole = asked.database.look(look)
    path = None if whole.file is None else f"{asked.database.path}-files/{whole.file.key}"
    if asked.screen.as_json:
        asked.screen.document(_document(whole, path))
    else:
        draw(asked.screen, whole, path)
    return 0


def _see(
    connection: sqlite3.Connection, database: str, beginning: str, now: int, seconds: float
) -> Whole:
    job_id = whole_id(connection, beginning)
    job = get(connection, job_id, now)
    if job is None:
        raise UnknownJob(f"no job {job_id} is in the database")
    return Whole(
        job,
        attempts(connection, job_id),
        _timeline(connection, job, seconds),
        read_log(connection, job_id, (0, 0), PAGE_MAX),
        _file_of(job.result),
        why(connection, database, job, now),
    )


def _timeline(connection: sqlite3.Connection, job: Job, seconds: float) -> Timeline:
    """From the journal: from the job's beginning to where it stands now."""
    place = place_at(connection, to_instant(job.created_at, "created_at"))
    name = database_id(connection)
    events: list[Event] = []
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        page = read_journal(
            connection, name, JournalQuery(place, frozenset((job.seq,)), _SHOWN, None)
        )
        events += [entry.event for entry in page.entries]
        place = page.following
        # A claim number of a finished job is that of its last run: nothing comes after its end.
        over = job.finished and any(
            event.kind in _ENDS and event.claim == job.claim for event in events
        )
        if page.complete or over:
            return Timeline(events, True)
    return Timeline(events, False)


def _file_of(result: Any) -> FileRecord | None:
    """What the job returned, if that was a file: no other result has that key first."""
    match result:
        case {"asyncjobs_file": dict(record), **others} if not others:
            file = msgspec.convert(record, FileRecord)
            return file if is_key(file.key) else None
    return None


def _document(whole: Whole, path: str | None) -> dict[str, Any]:
    return {
        "job": whole.job,
        "attempts": whole.attempts,
        "timeline": {"events": whole.timeline.events, "complete": whole.timeline.complete},
        "log": {"lines": whole.log.lines, "dropped": whole.log.dropped},
        "file": path,
        "why": whole.why,
    }
