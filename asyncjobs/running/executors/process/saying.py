"""What a job in a worker says of itself, and how that becomes known to its host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from ....records import Note
from ...context import Run
from ...joblog import facts_of, job_log
from .wire import Log, Message, Said

SAY_SECONDS = 0.05
"""After a message of a worker, until it may say one more."""
SAY_AHEAD = 8
"""Messages that go at once: who says little before its death is heard to the last word."""

Undisturbed = Callable[[], AbstractContextManager[None]]


class RemoteNotePad:
    """The host's notepad inside a worker: the first words go at once, the next ones together.

    The host says when it wants to hear more, so that nobody here needs a timer: a plain function
    has no event loop to keep one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._run: Run | None = None
        self._ahead = SAY_AHEAD

    def connect(
        self,
        send: Callable[[Message], None],
        undisturbed: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Speak through ``send``, and let nothing be raised from outside meanwhile."""
        self._send = send
        self._undisturbed = undisturbed

    def jot(self, run: Run) -> None:
        """The run has something to say. From any thread."""
        with self._undisturbed(), self._lock:
            if not run.ended:
                self._run = run
                if self._ahead > 0:
                    self._say(run)

    def go_on(self) -> None:
        """The host has heard, and wants to hear more."""
        with self._lock:
            self._ahead += 1
            run = self._run
            if run is not None and run.notes is not None and run.notes.dirty:
                self._say(run)

    def last_words(self, run: Run) -> None:
        """Say what is left: the run's outcome comes next."""
        with self._lock:
            run.ended = True
            self._run = None
            self._say(run)

    def _say(self, run: Run) -> None:
        note = run.collect_notes()
        if note is not None and run.notes is not None:
            self._ahead -= 1
            self._send(Said(note))
            run.notes.written(note)


def hear(run: Run, note: Note) -> None:
    """Take over what the job of this run has said in its worker."""
    if run.given_up:
        return
    notes = run.notes or run.start_notes()
    notes.hear(note)
    if not notes.dirty:
        notes.dirty = True
        run.host.notepad.jot(run)


def log_again(run: Run, message: Log) -> None:
    """Hand a record of ``current_job().logger`` on to the application's own logging."""
    record = job_log.makeRecord(
        job_log.name, message.level, "(worker)", 0, message.text, (), None, extra=facts_of(run)
    )
    record.created = message.created
    record.exc_text = message.trace
    # Not in the context of whatever job happened to be running when the worker was made: the line
    # would be kept with that one. Kept with its own job it is by what the worker says.
    run.host.context.copy().run(job_log.handle, record)
