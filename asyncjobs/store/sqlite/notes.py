"""What runs say of themselves while they go on, and how long the journal remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Note
from ...states import Event
from ..base import Annotate, Prune
from .transaction import Transaction


def annotate(tx: Transaction, operation: Annotate) -> None:
    """Write the notes of runs that go on."""
    write_notes(tx, operation.instance, operation.notes)


def write_notes(tx: Transaction, instance: str, notes: Sequence[Note]) -> None:
    """Write what is newer than what is there, each under its run's fence."""
    values: list[Any] = []
    for note in notes:
        if note.progress is not None:
            values += (note.seq, note.claim, tx.now, *note.progress)
    for seq, claim, *value in tx.write_rows("write_progress", values, instance):
        tx.note(Event.PROGRESS, (seq, claim), [value])


def prune_journal(tx: Transaction, operation: Prune, limit: int) -> int:
    """Forget events past their time, and the names that only they needed; how many events."""
    passing = len(tx.fetch("prune_passing", operation.passing_before, limit))
    pruned = tx.fetch("prune_journal", limit - passing, operation.journal_before)
    if pruned:
        tx.fetch("note_pruned", max(position for (position,) in pruned))
    tx.fetch("prune_gone", operation.journal_before)
    return passing + len(pruned)
