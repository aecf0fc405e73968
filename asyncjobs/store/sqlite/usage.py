"""What runs have used, where that can be told, in a table aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Transition
from ...rules.limits import ATTEMPT_ROWS_MAX
from .transaction import Transaction


def note_usage(tx: Transaction, transitions: Sequence[Transition]) -> None:
    """Keep what runs have used; most have nothing to say."""
    values: list[Any] = []
    for t in transitions:
        usage = t.usage
        if usage is not None:
            values += (t.seq, t.claim, usage.cpu_seconds, usage.peak_rss, usage.output,
                       usage.loop_blocks)  # fmt: skip
            if t.claim > ATTEMPT_ROWS_MAX:
                tx.fetch("trim_usage", t.seq, t.claim - ATTEMPT_ROWS_MAX)
    tx.write_rows("insert_usage", values)
