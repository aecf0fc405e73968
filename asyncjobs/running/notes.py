"""What a run says of itself, kept until it is on disk."""

from __future__ import annotations

import threading
from collections import deque

from ..errors import InvalidOption
from ..records import LogEntry, Note, ProgressValue
from ..rules.limits import LOG_BYTES_MAX, LOG_LINES_MAX, NOTE_MAX, check_amount

Said = tuple["int | float", "int | float | None", "str | None"]


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
        self._lock = threading.Lock()
        self._lines: deque[LogEntry] = deque()
        self._last = 0
        self._heard = 0
        self._bytes = 0

    def add_line(self, at: int, level: str, logger: str, text: str) -> None:
        """One more line of the log; beyond the limits the oldest go."""
        with self._lock:
            self._last += 1
            self._keep(LogEntry(self._last, at, level, logger, text))

    def hear(self, note: Note) -> None:
        """What the run has said in another process, whose numbers tell what it has dropped."""
        if note.progress is not None:
            self.progress = (note.progress.done, note.progress.total, note.progress.note)
        with self._lock:
            for line in note.lines:
                if line.number > self._heard:
                    self._last += line.number - self._heard
                    self._heard = line.number
                    self._keep(line._replace(number=self._last))

    def _keep(self, line: LogEntry) -> None:
        self._lines.append(line)
        self._bytes += line.size
        while len(self._lines) > LOG_LINES_MAX or self._bytes > LOG_BYTES_MAX:
            self._bytes -= self._lines.popleft().size

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
                lines = tuple(self._lines)
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
                    self._bytes -= self._lines.popleft().size


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
