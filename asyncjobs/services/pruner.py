"""Deletes finished jobs past their time, in slices that hold the writer briefly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..clock import Clock, to_microseconds
from ..running.context import Run, RunnableTask
from ..store.base import LONG_AGO, Prune, Store
from ..store.group_commit import GroupCommit
from ..store.retention import PruneRetained, Retain, Rule

PRUNE_SECONDS = 60.0
RETAIN_SECONDS = 5.0
"""Of tasks that keep few jobs: at thousands a second a minute's would outgrow what is kept."""
SLICE_ROWS = 200
"""About 5 ms of the writer, for which every enqueue waits; more than 20 ms would be felt."""

KEEP_PASSING = to_microseconds(600.0)
"""How long the journal remembers what a run said while it went on; its last word stays with the
job. For who lost the connection, not for the archive: at five values a second and job for weeks
the journal would hold little else."""


EARLIEST: tuple[int, int] = (LONG_AGO, LONG_AGO)


class Pruner:
    """Applies the retention times: the runner's, and the rules of tasks that have their own."""

    def __init__(
        self,
        *,
        keep_seconds: Mapping[str, float],
        keep_journal_seconds: float,
        clock: Clock,
        store: Store,
        commit: GroupCommit[Run],
        tasks: Mapping[str, RunnableTask],
        on_deleted: Callable[[], None] = lambda: None,
    ) -> None:
        self._keep = {state: to_microseconds(seconds) for state, seconds in keep_seconds.items()}
        # After its jobs, so that a job's events never vanish before the job.
        self._keep_journal = max(to_microseconds(keep_journal_seconds), *self._keep.values())
        self._clock = clock
        self._store = store
        self._commit = commit
        self._tasks = tasks
        self._on_deleted = on_deleted
        self._noted: frozenset[str] = frozenset()
        """Tasks whose rules are in the database."""
        self._rules: list[Rule] = []
        self._since = dict.fromkeys(self._keep, EARLIEST)
        """What ended earlier, and is still there, has rules of its own."""

    async def prune(self) -> None:
        """Delete everything that is past its time now."""
        await self._note_rules()
        now = self._clock.now()
        for state, keep in self._keep.items():
            await self._prune_state(state, now - keep)
        operation = Prune(
            before={},
            journal_before=now - self._keep_journal,
            limit=SLICE_ROWS,
            passing_before=now - KEEP_PASSING,
        )
        while await self._delete(operation) >= SLICE_ROWS:
            pass
        rules = await self._store.retention()
        if rules != self._rules:
            self._rules = rules
            self._since = dict.fromkeys(self._keep, EARLIEST)
        await self.prune_retained()

    async def prune_retained(self) -> None:
        """Apply the rules of tasks; nothing to do where no task has one."""
        for rule in self._rules:
            if rule.age is not None:
                until: tuple[int, int] | None = (self._clock.now() - rule.age, LONG_AGO)
            else:
                until = await self._store.edge_of(rule)
            if until is None:
                continue
            operation = PruneRetained(rule.task, rule.state, until, SLICE_ROWS)
            while await self._delete(operation) >= SLICE_ROWS:
                pass

    async def _prune_state(self, state: str, before: int) -> None:
        # Where to go on is looked for by the connection that reads, which may take its time: many
        # jobs that rules keep for longer would hold up the writer in every slice.
        while True:
            first = await self._store.first_prunable(state, since=self._since[state], before=before)
            self._since[state] = first or max((before, LONG_AGO), self._since[state])
            if first is None:
                return
            await self._delete(Prune({state: before}, LONG_AGO, SLICE_ROWS, since=first))

    async def _delete(self, operation: Prune | PruneRetained) -> int:
        deleted: int = await self._commit.alone(operation)
        if deleted:
            self._on_deleted()  # what has failed may have stopped the key of others
        return deleted

    async def _note_rules(self) -> None:
        tasks = dict(self._tasks)
        if tasks.keys() == self._noted:
            return
        rules = [
            Rule(name, state, *keep)
            for name, task in tasks.items()
            for state, keep in task.keep.items()
        ]
        await self._commit.execute(Retain(list(tasks), rules))
        self._noted = frozenset(tasks)
