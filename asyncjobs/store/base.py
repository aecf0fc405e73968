"""The store's protocol: operations are data, a batch of them is one transaction.

Every engine keeps the same rules, and one conformance suite (tests/store) holds them to it:

* ``write`` runs its operations in the order given, in one short transaction, all or nothing, and
  answers with one result an operation. Cancelling the await does not touch the transaction.
* Results are exact: what an operation says it did is on disk when ``write`` returns.
* Nothing changes a running job except under its fence (instance, claim number).
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from ..records import (
    Attempt,
    Claimed,
    Job,
    JobLimit,
    NewJob,
    Outcome,
    Transition,
)
from .expiry import Expire, Expiring
from .failures import Failing
from .journal import Acknowledge, Annotate, FindEnd, ForgetFiles, Watched
from .overview import AuditNote, Overviewed
from .queueing import SetQueue
from .retention import PruneRetained, Retain, Retaining, Shorten
from .schedules import Scheduling, Timed

LONG_AGO = -(2**63)


class Insert(Struct, frozen=True):
    """Enqueue jobs. Result: for each ``None``, or the ``Accepted`` that was there already.

    An id that has a row already, or a key that has one with the same arguments, answers with that
    row; a key with other arguments is a conflict. What another job holds (``NewJob.hold``) answers
    with that one, is a conflict, or replaces it while it has not started, as the new job's hold
    says. With ``together`` one conflict means that this operation changes nothing.
    """

    jobs: Sequence[NewJob[Any]]
    together: bool = False


class Report(Struct, frozen=True):
    """Write the transitions of runs that ``instance`` holds.

    Result: for each ``done``, ``already`` (this very fence landed before), ``lost`` (nothing
    changed), or ``cancelled``: it was to run again, but somebody has asked to cancel it.
    """

    instance: str
    transitions: Sequence[Transition]


class Claim(Struct, frozen=True):
    """Take jobs to run. Result: ``ClaimResult``.

    ``tasks`` maps each known task to its executor, ``room`` each executor to its free slots.
    Due jobs of unknown tasks that are met on the way are parked (blocked, ``unknown_task``);
    parked jobs of known tasks are taken like queued ones.
    """

    instance: str
    tasks: Mapping[str, str]
    room: Mapping[str, int]
    queues: tuple[str, ...] | None = None
    resume: Mapping[tuple[str, int], tuple[int, int]] = {}
    """Where the claim before had to stop in levels (queue, priority): behind (run_at, seq)."""
    probation: bool = True
    """Whether a job may be taken that one more crash would end; never more than one is.

    When a process dies, nobody can say which of its jobs did it. Those that were there each time
    run without each other from the last but one crash on, so that only the culprit fails.
    """


class ClaimResult(NamedTuple):
    """What a claim took, and when it pays to claim again."""

    jobs: list[Claimed]
    waiting: frozenset[str]
    """Executors for which due jobs may be left: claim again once one of them has room."""
    next_run_at: int | None
    """When the next delayed job falls due; only known when the claim saw all that is due."""
    parked: Mapping[str, int] = {}
    """Due jobs of tasks that nobody here knows, set aside: how many, by task."""
    resume: Mapping[tuple[str, int], tuple[int, int]] = {}
    """For the next claim: levels of which only the first due jobs were looked at."""
    left: bool = False
    """True when jobs were enqueued with the claim that it did not take: others may."""
    expired: Sequence[tuple[str, Outcome]] = ()
    """``(id, outcome)`` of jobs that it met too late to start them, and cancelled."""
    capped: frozenset[str] = frozenset()  # queues of which an end makes room for another


class InsertAndClaim(Struct, frozen=True):
    """Enqueue jobs, then claim. Result: the results of both, as a pair.

    The same as one after the other, but an engine may start new jobs directly when nothing else
    is due, instead of queueing and claiming them.
    """

    insert: Insert
    claim: Claim


class Cancel(Struct, frozen=True):
    """Cancel jobs by id. Result: an ``Answer`` per id.

    They are ``cancelled``, ``requested`` (it runs), ``finished`` (too late) or ``missing``.

    Waiting jobs are cancelled; running ones get the request noted on their row, for whoever runs
    them to act on.
    """

    ids: Sequence[str]
    reason: str = "user"
    """Never empty: on a running job it is also what says that somebody asked."""


class Requeue(Struct, frozen=True):
    """Retry finished jobs by hand. Result: an ``Answer`` per id.

    They are ``requeued``, ``missing``, or in the state that the answer names. Attempts,
    crashes and snoozes start from zero, the old result goes, the attempts' rows stay.
    """

    ids: Sequence[str]
    arguments: str | None = None
    """In place of those that they have, as JSON."""
    limit: JobLimit | None = None
    """Of a job with a limit, what it is limited by with these arguments."""
    first_at: int | None = None
    """When the first of them is due; at once when ``None``."""
    gap: int = 0
    """Microseconds from each of them to the next."""


class Delete(Struct, frozen=True):
    """Delete jobs that do not run. Answers: ``deleted``, ``missing`` or ``running``."""

    ids: Sequence[str]


Change = Cancel | Requeue | Delete


class Answer(NamedTuple):
    """What became of one job that somebody wanted to change."""

    outcome: str
    """In the words of the change."""
    seq: int | None = None
    """``None`` when it is missing."""


class ByHand(Struct, frozen=True):
    """A change of named jobs, noted if it changes something. Result: ``ByHandResult``."""

    change: Change
    note: AuditNote | None = None


class Slice(Struct, frozen=True):
    """A change of those of ``seqs`` that still pass the filter. Result: ``ByHandResult``.

    The change comes without ids. The note is written in any case, or added to when there is an
    entry of its id already.
    """

    change: Change
    note: AuditNote
    what: Filter
    seqs: Sequence[int]


class ByHandResult(NamedTuple):
    """What a change by hand did."""

    ids: Sequence[str]
    answers: Sequence[Answer]
    """One an id."""
    changed: int
    seconds: float = 0.0
    """How long a slice has held up the writer, without its commit."""


class Rescue(Struct, frozen=True):
    """Decide the fate of runs whose instance is gone, at most ``limit``. Result: ``Rescued``.

    They crashed, or, after a clean stop that could not end them, are released.
    """

    instance: str
    detail: str
    limit: int = 1_000


class Rescued(NamedTuple):
    """What a rescue did in one transaction."""

    jobs: int
    ended: list[tuple[str, Outcome]]
    """``(id, outcome)`` of those that were not queued again."""


class Disown(Struct, frozen=True):
    """Release what ``instance`` is said to run but does not hold. Result: how many.

    After a failed COMMIT a claim may be on disk whose answer never came.
    """

    instance: str
    held: frozenset[int]


class Join(Struct, frozen=True):
    """Note a new instance. Result: None."""

    instance: str
    pid: int
    host: str
    takes: str | None = None
    """Its queues and slots as JSON; ``None`` when it takes no jobs."""


class Leave(Struct, frozen=True):
    """Note an instance's end, ``by`` a clean ``stop`` or a ``rescue``. Result: None."""

    instance: str
    by: str


class Prune(Struct, frozen=True):
    """Delete what ended before its state's limit, at most ``limit`` rows. Result: how many.

    Rows of the journal count as well: as many as the limit mean that there may be more. Old
    instances go on the way, and do not count.
    """

    before: Mapping[str, int]
    """State to instant: finished jobs that ended earlier go."""
    journal_before: int
    limit: int
    passing_before: int = LONG_AGO
    """Events of runs that go on, such as progress, go when they are older than this."""
    since: tuple[int, int] = (LONG_AGO, LONG_AGO)
    """Jobs from before this place (end, seq) are not looked at: rules of their tasks keep them."""


Operation = (
    Insert
    | InsertAndClaim
    | Report
    | Annotate
    | ForgetFiles
    | Acknowledge
    | FindEnd
    | Claim
    | Cancel
    | Requeue
    | Delete
    | ByHand
    | Slice
    | Rescue
    | Disown
    | Join
    | Leave
    | Prune
    | Scheduling
    | Expire
    | Retain
    | PruneRetained
    | Shorten
    | SetQueue
)


class Filter(Struct, frozen=True, kw_only=True):
    """Which jobs. ``None`` and ``()`` mean "any"; all that is given must hold.

    One for listings, counts and bulk operations. Instants are microseconds; each ``after`` is
    inclusive, each ``before`` exclusive.
    """

    states: tuple[str, ...] = ()
    """One of these: states, ``scheduled``, ``retrying``."""
    task: str | None = None
    queue: str | None = None
    tags_all: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    key: str | None = None
    trigger: str | None = None
    error: str | None = None
    """In the type or the message of the last attempt that failed, as written."""
    fingerprint: str | None = None
    arguments: tuple[tuple[str, str | int | float | bool | None], ...] = ()
    """Paths such as ``address.city``, and the plain JSON value that stands there."""
    created_after: int | None = None
    created_before: int | None = None
    started_after: int | None = None
    started_before: int | None = None
    finished_after: int | None = None
    finished_before: int | None = None
    run_after: int | None = None
    run_before: int | None = None
    state_not: str | None = None
    """Not in this one: a bulk operation leaves alone what it cannot change."""
    seq_until: int | None = None
    """Accepted up to this one: a bulk operation leaves alone what comes while it runs."""

    def __repr__(self) -> str:
        # Without the values: some are arguments of jobs.
        return f"<Filter of {', '.join(self.given()) or 'nothing'}>"

    def given(self) -> list[str]:
        """The names of the conditions that are set, without those of bulk operations."""
        names = [name for name in self.__struct_fields__ if name not in BULK_CONDITIONS]
        return [name for name in names if getattr(self, name) not in (None, ())]


BULK_CONDITIONS = frozenset({"state_not", "seq_until"})
"""What bulk operations add to the filter of a user."""


Order = Literal["newest", "oldest", "created", "run_at", "finished_at"]
"""By acceptance, newest or oldest first; by creation or by end, latest first; by due time, soonest
first."""


class Page(NamedTuple):
    """One page of a listing. ``cursor`` gets the next one; ``None`` on the last."""

    jobs: list[Job]
    cursor: str | None


class Places(NamedTuple):
    """Where the jobs of a page stand."""

    seqs: list[int]
    cursor: str | None


class Violation(NamedTuple):
    """A broken invariant that ``check`` found."""

    rule: str
    """What should hold."""
    examples: list[str]
    """The first few places where it does not."""


class Store(Watched, Timed, Overviewed, Expiring, Failing, Retaining, Protocol):
    """What an engine does for the floors above."""

    async def open(self) -> None:
        """Open or create the database, migrate it, assert its settings."""
        ...

    async def close(self) -> None:
        """Close it. What was written stays."""
        ...

    async def write(self, operations: Sequence[Operation]) -> list[Any]:
        """Run the operations in one transaction; one result each, or raise and change nothing.

        Raises:
            StoreBusy: another program holds the write lock. Nothing happened; try again.
            StoreFull, StoreError: the transaction failed. If it failed at COMMIT it may have
                happened: look before you assume.
            Exception: any other: one of the operations holds what cannot be written. Nothing
                happened; the others may be written without it.
        """
        ...

    async def write_in(self, connection: Any, operations: Sequence[Operation]) -> list[Any]:
        """Run the operations in the transaction that the application has open; one result each.

        They are committed or rolled back with it. All or none of them are written; after an error
        the application may go on with its transaction.

        Raises:
            InvalidOption: it is no connection of this engine's kind.
            UnfitConnection: closed, on another database, less durable, in no transaction, ...
            StoreBusy: the write lock is another's.
            StoreError: they could not be written.
        """
        ...

    def write_here(self, connection: Any, operations: Sequence[Operation]) -> list[Any]:
        """The same without an event loop, for a connection that belongs to the calling thread."""
        ...

    def transaction(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """A write transaction on the application's connection; rolled back after an error.

        Raises:
            InvalidOption, UnfitConnection, StoreBusy, StoreError: as :meth:`write_in`.
        """
        ...

    async def settled(self, ids: Sequence[str]) -> set[str]:
        """Which of the jobs, once written by :meth:`write_in`, are in a transaction that has ended.

        Committed or rolled back: whether they are there is for :meth:`outcomes` to say.
        """
        ...

    async def outcomes(self, ids: Sequence[str]) -> dict[str, Outcome | None]:
        """Per id that exists: its outcome, or ``None`` while it is unfinished."""
        ...

    async def get(self, job_id: str) -> Job | None:
        """One job, whole."""
        ...

    async def list(
        self,
        what: Filter,
        *,
        order: Order | None = None,
        limit: int,
        cursor: str | None,
        scan: bool = False,
    ) -> Page:
        """Jobs that pass the filter, in the given order or the one that suits the filter.

        Raises:
            ScanRequired: it would read too much, and ``scan`` is false.
            InvalidOption: the cursor is of another listing, or the order does not fit the filter.
        """
        ...

    async def places(
        self, what: Filter, *, limit: int, cursor: str | None, scan: bool = False
    ) -> Places:
        """The same in the filter's own order, but only where the jobs stand."""
        ...

    async def count(self, states: Sequence[str], *, queue: str | None, task: str | None) -> int:
        """How many jobs, from the counter rows as of one instant; no states mean any."""
        ...

    async def count_rows(self, what: Filter, *, most: int | None, scan: bool = False) -> int:
        """How many pass the filter, counted row by row up to ``most``.

        Raises:
            ScanRequired: as :meth:`list`.
        """
        ...

    async def last_seq(self) -> int:
        """The seq of the job that was accepted last."""
        ...

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """A job's runs, oldest first."""
        ...

    async def running_instances(self) -> builtins.list[str]:
        """Instances that some running row names."""
        ...

    async def check(self) -> builtins.list[Violation]:
        """Every invariant as a query; what does not hold."""
        ...

    async def cancels_of(self, instance: str) -> builtins.list[tuple[int, int, str]]:
        """Runs of the instance, as (seq, claim), that somebody has asked to cancel, and why."""
        ...

    async def changed_elsewhere(self) -> bool:
        """True when something was written since the last call, by whomever, and at the first."""
        ...
