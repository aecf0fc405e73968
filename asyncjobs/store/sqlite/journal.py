"""Reading the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from ...clock import to_datetime
from ...records import Progress
from ..journal import (
    Entry,
    Event,
    JournalEnd,
    JournalPage,
    JournalQuery,
    LogLine,
    LogPage,
    Place,
    cursor_of,
)
from .transaction import STATEMENTS, from_json, to_json

ROWS_MAX = 500
"""Rows of the journal that one read looks at, so that it never holds the others up for long."""


def journal_end(connection: sqlite3.Connection) -> JournalEnd:
    """Where the next event will stand, and how far the beginning is gone."""
    last, pruned = connection.execute(STATEMENTS["journal_end"]).fetchone()
    return JournalEnd(Place(max(last, pruned) + 1), pruned)


def place_at(connection: sqlite3.Connection, instant: int) -> Place:
    """Before the first event of that instant or later: found by halving, there is no index."""
    end, pruned = journal_end(connection)
    low, high = pruned + 1, end.position
    while low < high:
        middle = (low + high) // 2
        # Positions have gaps where early events were pruned.
        row = connection.execute(STATEMENTS["journal_time"], (middle, high)).fetchone()
        if row is None or row[1] >= instant:
            high = middle
        else:
            low = row[0] + 1
    return Place(low)


def read_journal(
    connection: sqlite3.Connection, database_id: str, what: JournalQuery
) -> JournalPage:
    """The next events that pass, with the names of their jobs."""
    after = what.after
    rows = connection.execute(STATEMENTS["journal_from"], (after.position, ROWS_MAX)).fetchall()
    # After the rows: what is pruned between the two reads makes the cursor too old, never a gap.
    pruned = connection.execute(STATEMENTS["journal_end"]).fetchone()[1]
    found: list[Any] = []
    following, complete = after, len(rows) < ROWS_MAX
    for row in rows:
        start = after.offset if row[0] == after.position else 0
        following = _read_row(row, start, what, found)
        if len(found) >= what.most:
            complete = False
            break
    names = _names(connection, (fence[5] for fence in found))
    entries = [
        _entry(database_id, fence, names[fence[5]])
        for fence in found
        # A job that an older version deleted has no name any more.
        if fence[5] in names and what.task in (None, names[fence[5]][1])
    ]
    return JournalPage(entries, following, complete, pruned)


def read_log(
    connection: sqlite3.Connection, job_id: str, after: tuple[int, int], limit: int
) -> LogPage:
    """Lines of a job's log, oldest first."""
    rows = connection.execute(STATEMENTS["lines"], (job_id, *after, limit)).fetchall()
    dropped = connection.execute(STATEMENTS["dropped_lines"], (job_id,)).fetchone()
    lines = [
        LogLine(at=to_datetime(at), level=level, logger=logger, text=text, attempt=attempt)
        for _, _, at, level, logger, text, attempt in rows
    ]
    claim, number = rows[-1][:2] if rows else after
    return LogPage(lines, f"{claim}-{number}", dropped[0] if dropped else 0)


def _read_row(row: Any, start: int, what: JournalQuery, found: list[Any]) -> Place:
    """Add a row's events that pass, up to the limit; where to read on."""
    position, at, kind, jobs, detail = row
    if what.kinds is not None and kind not in what.kinds:
        return Place(position + 1)
    fences = from_json(jobs)
    details = from_json(detail) if detail else None
    last = len(fences) // 2 - 1
    happened_at = to_datetime(at)
    for offset in range(start, last + 1):
        seq = fences[2 * offset]
        if what.seqs is not None and seq not in what.seqs:
            continue
        following = Place(position, offset + 1) if offset < last else Place(position + 1)
        more = details[offset] if details else None
        fence = (Place(position, offset), following, happened_at, kind, more, seq,
                 fences[2 * offset + 1])  # fmt: skip
        found.append(fence)
        if len(found) >= what.most:
            return following
    return Place(position + 1)


def _names(connection: sqlite3.Connection, seqs: Iterable[int]) -> dict[int, tuple[str, str, str]]:
    wanted = to_json(list(set(seqs))).decode()
    if wanted == "[]":
        return {}
    rows = connection.execute(STATEMENTS["names"], (wanted, wanted)).fetchall()
    return {seq: tuple(names) for seq, *names in rows}


def _entry(database_id: str, fence: Any, names: tuple[str, str, str]) -> Entry:
    place, following, at, kind, more, seq, claim = fence
    progress = None
    if kind == "progress" and more:
        progress = Progress(done=more[0], total=more[1], note=more[2], at=at)
    event = Event(
        cursor=cursor_of(database_id, following), at=at, kind=kind, job_id=names[0], task=names[1],
        queue=names[2], seq=seq, claim=claim, progress=progress,
    )  # fmt: skip
    return Entry(place, following, event)
