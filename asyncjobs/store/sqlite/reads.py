"""What is asked of the database without changing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from ...clock import to_datetime
from ...records import (
    UNIQUE,
    Attempt,
    ErrorRecord,
    Job,
    Outcome,
    Progress,
    derived_state,
    optional_datetime,
    tags_from_json,
)
from ...states import FINISHED, Event, State
from .transaction import STATEMENTS, from_json, to_json

_COLUMNS = (
    *("seq", "id", "task", "queue", "state", "reason", "priority", "run_at", "created_at"),
    *("started_at", "finished_at", "instance", "claim", "attempt", "crashes", "snoozes"),
    *("max_crashes", "key", "trigger", "tags", "cancel_reason", "expires_at", "fingerprint"),
)
_LISTED = ", ".join(f"j.{column}" for column in _COLUMNS)


def outcomes(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Outcome | None]:
    """Per id that exists: how it ended, ``None`` while it has not."""
    found: dict[str, Outcome | None] = {}
    for row in connection.execute(STATEMENTS["outcomes"], (to_json(list(ids)).decode(),)):
        job_id, task, state, reason, result, *error = row
        found[job_id] = None
        if state in FINISHED:
            record = ErrorRecord(*error) if error[0] is not None else None
            found[job_id] = Outcome(task, State(state), reason, result, record)
    return found


def jobs(connection: sqlite3.Connection, seqs: Sequence[int], now: int) -> list[Job]:
    """The jobs for a listing, in the order given."""
    query = STATEMENTS["list"].replace("{columns}", _LISTED)
    found = {row[0]: _job(row, now) for row in connection.execute(query, (to_json(seqs).decode(),))}
    return [found[seq] for seq in seqs]


def get(connection: sqlite3.Connection, job_id: str, now: int) -> Job | None:
    """One job with arguments, result and last error."""
    return _one(connection, STATEMENTS["get"], job_id, now)


def glance(connection: sqlite3.Connection, job_id: str, now: int) -> Job | None:
    """One job without what may be long; as its result only the record of a file."""
    return _one(connection, STATEMENTS["glance"], job_id, now)


def _one(connection: sqlite3.Connection, statement: str, job_id: str, now: int) -> Job | None:
    query = statement.replace("{columns}", _LISTED)
    row = connection.execute(query, (job_id,)).fetchone()
    return None if row is None else _job(row, now)


def ids_from(connection: sqlite3.Connection, beginning: str, limit: int) -> list[str]:
    """The first ids that begin so, in order: the very id comes first."""
    rows = connection.execute(STATEMENTS["ids_from"], (beginning, limit))
    return [job_id for (job_id,) in rows]


def standing_of(connection: sqlite3.Connection, job_id: str) -> str | None:
    """The state of a job's row."""
    row = connection.execute(STATEMENTS["state_of"], (job_id,)).fetchone()
    return None if row is None else str(row[0])


def database_id(connection: sqlite3.Connection) -> str:
    """What no other database has: cursors name it."""
    return str(connection.execute(STATEMENTS["database_id"]).fetchone()[0])


def attempts(connection: sqlite3.Connection, job_id: str) -> list[Attempt]:
    """The recorded runs, and the one that the job's own row tells."""
    runs = [
        Attempt(
            number=row[0],
            claim=row[1],
            event=Event(row[2]),
            reason=row[3],
            instance=row[4],
            started_at=to_datetime(row[5]),
            finished_at=to_datetime(row[6]),
            cpu_seconds=row[7],
            peak_rss=row[8],
            output=row[9],
            loop_blocks=row[10],
            error=ErrorRecord(*row[11:]),
        )
        for row in connection.execute(STATEMENTS["attempts"], (job_id,))
    ]
    own = connection.execute(STATEMENTS["own_attempt"], (job_id,)).fetchone()
    if own is not None and all(run.claim != own[1] for run in runs):
        number, claim, state, reason, instance, started_at, finished_at, *used = own
        cpu_seconds, peak_rss, output, loop_blocks = used
        event = None if state == State.RUNNING else Event(state)
        runs.append(
            Attempt(
                number=number,
                claim=claim,
                event=event,
                reason=reason,
                instance=instance,
                started_at=to_datetime(started_at),
                finished_at=optional_datetime(finished_at),
                cpu_seconds=cpu_seconds,
                peak_rss=peak_rss,
                output=output,
                loop_blocks=loop_blocks,
            )
        )
    return runs


def _progress(done: Any, total: Any, note: str | None, at: int | None) -> Progress | None:
    if at is None:
        return None
    return Progress(done=done, total=total, note=note, at=to_datetime(at))


def _job(row: Sequence[Any], now: int) -> Job:
    columns: dict[str, Any] = dict(zip(_COLUMNS, row, strict=False))
    arguments, meta, result, *rest = row[len(_COLUMNS) :]
    error, progress = rest[:4], rest[4:]
    state = State(columns["state"])
    status = derived_state(state, attempt=columns["attempt"], run_at=columns["run_at"], now=now)
    if (columns["key"] or "").startswith(UNIQUE):
        columns["key"] = None  # a digest, which says nothing to anybody
    columns.update(
        state=state,
        status=status,
        run_at=to_datetime(columns["run_at"]),
        created_at=to_datetime(columns["created_at"]),
        started_at=optional_datetime(columns["started_at"]),
        finished_at=optional_datetime(columns["finished_at"]),
        expires_at=optional_datetime(columns["expires_at"]),
        tags=tags_from_json(columns["tags"]),
        arguments=None if arguments is None else from_json(arguments),
        meta=from_json(meta) if meta else {},
        result=None if result is None else from_json(result),
        error=ErrorRecord(*error) if error[0] else None,
        progress=_progress(*progress),
    )
    return Job(**columns)
