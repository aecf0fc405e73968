"""The only composed SQL: filters. Clauses from fixed lists, values always bound."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from ..clock import first_id_at
from ..errors import InvalidOption
from .base import Filter, Order
from .walks import states_of

Clause = tuple[str, Sequence[Any]]
Levels = Callable[[str], Sequence[Sequence[Any]]]
"""Every (queue, priority) that has queued jobs, every (reason, task, priority) that has blocked."""

# With the index named, no table's statistics can make SQLite walk another way than was decided.
_SOURCES = {
    "key": "asyncjobs_keys AS k CROSS JOIN asyncjobs_jobs AS j ON j.seq = k.seq",
    "tags": "asyncjobs_tags AS t CROSS JOIN asyncjobs_jobs AS j ON j.seq = t.seq",
    "fingerprint": "asyncjobs_jobs AS j INDEXED BY asyncjobs_by_fingerprint",
    "trigger": "asyncjobs_jobs AS j INDEXED BY asyncjobs_by_trigger",
    "created": "asyncjobs_jobs AS j INDEXED BY sqlite_autoindex_asyncjobs_jobs_1",
    "task": "asyncjobs_jobs AS j INDEXED BY asyncjobs_by_task",
    "queue": "asyncjobs_jobs AS j INDEXED BY asyncjobs_by_queue",
    "all": "asyncjobs_jobs AS j NOT INDEXED",
    "running": "asyncjobs_jobs AS j INDEXED BY asyncjobs_running",
    "retrying": "asyncjobs_jobs AS j INDEXED BY asyncjobs_retrying",
    "queued": "asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable",
    "scheduled": "asyncjobs_jobs AS j INDEXED BY asyncjobs_claimable",
    "blocked": "asyncjobs_jobs AS j INDEXED BY asyncjobs_parked",
    "completed": "asyncjobs_jobs AS j INDEXED BY asyncjobs_finished",
    "failed": "asyncjobs_jobs AS j INDEXED BY asyncjobs_finished",
    "cancelled": "asyncjobs_jobs AS j INDEXED BY asyncjobs_finished",
}
# Literals, so that the planner sees that the partial indexes hold them all. Whether a job is
# scheduled is asked of the small index of those that failed, not of the job's row.
_STATES = {
    "running": "j.state = 'running'",
    "retrying": "j.state = 'queued' AND j.attempt > 0",
    "queued": "j.state = 'queued'",
    "scheduled": "j.state = 'queued' AND j.run_at > ? AND NOT EXISTS (SELECT 1 FROM asyncjobs_jobs"
    " AS r INDEXED BY asyncjobs_retrying"
    " WHERE r.state = 'queued' AND r.attempt > 0 AND r.seq = j.seq)",
    "blocked": "j.state = 'blocked'",
    "completed": "j.state = 'completed' AND j.finished_at IS NOT NULL",
    "failed": "j.state = 'failed' AND j.finished_at IS NOT NULL",
    "cancelled": "j.state = 'cancelled' AND j.finished_at IS NOT NULL",
}
_LEVELS = {
    "queued": "j.queue = ? AND j.priority = ?",
    "scheduled": "j.queue = ? AND j.priority = ?",
    "blocked": "j.reason = ? AND j.task = ? AND j.priority = ?",
}
_TAGGED = "EXISTS (SELECT 1 FROM asyncjobs_tags AS w WHERE w.tag = ? AND w.seq = j.seq)"
_ERROR = (
    "EXISTS (SELECT 1 FROM asyncjobs_attempts AS a WHERE a.seq = j.seq"
    " AND a.claim = (SELECT max(b.claim) FROM asyncjobs_attempts AS b WHERE b.seq = j.seq)"
    " AND (instr(a.error_type, ?) > 0 OR instr(a.error_message, ?) > 0))"
)
# By type, since for SQLite true is 1, and a JSON object the text that spells it.
_ARGUMENT = "EXISTS (SELECT 1 FROM asyncjobs_payloads AS p WHERE p.seq = j.seq AND "
_ARGUMENTS: dict[type, str] = {
    bool: _ARGUMENT + "json_type(p.arguments, ?) = ?)",
    type(None): _ARGUMENT + "json_type(p.arguments, ?) = 'null')",
    str: _ARGUMENT + "json_type(p.arguments, ?) = 'text' AND json_extract(p.arguments, ?) = ?)",
    int: _ARGUMENT
    + "json_type(p.arguments, ?) IN ('integer', 'real') AND json_extract(p.arguments, ?) = ?)",
}
_TIMES = {
    "started_after": "j.started_at >= ?",
    "started_before": "j.started_at < ?",
    "finished_after": "j.finished_at >= ?",
    "finished_before": "j.finished_at < ?",
    "run_after": "j.run_at >= ?",
    "run_before": "j.run_at < ?",
    "seq_until": "j.seq <= ?",
}


class _Ordering(NamedTuple):
    """How an order is spelled; ``{seq}`` is the column of it that the walk's index holds."""

    columns: str
    by: str
    after: str
    descending: bool


_ORDERS: dict[Order, _Ordering] = {
    "newest": _Ordering("{seq}", "{seq} DESC", "{seq} < ?", True),
    "oldest": _Ordering("{seq}", "{seq}", "{seq} > ?", False),
    "created": _Ordering("{seq}, j.id", "j.id DESC, {seq} DESC", "(j.id, {seq}) < (?, ?)", True),
    "run_at": _Ordering("{seq}, j.run_at", "j.run_at, {seq}", "(j.run_at, {seq}) > (?, ?)", False),
    "finished_at": _Ordering(
        "{seq}, j.finished_at",
        "j.finished_at DESC, {seq} DESC",
        "(j.finished_at, {seq}) < (?, ?)",
        True,
    ),
}


class Branch(NamedTuple):
    """One part of a listing: no job is in two of them, and together they are all of it."""

    source: str
    where: str
    values: list[Any]
    columns: str
    order_by: str


def branches(
    what: Filter, order: Order, walk: str, now: int, levels: Levels, place: Sequence[Any] = ()
) -> list[Branch]:
    """What to ask for a filter on a walk, from a place on; each of the parts in the order."""
    ordering = _ORDERS[order]
    rest = list(_conditions(what, walk, now))
    if place:
        rest.append((ordering.after, place))
    seq = "t.seq" if walk == "tags" else "j.seq"
    parts = []
    for source, heads in _heads(what, order, walk, now, levels):
        clauses = [*heads, *rest]
        parts.append(
            Branch(
                _SOURCES[source],
                " AND ".join(clause for clause, _ in clauses).replace("{seq}", seq) or "TRUE",
                [value for _, values in clauses for value in values],
                ordering.columns.replace("{seq}", seq),
                ordering.by.replace("{seq}", seq),
            )
        )
    return parts


def still_passing(what: Filter, now: int) -> tuple[str, list[Any]]:
    """The clause for jobs that are at hand already."""
    clauses = list(_conditions(what, "all", now))
    return (
        " AND ".join(clause for clause, _ in clauses) or "TRUE",
        [value for _, values in clauses for value in values],
    )


def _heads(
    what: Filter, order: Order, walk: str, now: int, levels: Levels
) -> Iterator[tuple[str, list[Clause]]]:
    """Source and leading clauses of each part."""
    match walk:
        case "key":
            yield walk, [("k.key = ?", [what.key])]
        case "fingerprint":
            yield walk, [("j.fingerprint = ?", [what.fingerprint])]
        case "tags" if what.tags_all:
            yield walk, [("t.tag = ?", what.tags_all[:1])]
        case "tags":
            for place, tag in enumerate(what.tags_any):
                before = [("NOT " + _TAGGED, [other]) for other in what.tags_any[:place]]
                yield walk, [("t.tag = ?", [tag]), *before]
        case "trigger":
            # The second lets the planner see that the partial index holds them all.
            yield walk, [("j.trigger = ? AND j.trigger <> 'api'", [what.trigger])]
        case "states":
            for state in states_of(what):
                clause = _state(state, now)
                if order == "run_at" and state in _LEVELS:
                    for level in levels(state):
                        yield state, [(_LEVELS[state], level), clause]
                else:
                    yield state, [clause]
        case _:
            yield walk, []


def _conditions(what: Filter, walk: str, now: int) -> Iterator[Clause]:
    """Every condition that the heads of the walk do not hold already."""
    if what.key is not None and walk != "key":
        yield "j.key = ?", [what.key]
    if what.fingerprint is not None and walk != "fingerprint":
        yield "j.fingerprint = ?", [what.fingerprint]
    for tag in what.tags_all[1 if walk == "tags" else 0 :]:
        yield _TAGGED, [tag]
    if what.tags_any and (walk != "tags" or what.tags_all):
        yield _either([(_TAGGED, [tag]) for tag in what.tags_any])
    if states_of(what) and walk != "states":
        yield _either([_state(state, now) for state in states_of(what)])
    if what.state_not is not None:
        yield "j.state <> ?", [what.state_not]
    if what.task is not None:
        yield "j.task = ?", [what.task]
    if what.queue is not None:
        yield "j.queue = ?", [what.queue]
    if what.trigger is not None and walk != "trigger":
        yield "j.trigger = ?", [what.trigger]
    if what.created_after is not None:
        yield "j.id >= ?", [first_id_at(what.created_after)]
    if what.created_before is not None:
        yield "j.id < ?", [first_id_at(what.created_before)]
    for name, clause in _TIMES.items():
        if getattr(what, name) is not None:
            yield clause, [getattr(what, name)]
    if what.error is not None:
        yield _ERROR, [what.error, what.error]
    for path, value in what.arguments:
        yield _argument(path, value)


def _state(state: str, now: int) -> Clause:
    return _STATES[state], [now] if state == "scheduled" else []


def _either(clauses: Sequence[Clause]) -> Clause:
    return (
        "(" + " OR ".join("(" + clause + ")" for clause, _ in clauses) + ")",
        [value for _, values in clauses for value in values],
    )


def _argument(path: str, value: Any) -> Clause:
    spelled = '$."' + path.replace(".", '"."') + '"'
    kind = int if type(value) is float else type(value)
    bound = {
        bool: [spelled, "true" if value else "false"],
        type(None): [spelled],
    }.get(kind, [spelled, spelled, value])
    return _ARGUMENTS[kind], bound


def in_order(rows: list[Any], order: Order) -> list[Any]:
    """Rows of several branches, (seq,) or (seq, value), put together."""
    return sorted(rows, key=lambda row: row[::-1], reverse=_ORDERS[order].descending)


def encode_cursor(what: Filter, order: Order, row: Sequence[Any]) -> str:
    """Where a page ended, as opaque text. ``row``: (seq,) or (seq, value)."""
    place = [order, _digest(what), *row[::-1]]
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode_cursor(cursor: str, what: Filter, order: Order) -> Sequence[Any]:
    """The place that a cursor stands for.

    Raises:
        InvalidOption: it is not a cursor, or one of a listing with another filter or order.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        kind, digest, *place = msgspec.json.decode(
            base64.urlsafe_b64decode(padded), type=list[int | str]
        )
    except (ValueError, TypeError, binascii.Error, msgspec.DecodeError, UnicodeError) as error:
        raise InvalidOption("cursor is not one that list() gave out") from error
    if (kind, digest) != (order, _digest(what)) or not _is_place(place, order):
        raise InvalidOption("cursor belongs to a listing with another filter or order")
    return place


def _is_place(place: Sequence[int | str], order: Order) -> bool:
    expected: dict[Order, list[type]] = {"newest": [int], "oldest": [int], "created": [str, int]}
    return [type(value) for value in place] == expected.get(order, [int, int]) and all(
        isinstance(value, str) or -(2**63) <= value < 2**63 for value in place
    )


def _digest(what: Filter) -> int:
    return zlib.crc32(msgspec.json.encode(what))
