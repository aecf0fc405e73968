"""What the journal holds, as it is read: events in commit order, and places in it.

A place is (position, offset): the row, and how many of its events come before. Places outside are
opaque text that also names the database, so that one file's cursor is not taken for another's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from msgspec import Struct

from ..errors import CursorTooOld, InvalidOption
from ..records import Job, Note, Progress
from ..states import Event as Kind

QUIET_KINDS = frozenset({Kind.LOGGED.value})
"""Kinds that only those hear who ask for them."""
OUTCOME_KINDS = frozenset({Kind.COMPLETED.value, Kind.FAILED.value, Kind.CANCELLED.value})
LAST_KINDS = frozenset({Kind.DELETED.value, Kind.PRUNED.value})
"""After which there is no job any more."""

_CURSOR = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})-([0-9]{1,9})")

_LOG_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened to a job, as ``runner.events()`` gives it."""

    cursor: str
    """The place after this event: where to go on, in any process and after any restart."""
    at: datetime
    kind: str
    """``enqueued``, ``claimed``, ``completed``, ``failed``, ``retrying``, ``snoozed``,
    ``released``, ``rescued``, ``cancelled``, ``parked``, ``held``, ``admitted``, ``requeued``,
    ``deleted``, ``pruned``, ``progress``, or, for those who ask for it, ``logged``: there are new
    lines of its log."""
    job_id: str
    task: str
    queue: str
    seq: int
    """The job's row."""
    claim: int
    """The fence's number: which run of the job it was."""
    progress: Progress | None = None
    """What the job said, in events of kind ``progress``."""


class LogLine(Struct, frozen=True, kw_only=True):
    """A line that a job logged."""

    at: datetime
    level: str
    logger: str
    text: str
    """The message, and the traceback if it has one; of more than 16 KiB the middle is cut out."""
    attempt: int


class LogPage(NamedTuple):
    """Lines of a job's log, oldest first. ``cursor`` gets those after them."""

    lines: list[LogLine]
    cursor: str
    dropped: int
    """Lines of the job that are not kept: only the newest 1,000, or 256 KiB, are."""


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


class Annotate(Struct, frozen=True):
    """Write what runs of ``instance`` say of themselves while they go on. Result: None.

    What is older than what is there, or of a run that has ended, changes nothing.
    """

    instance: str
    notes: Sequence[Note]


class Acknowledge(Struct, frozen=True):
    """Note how far a named subscriber has got: back only when it is moved. Result: None."""

    name: str
    place: Place
    move: bool = False


class FindEnd(Struct, frozen=True):
    """Find where the journal ends, before what is written with this. Result: Place."""


class ForgetFiles(Struct, frozen=True):
    """Forget files of jobs that are gone: they are gone as well. Result: None."""

    files: Sequence[str]


class Watched(Protocol):
    """The part of a store that those ask who follow what happens."""

    @property
    def database_id(self) -> str:
        """What no other database has: cursors name it."""
        ...

    async def seq_of(self, job_id: str) -> int | None:
        """The job's row, also of one that is deleted, as long as the journal knows it."""
        ...

    async def glance(self, job_id: str) -> Job | None:
        """One job without arguments, meta and traceback; as its result only a file's record."""
        ...

    async def standing(self, seq: int) -> tuple[str, int] | None:
        """The state and the claim number of a job's row, without all that hangs on it."""
        ...

    async def read_journal(self, what: JournalQuery) -> JournalPage:
        """The next events that pass, in commit order."""
        ...

    async def journal_end(self) -> JournalEnd:
        """How far the journal reaches."""
        ...

    async def journal_place_at(self, instant: datetime) -> Place:
        """Before the first event of that instant or later."""
        ...

    async def subscriber_place(self, name: str) -> Place | None:
        """Where a named subscriber goes on; ``None`` for one that never was."""
        ...

    async def gone_files(self, limit: int) -> list[str]:
        """Files of jobs that were deleted or start anew."""
        ...

    async def orphaned_files(self, files: Sequence[str]) -> list[str]:
        """Which of these files no job has, nor may a run that goes on be about to report."""
        ...

    async def logs(self, job_id: str, *, after: str | None, limit: int) -> LogPage:
        """Lines of a job's log, oldest first."""
        ...


def cursor_of(database_id: str, place: Place) -> str:
    """A place as text to keep."""
    return f"{database_id}-{place.position}-{place.offset}"


def log_place_of(cursor: object) -> tuple[int, int]:
    """The run and the line that a cursor of a log stands for.

    Raises:
        InvalidOption: it is no such cursor.
    """
    found = _LOG_CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        raise InvalidOption("after is not the cursor of a page of a log")
    return int(found[1]), int(found[2])


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


def check_age(place: Place, pruned: int) -> None:
    """Refuse a place from which the journal cannot be read on, given how far it is pruned.

    Raises:
        CursorTooOld: what comes after the place is gone.
    """
    if place.position <= pruned:
        raise CursorTooOld(
            "the journal no longer holds the events after this cursor: they are past keep_journal; "
            "read the registry, and follow from now on"
        )
