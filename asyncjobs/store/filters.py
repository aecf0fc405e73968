"""The only composed SQL: listings. Clauses from a fixed list, values always bound."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ..clock import first_id_at
from ..errors import InvalidOption
from ..states import FINISHED
from .base import Filter

BY_SEQ = "seq"
BY_END = "end"
BY_ID = "id"

_ORDER = {
    BY_SEQ: "ORDER BY j.seq DESC",
    BY_END: "ORDER BY j.finished_at DESC, j.seq DESC",
    BY_ID: "ORDER BY j.id DESC",
}
_AFTER = {
    BY_SEQ: "j.seq < ?",
    BY_END: "(j.finished_at, j.seq) < (?, ?)",
    BY_ID: "j.id < ?",
}
_PLACE_COLUMNS = {BY_SEQ: ("seq",), BY_END: ("finished_at", "seq"), BY_ID: ("id",)}


class Query(NamedTuple):
    """FROM and WHERE of a listing, what to bind, and how its pages are ordered."""

    source: str
    where: str
    values: list[Any]
    order: str

    @property
    def order_by(self) -> str:
        """The ORDER BY clause."""
        clause = _ORDER[self.order]
        if self.source.startswith("asyncjobs_tags"):
            # The tag's own index holds the order; naming the job's column would sort every row.
            return clause.replace("j.seq", "t.seq")
        return clause


def compose(what: Filter, now: int, cursor: str | None = None) -> Query:
    """The query for a filter, from a cursor on."""
    clauses: list[str] = []
    values: list[Any] = []

    def add(clause: str, *bound: Any) -> None:
        clauses.append(clause)
        values.extend(bound)

    source = "asyncjobs_jobs AS j"
    if what.key is not None:
        source = "asyncjobs_keys AS k CROSS JOIN asyncjobs_jobs AS j ON j.seq = k.seq"
        add("k.key = ?", what.key)
    elif what.tag is not None:
        source = "asyncjobs_tags AS t CROSS JOIN asyncjobs_jobs AS j ON j.seq = t.seq"
        add("t.tag = ?", what.tag)
    if what.key is not None and what.tag is not None:
        tagged = "EXISTS (SELECT 1 FROM asyncjobs_tags AS t WHERE t.tag = ? AND t.seq = j.seq)"
        add(tagged, what.tag)
    for column, value in (("task", what.task), ("queue", what.queue), ("trigger", what.trigger)):
        if value is not None:
            add(f"j.{column} = ?", value)
    if what.trigger not in (None, "api"):
        add("j.trigger <> 'api'")  # lets the planner see that the partial index holds them all
    if what.state is not None:
        _add_state(add, what.state, now)
    if what.created_after is not None:
        add("j.id >= ?", first_id_at(what.created_after))
    if what.created_before is not None:
        add("j.id < ?", first_id_at(what.created_before))
    order = order_of(what)
    if cursor is not None:
        place = decode_cursor(cursor, order)
        after = _AFTER[order]
        add(after.replace("j.seq <", "t.seq <") if " AS t " in source else after, *place)
    return Query(source, " AND ".join(clauses) or "TRUE", values, order)


def _add_state(add: Any, state: str, now: int) -> None:
    match state:
        case "scheduled":
            add("j.state = 'queued' AND j.attempt = 0 AND j.run_at > ?", now)
        case "retrying":
            add("j.state = 'queued' AND j.attempt > 0")
        case _ if state in FINISHED:
            # The second half lets the planner see that the partial index holds them all.
            add("j.state = ? AND j.finished_at IS NOT NULL", state)
        case _:
            add("j.state = ?", state)


def order_of(what: Filter) -> str:
    """Finished jobs of one state by their end, a time range by creation, the rest by acceptance."""
    if what.key is not None or what.tag is not None:
        return BY_SEQ
    if what.created_after is not None or what.created_before is not None:
        return BY_ID
    if what.state in FINISHED:
        return BY_END
    return BY_SEQ


def encode_cursor(order: str, row: dict[str, Any]) -> str:
    """Where a page ended, as opaque text."""
    place = [order, *(row[column] for column in _PLACE_COLUMNS[order])]
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode_cursor(cursor: str, order: str) -> Sequence[Any]:
    """The place that a cursor stands for.

    Raises:
        InvalidOption: it is not a cursor, or one of a listing with another filter.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        kind, *place = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=list[int | str])
    except (ValueError, TypeError, binascii.Error, msgspec.DecodeError, UnicodeError) as error:
        raise InvalidOption("cursor is not one that list() gave out") from error
    expected = {BY_SEQ: [int], BY_END: [int, int], BY_ID: [str]}[order]
    storable = all(isinstance(value, str) or -(2**63) <= value < 2**63 for value in place)
    if kind != order or [type(value) for value in place] != expected or not storable:
        raise InvalidOption("cursor belongs to a listing with another filter")
    return place
