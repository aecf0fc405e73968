"""Jobs whose task says how long they stay."""

from __future__ import annotations

import sqlite3

from ...states import Event
from ..retention import PruneRetained, Retain, Rule, Shorten
from .transaction import STATEMENTS, Transaction, to_json
from .writes import delete_rows


def retain(tx: Transaction, operation: Retain) -> None:
    """Note rules of tasks, in place of those that they had."""
    tx.fetch("drop_rules", to_json(list(operation.tasks)).decode())
    tx.write_rows("add_rules", [value for rule in operation.rules for value in rule])


def prune_retained(tx: Transaction, operation: PruneRetained) -> int:
    """Delete the oldest up to a place."""
    rows = tx.fetch(
        "prunable_retained", operation.task, operation.state, *operation.until, operation.limit,
        tx.now,
    )  # fmt: skip
    delete_rows(tx, [seq for (seq,) in rows], Event.PRUNED)
    return len(rows)


def shorten(tx: Transaction, operation: Shorten) -> int:
    """Give pages back that hold nothing; none of a file that had others' tables before ours."""
    ((before, free),) = tx.fetch("pages")
    for _ in range(min(before - operation.pages, free, operation.limit)):
        tx.fetch("give_page_back")
    ((after, _),) = tx.fetch("pages")
    shorter: int = before - after
    return shorter


def used_pages(connection: sqlite3.Connection, now: int) -> int:
    """How many pages hold something."""
    pages, free = connection.execute(STATEMENTS["pages"]).fetchone()
    used: int = pages - free
    return used


def rules(connection: sqlite3.Connection) -> list[Rule]:
    """Every rule."""
    return [Rule._make(row) for row in connection.execute(STATEMENTS["rules"])]


def edge_of(connection: sqlite3.Connection, rule: Rule) -> tuple[int, int] | None:
    """Where those begin that the newest of a rule leave behind."""
    values = (rule.task, rule.state, rule.newest)
    edge: tuple[int, int] | None = connection.execute(STATEMENTS["edge_of"], values).fetchone()
    return edge


def first_prunable(
    connection: sqlite3.Connection, state: str, since: tuple[int, int], before: int, now: int
) -> tuple[int, int] | None:
    """Where the first job stands that no rule speaks of, and no window or stopped key keeps."""
    values = (state, *since, before, now)
    place: tuple[int, int] | None = connection.execute(
        STATEMENTS["first_prunable"], values
    ).fetchone()
    return place
