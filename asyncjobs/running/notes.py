"""What a run says of itself, kept until it is on disk."""

from __future__ import annotations

import threading
from collections import deque

from ..errors import InvalidOption
from ..records import LogEntry, Note, ProgressValue
from ..rules.limits import LOG_BYTES_MAX, LOG_LINES_MAX, NOTE_MAX, check_amount

Said = tuple["int | float", "int | float | None", "str | None"]


class _Line:
    """A line of the log that is not known to be on disk."""

    __slots__ = ("entry", "number", "size")

    def __init__(self, entry: LogEntry) -> None:
        self.entry = entry
        self.number = 0
        """Given with its place: until then others may come before it."""
        self.size = entry.size


class Notes:
    """The notes of one run. The job writes them, in whatever thread; the event loop collects."""

    __slots__ = (
        *("_bytes", "_collected", "_heard", "_last", "_lines", "_lock", "_number", "_written"),
        *("dirty", "progress"),
    )

    def __init__(self) -> None:
        self.dirty = False
        """True from the first word on until somebody collects: more words cost nothing."""
        self.progress: Said | None = None
        self._collected: Said | None = None
        self._number = 0
        self._written = 0
        self._lock = threading.RLock()
        self._lines: deque[_Line] = deque()
        self._last = 0
        self._heard = 0
        self._bytes = 0

    def add_line(self, at: int, level: str, logger: str, text: str) -> None:
        """One more line of the log; beyond the limits the oldest go."""
        self._keep(_Line(LogEntry(0, at, level, logger, text)), step=1)

    def hear(self, note: Note) -> None:
        """What the run has said in another process, whose numbers tell what it has dropped."""
        if note.progress is not None:
            self.progress = (note.progress.done, note.progress.total, note.progress.note)
        for entry in note.lines:
            if entry.number > self._heard:
                step, self._heard = entry.number - self._heard, entry.number
                self._keep(_Line(entry), step)

    def _keep(self, line: _Line, step: int) -> None:
        """Give the line its place. All that needs memory is made before the lock is taken.

        The garbage collector may run at any call, and what it finds may log in this very thread
        (an unclosed connection, a task that was never awaited), and so may a signal: the lock lets
        that in, and between a number and its place in the line there is no such call.
        """
        with self._lock:
            self._last += step
            line.number = self._last
            self._lines.append(line)
            self._bytes += line.size
            while len(self._lines) > LOG_LINES_MAX or self._bytes > LOG_BYTES_MAX:
                oldest = self._lines.popleft()
                self._bytes -= oldest.size

    def collect(self, seq: int, claim: int, attempt: int) -> Note | None:
        """What is not known to be on disk; ``None`` when all of it is."""
        self.dirty = False  # before the look: what comes after it makes it true again
        said = self.progress
        if said is not self._collected:
            self._collected = said
            self._number += 1
        value = None
        if said is not None and self._number != self._written:
            done, total, note = said
            value = ProgressValue(self._number, done, total, _storable(note))
        lines: tuple[LogEntry, ...] = ()
        if self._lines:
            with self._lock:
                waiting = list(self._lines)
            lines = tuple([LogEntry(line.number, *line.entry[1:]) for line in waiting])
        if value is None and not lines:
            return None
        return Note(seq, claim, attempt, value, lines)

    def written(self, note: Note) -> None:
        """This much is on disk."""
        if note.progress is not None:
            self._written = note.progress.number
        if note.lines:
            last = note.lines[-1].number
            with self._lock:
                while self._lines and self._lines[0].number <= last:
                    oldest = self._lines.popleft()
                    self._bytes -= oldest.size


def check_progress(done: object, total: object, note: object) -> Said:
    """What ``progress`` was given, in plain numbers and text.

    Raises:
        InvalidOption: naming what does not fit.
    """
    if note is not None and not isinstance(note, str):
        raise InvalidOption(f"note must be a str, got {type(note).__name__}")
    return (
        check_amount(done, "done"),
        None if total is None else check_amount(total, "total"),
        None if note is None else str.__str__(note),
    )


def _storable(note: str | None) -> str | None:
    """The note as text that SQLite takes, cut to its limit: a job does not fail for its note."""
    if note is None:
        return None
    return note[:NOTE_MAX].encode("utf-8", "backslashreplace").replace(b"\x00", b"\\x00").decode()
