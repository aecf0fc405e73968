"""Schedules: the jobs that their times bring, and what people change about them.

A schedule's step and the jobs that it makes are one transaction: whichever process is first makes
them, and the others find that the time has moved on.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ...clock import MICROSECONDS, to_datetime
from ...errors import StoreError
from ...records import NewJob, Occurrence, optional_datetime
from ...rules.callbacks import limits_to_come
from ...rules.schedule import (
    Plan,
    Standing,
    Step,
    advance,
    check_future,
    make_job,
    make_plan,
    next_after_change,
    release,
)
from ...states import State
from ..base import Insert
from ..overview import AuditNote
from ..schedules import (
    Create,
    Declare,
    Declared,
    Pause,
    Remove,
    Resume,
    RunNow,
    Schedule,
    ScheduledRun,
    Synced,
    Tick,
    Ticked,
    Update,
)
from .admitting import heed_limits
from .inserting import insert
from .transaction import STATEMENTS, Transaction, from_json, to_json

JOBS_A_TICK = 1_000
"""When a tick has made so many, the others wait for the next: it holds up the writer."""

KEEP_REMOVED = 30 * 86_400 * MICROSECONDS
"""How long a schedule that left the code is kept, for the case that it comes back."""

_read_plan = msgspec.json.Decoder(Plan).decode
_read_job = msgspec.json.Decoder(NewJob[Any]).decode


class _Row(NamedTuple):
    """A schedule, as it is kept."""

    name: str
    plan_json: str
    job_json: str
    next_at: int | None
    waiting_at: int | None
    runs: int
    last_at: int | None
    last_seq: int | None
    origin: str = ""
    paused: int = 0
    removed_at: int | None = None

    @property
    def plan(self) -> Plan:
        return _read_plan(self.plan_json)

    @property
    def job(self) -> NewJob[Any]:
        return _read_job(self.job_json)

    def __repr__(self) -> str:
        # Without the arguments of its jobs.
        return f"<Schedule {self.name!r}>"

    @property
    def standing(self) -> Standing:
        return Standing(self.next_at, self.waiting_at, self.runs)


class _Fire(NamedTuple):
    """The times of a schedule for which jobs are to be made."""

    name: str
    plan: Plan
    job: NewJob[Any]
    times: Sequence[int]


def tick(tx: Transaction, operation: Tick) -> Ticked:
    """Make the jobs of schedules whose time has come."""
    firing: list[_Fire] = []
    broken: dict[str, str] = {}
    jobs = 0
    but = to_json(operation.but).decode()
    for found in tx.fetch("due_schedules", tx.now, but, operation.limit):
        row = _Row(*found)
        try:
            plan, job = row.plan, row.job
        except msgspec.MsgspecError as error:  # of a newer version, or a zone not known here
            broken[row.name] = str(error)
            continue
        unfinished = plan.overlap != "allow" and _is_unfinished(tx, row)
        step = advance(plan, row.standing, tx.now, unfinished=unfinished)
        if _move(tx, row, step):
            firing.append(_Fire(row.name, plan, job, step.fire))
            jobs += len(step.fire)
        if jobs >= JOBS_A_TICK:
            break
    jobs = _fire(tx, firing)
    rows = tx.fetch("next_schedule", to_json([*operation.but, *broken]).decode())
    return Ticked(jobs, rows[0][0] if rows else None, broken)


def _is_unfinished(tx: Transaction, row: _Row) -> bool:
    return row.last_seq is not None and bool(tx.fetch("is_unfinished", row.last_seq))


def _move(tx: Transaction, row: _Row, step: Step) -> bool:
    """Take the step, unless the schedule stands elsewhere by now."""
    standing = step.standing
    return bool(
        tx.fetch(
            "move_schedule", standing.next_at, standing.waiting_at, standing.runs, step.missed,
            step.skipped, _ended_at(tx, standing.next_at, standing.waiting_at), row.name,
            row.next_at, row.waiting_at,
        )
    )  # fmt: skip


def _ended_at(tx: Transaction, next_at: int | None, waiting_at: int | None = None) -> int | None:
    return tx.now if next_at is None and waiting_at is None else None


def _fire(tx: Transaction, firing: Sequence[_Fire]) -> int:
    """Enqueue the jobs, and note the newest of each schedule; how many are new."""
    occurrences = [(fire, Occurrence(fire.name, at)) for fire in firing for at in fire.times]
    jobs = [make_job(fire.job, fire.plan, one, tx.now) for fire, one in occurrences]
    if not jobs:
        return 0
    accepted = insert(tx, Insert(jobs))
    fresh = [
        (one, job)
        for (_, one), job, there in zip(occurrences, jobs, accepted, strict=True)
        if there is None
    ]
    seqs = range(tx.value("last_seq") - len(fresh) + 1, tx.value("last_seq") + 1)
    last = {one.name: (one.at, seq, job.id) for seq, (one, job) in zip(seqs, fresh, strict=True)}
    for name, run in last.items():
        tx.fetch("set_last_run", *run, name)
    if len(fresh) < len(jobs):
        _count_merged(tx, firing, Counter(one.name for one, _ in fresh))
    return len(fresh)


def _count_merged(tx: Transaction, firing: Sequence[_Fire], made: Counter[str]) -> None:
    """Times whose unique job was there already are skipped: they are no runs, nor the last ones."""
    for fire in firing:
        merged = len(fire.times) - made[fire.name]
        row = _find(tx, fire.name) if merged else None
        if row is not None:
            next_at = row.next_at
            if next_at is None and row.waiting_at is None:  # it had seemed to be finished
                next_at = fire.plan.first(tx.now, row.runs - merged)
            ended_at = _ended_at(tx, next_at, row.waiting_at)
            tx.fetch("skip_merged", merged, next_at, ended_at, row.name)


def job_ended(tx: Transaction, name: str, seq: int, state: str) -> None:
    """A job has ended that a schedule made: if it was the last one, another may wait for that."""
    if not tx.fetch("set_last_state", state, name, seq):
        return
    row = _find(tx, name)
    if row is not None and row.waiting_at is not None and not row.paused:
        plan = row.plan
        step = release(plan, row.standing)
        if _move(tx, row, step):
            _fire(tx, [_Fire(name, plan, row.job, step.fire)])


def _find(tx: Transaction, name: str, *, removed: bool = False) -> _Row | None:
    rows = tx.fetch("find_schedule", name, removed)
    return _Row(*rows[0]) if rows else None


# Changes


def declare(tx: Transaction, operation: Declare) -> Synced:
    """Bring what is kept of the code's schedules in line with this process's code."""
    tx.fetch("forget_declarers", to_json(operation.others).decode())
    tx.fetch("prune_schedules", tx.now - KEEP_REMOVED)
    synced = Synced([], [], [], [])
    for given in operation.schedules:
        row = _find(tx, given.name, removed=True)
        if row is None:
            _insert(tx, given, "code")
            synced.added.append(given.name)
        elif row.removed_at is not None:
            _change(tx, row, given.plan, given.job, "code")
            synced.added.append(given.name)
        elif row.origin != "code":
            _change(tx, row, given.plan, given.job, "code")
            synced.taken.append(given.name)
        elif _understood(row) != (given.plan, given.job):
            _change(tx, row, given.plan, given.job, "code")
            synced.changed.append(given.name)
        tx.fetch("insert_declarer", given.name, operation.instance)
    for (name,) in tx.fetch("undeclared"):
        tx.fetch("remove_schedule", tx.now, name)
        synced.removed.append(name)
    return synced


def _understood(row: _Row) -> tuple[Plan | None, NewJob[Any] | None]:
    """Its plan and its job, unless they are of another version of this library."""
    try:
        return row.plan, row.job
    except msgspec.MsgspecError:
        return None, None


def create(tx: Transaction, operation: Create) -> str:
    """Keep a new schedule."""
    given = operation.schedule
    if _find(tx, given.name) is not None:
        return "exists"
    check_future(given.plan, tx.now)
    _insert(tx, given, "runtime")
    _add_note(tx, operation.note, "create")
    return "done"


def _heed_limits(tx: Transaction, job: NewJob[Any]) -> None:
    """Have keys allow at once what a schedule's job says; its times change nothing about them."""
    own = [] if job.limit is None else [job.limit]
    heed_limits(tx, [*limits_to_come(job.options), *own])


def _insert(tx: Transaction, given: Declared, origin: str) -> None:
    _heed_limits(tx, given.job)
    next_at = given.plan.first(tx.now)
    tx.fetch(
        "insert_schedule", given.name, origin, to_json(given.plan).decode(),
        to_json(given.job).decode(), tx.now, next_at, _ended_at(tx, next_at),
    )  # fmt: skip


def _change(tx: Transaction, row: _Row, plan: Plan, job: NewJob[Any] | None, origin: str) -> None:
    if job is not None:
        _heed_limits(tx, job)
    before, _ = _understood(row)
    next_at = next_after_change(plan, before, row.standing, last_at=row.last_at, now=tx.now)
    waiting_at = row.waiting_at if plan.overlap == "queue" else None
    tx.fetch(
        "change_schedule", origin, to_json(plan).decode(), to_json(job or row.job).decode(),
        next_at, waiting_at, _ended_at(tx, next_at, waiting_at), row.name,
    )  # fmt: skip


def update(tx: Transaction, operation: Update) -> str:
    """Change some of what a schedule was given."""
    row = _find(tx, operation.name)
    if row is None or row.origin == "code":
        return "missing" if row is None else "code"
    plan = make_plan(dict(operation.options), row.plan)
    if {"when", "until"} & operation.options.keys():
        check_future(plan, tx.now)
    _change(tx, row, plan, operation.job, row.origin)
    _add_note(tx, operation.note, "update")
    return "done"


def pause(tx: Transaction, operation: Pause) -> str:
    """Let a schedule rest."""
    if _find(tx, operation.name) is None:
        return "missing"
    tx.fetch("pause_schedule", operation.name)
    _add_note(tx, operation.note, "pause")
    return "done"


def resume(tx: Transaction, operation: Resume) -> str:
    """Let it go on, with its next time from now."""
    row = _find(tx, operation.name)
    if row is None:
        return "missing"
    if row.paused:
        next_at = row.plan.first(max(tx.now, row.last_at or tx.now), row.runs)
        tx.fetch("resume_schedule", next_at, _ended_at(tx, next_at), operation.name)
    _add_note(tx, operation.note, "resume")
    return "done"


def run_now(tx: Transaction, operation: RunNow) -> str | None:
    """Make a job at once, beside what its times bring."""
    row = _find(tx, operation.name)
    if row is None:
        return None
    template = row.job if row.job.hold is not None else replace(row.job, key=None)
    job = make_job(template, row.plan, Occurrence(row.name, tx.now, by_hand=True), tx.now)
    (there,) = insert(tx, Insert([job]))
    if there is not None:  # a unique job, and one that is the same
        return there.job_id
    if not _is_unfinished(tx, row):  # else it is that one's end that others may wait for
        tx.fetch("set_last_run", tx.now, tx.value("last_seq"), job.id, row.name)
    _add_note(tx, operation.note, "run_now")
    return job.id


def remove(tx: Transaction, operation: Remove) -> str:
    """Delete a schedule. Its jobs stay."""
    row = _find(tx, operation.name)
    if row is None or row.origin == "code":
        return "missing" if row is None else "code"
    tx.fetch("delete_schedule", operation.name)
    _add_note(tx, operation.note, "delete")
    return "done"


def _add_note(tx: Transaction, note: AuditNote | None, action: str) -> None:
    if note is not None:
        tx.fetch("add_audit", note.id, tx.now, note.actor, action, note.what, 1, 1)


# Reading


def schedules(
    connection: sqlite3.Connection,
    limit: int,
    after: str,
    task: str | None = None,
    status: str | None = None,
) -> list[Schedule]:
    """Schedules by name, from those after one on; of a task, or that stand so."""
    # No name holds a zero, so that this is the first that may come after it.
    with closing(_listed(connection, f"{after}\x00" if after else "")) as found:
        passing = (
            one for one in found if task in (None, one.task) and status in (None, one.status)
        )
        return list(islice(passing, limit))


def schedule(connection: sqlite3.Connection, name: str) -> Schedule | None:
    """One schedule."""
    with closing(_listed(connection, name)) as found:
        first = next(found, None)
    return first if first is not None and first.name == name else None


def _listed(connection: sqlite3.Connection, start: str) -> Generator[Schedule, None, None]:
    """Each is read when it is asked for."""
    with closing(connection.execute(STATEMENTS["list_schedules"], (start,))) as rows:
        for row in rows:
            yield _shown(*row)


def _shown(
    name: str, origin: str, plan_json: str, job_json: str, created_at: int, next_at: int | None,
    waiting_at: int | None, paused: int, ended_at: int | None, runs: int, missed: int, skipped: int,
    last_at: int | None, last_id: str | None, last_state: str | None,
) -> Schedule:  # fmt: skip
    try:
        plan, job = _read_plan(plan_json), _read_job(job_json)
    except msgspec.MsgspecError as error:
        raise StoreError(f"schedule {name!r} cannot be understood here: {error}") from error
    last_run = None
    if last_at is not None and last_id is not None:
        last_run = ScheduledRun(
            job_id=last_id,
            scheduled_for=to_datetime(last_at),
            state=State(last_state or State.CANCELLED),
        )
    return Schedule(
        name=name,
        origin=origin,
        status="paused" if paused else "finished" if ended_at is not None else "active",
        sentence=plan.when.sentence,
        when=plan.when,
        task=job.task,
        queue=job.queue,
        arguments=from_json(job.arguments),
        catch_up=plan.catch_up,
        overlap=plan.overlap,
        jitter=plan.jitter / MICROSECONDS,
        until=optional_datetime(plan.until),
        max_runs=plan.max_runs,
        created_at=to_datetime(created_at),
        next_run=None if paused else optional_datetime(next_at),
        waiting_for=optional_datetime(waiting_at),
        last_run=last_run,
        runs=runs,
        missed=missed,
        skipped=skipped,
    )
