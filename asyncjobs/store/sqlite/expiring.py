"""Cancels jobs that nobody started in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Outcome
from ...states import Event, State
from ..expiry import Expire
from .admitting import leave_waiting
from .following import Ended, follow_up
from .transaction import Transaction, to_json

REASON = "expired"


def expire(tx: Transaction, operation: Expire) -> list[tuple[str, Outcome]]:
    """Cancel those whose time is over, the first of them first."""
    return _end(tx, tx.fetch("expirable", tx.now, operation.limit))


def expire_those(tx: Transaction, seqs: Sequence[int]) -> list[tuple[str, Outcome]]:
    """Cancel jobs that a claim has found to be too late."""
    if not seqs:
        return []
    return _end(tx, tx.fetch("waiting_of", to_json(seqs).decode()))


def _end(tx: Transaction, rows: Sequence[Any]) -> list[tuple[str, Outcome]]:
    if not rows:
        return []
    tx.fetch("expire", tx.now, to_json([row[0] for row in rows]).decode())
    for seq, _, claimed, queue, task, state in rows:
        tx.count_move(queue, task, state, State.CANCELLED.value)
        tx.note(Event.CANCELLED, (seq, claimed))
    follow_up(tx, {row[0]: Ended() for row in rows})
    leave_waiting(tx, [row[0] for row in rows])
    return [(job_id, Outcome(task, State.CANCELLED, REASON)) for _, job_id, _, _, task, _ in rows]
