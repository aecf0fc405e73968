"""The loop of every service, written once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..errors import StoreError

log = logging.getLogger("asyncjobs")


async def repeat(verb: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do ``verb`` every ``seconds`` for ever; a database or a system that fails makes it wait."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await verb()
        except (StoreError, OSError) as error:
            log.warning("%s will be tried again: %s", verb.__name__, error)


def only(error: BaseException) -> BaseException:
    """The one error in a task group's: who waits for it has no use for the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
