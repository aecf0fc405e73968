"""The feed: what happened, from the journal, to whoever listens, as it is written.

Everything heard has been read from the journal, never handed over by the engine: a listener hears
the same whichever process wrote, and one that is slow holds nobody up. While somebody listens, one
task reads what is new, once for all listeners, and offers it to those that are up to date; each
keeps a bounded number of events. A listener that is behind, by its cursor or because it was slow,
reads for itself until it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable

from ..errors import InvalidOption, StoreError
from ..store.base import Store
from ..store.journal import Entry, Event, JournalPage, JournalQuery, Place, check_age

WAITING_MAX = 1_000
"""Events kept for a listener that is slow; it reads the others itself when it gets there."""
PACE_SECONDS = 0.002
"""Between two reads of what is new, so that a busy writer is read in larger pieces."""
RETRY_SECONDS = 1.0

log = logging.getLogger("asyncjobs")


class Listener:
    """One who listens: from a place on, to what passes its filters."""

    def __init__(
        self,
        feed: Feed,
        place: Place,
        *,
        seq: int | None = None,
        task: str | None = None,
        kinds: frozenset[str] | None = None,
        until: Place | None = None,
    ) -> None:
        self.seq = seq
        self._feed = feed
        self._place = place
        """Where what it has neither got nor in waiting begins."""
        self._task = task
        self._kinds = kinds
        self._until = until
        self._waiting: deque[Event] = deque()
        self._live = False
        self._wake: asyncio.Future[None] | None = None

    async def next(self) -> Event | None:
        """The next event, as soon as there is one; ``None`` when there is none before ``until``.

        ``None`` as well once the runner has stopped.

        Raises:
            CursorTooOld: the journal no longer holds what comes next.
            StoreError: it cannot be read.
        """
        while not self._waiting:
            if self._until is not None and self._place >= self._until:
                return None
            if self._live:
                await self._woken()
            elif self._feed.closed:
                return None
            else:
                await self._catch_up()
        return self._waiting.popleft()

    @property
    def passed(self) -> Place:
        """Before this place there is nothing that it has not given out, or passed over."""
        return self._feed.place if self._live and not self._waiting else self._place

    @property
    def has_more(self) -> bool:
        """Whether the next event is here already."""
        return bool(self._waiting)

    def move(self, place: Place) -> None:
        """Go on from another place."""
        self._leave()
        self._waiting.clear()
        self._place = place
        self.wake()

    def close(self) -> None:
        """Listen no more."""
        self._leave()

    def offer(self, entry: Entry) -> None:
        """Something new: kept if it passes and there is room."""
        event = entry.event
        if entry.place < self._place:
            return
        if self._kinds is not None and event.kind not in self._kinds:
            return
        if self._task is not None and event.task != self._task:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._leave()
            return
        self._waiting.append(event)
        self._place = entry.following
        self.wake()

    def wake(self) -> None:
        """There is something to hear, or nothing more to wait for."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def fall_behind(self) -> None:
        """Nobody reads for it any more."""
        self._leave()
        self.wake()

    def _leave(self) -> None:
        if self._live:
            self._live = False
            self._feed.leave(self)

    async def _woken(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    async def _catch_up(self) -> None:
        seqs = None if self.seq is None else frozenset((self.seq,))
        page = await self._feed.read(
            JournalQuery(self._place, seqs, self._kinds, self._task, WAITING_MAX)
        )
        self._waiting.extend(entry.event for entry in page.entries)
        self._place = page.following
        if page.complete and not self._feed.closed and self._place >= self._feed.place:
            self._live = True
            self._feed.join(self, self._place)


class Feed:
    """Reads the journal for those who listen."""

    def __init__(self, store: Store, on_listening: Callable[[], None]) -> None:
        self._store = store
        self._on_listening = on_listening
        self._by_seq: defaultdict[int, set[Listener]] = defaultdict(set)
        self._of_all: set[Listener] = set()
        self.place = Place(0)
        """Up to where the live listeners have been told."""
        self.closed = False
        self._joined = 0
        """How many have joined until now."""
        self._moved = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @property
    def listening(self) -> bool:
        """Whether somebody waits for what comes next."""
        return bool(self._of_all or self._by_seq)

    def wake(self) -> None:
        """Something was written, here or elsewhere."""
        if self._reading is not None:
            self._moved.set()

    async def end(self) -> Place:
        """Where the next event will stand."""
        return (await self._store.journal_end()).place

    async def check(self, place: Place) -> None:
        """Refuse a place that cannot be read on from.

        Raises:
            CursorTooOld: it is before what the journal holds.
            InvalidOption: it is behind the journal's end.
        """
        end = await self._store.journal_end()
        check_age(place, end.pruned)
        if place > end.place:
            raise InvalidOption(
                "the cursor is ahead of the database: was an older copy of the file put back?"
            )

    async def read(self, what: JournalQuery) -> JournalPage:
        """A page for a listener that is behind.

        Raises:
            CursorTooOld: the journal no longer holds what comes next.
        """
        page = await self._store.read_journal(what)
        check_age(what.after, page.pruned)
        return page

    def join(self, listener: Listener, place: Place) -> None:
        """The listener has caught up with ``place``, which is not before the feed's own."""
        first = not self.listening
        if first:
            self.place = place
        (self._of_all if listener.seq is None else self._by_seq[listener.seq]).add(listener)
        self._joined += 1
        if first:
            self._on_listening()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())
        self._moved.set()  # what was written since the listener's own last look

    def leave(self, listener: Listener) -> None:
        """It listens no more, or reads for itself."""
        if listener.seq is None:
            self._of_all.discard(listener)
            return
        some = self._by_seq.get(listener.seq, set())
        some.discard(listener)
        if not some:
            self._by_seq.pop(listener.seq, None)

    async def close(self) -> None:
        """Tell what is left to tell, and that nothing comes after it."""
        self.closed = True
        if self._reading is not None:
            self._moved.set()
            await asyncio.wait([self._reading])
        for listener in self._listeners():
            listener.fall_behind()

    def _listeners(self) -> list[Listener]:
        return [*self._of_all, *(one for some in self._by_seq.values() for one in some)]

    async def _read(self) -> None:
        while self.listening:
            await self._moved.wait()
            self._moved.clear()
            last = self.closed
            try:
                await self._tell()
            except StoreError as error:
                log.warning("the journal will be read again: %s", error)
                if not last:
                    await asyncio.sleep(RETRY_SECONDS)
                    self._moved.set()
            if last:
                return
            await asyncio.sleep(PACE_SECONDS)
        self._reading = None

    async def _tell(self) -> None:
        complete = False
        while self.listening and not complete:
            seqs, joined = None if self._of_all else frozenset(self._by_seq), self._joined
            page = await self._store.read_journal(JournalQuery(self.place, seqs))
            if joined != self._joined:
                continue  # its events were not asked for, and may be among what was read
            if page.pruned >= self.place.position:
                for listener in self._listeners():
                    listener.fall_behind()  # and finds out by itself whether it missed anything
                return
            for entry in page.entries:
                for listener in (*self._of_all, *self._by_seq.get(entry.event.seq, ())):
                    listener.offer(entry)
            self.place = page.following
            complete = page.complete
