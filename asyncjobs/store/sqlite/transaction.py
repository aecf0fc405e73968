"""What every write does besides its own: the journal and the counters."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from ...states import Event
from ..statements import Statements, chunks

STATEMENTS = Statements(Path(__file__).with_name("queries.sql"))

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode


class TryCarefully(Exception):
    """The first try trusted that nothing stands in the way, and something does: begin again."""


class Transaction:
    """One open write transaction. Collects what goes to the journal and the counters."""

    def __init__(self, connection: sqlite3.Connection, now: int, *, careful: bool) -> None:
        self.now = now
        self.careful = careful
        """True on the second try: look for what stands in the way, one by one."""
        self.expiring = False
        """Whether a job was enqueued that expires."""
        self.has_queue_settings = False
        """Whether something is set for some queue, as the last look at :meth:`unstarted` told."""
        self.has_later_permits = False
        """Whether queued jobs are to ask for a permit when they are due, as it told."""
        self._connection = connection
        self._counts: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._journal: list[tuple[Event, list[int], list[Any]]] = []

    def fetch(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement; all its rows. Rows of RETURNING left unfetched would hold the lock."""
        return self._connection.execute(STATEMENTS[statement], values).fetchall()

    def select(self, query: str, *values: Any) -> list[Any]:
        """All rows of a composed query."""
        return self._connection.execute(query, values).fetchall()

    def value(self, statement: str, *values: Any) -> Any:
        """The first column of the statement's only row."""
        return self.fetch(statement, *values)[0][0]

    def write_rows(self, statement: str, values: list[Any], *more: Any) -> list[Any]:
        """Run a statement for many rows, in a few calls, and fetch what it returns.

        ``values`` holds the rows' values one after the other; ``more`` follows them in each call,
        or is what the rows share.
        """
        if not values:
            return []
        width, shares = STATEMENTS.width(statement), STATEMENTS.shares(statement)
        answers: list[Any] = []
        for start, end in chunks(len(values) // width):
            text = STATEMENTS.rows(statement, end - start)
            given = values[start * width : end * width]
            bound = [*more, *given] if shares else [*given, *more]
            answers += self._connection.execute(text, bound).fetchall()
        return answers

    def change_rows(self, statement: str, values: list[Any], *more: Any) -> None:
        """Run an UPDATE for many rows that all must be there.

        Raises:
            TryCarefully: some are not.
        """
        width = STATEMENTS.width(statement) or len(values)
        for start, end in chunks(len(values) // width if values else 0):
            text = STATEMENTS.rows(statement, end - start)
            given = values[start * width : end * width]
            if self._connection.execute(text, [*given, *more]).rowcount != end - start:
                raise TryCarefully

    def count(self, queue: str, task: str, state: str, change: int) -> None:
        """Note that ``change`` more jobs (fewer if negative) are in ``state``."""
        self._counts[queue, task, state] += change

    def count_move(self, queue: str, task: str, old: str, new: str, jobs: int = 1) -> None:
        """Note that ``jobs`` went from one state to another."""
        self._counts[queue, task, old] -= jobs
        self._counts[queue, task, new] += jobs

    def count_move_queue(self, old: str, new: str, task: str, state: str) -> None:
        """Note that a job went from one queue to another."""
        self._counts[old, task, state] -= 1
        self._counts[new, task, state] += 1

    def unstarted(self) -> dict[tuple[str, str], int]:
        """How many jobs are queued or blocked, by (task, state), this transaction's included."""
        jobs: defaultdict[tuple[str, str], int] = defaultdict(int)
        for task, state, written in self.fetch("unstarted"):
            jobs[task, state] = written
        self.has_queue_settings = jobs.pop(("", ""), 0) > 0
        self.has_later_permits = jobs.pop(("", "later"), 0) > 0
        for (_, task, state), change in self._counts.items():
            if state in ("queued", "blocked"):
                jobs[task, state] += change
        return jobs

    def running_more(self, queue: str) -> int:
        """How many more jobs of a queue run than when this transaction began."""
        return sum(
            change
            for (name, _, state), change in self._counts.items()
            if name == queue and state == "running"
        )

    def note(self, event: Event, fences: Iterable[int], details: Iterable[Any] = ()) -> None:
        """Note for the journal what happened to ``seq, claim, seq, claim, …``, in this order.

        ``details`` say more of each, for events that have more to say.
        """
        if self._journal and self._journal[-1][0] is event:
            self._journal[-1][1].extend(fences)
            self._journal[-1][2].extend(details)
        else:
            self._journal.append((event, list(fences), list(details)))

    def finish(self) -> None:
        """Write the journal and the counters; then the transaction may commit."""
        changes: list[Any] = []
        for key, jobs in self._counts.items():
            if jobs:
                changes += (*key, jobs)
        self.write_rows("add_counts", changes)
        rows: list[Any] = []
        for event, fences, details in self._journal:
            if fences:
                detail = to_json(details).decode() if details else None
                rows += (self.now, event.value, to_json(fences).decode(), detail)
        self.write_rows("add_journal", rows)
