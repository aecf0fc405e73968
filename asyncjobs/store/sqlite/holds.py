"""What unique jobs hold, and what becomes of the next one that asks for it meanwhile.

Whether a job still holds is judged when the next one comes: claims and outcomes write nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from msgspec.structs import replace

from ...records import Accepted, Hold, NewJob
from ...rules.window import due_in_window
from .admitting import Arrival, step_in, step_out
from .transaction import Transaction, to_json


class _Holder(NamedTuple):
    """A job that holds a key, as it stands."""

    seq: int
    id: str
    queue: str
    run_at: int
    waits: int
    """Whether it has never been started, and so can be replaced."""
    until: int | None


class Holds:
    """The keys that the unique jobs of one operation ask for; each is its text and its task."""

    def __init__(self, tx: Transaction, jobs: Sequence[NewJob[Any]]) -> None:
        self._tx = tx
        self._holders = {
            (key, task): _Holder._make(row)
            for task, keys in keys_by_task(job for job in jobs if job.hold is not None)
            for key, *row in tx.fetch("holders", keys, task, tx.now)
        }
        self._taken: dict[Any, int] = {}
        """Keys of new jobs of this operation: their places among those."""
        self._replacing: dict[int, tuple[_Holder, NewJob[Any]]] = {}

    def ask(self, job: NewJob[Any], hold: Hold, fresh: list[NewJob[Any]]) -> Accepted | None:
        """Who holds the key; ``None`` when the job gets it, as the next of the ``fresh`` ones."""
        key = (job.key, job.task)
        holder = self._holders.get(key)
        if holder is not None:
            return self._meet(job, hold, holder)
        place = self._taken.setdefault(key, len(fresh))
        if place == len(fresh):
            return None
        first = fresh[place]
        if hold.on_conflict in ("replace", "debounce"):
            fresh[place] = replace(job, id=first.id)
        return Accepted(first.id, hold.on_conflict == "raise")

    def _meet(self, job: NewJob[Any], hold: Hold, holder: _Holder) -> Accepted:
        if holder.id == job.id:  # the same one again, after a lost answer
            return Accepted(holder.id, conflict=False)
        replaces = bool(holder.waits) and hold.on_conflict in ("replace", "debounce")
        if replaces:
            self._replacing[holder.seq] = holder, job
        return Accepted(holder.id, hold.on_conflict == "raise", replaces)

    def replace(self) -> None:
        """Give the waiting jobs what the last of those brought that came after them."""
        tx = self._tx
        for holder, job in self._replacing.values():
            left = step_out(tx, holder.seq, limited=job.limit is not None)
            tx.fetch("delete_tags_of", holder.seq)
            tags = to_json(job.tags).decode() if job.tags else None
            expires_at = job.expires_at if job.expires is None else tx.now + job.expires
            tx.expiring = tx.expiring or expires_at is not None
            wanted_at = self._run_at(job, holder)
            run_at = due_in_window(job.options, wanted_at, tx.now)
            ((state,),) = tx.fetch(
                "replace_job", holder.seq, job.queue, job.priority, run_at,
                job.max_crashes, job.trigger, tags, job.options, expires_at, job.own_retention,
                "window" if run_at > wanted_at else None,
            )  # fmt: skip
            if job.queue != holder.queue:
                tx.count_move_queue(holder.queue, job.queue, job.task, state)
            tx.fetch("delete_payloads", to_json([holder.seq]).decode())
            if job.arguments != "{}" or job.meta:
                tx.write_rows("insert_payloads", [holder.seq, job.arguments, job.meta])
            for tag in job.tags:
                tx.write_rows("insert_tags", [tag, holder.seq])
            step_in(tx, Arrival(holder.seq, run_at, job), left)

    def _run_at(self, job: NewJob[Any], holder: _Holder) -> int:
        """When it is due now: one that is due at once keeps its place in the line."""
        now = self._tx.now
        if job.hold is not None and job.hold.on_conflict == "debounce":
            pushed = now + job.hold.microseconds
            return pushed if holder.until is None else min(pushed, holder.until)
        if job.run_at is not None:
            return job.run_at
        return min(now, holder.run_at) if job.delay is None else now + job.delay


def keys_by_task(jobs: Iterable[NewJob[Any]]) -> list[tuple[str, str]]:
    """The tasks of jobs, each with the jobs' keys as JSON.

    One look a task: a list of texts takes SQLite half as long as one of pairs, each of which it
    parses again.
    """
    keys: defaultdict[str, list[str | None]] = defaultdict(list)
    for job in jobs:
        keys[job.task].append(job.key)
    return [(task, to_json(asked).decode()) for task, asked in keys.items()]


def write_holds(tx: Transaction, jobs: Sequence[NewJob[Any]], first: int) -> None:
    """What new jobs hold, given the first one's seq."""
    alike: defaultdict[tuple[str, str, int | None], list[tuple[str | None, int]]]
    alike = defaultdict(list)
    for seq, job in enumerate(jobs, first):
        if job.hold is not None:
            alike[job.task, job.hold.held, _until(job.hold, tx.now)].append((job.key, seq))
    for kind, holds in alike.items():
        holds.sort()  # neighbours in the table, which is in the order of keys, go in together
        tx.write_rows("insert_holds", list(chain.from_iterable(holds)), *kind)


def _until(hold: Hold, now: int) -> int | None:
    if hold.held == "window":
        return now + hold.microseconds
    return now + hold.longest if hold.on_conflict == "debounce" else None
