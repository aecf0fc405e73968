"""Named subscribers: listeners whose place is kept in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from .services.feed import Listener
from .store.journal import Acknowledge, Event, Place, place_of

if TYPE_CHECKING:
    from .services.engine import Engine

ADVANCE_SECONDS = 600.0
"""After so long without an event that passes its filters, a subscriber's place moves on as well:
else it would be past the journal's retention one day, with nothing missed."""


class Subscriber:
    """``runner.subscriber(name)``: ``async for event in subscriber``.

    Its place is kept in the database. An event is acknowledged when the next one is asked for, so
    each is heard at least once: after a crash those come again that were not acknowledged on disk.
    One that never was begins now. Iterate over a name in one place at a time.
    """

    def __init__(
        self, engine: Callable[[], Engine], name: str, task: str | None, kinds: frozenset[str]
    ) -> None:
        self.name = name
        self._engine = engine
        self._task = task
        self._kinds = kinds
        self._listener: Listener | None = None
        self._moves = 0
        """How often it was told to go on from elsewhere."""
        self._acknowledged: Place | None = None
        """Not on disk, as far as we know."""
        self._writing: asyncio.Future[None] | None = None

    async def __aiter__(self) -> AsyncIterator[Event]:
        engine = self._engine()
        engine.check_loop()
        place = await engine.store.subscriber_place(self.name)
        if place is None:
            place = await engine.feed.end()
            await engine.commit.execute(Acknowledge(self.name, place))
        listener = Listener(engine.feed, place, task=self._task, kinds=self._kinds)
        self._listener = listener
        try:
            while (event := await self._next(engine, listener)) is not None:
                moves = self._moves
                yield event
                if moves == self._moves:
                    self._acknowledge(engine, place_of(event.cursor, engine.store.database_id))
        finally:
            listener.close()
            while self._writing is not None:
                await asyncio.wait([self._writing])

    async def _next(self, engine: Engine, listener: Listener) -> Event | None:
        while True:
            try:
                async with asyncio.timeout(ADVANCE_SECONDS):
                    return await listener.next()
            except TimeoutError:
                self._acknowledge(engine, listener.passed)

    def _acknowledge(self, engine: Engine, place: Place) -> None:
        """Write it, or let the write that is under way be followed by one for all until then."""
        self._acknowledged = place
        if self._writing is None:
            self._write(engine)

    def _write(self, engine: Engine) -> None:
        place, self._acknowledged = self._acknowledged, None
        if place is None or not engine.commit.open:
            self._writing = None
            return
        self._writing = engine.commit.execute(Acknowledge(self.name, place))
        self._writing.add_done_callback(lambda done: self._written(engine, done))

    def _written(self, engine: Engine, done: asyncio.Future[None]) -> None:
        if not done.cancelled():
            done.exception()  # such as a full disk: the next one says it again, and more
        self._write(engine)

    async def rewind(self, to: datetime | str) -> None:
        """Go on from an earlier or later place, at once where this object is iterated over.

        Args:
            to: a cursor, or an aware datetime: the first event of that instant or later.

        Raises:
            CursorTooOld: the journal no longer holds what comes after the cursor.
            InvalidOption: it is no cursor, one of another database, or no aware datetime.
            StoreError: it could not be written.
        """
        engine = self._engine()
        if isinstance(to, datetime):
            place = await engine.store.journal_place_at(to)
        else:
            place = place_of(to, engine.store.database_id)
            await engine.feed.check(place)
        self._moves += 1
        self._acknowledged = None
        await engine.commit.execute(Acknowledge(self.name, place, move=True))
        if self._listener is not None:
            self._listener.move(place)

    def __repr__(self) -> str:
        return f"<Subscriber {self.name!r}>"
