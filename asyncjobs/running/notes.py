"""What a run says of itself, kept until it is on disk."""

from __future__ import annotations

from ..errors import InvalidOption
from ..records import Note, ProgressValue
from ..rules.limits import NOTE_MAX, check_amount

Said = tuple["int | float", "int | float | None", "str | None"]


class Notes:
    """The notes of one run. The job writes them, in whatever thread; the event loop collects."""

    __slots__ = ("_collected", "_number", "_written", "dirty", "progress")

    def __init__(self) -> None:
        self.dirty = False
        """True from the first word on until somebody collects: more words cost nothing."""
        self.progress: Said | None = None
        self._collected: Said | None = None
        self._number = 0
        self._written = 0

    def collect(self, seq: int, claim: int) -> Note | None:
        """What is not known to be on disk; ``None`` when all of it is."""
        self.dirty = False  # before the look: what comes after it makes it true again
        said = self.progress
        if said is not self._collected:
            self._collected = said
            self._number += 1
        if said is None or self._number == self._written:
            return None
        done, total, note = said
        return Note(seq, claim, ProgressValue(self._number, done, total, _storable(note)))

    def written(self, note: Note) -> None:
        """This much is on disk."""
        if note.progress is not None:
            self._written = note.progress.number


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
