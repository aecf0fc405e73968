"""The operations, each a function of an open transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from ...records import Accepted, Claimed, NewJob, Outcome, Transition
from ...rules.limits import ATTEMPT_ROWS_MAX
from ...rules.outcome import Crashed, Released, cancelled_instead, decide
from ...states import FINISHED, MOVES, Event, State
from ..base import (
    Answer,
    Cancel,
    Claim,
    ClaimResult,
    Delete,
    Disown,
    Insert,
    InsertAndClaim,
    Join,
    Leave,
    Prune,
    Report,
    Requeue,
    Rescue,
    Rescued,
)
from .claiming import claim, first_due
from .notes import delete_notes, prune_journal, write_notes
from .transaction import STATEMENTS, Transaction, TryCarefully, from_json, to_json
from .usage import note_usage

FREE_PAGES_MAX = 1_000
"""Unused pages that the file keeps: new jobs fill them again, giving 4 MB back would not last."""
PAGES_A_SLICE = 200

_Kind = tuple[str, str, int, int, str, str | None]
"""Task, queue, priority, max_crashes, trigger, options: what many jobs of a flush share."""

_queue_and_task = attrgetter("queue", "task")


def insert(tx: Transaction, operation: Insert) -> list[Accepted | None]:
    """Enqueue: rows for the new, answers for what is there already."""
    accepted, fresh = _sort_out(tx, operation)
    if fresh:
        _insert_rows(tx, fresh)
    return accepted


def insert_and_claim(
    tx: Transaction, operation: InsertAndClaim
) -> tuple[list[Accepted | None], ClaimResult]:
    """Enqueue, and start what can be started: directly when nothing else is due."""
    accepted, fresh = _sort_out(tx, operation.insert)
    wanted = operation.claim
    if _all_start(fresh, wanted):
        next_run_at = first_due(tx, wanted)
        if next_run_at is None or next_run_at > tx.now:
            claimed = _insert_rows(tx, fresh, wanted.instance) if fresh else []
            return accepted, ClaimResult(claimed, frozenset(), next_run_at)
    if fresh:
        _insert_rows(tx, fresh)
    return accepted, claim(tx, wanted)._replace(left=_others_may_start(fresh, wanted))


def _all_start(jobs: Sequence[NewJob[Any]], wanted: Claim) -> bool:
    """Whether every one of these could be claimed at once, in the order given."""
    room = dict(wanted.room)
    if len(jobs) > sum(room.values()):
        return False
    for job in jobs:
        executor = wanted.tasks.get(job.task)
        if executor is None or room.get(executor, 0) <= 0 or job.priority != jobs[0].priority:
            return False
        if job.run_at is not None or job.delay:
            return False
        if wanted.queues is not None and job.queue not in wanted.queues:
            return False
        room[executor] -= 1
    return True


def _others_may_start(jobs: Sequence[NewJob[Any]], wanted: Claim) -> bool:
    """Whether some of these are not for this claim alone: due later, or of other queues."""
    return any(
        job.run_at is not None
        or job.delay
        or (wanted.queues is not None and job.queue not in wanted.queues)
        for job in jobs
    )


def _sort_out(
    tx: Transaction, operation: Insert
) -> tuple[list[Accepted | None], Sequence[NewJob[Any]]]:
    """Answers to all jobs, and those that need a row."""
    jobs = operation.jobs
    if not tx.careful and not any(job.key for job in jobs):
        return [None] * len(jobs), jobs
    known = _existing(tx, jobs)
    fresh: list[NewJob[Any]] = []
    accepted: list[Accepted | None] = []
    for job in jobs:
        there = known.get(job.id) or (job.key and known.get((job.key, job.task)))
        if there:
            job_id, arguments = there
            conflict = arguments is not None and not _same(arguments, job.arguments)
            accepted.append(Accepted(job_id, conflict))
            continue
        fresh.append(job)
        accepted.append(None)
        if job.key:
            known[job.key, job.task] = (job.id, job.arguments)
        if tx.careful:
            known[job.id] = (job.id, None)
    if operation.together and any(there and there.conflict for there in accepted):
        return accepted, []
    return accepted, fresh


def _existing(tx: Transaction, jobs: Sequence[NewJob[Any]]) -> dict[Any, tuple[str, str | None]]:
    """What the jobs would collide with, by id and by (key, task)."""
    known: dict[Any, tuple[str, str | None]] = {}
    keys = [(job.key, job.task) for job in jobs if job.key]
    if keys:
        for key, task, job_id, arguments in tx.fetch("existing_keys", to_json(keys).decode()):
            known[key, task] = (job_id, arguments)
    if tx.careful:
        ids = to_json([job.id for job in jobs]).decode()
        known.update((job_id, (job_id, None)) for (job_id,) in tx.fetch("existing_ids", ids))
    return known


def _same(stored: str, given: str) -> bool:
    # Text that differs in the order of keys alone is still the same arguments.
    return stored == given or from_json(stored) == from_json(given)


def _insert_rows(
    tx: Transaction, jobs: Sequence[NewJob[Any]], instance: str | None = None
) -> list[Claimed]:
    """Write new jobs: queued, or running under ``instance``, which gets them as claimed."""
    first = tx.value("take_seqs", len(jobs)) - len(jobs) + 1
    now = tx.now
    # Jobs that differ in little more than their ids are written together.
    alike: dict[_Kind, list[Any]] = {}
    payloads: list[Any] = []
    keys: list[Any] = []
    tags: list[Any] = []
    claimed = []
    for seq, job in enumerate(jobs, first):
        run_at = job.run_at
        if run_at is None:
            run_at = now if job.delay is None else now + job.delay
        tags_json = to_json(job.tags).decode() if job.tags else None
        kind = (job.task, job.queue, job.priority, job.max_crashes, job.trigger, job.options)
        rows = alike.get(kind)
        if rows is None:
            alike[kind] = rows = []
        rows += (seq, job.id, run_at, job.created_at, job.key, tags_json)
        payload = None
        if job.arguments != "{}" or job.meta:
            payloads += (seq, job.arguments, job.meta)
            payload = f"{job.arguments}\n{job.meta or ''}"
        if job.key:
            keys += (job.key, job.task, seq)
        for tag in job.tags:
            tags += (tag, seq)
        if instance is not None:
            claimed.append(Claimed(
                seq, job.id, job.task, job.queue, 1, 1, 0, 0, job.trigger, tags_json, job.options,
                payload, run_at, job.max_crashes,
            ))  # fmt: skip
    _write_alike(tx, alike, instance)
    tx.write_rows("insert_payloads", payloads)
    tx.write_rows("insert_keys", keys)
    tx.write_rows("insert_tags", tags)
    fences = [0] * (2 * len(jobs))
    fences[::2] = range(first, first + len(jobs))
    tx.note(Event.ENQUEUED, fences)
    if instance is not None:
        fences[1::2] = [1] * len(jobs)
        tx.note(Event.CLAIMED, fences)
    return claimed


def _write_alike(tx: Transaction, alike: dict[_Kind, list[Any]], instance: str | None) -> None:
    state = State.QUEUED.value if instance is None else State.RUNNING.value
    claim_number = 0 if instance is None else 1
    started_at = None if instance is None else tx.now
    for kind, rows in alike.items():
        tx.write_rows(
            "insert_jobs", rows, *kind, state, instance, claim_number, claim_number, started_at
        )
        task, queue, *_ = kind
        tx.count(queue, task, state, len(rows) // STATEMENTS.width("insert_jobs"))


def report(tx: Transaction, operation: Report) -> list[str]:
    """End or requeue runs under their fences; what became of each, in the words of ``Report``."""
    transitions = operation.transitions
    # The first try trusts that every fence holds, and counts; the careful one looks first.
    if tx.careful:
        transitions = _fenced(tx, operation)
    completed = [t for t in transitions if t.event is Event.COMPLETED]
    others = [t for t in transitions if t.event is not Event.COMPLETED]
    asked = _asked_to_cancel(tx, others)
    write_notes(tx, operation.instance, [t.note for t in transitions if t.note is not None])
    _complete(tx, operation.instance, completed)
    _move(tx, operation.instance, [cancelled_instead(t) if t.seq in asked else t for t in others])
    note_usage(tx, transitions)
    if len(transitions) == len(operation.transitions) and not asked:
        return ["done"] * len(transitions)
    done = {(t.seq, t.claim): "cancelled" if t.seq in asked else "done" for t in transitions}
    return [
        done.get((t.seq, t.claim)) or _why_refused(tx, operation.instance, t)
        for t in operation.transitions
    ]


def _asked_to_cancel(tx: Transaction, transitions: Sequence[Transition]) -> set[int]:
    """Seqs of jobs that were to run again, although somebody has asked to cancel them.

    The request came when the run had just ended: nobody but this write can heed it.
    """
    again = [t.seq for t in transitions if t.state is State.QUEUED]
    if not again:
        return set()
    return {seq for (seq,) in tx.fetch("asked_to_cancel", to_json(again).decode())}


def _fenced(tx: Transaction, operation: Report) -> list[Transition]:
    """The transitions whose fence holds."""
    seqs = to_json([t.seq for t in operation.transitions]).decode()
    running = dict(tx.fetch("still_running", seqs, operation.instance))
    return [t for t in operation.transitions if running.get(t.seq) == t.claim]


def _complete(tx: Transaction, instance: str, transitions: list[Transition]) -> None:
    values: list[Any] = []
    results: list[Any] = []
    fences: list[int] = []
    for t in transitions:
        values += (t.seq, t.claim, t.at)
        fences += (t.seq, t.claim)
        if t.result is not None:
            results += (t.seq, t.result)
    tx.change_rows("complete" if len(transitions) > 1 else "complete_one", values, instance)
    tx.write_rows("insert_results", results)
    tx.note(Event.COMPLETED, fences)
    for (queue, task), jobs in Counter(map(_queue_and_task, transitions)).items():
        tx.count_move(queue, task, State.RUNNING.value, State.COMPLETED.value, jobs)


def _move(
    tx: Transaction, instance: str, transitions: Sequence[Transition], *, rise: int = 0
) -> list[Any]:
    """Write transitions other than completion; the rows of those whose fence held.

    ``rise`` is added to the claim number when somebody else than the run itself decides.
    """
    by_seq = {t.seq: t for t in transitions}
    values = list(chain.from_iterable(_move_values(t, rise) for t in transitions))
    rows = tx.write_rows("move", values, instance)
    if len(rows) < len(transitions):
        raise TryCarefully
    attempts: list[Any] = []
    for seq, _, queue, task, attempt, claim_now, started_at in rows:
        t = by_seq[seq]
        tx.count_move(queue, task, State.RUNNING.value, t.state.value)
        tx.note(t.event, (seq, claim_now))
        if t.error is not None:
            number = attempt + t.uncharge
            attempts += (seq, t.claim, number, t.event.value, t.reason, instance, started_at,
                         t.at, t.error.type, t.error.message, t.error.traceback)  # fmt: skip
            if t.claim > ATTEMPT_ROWS_MAX:  # it rises with every run, also over retries by hand
                tx.fetch("trim_attempts", seq, ATTEMPT_ROWS_MAX - 1)
    tx.write_rows("insert_attempts", attempts)
    return rows


def _move_values(t: Transition, rise: int) -> tuple[Any, ...]:
    assert State.RUNNING in MOVES[t.event][0]
    state = t.state
    finished_at = t.at if state in FINISHED else None
    # The reason of other ends is the user's text, and may be this very word.
    crashed = t.reason == "crash" and t.event in (Event.FAILED, Event.RESCUED)
    snoozed = t.event is Event.SNOOZED
    return (t.seq, t.claim, state.value, t.reason, t.run_at, finished_at,
            int(t.uncharge), int(crashed), int(snoozed), rise)  # fmt: skip


def _why_refused(tx: Transaction, instance: str, t: Transition) -> str:
    rows = tx.fetch("fence", t.seq)
    if rows and rows[0][0] == t.claim and rows[0][1] == instance:
        return "already"
    return "lost"


def cancel(tx: Transaction, operation: Cancel) -> list[Answer]:
    """Cancel what waits; note the request on what runs."""
    found = _find(tx, operation.ids)
    waiting = [job for job in found.values() if job.state in (State.QUEUED, State.BLOCKED)]
    running = [job for job in found.values() if job.state == State.RUNNING]
    if waiting:
        tx.fetch("cancel_waiting", operation.reason, tx.now, _seqs(waiting))
        for job in waiting:
            tx.count_move(job.queue, job.task, job.state, State.CANCELLED.value)
            tx.note(Event.CANCELLED, (job.seq, job.claim))
    if running:
        tx.fetch("cancel_running", operation.reason, _seqs(running))
    words = dict.fromkeys(FINISHED, "finished") | {State.RUNNING: "requested"}
    return _answers(operation.ids, found, lambda state: words.get(state, "cancelled"))


def requeue(tx: Transaction, operation: Requeue) -> list[Answer]:
    """Give finished jobs a new life."""
    found = _find(tx, operation.ids)
    finished = [job for job in found.values() if job.state in FINISHED]
    if finished:
        seqs = _seqs(finished)
        tx.fetch("requeue", tx.now, seqs)
        tx.fetch("delete_results", seqs)
        tx.fetch("delete_progress", seqs)
        for job in finished:
            tx.count_move(job.queue, job.task, job.state, State.QUEUED.value)
            tx.note(Event.REQUEUED, (job.seq, job.claim + 1))
    return _answers(
        operation.ids, found, lambda state: "requeued" if state in FINISHED else state.value
    )


def delete(tx: Transaction, operation: Delete) -> list[Answer]:
    """Delete what does not run."""
    found = _find(tx, operation.ids)
    _delete(tx, [j.seq for j in found.values() if j.state != State.RUNNING], Event.DELETED)
    return _answers(
        operation.ids, found, lambda state: "running" if state is State.RUNNING else "deleted"
    )


def _answers(
    ids: Sequence[str], found: Mapping[str, _Found], word: Callable[[State], str]
) -> list[Answer]:
    return [
        Answer(word(State(job.state)), job.seq) if job else Answer("missing")
        for job in map(found.get, ids)
    ]


def prune(tx: Transaction, operation: Prune) -> int:
    """Delete what is past its time; stops at the limit."""
    room = operation.limit
    for state, before in operation.before.items():
        seqs = [seq for (seq,) in tx.fetch("prunable", state, before, room)]
        _delete(tx, seqs, Event.PRUNED)
        room -= len(seqs)
        if room <= 0:
            return operation.limit
    room -= prune_journal(tx, operation, room)
    tx.fetch("prune_instances", operation.journal_before)
    tx.fetch("prune_counts")
    for _ in range(min(tx.value("free_pages") - FREE_PAGES_MAX, PAGES_A_SLICE)):
        tx.fetch("give_page_back")
    return operation.limit - room


def _delete(tx: Transaction, seqs: list[int], event: Event) -> None:
    if not seqs:
        return
    listed = to_json(seqs).decode()
    tx.fetch("remember_gone", tx.now, listed)
    with_history = []
    for seq, claimed, queue, task, state, key, tags, history in tx.fetch("delete_jobs", listed):
        tx.count(queue, task, state, -1)
        tx.note(event, (seq, claimed))
        if key:
            tx.fetch("delete_key", key, task, seq)
        for tag in from_json(tags) if tags else ():
            tx.fetch("delete_tag", tag, seq)
        if history:
            with_history.append(seq)
    tx.fetch("delete_payloads", listed)
    tx.fetch("delete_results", listed)
    tx.fetch("delete_usage", listed)
    delete_notes(tx, listed)
    if with_history:
        tx.fetch("delete_attempts", to_json(with_history).decode())


class _Orphan(NamedTuple):
    """A running row whose instance is gone, or does not know of it."""

    seq: int
    claim: int
    queue: str
    task: str
    attempt: int
    crashes: int
    max_crashes: int
    cancel_requested: int


def rescue(tx: Transaction, operation: Rescue) -> Rescued:
    """Decide what becomes of a dead instance's runs."""
    stopped = bool(tx.fetch("stopped", operation.instance))
    transitions = {
        orphan.seq: decide(
            orphan,
            _fate(operation, orphan, stopped=stopped),
            tx.now,
            cancel_requested=bool(orphan.cancel_requested),
        )
        for orphan in _orphans(tx, operation.instance, operation.limit)
    }
    rows = _move(tx, operation.instance, list(transitions.values()), rise=1)
    ended = []
    for seq, job_id, _, task, *_ in rows:
        t = transitions[seq]
        if t.state in FINISHED:
            ended.append((job_id, Outcome(task, t.state, t.reason, None, t.error)))
    return Rescued(len(rows), ended)


def _fate(operation: Rescue, orphan: _Orphan, *, stopped: bool) -> Crashed | Released:
    """A run that a clean stop had to leave behind is given back, not charged with a crash.

    Unless a run that was cut off must not be followed by another (``on_crash="fail"``).
    """
    if stopped and orphan.max_crashes > 1:
        return Released("shutdown")
    detail = "it did not end with its runner, and was cut off" if stopped else operation.detail
    return Crashed(detail, orphan.crashes, orphan.max_crashes)


def disown(tx: Transaction, operation: Disown) -> int:
    """Release runs that the instance does not hold."""
    transitions = [
        decide(
            orphan, Released("claim_lost"), tx.now, cancel_requested=bool(orphan.cancel_requested)
        )
        for orphan in _orphans(tx, operation.instance, -1)
        if orphan.seq not in operation.held
    ]
    return len(_move(tx, operation.instance, transitions, rise=1))


def _orphans(tx: Transaction, instance: str, limit: int) -> list[_Orphan]:
    return [_Orphan._make(row) for row in tx.fetch("running_of", instance, limit)]


def join(tx: Transaction, operation: Join) -> None:
    """Note a new instance."""
    tx.fetch("join", operation.instance, operation.pid, operation.host, tx.now)


def leave(tx: Transaction, operation: Leave) -> None:
    """Note an instance's end."""
    tx.fetch("leave", tx.now, operation.by, operation.instance)


class _Found(NamedTuple):
    """A job that somebody named by its id, as it stands."""

    id: str
    seq: int
    claim: int
    queue: str
    task: str
    state: str


def _find(tx: Transaction, ids: Sequence[str]) -> dict[str, _Found]:
    """The jobs that there are, by id."""
    rows = tx.fetch("find_jobs", to_json(list(ids)).decode())
    return {found.id: found for found in map(_Found._make, rows)}


def _seqs(jobs: Iterable[_Found]) -> str:
    return to_json([job.seq for job in jobs]).decode()
