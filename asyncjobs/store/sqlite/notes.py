"""What runs say of themselves while they go on, and how long the journal remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...records import LogEntry, Note
from ...rules.limits import LOG_BYTES_MAX, LOG_LINES_MAX
from ...states import Event
from ..base import Prune
from ..journal import Acknowledge, Annotate, FindEnd, Place
from .transaction import Transaction, to_json

NAMES_A_ROW = 5
"""Names of deleted jobs that go as fast as one row of other kinds."""


def annotate(tx: Transaction, operation: Annotate) -> None:
    """Write the notes of runs that go on."""
    write_notes(tx, operation.instance, operation.notes)


def find_end(tx: Transaction, operation: FindEnd) -> Place:
    """Where the journal ends, before the rows of this transaction, which are written last."""
    ((last, pruned),) = tx.fetch("journal_end")
    return Place(max(last, pruned) + 1)


def acknowledge(tx: Transaction, operation: Acknowledge) -> None:
    """How far a subscriber has got."""
    tx.fetch("acknowledge", operation.name, *operation.place, tx.now, operation.move)


def write_notes(tx: Transaction, instance: str, notes: Sequence[Note]) -> None:
    """Write what is newer than what is there, each under its run's fence."""
    values: list[Any] = []
    for note in notes:
        if note.progress is not None:
            values += (note.seq, note.claim, tx.now, *note.progress)
    for seq, claim, *value in tx.write_rows("write_progress", values, instance):
        tx.note(Event.PROGRESS, (seq, claim), [value])
    with_lines = [note for note in notes if note.lines]
    if with_lines:
        _write_logs(tx, instance, with_lines)


class _Log(NamedTuple):
    """What is known of a job's log."""

    claim: int = 0
    last: int = 0
    """The number of the last line of that run."""
    lines: int = 0
    bytes: int = 0
    dropped: int = 0

    def plus(self, claim: int, lines: Sequence[LogEntry]) -> _Log:
        """With more lines of the newest run."""
        last = self.last if claim == self.claim else 0
        missing = lines[-1].number - last - len(lines)
        size = sum(line.size for line in lines)
        return _Log(claim, lines[-1].number, self.lines + len(lines), self.bytes + size,
                    self.dropped + missing)  # fmt: skip


def _write_logs(tx: Transaction, instance: str, notes: Sequence[Note]) -> None:
    seqs = to_json([note.seq for note in notes]).decode()
    running = dict(tx.fetch("still_running", seqs, instance))
    logs = {seq: _Log(*log) for seq, *log in tx.fetch("log_totals", seqs)}
    values: list[Any] = []
    for note in notes:
        if running.get(note.seq) != note.claim:
            continue
        log = logs.get(note.seq, _Log())
        last = log.last if log.claim == note.claim else 0
        lines = [line for line in note.lines if line.number > last]
        if not lines:
            continue
        for line in lines:
            values += (note.seq, note.claim, line.number, note.attempt, line.at, line.level,
                       line.logger, line.text, line.size)  # fmt: skip
        logs[note.seq] = log.plus(note.claim, lines)
        tx.note(Event.LOGGED, (note.seq, note.claim))
    tx.write_rows("insert_lines", values)
    changed = dict.fromkeys(values[::9])
    totals = [value for seq in changed for value in (seq, *_trim(tx, seq, logs[seq]))]
    tx.write_rows("set_log_totals", totals)


def _trim(tx: Transaction, seq: int, log: _Log) -> _Log:
    """Drop the oldest lines beyond the limits."""
    if log.lines <= LOG_LINES_MAX and log.bytes <= LOG_BYTES_MAX:
        return log
    lines, size = log.lines, log.bytes
    for claim, number, bytes_ in tx.fetch("line_sizes", seq):
        lines, size = lines - 1, size - bytes_
        if lines <= LOG_LINES_MAX and size <= LOG_BYTES_MAX:
            tx.fetch("trim_lines", seq, claim, number)
            break
    return log._replace(lines=lines, bytes=size, dropped=log.dropped + log.lines - lines)


def delete_notes(tx: Transaction, seqs: str) -> None:
    """Delete what jobs said, given their seqs as JSON."""
    for statement in ("delete_progress", "delete_logs", "delete_log_totals"):
        tx.fetch(statement, seqs)


def prune_journal(tx: Transaction, operation: Prune, limit: int) -> int:
    """Forget events past their time, and the names that only they needed; how many rows."""
    passing = len(tx.fetch("prune_passing", operation.passing_before, limit))
    pruned = tx.fetch("prune_journal", limit - passing, operation.journal_before)
    if pruned:
        tx.fetch("note_pruned", max(position for (position,) in pruned))
    # Thousands of jobs may go in a second, and with them their names when their time is over.
    room = limit - passing - len(pruned)
    gone = tx.fetch("prune_gone", operation.journal_before, room * NAMES_A_ROW) if room else []
    return passing + len(pruned) + len(gone) // NAMES_A_ROW
