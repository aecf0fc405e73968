"""Jobs that wait for jobs of their own limit's key, while all its places are theirs: for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from ..errors import AsyncJobsError
from ..inventory import LimitStanding
from ..running.context import Run
from ..store.base import Store
from ..store.overview import HOLDERS_MAX

LOOK_SECONDS = 1.0
"""How long a job waits for another before one looks: nearly all have got it by then."""

log = logging.getLogger("asyncjobs")


class Standstill:
    """Warns of them. Only a warning: a limit may be raised, and a job may stop waiting.

    It sees what waits in this process, so that it warns only of what is certain; places that are
    taken in others keep it silent.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._awaited: dict[str, list[str]] = {}
        """Of jobs that have a limit, the jobs that they wait for."""

    @contextlib.contextmanager
    def waiting(self, run: Run, awaited: str) -> Iterator[None]:
        """Around the await of a job by one that has a limit."""
        loop = asyncio.get_running_loop()
        looks: list[asyncio.Task[None]] = []

        def look() -> None:
            name = "asyncjobs-standstill"
            looks.append(loop.create_task(self._look(run.job.id, awaited), name=name))

        timer = loop.call_later(LOOK_SECONDS, look)
        all_awaited = self._awaited.setdefault(run.job.id, [])
        all_awaited.append(awaited)
        try:
            yield
        finally:
            timer.cancel()
            for one in looks:
                one.cancel()
            all_awaited.remove(awaited)
            if not all_awaited:
                self._awaited.pop(run.job.id, None)

    async def _look(self, job_id: str, awaited: str) -> None:
        with contextlib.suppress(AsyncJobsError):  # nothing hangs on it
            standing = await self._store.limit_of(awaited)
            if standing is not None and await self._stands_still(standing):
                log.warning(
                    "job %s waits for job %s, which cannot start before it has ended: they have "
                    "one key of the limit %r, and jobs that wait like this have all of its places "
                    "(running=%s). Do not await it there, or give one of the two tasks a Limit of "
                    "another name",
                    job_id, awaited, standing.name, standing.running,
                )  # fmt: skip

    async def _stands_still(self, standing: LimitStanding) -> bool:
        """Whether each place of the key is held by a job that waits for one without."""
        if not standing.running or not _is_held(standing):
            return False
        if not standing.running <= len(standing.holders) < HOLDERS_MAX:  # free, or not all named
            return False
        for holder in standing.holders:
            if not await self._waits_in_vain(holder, standing):
                return False
        return True

    async def _waits_in_vain(self, holder: str, key: LimitStanding) -> bool:
        for awaited in tuple(self._awaited.get(holder, ())):
            standing = await self._store.limit_of(awaited)
            if standing is None or not _is_held(standing):
                continue
            if (standing.name, standing.key) == (key.name, key.key):
                return True
        return False


def _is_held(standing: LimitStanding) -> bool:
    return standing.place in ("ready", "later")
