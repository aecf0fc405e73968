"""Writes what running jobs say of themselves, at most five times a second, all jobs at once.

The last word of a run does not come through here: it goes with the outcome, in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from ..records import Note
from ..rules.limits import FLUSH_BYTES_MAX, FLUSH_ROWS_MAX
from ..running.context import Run
from ..store.group_commit import GroupCommit
from ..store.journal import Annotate

WRITE_SECONDS = 0.2
"""Between two writes; the first word after a silence is written at once."""


class NotePad:
    """The runs that have something to write down, and when that is done."""

    def __init__(self, commit: GroupCommit[Run]) -> None:
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Run] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._next_at = 0.0

    def jot(self, run: Run) -> None:
        """The run has something to write down. From any thread."""
        self._waiting.append(run)
        # Not in the context of this job: what is written, and logged on the way, is of all of them.
        context = run.host.context.copy()
        with contextlib.suppress(RuntimeError):  # the loop is closed: a thread has outlived it
            self._loop.call_soon_threadsafe(self._plan, context=context)

    def close(self) -> None:
        """Write nothing more: every run has given its last word."""
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self) -> None:
        if self._timer is None and not self._writing and self._waiting:
            when = max(self._next_at, self._loop.time())
            self._timer = self._loop.call_at(when, self._write)

    def _write(self) -> None:
        self._timer = None
        self._next_at = self._loop.time() + WRITE_SECONDS
        taken: list[tuple[Run, Note]] = []
        instance = ""
        weight = 0
        while self._waiting and len(taken) < FLUSH_ROWS_MAX and weight < FLUSH_BYTES_MAX:
            run = self._waiting.popleft()
            if run.ended or run.given_up or run.notes is None:
                continue
            instance = run.host.instance
            note = run.collect_notes()
            if note is not None:
                taken.append((run, note))
                weight += note.weight
        if not taken:
            self._plan()
            return
        self._writing = True
        operation = Annotate(instance, [note for _, note in taken])
        self._commit.execute(operation).add_done_callback(lambda done: self._written(taken, done))

    def _written(self, taken: Sequence[tuple[Run, Note]], done: asyncio.Future[None]) -> None:
        self._writing = False
        failed = done.cancelled() or done.exception() is not None
        for run, note in taken:
            if run.notes is not None and not failed:
                run.notes.written(note)
            elif not run.ended:
                self._waiting.append(run)  # what it says meanwhile goes along
        self._plan()
