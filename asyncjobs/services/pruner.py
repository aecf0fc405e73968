"""Deletes finished jobs past their time, in slices that hold the writer briefly."""

from __future__ import annotations

from collections.abc import Mapping

from ..clock import Clock, to_microseconds
from ..running.context import Run
from ..store.base import Prune
from ..store.group_commit import GroupCommit

SLICE_ROWS = 200
"""About 5 ms of the writer, for which every enqueue waits; more than 20 ms would be felt."""

KEEP_PASSING = to_microseconds(600.0)
"""How long the journal remembers what a run said while it went on; its last word stays with the
job. For who lost the connection, not for the archive: at five values a second and job for weeks
the journal would hold little else."""


class Pruner:
    """Applies the retention times."""

    def __init__(
        self,
        *,
        keep_seconds: Mapping[str, float],
        keep_journal_seconds: float,
        clock: Clock,
        commit: GroupCommit[Run],
    ) -> None:
        self._keep = {state: to_microseconds(seconds) for state, seconds in keep_seconds.items()}
        # After its jobs, so that a job's events never vanish before the job.
        self._keep_journal = max(to_microseconds(keep_journal_seconds), *self._keep.values())
        self._clock = clock
        self._commit = commit

    async def prune(self) -> None:
        """Delete everything that is past its time now."""
        now = self._clock.now()
        operation = Prune(
            before={state: now - keep for state, keep in self._keep.items()},
            journal_before=now - self._keep_journal,
            limit=SLICE_ROWS,
            passing_before=now - KEEP_PASSING,
        )
        while await self._commit.alone(operation) >= SLICE_ROWS:
            pass
