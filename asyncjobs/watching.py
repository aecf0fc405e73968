"""Following what happens: the async iterators behind ``runner.events`` and ``handle.events``."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from .changes import unknown_job
from .errors import InvalidOption
from .rules.limits import PAGE_MAX, check_choice, check_text
from .services.feed import Listener
from .states import FINISHED
from .states import Event as Kind
from .store.journal import (
    LAST_KINDS,
    OUTCOME_KINDS,
    QUIET_KINDS,
    Event,
    FindEnd,
    LogLine,
    Place,
    cursor_of,
    place_of,
)
from .subscribing import Subscriber

if TYPE_CHECKING:
    from .records import Job
    from .services.engine import Engine

KINDS = tuple(kind.value for kind in Kind)


class EventSource:
    """What a runner shows of what happens."""

    @abstractmethod
    def engine(self) -> Engine:
        """The live parts.

        Raises:
            RunnerNotStarted, RunnerClosed, RunnerFailed: there are none.
        """

    def events(
        self,
        after: str | None = None,
        *,
        task: str | None = None,
        kinds: Iterable[str] | None = None,
        job_id: str | None = None,
    ) -> AsyncIterator[Event]:
        """What happened since ``after``, in commit order, then what happens, in all processes.

        Ends when the runner stops. A loop that is slow misses nothing, and holds nobody up.

        Args:
            after: the ``cursor`` of an event, from any process and before any restart; by default
                only what happens from now on is heard.
            task, kinds, job_id: hear only these.

        Raises:
            CursorTooOld: at the first step: the journal no longer holds what comes after.
            UnknownJob: at the first step: neither the registry nor the journal knows the job.
            InvalidOption: an unknown kind, or a cursor that is none, or of another database.
            RunnerNotStarted, RunnerClosed, RunnerFailed: there is no database to read.
            WrongEventLoop: it is called in another one than the runner's, as in a thread.
        """
        return follow(self.engine(), after, task=task, kinds=kinds, job_id=job_id)

    def subscriber(
        self, name: str, *, task: str | None = None, kinds: Iterable[str] | None = None
    ) -> Subscriber:
        """A listener whose place is kept in the database under its name, over restarts.

        Args:
            name: whose place it is.
            task, kinds: hear only these.

        Raises:
            InvalidOption: an unknown kind, or a name that means nothing.
        """
        if task is not None:
            check_text(task, "task")
        return Subscriber(self.engine, check_text(name, "name"), task, check_kinds(kinds))

    async def cursor(self) -> str:
        """The present end of the journal: ``events(after=...)`` hears all that comes after it.

        To show something and follow it: take the cursor, look, then listen from the cursor on.

        Raises:
            RunnerNotStarted, RunnerClosed, RunnerFailed: there is no database to read.
        """
        engine = self.engine()
        return cursor_of(engine.store.database_id, await engine.feed.end())


def check_kinds(kinds: Iterable[str] | None) -> frozenset[str]:
    """The kinds of events to hear; for ``None`` all but those that one has to ask for."""
    if kinds is None:
        return frozenset(KINDS) - QUIET_KINDS
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise InvalidOption(f"kinds must be a sequence of str, got {type(kinds).__name__}")
    chosen = frozenset(check_choice(kind, "kinds", KINDS) for kind in kinds)
    if not chosen:
        raise InvalidOption("kinds=[] would hear nothing; leave it out for all kinds")
    return chosen


def follow(
    engine: Engine,
    after: str | None,
    *,
    task: str | None,
    kinds: Iterable[str] | None,
    job_id: str | None,
) -> AsyncIterator[Event]:
    """Events from a cursor on, or from now on; options are checked here and now."""
    engine.check_loop()
    if task is not None:
        check_text(task, "task")
    if job_id is not None:
        check_text(job_id, "job_id")
    chosen = check_kinds(kinds)
    place: Place | asyncio.Future[Place]
    if after is None:
        # Asked for now, not when the iteration begins, and in the line of our own writes: what is
        # enqueued from here on belongs to it, whichever thread is late.
        place = engine.commit.execute(FindEnd())
        place.add_done_callback(lambda found: found.cancelled() or found.exception())
    else:
        place = place_of(after, engine.store.database_id)
    return _follow(engine, place, task, chosen, job_id)


async def _follow(
    engine: Engine,
    start: Place | asyncio.Future[Place],
    task: str | None,
    kinds: frozenset[str],
    job_id: str | None,
) -> AsyncIterator[Event]:
    if isinstance(start, Place):
        place = start
        await engine.feed.check(place)
    else:
        place = await start
    seq = None
    if job_id is not None:
        seq = await engine.store.seq_of(job_id)
        if seq is None:
            raise unknown_job(job_id)
    listener = Listener(engine.feed, place, seq=seq, task=task, kinds=kinds)
    try:
        while (event := await listener.next()) is not None:
            yield event
    finally:
        listener.close()


async def follow_job(
    engine: Engine, job: Job, after: str | None, kinds: Iterable[str] | None
) -> AsyncIterator[Event]:
    """One job's events, from its beginning or a cursor on, up to its outcome."""
    engine.check_loop()
    chosen = check_kinds(kinds)
    if after is None:
        place = await engine.store.journal_place_at(job.created_at)
    else:
        place = place_of(after, engine.store.database_id)
        await engine.feed.check(place)
    # Where it was over before, there may be no outcome behind the cursor to end at.
    until = await engine.feed.end() if job.finished else None
    # Outcomes are heard whether they are asked for or not: it ends there.
    kinds = chosen | OUTCOME_KINDS | LAST_KINDS
    listener = Listener(engine.feed, place, seq=job.seq, kinds=kinds, until=until)
    try:
        while (event := await listener.next()) is not None:
            if event.kind in chosen:
                yield event
            if event.kind in LAST_KINDS:
                return
            if event.kind in OUTCOME_KINDS and await _is_last(engine, event):
                return
    finally:
        listener.close()


async def follow_log(engine: Engine, job: Job, after: str | None) -> AsyncIterator[LogLine]:
    """One job's log, from its beginning or a cursor on, up to its outcome."""
    engine.check_loop()
    # From before the first look on, so that nothing comes between.
    kinds = OUTCOME_KINDS | LAST_KINDS | {Kind.LOGGED.value}
    listener = Listener(engine.feed, await engine.feed.end(), seq=job.seq, kinds=kinds)
    try:
        while True:
            standing = await engine.store.standing(job.seq)
            page = await engine.store.logs(job.id, after=after, limit=PAGE_MAX)
            for line in page.lines:
                yield line
            after = page.cursor
            if len(page.lines) == PAGE_MAX:
                continue
            if standing is None or standing[0] in FINISHED or await listener.next() is None:
                return
    finally:
        listener.close()


async def _is_last(engine: Engine, event: Event) -> bool:
    """Whether the job still stands where the event left it: it may have been retried by hand."""
    standing = await engine.store.standing(event.seq)
    return standing is None or (standing[0] in FINISHED and standing[1] == event.claim)
