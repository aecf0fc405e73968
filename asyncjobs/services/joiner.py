"""Enqueues in transactions of the application, and finds out when those have ended.

Nobody tells us of a commit that the application makes itself. While such a transaction is open this
looks, more and more rarely; when all have ended, nothing runs here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import StoreError
from ..records import Accepted, NewJob
from ..store.base import Insert, Store
from .resolver import Resolver

FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.05
"""Between looks: a job starts that much after its commit, of the tenth of a second promised."""

log = logging.getLogger("asyncjobs")


class _Pending:
    """New jobs of one call, written in a transaction that may be open still."""

    __slots__ = ("connection", "ids")

    def __init__(self, connection: object, ids: Sequence[str]) -> None:
        # Not the connection itself: kept alive, one that the application has dropped would keep
        # its transaction open, and with it the write lock.
        self.connection = id(connection)
        self.ids = ids


class Joiner:
    """The way of ``tx=``."""

    def __init__(self, store: Store, resolver: Resolver, on_ended: Callable[[], None]) -> None:
        self._store = store
        self._resolver = resolver
        self._on_ended = on_ended
        self._pending: dict[_Pending, None] = {}
        """In the order in which they were written."""
        self._of: dict[str, _Pending] = {}
        resolver.undecided = self._of.keys()
        self._task: asyncio.Task[None] | None = None

    async def enqueue(self, connection: Any, jobs: Sequence[NewJob[Any]]) -> list[Accepted | None]:
        """Write new jobs in the connection's open transaction, all or none.

        Raises:
            InvalidOption, StoreError: as ``Store.write_in``.
        """
        insert = Insert(jobs, together=True)
        try:
            (answers,) = await self._store.write_in(connection, [insert])
        except asyncio.CancelledError:
            # Written for all we know, and the application may commit it all the same.
            self._watch(connection, [job.id for job in jobs])
            raise
        if any(accepted and accepted.conflict for accepted in answers):
            return list(answers)
        new = [
            job.id
            for job, there in zip(jobs, answers, strict=True)
            if there is None or there.replaced
        ]
        if new:
            self._watch(connection, new)
        return list(answers)

    def _watch(self, connection: object, ids: Sequence[str]) -> None:
        pending = _Pending(connection, ids)
        self._pending[pending] = None
        self._of.update(dict.fromkeys(ids, pending))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_until_ended(), name="asyncjobs-joiner")

    async def _look_until_ended(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while self._pending:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                await self.look()
            except StoreError as error:
                log.warning("transactions of the application will be looked at again: %s", error)

    async def look(self) -> None:
        """Settle those whose transaction has ended.

        Raises:
            StoreError: the database cannot be asked now.
        """
        # One job speaks for all of a call: they are written together. Where it is not there, the
        # transaction is asked for, which speaks for all that were written before this question.
        asked = {pending.ids[0]: pending for pending in self._pending}
        if asked:
            settled = await self._store.settled(list(asked))
            self._settle([pending for first, pending in asked.items() if first in settled])

    def ended(self, connection: object) -> None:
        """The transaction on this connection has just been committed or rolled back."""
        self._settle([pending for pending in self._pending if pending.connection == id(connection)])

    def _settle(self, ended: Sequence[_Pending]) -> None:
        """Whether the jobs are there is for the database to say; those who wait ask it."""
        ended = [pending for pending in ended if pending in self._pending]
        for pending in ended:
            del self._pending[pending]
            for job_id in pending.ids:
                if self._of.get(job_id) is pending:  # else it was enqueued again since
                    del self._of[job_id]
                    self._resolver.doubt(job_id)
        if ended:
            self._on_ended()

    async def close(self) -> None:
        """Stop looking. What is committed later is found by the next claim of any runner."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
