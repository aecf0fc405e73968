"""All that is known of one job, drawn as text."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from ..records import Attempt, Job
from ..rules.explaining import Explanation
from ..rules.files import FileRecord
from ..store.journal import Event, LogPage
from .ls import said
from .screen import Screen, clean
from .times import amount, size, took, when, when_exactly


class Timeline(Struct, frozen=True):
    """What happened to a job."""

    events: list[Event]
    complete: bool
    """False when the search was given up on the way."""


class Whole(Struct, frozen=True):
    """All that is known of a job, as of one instant."""

    job: Job
    attempts: list[Attempt]
    timeline: Timeline
    log: LogPage
    file: FileRecord | None
    """What it returned, if that was a file."""
    why: Explanation | None
    """Why it is not finished."""


def draw(screen: Screen, whole: Whole, path: str | None) -> None:
    """Print it, part by part; ``path`` is where the file that it returned is kept."""
    job = whole.job
    screen.fields(_fields(job))
    if whole.why is not None:
        screen.title("why")
        screen.text(clean(whole.why.sentence))
    _draw_value(screen, "arguments", job.arguments or None)
    _draw_value(screen, "meta", job.meta or None)
    if whole.file is not None:
        screen.title("result")
        file = whole.file
        screen.text(f"{clean(file.name)}, {clean(file.media_type)}, {size(file.size)}: {path}")
    else:
        _draw_value(screen, "result", job.result)
    _draw_error(screen, job)
    _draw_attempts(screen, whole.attempts)
    _draw_timeline(screen, whole.timeline)
    _draw_log(screen, whole.log)


def _fields(job: Job) -> dict[str, str]:
    state = job.status if job.reason is None else f"{job.status} ({job.reason})"
    counted = f"{job.attempt}, {job.crashes} of {job.max_crashes} crashes, {job.snoozes} snoozes"
    progress = job.progress
    fields = {
        "job": job.id,
        "task": job.task,
        "status": state,
        "queue": f"{job.queue}, priority {job.priority}",
        "created": when(job.created_at),
        "due": "" if job.started_at else when(job.run_at),
        "started": when(job.started_at),
        "finished": when(job.finished_at),
        "took": took(job.duration),
        "attempt": counted,
        "progress": "" if progress is None else said(progress.done, progress.total, progress.note),
        "cancelled": job.cancel_reason or "",
        "expires": when(job.expires_at),
        "failure": job.fingerprint or "",
        "key": job.key or "",
        "trigger": job.trigger,
        "tags": ", ".join(job.tags),
        "instance": job.instance or "",
    }
    return {name: value for name, value in fields.items() if value}


def _draw_value(screen: Screen, name: str, value: Any) -> None:
    if value is not None:
        screen.title(name)
        screen.text(json.dumps(value, ensure_ascii=False, indent=2))


def _draw_error(screen: Screen, job: Job) -> None:
    error = job.error
    if error is None:
        return
    screen.title("error" if job.state == "failed" else "last error")
    screen.text(error.traceback.rstrip() or f"{error.type}: {error.message}")


def _draw_attempts(screen: Screen, attempts: list[Attempt]) -> None:
    if not attempts:
        return
    screen.title("attempts")
    screen.table(
        ("NUMBER", "STARTED", "TOOK", "END", "REASON", "CPU", "MEMORY", "ERROR"),
        [_attempt_row(attempt) for attempt in attempts],
    )
    for attempt in attempts:
        if attempt.output:
            screen.title(f"output of attempt {attempt.number}, claim {attempt.claim}")
            screen.text(attempt.output.rstrip("\n"))


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    ended = attempt.finished_at
    return (
        str(attempt.number),
        when_exactly(attempt.started_at),
        "" if ended is None else took(ended - attempt.started_at),
        "" if attempt.event is None else attempt.event.value,
        attempt.reason or "",
        "" if attempt.cpu_seconds is None else amount(attempt.cpu_seconds),
        "" if attempt.peak_rss is None else size(attempt.peak_rss),
        "" if attempt.error is None else attempt.error.summary,
    )


def _draw_timeline(screen: Screen, timeline: Timeline) -> None:
    screen.title("timeline")
    before = None
    for event in timeline.events:
        since = "" if before is None else "+" + took(event.at - before)
        screen.row("", when_exactly(event.at), f"{event.kind:<9}", since)
        before = event.at
    if not timeline.complete:
        screen.text("... the journal is long: --whole-timeline searches on")
    elif not timeline.events:
        screen.text("the journal no longer holds it")


def _draw_log(screen: Screen, log: LogPage) -> None:
    if not log.lines:
        return
    dropped = f", {log.dropped:,} before them are not kept" if log.dropped else ""
    screen.title(f"log, {len(log.lines):,} lines{dropped}")
    for line in log.lines:
        first, *rest = line.text.split("\n")
        screen.row("", when_exactly(line.at), line.level, line.logger, first)
        for more in rest:
            screen.row("", "", more)
