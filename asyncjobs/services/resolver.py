"""Looks up how jobs ended for handles that were not there when it happened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container

from ..errors import AsyncJobsError
from ..records import Outcome
from ..running.context import Run
from ..running.mailbox import Mailbox, Mailboxes
from ..states import NOT_KEPT, State
from ..store.base import Store
from ..store.group_commit import GroupCommit
from ..store.journal import FindEnd

GONE = Outcome("", State.CANCELLED, "gone")
"""Stands for a row that is not there."""
LOOKUPS_MAX = 1_000


class Resolver:
    """Gathers lookups of one pass of the event loop into one query."""

    def __init__(self, store: Store, mailboxes: Mailboxes, commit: GroupCommit[Run]) -> None:
        self._store = store
        self._mailboxes = mailboxes
        self._commit = commit
        self._asked: dict[str, Mailbox] = {}
        self._task: asyncio.Task[None] | None = None
        self.undecided: Container[str] = ()
        """Jobs whose rows may come with a commit of the application: not gone yet."""

    def ask(self, job_id: str, box: Mailbox) -> None:
        """Deliver the outcome to ``box`` soon, if the job has one already."""
        if job_id in self.undecided:
            return  # who waits is told once it is decided
        self._asked[job_id] = box
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer())

    def refresh(self) -> None:
        """Another process has written: look up everything that somebody waits for.

        What nobody waits for yet may have ended there too: whoever comes later has to ask.
        """
        self._mailboxes.distrust()
        for job_id in self._mailboxes.awaited():
            self.refresh_one(job_id)

    def refresh_one(self, job_id: str) -> None:
        """The job has ended otherwise than by a run: look it up if somebody holds a handle."""
        box = self._mailboxes.find(job_id)
        if box is not None:
            self.ask(job_id, box)

    def doubt(self, job_id: str) -> None:
        """The job may have ended where this process did not see it, or be gone."""
        box = self._mailboxes.find(job_id)
        if box is not None:
            box.local = False
            if box.waiters:
                self.ask(job_id, box)

    async def close(self) -> None:
        """Let the lookup that is under way end."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _answer(self) -> None:
        while self._asked:
            ids = list(self._asked)[:LOOKUPS_MAX]
            boxes = {job_id: self._asked.pop(job_id) for job_id in ids}
            try:
                found = await self._store.outcomes(ids)
            except AsyncJobsError as error:
                for box in boxes.values():
                    box.fail(error)
                continue
            if any(
                outcome is not None and outcome.reason == NOT_KEPT for outcome in found.values()
            ):
                await self._tell_own()
            for job_id, box in boxes.items():
                if job_id not in found and job_id in self.undecided:
                    continue  # enqueued again since it was asked for
                outcome = found.get(job_id, GONE)
                if outcome is not None and box.outcome is None:
                    box.deliver(outcome)

    async def _tell_own(self) -> None:
        """Let reports of this process come first: they bring values that stand nowhere else."""
        if self._commit.open:
            with contextlib.suppress(AsyncJobsError):
                await self._commit.execute(FindEnd())  # answered after all that was written before
        else:
            await self._commit.finished.wait()
