"""What people do to jobs, noted in the audit; and bulk changes, a slice a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from ..base import ByHand, ByHandResult, Cancel, CancelResult, Delete, Requeue
from ..filters import still_passing
from . import writes
from .transaction import STATEMENTS, Transaction, to_json

# The word for the audit, and the answers that mean that something was changed.
_CHANGES: dict[type, tuple[str, frozenset[str]]] = {
    Requeue: ("retry", frozenset({"requeued"})),
    Cancel: ("cancel", frozenset({"cancelled", "requested"})),
    Delete: ("delete", frozenset({"deleted"})),
}


def by_hand(tx: Transaction, operation: ByHand) -> ByHandResult:
    """Make the change, and note who made it."""
    change, note = operation.change, operation.note
    if operation.what is not None:
        change = replace(change, ids=_still_passing(tx, operation))
    answers = writes.WRITES[type(change)](tx, change)
    action, successes = _CHANGES[type(change)]
    changed = sum(_word(answer) in successes for answer in answers)
    if note is not None and (changed or operation.what is not None):
        matched = len(operation.seqs) if operation.what is not None else len(change.ids)
        tx.fetch("add_audit", note.id, tx.now, note.actor, action, note.what, matched, changed)
    return ByHandResult(change.ids, answers, changed)


def _word(answer: str | CancelResult) -> str:
    return answer.outcome if isinstance(answer, CancelResult) else answer


def _still_passing(tx: Transaction, operation: ByHand) -> Sequence[str]:
    """Ids of the jobs that still pass the filter: some may have changed since they were found."""
    assert operation.what is not None
    where, values = still_passing(operation.what, tx.now)
    query = STATEMENTS["still_passing"].replace("{where}", where)
    return [job_id for (job_id,) in tx.select(query, to_json(operation.seqs).decode(), *values)]


WRITES: dict[type, Callable[[Transaction, Any], Any]] = {**writes.WRITES, ByHand: by_hand}
