"""Listings: a walk is chosen and taken within a budget, then the rows of the page are read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..base import Filter, Order, Page, Places
from ..filters import Branch, branches, decode_cursor, encode_cursor, in_order
from ..walks import check_bounded, choose, offered, order_of, states_of, too_long
from .reads import jobs
from .transaction import STATEMENTS, to_json

BUDGET_SECONDS = 0.15
"""CPU seconds of the connection's thread that a search may take; so another program's load does
not make a listing fail that was fast enough before."""
STEPS = 20_000
"""Steps of SQLite's machine between two looks at the clock: about 2 ms."""


def list_jobs(
    connection: sqlite3.Connection,
    what: Filter,
    now: int,
    *,
    order: Order | None,
    limit: int,
    cursor: str | None,
    scan: bool,
) -> Page:
    """One page."""
    found = places(connection, what, now, order=order, limit=limit, cursor=cursor, scan=scan)
    return Page(jobs(connection, found.seqs, now), found.cursor)


def places(
    connection: sqlite3.Connection,
    what: Filter,
    now: int,
    *,
    order: Order | None = None,
    limit: int,
    cursor: str | None,
    scan: bool,
) -> Places:
    """Where the jobs of one page stand."""
    order = order_of(what, order)
    place = () if cursor is None else decode_cursor(cursor, what, order)
    rows: list[Any] = []
    with _within_budget(connection, what, scan=scan):
        parts = _branches(connection, what, order, now, place)
        for part in parts:
            text = _fill("places", part)
            rows += connection.execute(text, (*part.values, limit + 1)).fetchall()
    if len(parts) > 1:
        rows = in_order(rows, order)
    more = len(rows) > limit
    return Places(
        [row[0] for row in rows[:limit]],
        encode_cursor(what, order, rows[limit - 1]) if more else None,
    )


def count(
    connection: sqlite3.Connection, states: Sequence[str], queue: str | None, task: str | None
) -> int:
    """How many jobs, from the counters; no states mean any."""
    values = (to_json(list(states)).decode(), queue, task)
    return int(connection.execute(STATEMENTS["count"], values).fetchone()[0])


def count_rows(
    connection: sqlite3.Connection, what: Filter, now: int, *, most: int | None, scan: bool
) -> int:
    """How many rows pass the filter, up to ``most``."""
    counted = 0
    with _within_budget(connection, what, scan=scan):
        for part in _branches(connection, what, order_of(what), now):
            room = -1 if most is None else most - counted
            text = _fill("count_rows", part)
            counted += int(connection.execute(text, (*part.values, room)).fetchone()[0])
    return counted


def _branches(
    connection: sqlite3.Connection, what: Filter, order: Order, now: int, place: Sequence[Any] = ()
) -> list[Branch]:
    def levels(state: str) -> list[Sequence[Any]]:
        statement, name = (
            ("parked_levels", what.task) if state == "blocked" else ("claim_levels", what.queue)
        )
        found = connection.execute(STATEMENTS[statement]).fetchall()
        return [level for level in found if name is None or level[-2] == name]

    walk = choose(what, order, _sizes(connection, what))
    return branches(what, order, walk, now, levels, place)


def _sizes(connection: sqlite3.Connection, what: Filter) -> dict[str, int]:
    """How many rows the walks have that the counters know of."""
    stored = {"scheduled": "queued", "retrying": "queued"}
    states = sorted({stored.get(state, state) for state in states_of(what)})
    asked: dict[str, tuple[Sequence[str], str | None, str | None]] = {
        "states": (states, None, None),
        "task": ((), None, what.task),
        "queue": ((), what.queue, None),
    }
    return {walk: count(connection, *asked[walk]) for walk in offered(what) if walk in asked}


def _fill(statement: str, part: Branch) -> str:
    text = STATEMENTS[statement].replace("{columns}", part.columns)
    text = text.replace("{source}", part.source).replace("{order_by}", part.order_by)
    return text.replace("{where}", part.where)


@contextmanager
def _within_budget(connection: sqlite3.Connection, what: Filter, *, scan: bool) -> Iterator[None]:
    """Give up a search that takes too long, unless ``scan``.

    Raises:
        ScanRequired: it was given up, or no index serves any condition.
    """
    if scan:
        yield
        return
    check_bounded(what)
    end = time.thread_time() + BUDGET_SECONDS
    connection.set_progress_handler(lambda: time.thread_time() > end, STEPS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise too_long(what, BUDGET_SECONDS) from error
        raise
    finally:
        connection.set_progress_handler(None, 0)
