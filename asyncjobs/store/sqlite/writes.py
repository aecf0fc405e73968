"""The operations, each a function of an open transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from ...records import Outcome, Transition
from ...rules.files import MARK
from ...rules.limits import ATTEMPT_ROWS_MAX
from ...rules.outcome import Crashed, Released, cancelled_instead, decide
from ...rules.schedule import TRIGGER
from ...states import FINISHED, MOVES, NOT_KEPT, Event, State
from ..base import (
    Answer,
    Cancel,
    Delete,
    Disown,
    Join,
    Leave,
    Prune,
    Report,
    Requeue,
    Rescue,
    Rescued,
)
from ..journal import ForgetFiles
from .admitting import change_key, forget_places, leave_line, leave_waiting, rejoin_line
from .failing import count_failures, fingerprint, lose_failures
from .following import Ended, follow_up
from .notes import delete_notes, prune_journal, write_notes
from .schedules import job_ended
from .transaction import Transaction, TryCarefully, from_json, to_json
from .usage import note_usage

LIMITS_A_SLICE = 200

_queue_and_task = attrgetter("queue", "task")


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
    limited = [t for t in transitions if t.limited]
    if limited:
        leave_line(tx, [cancelled_instead(t) if t.seq in asked else t for t in limited])
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
    files: list[Any] = []
    fences: list[int] = []
    unkept: list[int] = []
    for t in transitions:
        values += (t.seq, t.claim, t.at)
        fences += (t.seq, t.claim)
        if t.reason is not None:
            unkept.append(t.seq)
        elif t.result is not None:
            results += (t.seq, t.result)
            if t.result.startswith(MARK):
                files += (f"{t.seq}-{t.claim}", t.seq)
    tx.change_rows("complete" if len(transitions) > 1 else "complete_one", values, instance)
    tx.write_rows("insert_results", results)
    tx.write_rows("insert_files", files)
    tx.note(Event.COMPLETED, fences)
    follow_up(tx, {t.seq: Ended(t.result) for t in transitions if t.followed})
    if unkept:
        tx.fetch("leave_results_out", NOT_KEPT, to_json(unkept).decode())
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
                         t.at, t.error.type, t.error.message, t.error.traceback,
                         t.error.place)  # fmt: skip
            if t.claim > ATTEMPT_ROWS_MAX:  # it rises with every run, also over retries by hand
                tx.fetch("trim_attempts", seq, ATTEMPT_ROWS_MAX - 1)
    tx.write_rows("insert_attempts", attempts)
    count_failures(tx, transitions)
    # Whether a job of a dead instance has callbacks, nobody here knows before looking.
    follow_up(tx, {
        t.seq: Ended(None, t.error) for t in transitions
        if (t.followed or rise) and t.state in FINISHED
    })  # fmt: skip
    return rows


def _move_values(t: Transition, rise: int) -> tuple[Any, ...]:
    assert State.RUNNING in MOVES[t.event][0]
    state = t.state
    finished_at = t.at if state in FINISHED else None
    # The reason of other ends is the user's text, and may be this very word.
    crashed = t.reason == "crash" and t.event in (Event.FAILED, Event.RESCUED)
    snoozed = t.event is Event.SNOOZED
    return (t.seq, t.claim, state.value, t.reason, t.run_at, finished_at,
            int(t.uncharge), int(crashed), int(snoozed), rise, fingerprint(t))  # fmt: skip


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
        follow_up(tx, {job.seq: Ended() for job in waiting})
        leave_waiting(tx, [job.seq for job in waiting])
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
        first_at = tx.now if operation.first_at is None else operation.first_at
        tx.fetch("requeue", first_at, operation.gap, seqs)
        lose_failures(tx, [job.fingerprint for job in finished])
        tx.fetch("delete_results", seqs)
        tx.fetch("delete_progress", seqs)
        tx.fetch("lose_files", seqs)
        recalled: list[int] = []
        for job in finished:
            if operation.arguments is not None:
                tx.fetch("edit_arguments", job.seq, operation.arguments)
                recalled += change_key(tx, job.seq, operation.limit)
            tx.count_move(job.queue, job.task, job.state, State.QUEUED.value)
            tx.note(Event.REQUEUED, (job.seq, job.claim + 1))
        rejoin_line(tx, seqs, recalled)
    return _answers(
        operation.ids, found, lambda state: "requeued" if state in FINISHED else state.value
    )


def delete(tx: Transaction, operation: Delete) -> list[Answer]:
    """Delete what does not run."""
    found = _find(tx, operation.ids)
    delete_rows(tx, [j.seq for j in found.values() if j.state != State.RUNNING], Event.DELETED)
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


def forget_files(tx: Transaction, operation: ForgetFiles) -> None:
    """Files that are deleted."""
    tx.fetch("forget_files", to_json(operation.files).decode())


def prune(tx: Transaction, operation: Prune) -> int:
    """Delete what is past its time; stops at the limit."""
    room = operation.limit
    for state, before in operation.before.items():
        seqs = [
            seq for (seq,) in tx.fetch("prunable", state, *operation.since, before, room, tx.now)
        ]
        delete_rows(tx, seqs, Event.PRUNED)
        room -= len(seqs)
        if room <= 0:
            return operation.limit
    room -= prune_journal(tx, operation, room)
    tx.fetch("prune_instances", operation.journal_before)
    tx.fetch("prune_counts")
    tx.fetch("prune_limits", tx.now, LIMITS_A_SLICE)
    tx.fetch("prune_failures", operation.journal_before)
    return operation.limit - room


def delete_rows(tx: Transaction, seqs: list[int], event: Event) -> None:
    """Delete jobs with all that hangs on them."""
    if not seqs:
        return
    listed = to_json(seqs).decode()
    tx.fetch("remember_gone", tx.now, listed)
    with_history = []
    rows = tx.fetch("delete_jobs", listed)
    lose_failures(tx, [row[-1] for row in rows])
    for seq, claimed, queue, task, state, key, tags, history, trigger, _ in rows:
        tx.count(queue, task, state, -1)
        tx.note(event, (seq, claimed))
        if key:
            tx.fetch("delete_key", key, task, seq)
        for tag in from_json(tags) if tags else ():
            tx.fetch("delete_tag", tag, seq)
        if history:
            with_history.append(seq)
        if event is Event.DELETED and trigger.startswith(TRIGGER):
            final = state if state in FINISHED else State.CANCELLED.value
            job_ended(tx, trigger.removeprefix(TRIGGER), seq, final)
    tx.fetch("delete_payloads", listed)
    tx.fetch("delete_results", listed)
    tx.fetch("delete_usage", listed)
    delete_notes(tx, listed)
    forget_places(tx, listed)
    tx.fetch("lose_files", listed)
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
    leave_line(tx, list(transitions.values()))
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
    rows = _move(tx, operation.instance, transitions, rise=1)
    leave_line(tx, transitions)
    return len(rows)


def _orphans(tx: Transaction, instance: str, limit: int) -> list[_Orphan]:
    return [_Orphan._make(row) for row in tx.fetch("running_of", instance, limit)]


def join(tx: Transaction, operation: Join) -> None:
    """Note a new instance."""
    tx.fetch("join", operation.instance, operation.pid, operation.host, tx.now, operation.takes)


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
    fingerprint: str | None


def _find(tx: Transaction, ids: Sequence[str]) -> dict[str, _Found]:
    """The jobs that there are, by id."""
    rows = tx.fetch("find_jobs", to_json(list(ids)).decode())
    return {found.id: found for found in map(_Found._make, rows)}


def _seqs(jobs: Iterable[_Found]) -> str:
    return to_json([job.seq for job in jobs]).decode()
