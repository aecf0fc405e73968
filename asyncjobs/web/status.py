"""What a front end is shown of a job: never its arguments, and of an error never the traceback."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

from ..records import Job, Progress
from ..states import State

_FILE = "asyncjobs_file"


def status_of(job: Job) -> dict[str, Any]:
    """The job as plain values: ids as text, instants in ISO 8601 and UTC."""
    failed = job.error if job.state is not State.COMPLETED else None
    return {
        "id": job.id,
        "task": job.task,
        "state": job.state.value,
        "status": job.status,
        "reason": _reason(job),
        "attempt": job.attempt,
        "crashes": job.crashes,
        "created_at": _instant(job.created_at),
        "run_at": _instant(job.run_at),
        "started_at": _instant(job.started_at),
        "finished_at": _instant(job.finished_at),
        "progress": progress_of(job.progress),
        "error": None if failed is None else {"type": failed.type, "message": failed.message},
        "file": _file_of(job),
    }


def _reason(job: Job) -> str | None:
    """Why it stands there; of a cancelled job what its awaiters are told."""
    return (job.cancel_reason or job.reason) if job.state is State.CANCELLED else job.reason


def progress_of(progress: Progress | None) -> dict[str, Any] | None:
    """How far it said it is, as plain values."""
    if progress is None:
        return None
    return {
        "done": progress.done,
        "total": progress.total,
        "note": progress.note,
        "at": _instant(progress.at),
    }


def _file_of(job: Job) -> dict[str, Any] | None:
    """The file that it returned, without where it is kept."""
    if job.state is not State.COMPLETED or not isinstance(job.result, dict):
        return None
    record = job.result.get(_FILE)
    if record is None:
        return None
    return {
        "name": download_name(record["name"]),
        "media_type": record["media_type"],
        "size": record["size"],
    }


def download_name(name: str) -> str:
    """A file's name without what would only mislead, such as marks that turn its ending round."""
    return "".join("_" if unicodedata.category(one) in _MISLEADING else one for one in name)


_MISLEADING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _instant(instant: datetime | None) -> str | None:
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
