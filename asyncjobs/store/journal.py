"""What the journal holds, as it is read: events in commit order, and places in it.

A place is (position, offset): the row, and how many of its events come before. Places outside are
opaque text that also names the database, so that one file's cursor is not taken for another's.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from ..errors import InvalidOption
from ..records import Progress
from ..states import Event as Kind

QUIET_KINDS = frozenset[str]()
"""Kinds that only those hear who ask for them."""
PASSING_KINDS = frozenset({Kind.PROGRESS.value})
"""Kinds that leave the journal early: what runs say while they go on."""
OUTCOME_KINDS = frozenset({Kind.COMPLETED.value, Kind.FAILED.value, Kind.CANCELLED.value})
LAST_KINDS = frozenset({Kind.DELETED.value, Kind.PRUNED.value})
"""After which there is no job any more."""

_CURSOR = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})-([0-9]{1,9})")


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened to a job, as ``runner.events()`` gives it."""

    cursor: str
    """The place after this event: where to go on, in any process and after any restart."""
    at: datetime
    kind: str
    """``enqueued``, ``claimed``, ``completed``, ``failed``, ``retrying``, ``snoozed``,
    ``released``, ``rescued``, ``cancelled``, ``parked``, ``requeued``, ``deleted``, ``pruned`` or
    ``progress``."""
    job_id: str
    task: str
    queue: str
    seq: int
    """The job's row."""
    claim: int
    """The fence's number: which run of the job it was."""
    progress: Progress | None = None
    """What the job said, in events of kind ``progress``."""


class Place(NamedTuple):
    """Where to read on."""

    position: int
    offset: int = 0


class Entry(NamedTuple):
    """An event and where it stands."""

    place: Place
    following: Place
    event: Event


class JournalQuery(Struct, frozen=True):
    """Which events to read. ``None`` means any."""

    after: Place
    seqs: frozenset[int] | None = None
    kinds: frozenset[str] | None = None
    task: str | None = None
    most: int = 1_000


class JournalPage(NamedTuple):
    """Some events in commit order."""

    entries: list[Entry]
    following: Place
    """Where to read on."""
    complete: bool
    """True when this was all there is for now."""
    pruned: int
    """Rows up to this position are gone."""


class JournalEnd(NamedTuple):
    """How far the journal reaches."""

    place: Place
    """Where the next event will stand."""
    pruned: int


def cursor_of(database_id: str, place: Place) -> str:
    """A place as text to keep."""
    return f"{database_id}-{place.position}-{place.offset}"


def place_of(cursor: object, database_id: str) -> Place:
    """The place that a cursor stands for.

    Raises:
        InvalidOption: it is no cursor, or one of another database.
    """
    found = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        raise InvalidOption("the cursor is not one that an event had; keep event.cursor as it is")
    if found[1] != database_id:
        raise InvalidOption("the cursor belongs to another database")
    return Place(int(found[2]), int(found[3]))
