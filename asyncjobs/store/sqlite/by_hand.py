"""What people do to jobs, noted in the audit; and bulk changes, a slice a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from ..base import Answer, ByHand, ByHandResult, Cancel, Change, Delete, Requeue, Slice
from ..filters import still_passing
from ..overview import AuditNote
from . import writes
from .transaction import STATEMENTS, Transaction, to_json

# The word for the audit, what makes the change, and the answers that mean that it was made.
_CHANGES: dict[type, tuple[str, Callable[[Transaction, Any], list[Answer]], set[str]]] = {
    Requeue: ("retry", writes.requeue, {"requeued"}),
    Cancel: ("cancel", writes.cancel, {"cancelled", "requested"}),
    Delete: ("delete", writes.delete, {"deleted"}),
}


def by_hand(tx: Transaction, operation: ByHand) -> ByHandResult:
    """Change named jobs, and note who did it unless nothing was changed."""
    change, note = operation.change, operation.note
    result = _make(tx, change)
    if note is not None and result.changed:
        _add_note(tx, note, change, len(change.ids), result.changed)
    return result


def slice_of_bulk(tx: Transaction, operation: Slice) -> ByHandResult:
    """Change the jobs of a slice, and add to what is noted of the whole."""
    start = time.perf_counter()
    change = replace(operation.change, ids=_still_passing(tx, operation))
    result = _make(tx, change)
    _add_note(tx, operation.note, change, len(operation.seqs), result.changed)
    return result._replace(seconds=time.perf_counter() - start)


def _make(tx: Transaction, change: Change) -> ByHandResult:
    _, make, successes = _CHANGES[type(change)]
    answers = make(tx, change)
    changed = sum(answer.outcome in successes for answer in answers)
    return ByHandResult(change.ids, answers, changed)


def _add_note(tx: Transaction, note: AuditNote, change: Change, matched: int, changed: int) -> None:
    action, *_ = _CHANGES[type(change)]
    tx.fetch("add_audit", note.id, tx.now, note.actor, action, note.what, matched, changed)


def _still_passing(tx: Transaction, operation: Slice) -> Sequence[str]:
    """Ids of the jobs that still pass the filter: some may have changed since they were found."""
    where, values = still_passing(operation.what, tx.now)
    query = STATEMENTS["still_passing"].replace("{where}", where)
    return [job_id for (job_id,) in tx.select(query, to_json(operation.seqs).decode(), *values)]
