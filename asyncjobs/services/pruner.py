"""Deletes finished jobs past their time, in slices that hold the writer briefly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from ..clock import Clock, to_microseconds
from ..running.context import Run, RunnableTask
from ..store.base import LONG_AGO, Prune, Store
from ..store.group_commit import GroupCommit
from ..store.retention import PruneRetained, Retain, Rule, Shorten

PRUNE_SECONDS = 60.0
RETAIN_SECONDS = 5.0
"""Of tasks that keep few jobs: at thousands a second a minute's would outgrow what is kept."""
SLICE_ROWS = 200
"""About 5 ms of the writer, for which every enqueue waits; more than 20 ms would be felt."""
SLICE_ROWS_MAX = 2_000
"""The same while many jobs run: a flush of theirs takes as long."""

KEEP_PASSING = to_microseconds(600.0)
"""How long the journal remembers what a run said while it went on; its last word stays with the
job. For who lost the connection, not for the archive: at five values a second and job for weeks
the journal would hold little else."""

FREE_PAGES_MAX = 1_000
"""Unused pages that the file keeps beyond what it has needed: to give 4 MB back would not last."""
ROUNDS_OF_USE = 10
"""For so many rounds the file stays as long as it was full in one of them. Thousands of jobs may
come and go between two rounds: given back in each, their pages would be written anew before the
next, and the file would swing by all of them."""
PAGES_A_SLICE = 200
"""A few ms of the writer."""

LOOK_AGAIN = to_microseconds(3600.0)
"""How long what was passed over is left alone: the window of a unique job may be over by then."""

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
        started: Callable[[], int] = lambda: 0,
    ) -> None:
        self._keep = {state: to_microseconds(seconds) for state, seconds in keep_seconds.items()}
        # After its jobs, so that a job's events never vanish before the job.
        self._keep_journal = max(to_microseconds(keep_journal_seconds), *self._keep.values())
        self.seconds = max(RETAIN_SECONDS, min(PRUNE_SECONDS, keep_journal_seconds))
        """How often to look for what is past its time: names of jobs that go by the thousand take
        more room than the few that are kept."""
        self._clock = clock
        self._store = store
        self._commit = commit
        self._tasks = tasks
        self._started = started
        """How many runs this process has started."""
        self._started_before = 0
        self._noted: frozenset[str] = frozenset()
        """Tasks whose rules are in the database."""
        self._rules: list[Rule] = []
        self._since = dict.fromkeys(self._keep, EARLIEST)
        """What ended earlier, and is still there, has rules of its own, a window, or stops its
        key."""
        self._look_again_at = 0
        self._most_used_pages = 0
        """In the rounds since the file was last shortened."""
        self._rounds = 0

    async def prune(self) -> None:
        """Delete everything that is past its time now, or too much."""
        await self.prune_old()
        await self.prune_retained()

    async def prune_old(self) -> None:
        """Delete everything that is past its time, but for jobs of which rules speak."""
        await self._note_use()
        await self._note_rules()  # before anything goes that they keep
        now = self._clock.now()
        for state, keep in self._keep.items():
            await self._prune_state(state, now - keep)
        operation = Prune(
            before={},
            journal_before=now - self._keep_journal,
            limit=SLICE_ROWS,
            passing_before=now - KEEP_PASSING,
        )
        await self._work_off(operation)
        await self._hear_rules()
        await self._end_round()

    async def prune_retained(self) -> None:
        """Apply the rules of tasks; nothing to do where no task has one."""
        if self._tasks.keys() != self._noted:  # not a minute later: thousands may end in a second
            await self._note_rules()
            await self._hear_rules()
        if self._rules:
            await self._note_use()
        for rule in self._rules:
            # Again where it took several slices, during which more jobs may have ended.
            while until := await self._edge(rule):
                if await self._work_off(PruneRetained(rule.task, rule.state, until, 0)) == 1:
                    break

    async def _edge(self, rule: Rule) -> tuple[int, int] | None:
        """The place up to which a rule lets jobs go."""
        if rule.age is not None:
            return self._clock.now() - rule.age, LONG_AGO
        return await self._store.edge_of(rule)

    async def _work_off(self, operation: Prune | PruneRetained) -> int:
        """Slice by slice, until one is not full; how many it took."""
        slices, full = 0, True
        while full:
            limit = self._slice_rows()
            full = await self._commit.alone(replace(operation, limit=limit)) >= limit
            slices += 1
        return slices

    def _slice_rows(self) -> int:
        """Twice as many as have started here since the last slice, within limits.

        The writer takes one slice between two flushes, each of which may end 1,000 jobs: by slices
        of 200 they would go more slowly than they come.
        """
        started = self._started()
        new, self._started_before = started - self._started_before, started
        return max(SLICE_ROWS, min(2 * new, SLICE_ROWS_MAX))

    async def _prune_state(self, state: str, before: int) -> None:
        # Where to go on is looked for by the connection that reads, which may take its time: many
        # jobs that rules keep for longer would hold up the writer in every slice.
        while True:
            first = await self._store.first_prunable(state, since=self._since[state], before=before)
            self._since[state] = first or max((before, LONG_AGO), self._since[state])
            if first is None:
                return
            limit = self._slice_rows()
            await self._commit.alone(Prune({state: before}, LONG_AGO, limit, since=first))

    async def _note_use(self) -> None:
        """Before anything goes, the file is as full as it gets."""
        self._most_used_pages = max(self._most_used_pages, await self._store.used_pages())

    async def _end_round(self) -> None:
        """Shorten the file once in so many rounds, to what it has needed in them."""
        self._rounds += 1
        if self._rounds < ROUNDS_OF_USE:
            return
        operation = Shorten(self._most_used_pages + FREE_PAGES_MAX, PAGES_A_SLICE)
        self._rounds = self._most_used_pages = 0
        while await self._commit.alone(operation):
            pass

    async def _hear_rules(self) -> None:
        """Read the rules of all processes."""
        rules, now = await self._store.retention(), self._clock.now()
        if rules != self._rules or now >= self._look_again_at:
            self._rules = rules
            self._look_again_at = now + LOOK_AGAIN
            self._since = dict.fromkeys(self._keep, EARLIEST)

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
