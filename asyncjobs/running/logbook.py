"""What jobs log, kept with them: a handler on the root logger while a runner runs.

A handler and not a record factory, since a factory that puts attributes on records makes ``extra=``
of the same name an error. It stands first, so that the handlers of the application find ``job_id``,
``task`` and ``attempt`` on each record of a job. Nothing else of the application's logging changes:
what its levels and ``propagate=False`` hold back does not come here either.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from .context import current_run
from .joblog import facts_of, job_log, keep

OWN = "asyncjobs"


class JobLogHandler(logging.Handler):
    """Keeps each record that is emitted inside a job with the job."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock: the notes have their own."""
        run = current_run.get(None)
        if run is not None:
            for name, value in facts_of(run).items():
                record.__dict__.setdefault(name, value)
            # Of a record that the application has put together the name may be None.
            if record.levelno >= run.task.log_level and not _is_ours(str(record.name)):
                keep(run, record)
        root = logging.getLogger()
        if len(root.handlers) == 1:
            self._speak_for_the_last_resort(record)
        return True

    def _speak_for_the_last_resort(self, record: logging.LogRecord) -> None:
        """Where logging is not configured, warnings go to stderr: also with this handler there."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return
            logger = logger.parent if logger.propagate else None
        last = logging.lastResort
        if last is not None and record.levelno >= last.level:
            last.handle(record)


_handler = JobLogHandler()
_users = 0
_lock = threading.Lock()


@contextlib.contextmanager
def logbook(handler: logging.Handler = _handler) -> Iterator[None]:
    """Keep records while a runner runs. The last one of the process leaves all as it was.

    ``handler`` is another one in workers, where there is one logbook.
    """
    global _users
    root = logging.getLogger()
    with _lock:
        _users += 1
        if handler not in root.handlers:
            # A new list: other threads may be going through the old one.
            root.handlers = [handler, *root.handlers]
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                root.handlers = [one for one in root.handlers if one is not handler]


def _is_ours(name: str) -> bool:
    return name != job_log.name and (name == OWN or name.startswith(f"{OWN}."))
