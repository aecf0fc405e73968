"""Stops runs of this process that somebody elsewhere has asked to cancel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..errors import StoreError
from ..store.base import Store
from .dispatcher import Dispatcher

log = logging.getLogger("asyncjobs")


class Canceller:
    """Looks for such requests when it is told that there may be some."""

    def __init__(self, store: Store, dispatcher: Callable[[], Dispatcher]) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._asked = asyncio.Event()

    def wake(self) -> None:
        """Another process has asked to cancel a job that may run here."""
        self._asked.set()

    async def run(self) -> None:
        """Heed requests as they come, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.heed()
            except StoreError as error:
                log.warning("cancellations from elsewhere are looked for again: %s", error)

    async def heed(self) -> None:
        """Stop what is asked to stop now."""
        dispatcher = self._dispatcher()
        for run in await self._store.cancels_of(dispatcher.instance):
            dispatcher.cancel_from_elsewhere(*run)
