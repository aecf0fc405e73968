"""``registry.check()``: every invariant as a query, the journal replayed, the file's integrity."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...states import MOVES, Event
from ..base import Violation
from ..statements import Statements
from .transaction import STATEMENTS, from_json

EXAMPLES_MAX = 5
INTACT = "SQLite finds the file intact"
"""The rule that a damaged file breaks, before all others."""

_CHECKS = Statements(Path(__file__).with_name("check.sql"))


def violations(connection: sqlite3.Connection) -> list[Violation]:
    """What does not hold, all seen at one instant; an empty list when all is well."""
    connection.execute("BEGIN")
    try:
        if found := damage(connection):
            # What a damaged file answers to other questions means nothing, if it answers at all.
            return found
        found = [
            Violation(_CHECKS.purpose[name], [str(row[0]) for row in rows])
            for name, text in _CHECKS.text.items()
            if (rows := connection.execute(text).fetchall())
        ]
        return found + _replay(connection)
    finally:
        connection.execute("COMMIT")


def damage(connection: sqlite3.Connection) -> list[Violation]:
    """What SQLite itself finds wrong with the file, whatever is in it."""
    rows = connection.execute("PRAGMA integrity_check(5)").fetchall()
    if rows == [("ok",)]:
        return []
    return [Violation(INTACT, [str(row[0]) for row in rows])]


def settings(connection: sqlite3.Connection) -> dict[str, int]:
    """The settings that are the file's own."""
    return {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("auto_vacuum", "page_size", "page_count")
    }


def _replay(connection: sqlite3.Connection) -> list[Violation]:
    """Replay the journal: only legal moves, fences rise, and it ends where the table stands."""
    illegal: list[str] = []
    falling: list[str] = []
    seen: dict[int, tuple[str | None, int]] = {}
    whole = connection.execute(STATEMENTS["first_position"]).fetchone()[0] == 1
    for kind, jobs in connection.execute(STATEMENTS["journal"]):
        legal_from, state = MOVES[Event(kind)]
        fences = from_json(jobs)
        for seq, claim in zip(fences[::2], fences[1::2], strict=True):
            before = seen.get(seq)
            if before is None:
                # A job whose beginning was pruned may start anywhere.
                if whole and kind != Event.ENQUEUED:
                    illegal.append(f"{seq}: {kind} without a beginning")
            else:
                if before[0] not in legal_from:
                    illegal.append(f"{seq}: {kind} in state {before[0]}")
                if claim < before[1] or (kind == Event.CLAIMED and claim == before[1]):
                    falling.append(f"{seq}: {kind} with claim {claim} after {before[1]}")
            seen[seq] = (state.value if state else None, claim)
    wrong = [
        f"{seq}: the journal says {seen[seq][0]} {seen[seq][1]}, the table {state} {claim}"
        for seq, state, claim in connection.execute(STATEMENTS["fences"])
        if seq in seen and seen[seq] != (state, claim)
    ]
    rules = {
        "the journal has only legal moves": illegal,
        "a job's fence only rises": falling,
        "the journal replays to the table": wrong,
    }
    return [Violation(rule, places[:EXAMPLES_MAX]) for rule, places in rules.items() if places]
