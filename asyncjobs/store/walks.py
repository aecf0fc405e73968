"""Which way a listing goes through the table, and whether that may be long: one pure decision.

A walk starts from one index and serves the conditions that the index knows; the other conditions
are looked at row by row on the way. No index is there for listings alone but those of the first
schema: each costs every job 0.4 µs, and those that hold ``state`` cost each claim and outcome too.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidOption, ScanRequired
from ..states import FINISHED
from .base import Filter, Order

ACCEPTANCE: tuple[Order, ...] = ("newest", "oldest")

# Walk -> the orders that its index is in. The best come first.
WALKS: dict[str, tuple[Order, ...]] = {
    "key": (),
    "fingerprint": ("finished_at",),
    "tags": ACCEPTANCE,
    "states": (),  # as STATES say
    "trigger": ACCEPTANCE,
    "created": ("created",),
    "task": ACCEPTANCE,
    "queue": ACCEPTANCE,
    "all": ACCEPTANCE,
}
# State -> the orders that its index is in.
STATES: dict[str, tuple[Order, ...]] = {
    "running": (),  # as few as there are slots: they are sorted
    "retrying": ACCEPTANCE,
    "queued": ("run_at",),
    "scheduled": ("run_at",),
    "blocked": ("run_at",),
    "completed": ("finished_at",),
    "failed": ("finished_at",),
    "cancelled": ("finished_at",),
}
WAITING = frozenset({"queued", "scheduled", "retrying", "blocked"})
# Conditions that no index serves -> what would bound them.
UNINDEXED = {
    "error": "state='failed'",
    "arguments": "task= or tag=",
    "started_after": "created_after=",
    "started_before": "created_after=",
    "run_after": "state='queued'",
    "run_before": "state='queued'",
}
SMALL_ROWS = 10_000
"""So many rows may be read and sorted within a few milliseconds, whatever their order."""


def states_of(what: Filter) -> tuple[str, ...]:
    """The states that a filter is for, none twice; ``()`` for all of them."""
    states = tuple(dict.fromkeys(what.states))
    if "queued" in states:
        return tuple(state for state in states if state not in ("scheduled", "retrying"))
    if not states and what.fingerprint is not None:
        return ("failed",)
    if not states and (what.finished_after is not None or what.finished_before is not None):
        return ("completed", "failed", "cancelled")
    return states


def order_of(what: Filter, order: Order | None = None) -> Order:
    """The order of a listing: the one asked for, or the one that suits its filter.

    Whichever comes first: with a key or tags by acceptance, a range of creation by that, finished
    jobs by their end, waiting ones by when they are due unless they are the retrying ones alone,
    the rest by acceptance.

    Raises:
        InvalidOption: the jobs have no such time, or not all of them.
    """
    states = frozenset(states_of(what))
    finished = bool(states) and states <= FINISHED
    waiting = bool(states) and states <= WAITING
    if order == "finished_at" and not finished:
        raise InvalidOption(
            "order='finished_at' needs state= one or more of completed, failed, cancelled"
        )
    if order == "run_at" and not waiting:
        raise InvalidOption(
            "order='run_at' needs state= one or more of queued, scheduled, retrying, blocked"
        )
    if order is not None:
        return order
    if what.key is not None or what.tags_all or what.tags_any:
        return "newest"
    if what.created_after is not None or what.created_before is not None:
        return "created"
    if finished:
        return "finished_at"
    return "run_at" if waiting and states != {"retrying"} else "newest"


def offered(what: Filter) -> list[str]:
    """The walks whose index knows one of the conditions, best first."""
    known = {
        "key": what.key is not None,
        "fingerprint": what.fingerprint is not None,
        "tags": bool(what.tags_all or what.tags_any),
        "states": bool(states_of(what)),
        # Most jobs are triggered by the application itself: those are found without an index.
        "trigger": what.trigger not in (None, "api"),
        "created": what.created_after is not None or what.created_before is not None,
        "task": what.task is not None,
        "queue": what.queue is not None,
    }
    return [walk for walk in WALKS if known.get(walk)]


def choose(what: Filter, order: Order, sizes: Mapping[str, int]) -> str:
    """The walk to take. ``sizes``: how many rows some walks have, by the counters.

    Few rows are read and sorted. Many are walked in the order asked for, so that the page's end
    ends the walk.
    """
    walks = offered(what)
    if "key" in walks:
        return "key"
    if "fingerprint" in walks and order == "finished_at":
        return "fingerprint"
    smallest = min((walk for walk in walks if walk in sizes), key=sizes.__getitem__, default=None)
    if smallest is not None and sizes[smallest] <= SMALL_ROWS:
        return smallest
    in_order = [walk for walk in walks if _is_in_order(walk, what, order)]
    if in_order:
        return min(in_order, key=lambda walk: sizes.get(walk, 0))
    if order in ACCEPTANCE:
        return "all"
    return "created" if order == "created" else smallest or walks[0]


def _is_in_order(walk: str, what: Filter, order: Order) -> bool:
    if walk == "states":
        return all(state == "running" or order in STATES[state] for state in states_of(what))
    return order in WALKS[walk]


def check_bounded(what: Filter) -> None:
    """Refuse what would read the whole table whatever is in it.

    Raises:
        ScanRequired: all its conditions are of the kind that no index serves.
    """
    unindexed = [name for name in what.given() if name in UNINDEXED]
    if unindexed and not offered(what):
        helps = " or ".join(dict.fromkeys(UNINDEXED[name] for name in unindexed))
        raise ScanRequired(
            f"no index serves {', '.join(unindexed)}: add {helps}, "
            "or scan=True to look at every job"
        )


def too_long(what: Filter, seconds: float) -> ScanRequired:
    """What to say when a walk has met too many jobs that do not pass."""
    conditions = ", ".join(what.given()) or "nothing"
    return ScanRequired(
        f"a filter by {conditions} needs more than {seconds:g} s of searching: too many jobs pass "
        "one of the conditions but not all. Narrow it by state=, task=, tag= or created_after=, "
        "leave out order=, or say scan=True"
    )
