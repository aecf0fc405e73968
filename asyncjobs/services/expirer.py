"""Cancels jobs on time that nobody has started, also when nobody claims."""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock
from ..records import Outcome
from ..running.context import Run
from ..store.base import LONG_AGO, Store
from ..store.expiry import Expire
from ..store.group_commit import GroupCommit

SLICE_ROWS = 200
"""About 5 ms of the writer."""


class Expirer:
    """Knows when the next job expires. Asks the database only when it may be another one.

    Else a runner without such jobs would ask once a second for nothing.
    """

    def __init__(
        self,
        store: Store,
        commit: GroupCommit[Run],
        clock: Clock,
        on_expired: Callable[[list[tuple[str, Outcome]]], None],
    ) -> None:
        self._store = store
        self._commit = commit
        self._clock = clock
        self._on_expired = on_expired
        self._next_at: int | None = LONG_AGO

    async def expire(self) -> None:
        """Cancel what has expired, in slices."""
        if self._store.expiry_written:
            self._store.expiry_written = False
            self._next_at = await self._store.next_expiry()
        while self._next_at is not None and self._next_at <= self._clock.now():
            self._on_expired(await self._commit.alone(Expire(SLICE_ROWS)))
            self._next_at = await self._store.next_expiry()
