"""The log of a job: its logger, and how a record becomes a line of its notes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import JobSignal
from ..rules.limits import LOG_LINE_MAX, NAME_MAX, storable

if TYPE_CHECKING:
    from .context import Run

job_log = logging.getLogger("asyncjobs.job")
_formatter = logging.Formatter()


def facts_of(run: Run) -> Mapping[str, Any]:
    """What every record of a job carries."""
    job = run.job
    return {"job_id": job.id, "task": job.task, "attempt": job.attempt}


def keep(run: Run, record: logging.LogRecord) -> None:
    """Add the record to the run's notes, while it has a say."""
    if run.ended or run.given_up:
        return
    notes = run.notes or run.start_notes()
    notes.add_line(
        run.host.now(),
        storable(str(record.levelname), NAME_MAX),
        storable(str(record.name), NAME_MAX),
        _text_of(record),
    )
    if not notes.dirty:
        notes.dirty = True
        run.host.notepad.jot(run)


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """``current_job().logger``: also keeps with the job what the application's levels hold back."""

    def __init__(self, run: Run) -> None:
        super().__init__(job_log, facts_of(run))
        self._run = run

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Whether somebody wants to have it: the job, or the application."""
        return level >= self._run.task.log_level or self.logger.isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As ``Logger.log``."""
        if self.logger.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            super().log(level, msg, *args, **kwargs)
        elif level >= self._run.task.log_level:
            error = kwargs.get("exc_info")
            if isinstance(error, BaseException):
                error = (type(error), error, error.__traceback__)
            elif error and not isinstance(error, tuple):
                error = sys.exc_info()
            record = logging.LogRecord(
                self.logger.name, level, "", 0, msg, args, error or None
            )  # fmt: skip
            keep(self._run, record)


def _text_of(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except JobSignal:  # a worker's job is told to stop wherever it is
        raise
    except Exception:  # arguments that do not fit, or a user's __str__
        text = f"{record.msg!s:.500} <its arguments do not fit>" if isinstance(
            record.msg, str
        ) else "<a message that cannot be formatted>"  # fmt: skip
    if record.exc_info:
        text = f"{text}\n{record.exc_text or _formatter.formatException(record.exc_info)}"
    if record.stack_info:
        text = f"{text}\n{record.stack_info}"
    return storable(text, LOG_LINE_MAX)
