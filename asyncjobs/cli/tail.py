"""Follow what happens in all processes; or, with a job's id, its log up to its outcome."""

from __future__ import annotations

import argparse
import contextlib
import io
import select
import sqlite3
from functools import partial

from ..clock import to_instant
from ..errors import InvalidOption, StoreUnavailable, UnknownJob
from ..rules.limits import PAGE_MAX, check_choice
from ..states import FINISHED
from ..states import Event as Kind
from ..store.journal import (
    QUIET_KINDS,
    Event,
    JournalPage,
    JournalQuery,
    LogPage,
    Place,
    check_age,
    cursor_of,
    log_place_of,
    place_of,
)
from ..store.sqlite.journal import journal_end, place_at, read_journal, read_log
from ..store.sqlite.looking import Onlooker
from ..store.sqlite.reads import database_id, get, standing_of
from .asked import Asked, whole_id
from .filtering import words
from .ls import said
from .screen import Screen
from .times import instant, when_exactly

NAME = "tail"
HELP = "follow events, or one job's log"
KINDS = tuple(kind.value for kind in Kind)
POLL_SECONDS = 0.05
"""Between two looks at the files' times, 20 µs each: nothing is opened while nothing is written."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("id", nargs="?", metavar="ID", help="a job, or the beginning of its id")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--after", metavar="CURSOR", help="begin behind an event, by its cursor")
    start.add_argument("--since", type=instant, metavar="TIME",
                       help="begin so long ago, as in 2h, or at a date and time")  # fmt: skip
    parser.add_argument("--task", metavar="TEXT", help="only events of this task")
    parser.add_argument("--queue", metavar="TEXT", help="only events in this queue")
    parser.add_argument("--kinds", action="extend", type=words, metavar="KIND[,KIND]",
                        help="only events of these kinds, such as failed,cancelled")  # fmt: skip
    parser.add_argument("--no-follow", action="store_true", help="end with what is there already")


def run(asked: Asked) -> int:
    """Follow."""
    if asked.arguments.id is not None:
        return _follow_log(asked)
    return _follow_events(asked)


class Waiting:
    """Waits until a database was written."""

    def __init__(self, database: Onlooker, screen: Screen) -> None:
        self._database = database
        self._screen = screen
        self.look_follows()
        self._poll = select.poll()
        # One that has none is not a real stream, so nobody can close its other end.
        with contextlib.suppress(io.UnsupportedOperation):
            self._poll.register(screen.out.fileno(), 0)

    def look_follows(self) -> None:
        """Note how the files stand: what is written from now on, the look may not see."""
        self._since = self._database.stamp()
        self._young = self._since.young

    def until_written(self) -> None:
        """Return when there may be something that the last look has not seen.

        Raises:
            BrokenPipeError: nobody reads what is printed any more.
        """
        self._screen.flush()
        while True:
            if self._poll.poll(POLL_SECONDS * 1000):
                raise BrokenPipeError
            if self._young or self._database.stamp() != self._since:
                return


# Events


def _follow_events(asked: Asked) -> int:
    arguments, database = asked.arguments, asked.database
    kinds = arguments.kinds or [kind for kind in KINDS if kind not in QUIET_KINDS]
    chosen = frozenset(check_choice(kind, "kinds", KINDS) for kind in kinds)
    name, place = database.look(partial(_start, arguments=arguments))
    waiting = Waiting(database, asked.screen)
    try:
        while True:
            waiting.look_follows()
            query = JournalQuery(place, None, chosen, arguments.task)
            page = database.look(partial(_next_events, name=name, query=query))
            for entry in page.entries:
                if arguments.queue in (None, entry.event.queue):
                    _show_event(asked.screen, entry.event)
            place = page.following
            if not page.complete:
                continue
            if arguments.no_follow:
                return 0
            waiting.until_written()
    except KeyboardInterrupt:
        asked.screen.note(f"to go on from here: --after {cursor_of(name, place)}")
        raise


def _start(connection: sqlite3.Connection, arguments: argparse.Namespace) -> tuple[str, Place]:
    """Which database it is, and where to begin."""
    name = database_id(connection)
    if arguments.after is not None:
        return name, place_of(arguments.after, name)
    if arguments.since is not None:
        return name, place_at(connection, to_instant(arguments.since, "since"))
    return name, journal_end(connection).place


def _next_events(connection: sqlite3.Connection, name: str, query: JournalQuery) -> JournalPage:
    if database_id(connection) != name:
        raise StoreUnavailable(
            "another database stands at this path now, whose events do not follow those of the one "
            "before; begin anew with --since"
        )
    end = journal_end(connection)
    check_age(query.after, end.pruned)
    if query.after > end.place:  # also when it is put back while somebody follows
        raise InvalidOption(
            "the cursor is ahead of the database: was an older copy of the file put back?"
        )
    return read_journal(connection, name, query)


def _show_event(screen: Screen, event: Event) -> None:
    if screen.as_json:
        screen.document(event)
        return
    progress = event.progress
    note = "" if progress is None else said(progress.done, progress.total, progress.note)
    screen.row(when_exactly(event.at), f"{event.kind:<9}", event.job_id, event.task, note)


# The log of one job


def _follow_log(asked: Asked) -> int:
    arguments, database, screen = asked.arguments, asked.database, asked.screen
    if any((arguments.after, arguments.since, arguments.task, arguments.queue, arguments.kinds)):
        raise InvalidOption("a job's log takes no filters; leave out ID to follow events")
    job_id = database.look(lambda connection: whole_id(connection, arguments.id))
    waiting = Waiting(database, screen)
    after, dropped = None, 0
    while True:
        waiting.look_follows()
        state, page = database.look(partial(_next_lines, job_id=job_id, after=after))
        if page.dropped > dropped:
            dropped = page.dropped
            screen.note(f"{dropped:,} of the job's lines are not kept")
        _show_lines(screen, page)
        after = page.cursor
        if len(page.lines) == PAGE_MAX:
            continue
        if state is None or state in FINISHED:
            return _end(asked, job_id)
        if arguments.no_follow:
            return 0
        waiting.until_written()


def _next_lines(
    connection: sqlite3.Connection, job_id: str, after: str | None
) -> tuple[str | None, LogPage]:
    place = (0, 0) if after is None else log_place_of(after)
    return standing_of(connection, job_id), read_log(connection, job_id, place, PAGE_MAX)


def _show_lines(screen: Screen, page: LogPage) -> None:
    for line in page.lines:
        if screen.as_json:
            screen.document(line)
        else:
            head = (when_exactly(line.at), line.level, line.logger)
            first, *rest = line.text.split("\n")
            screen.row(*head, first)
            for more in rest:
                screen.row("", more)


def _end(asked: Asked, job_id: str) -> int:
    """Say how the job ended; 0 when it completed."""
    job = asked.database.look(lambda connection: get(connection, job_id, asked.now))
    if job is None:
        raise UnknownJob(f"job {job_id} was deleted")
    error = f", {job.error.summary}" if job.state == "failed" and job.error else ""
    reason = f" ({job.reason})" if job.reason else ""
    asked.screen.note(f"job {job_id} is {job.status}{reason}{error}")
    return 0 if job.state == "completed" else 1
