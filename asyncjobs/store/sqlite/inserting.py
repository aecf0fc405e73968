"""Enqueueing: rows for new jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...records import Accepted, Claimed, NewJob
from ...rules.callbacks import MARK, limits_to_come
from ...rules.window import due_in_window
from ...states import Event, State
from ..base import Insert
from .admitting import Arrival, heed_limits, line_up
from .holds import Holds, keys_by_task, write_holds
from .transaction import STATEMENTS, Transaction, from_json, to_json

_Kind = tuple[str, str, int, int, str, str | None, bool]
"""Task, queue, priority, max_crashes, trigger, options, own_retention: what many jobs of
a flush share."""


def insert(tx: Transaction, operation: Insert) -> list[Accepted | None]:
    """Enqueue: rows for the new, answers for what is there already."""
    accepted, fresh = sort_out(tx, operation)
    if fresh:
        heed_callbacks(tx, fresh)
        insert_rows(tx, fresh)
    return accepted


def heed_callbacks(tx: Transaction, jobs: Sequence[NewJob[Any]]) -> None:
    """Have the keys of what will follow these jobs allow what is said now."""
    given = {job.options: None for job in jobs if job.options and MARK in job.options}
    for options in given:
        heed_limits(tx, list(limits_to_come(options)))


def sort_out(
    tx: Transaction, operation: Insert
) -> tuple[list[Accepted | None], Sequence[NewJob[Any]]]:
    """Answers to all jobs, and those that need a row."""
    jobs = operation.jobs
    if not tx.careful and not any(job.key for job in jobs):
        return [None] * len(jobs), jobs
    known = _existing(tx, jobs)
    holds = Holds(tx, jobs)
    fresh: list[NewJob[Any]] = []
    accepted: list[Accepted | None] = []
    for job in jobs:
        there = known and (known.get(job.id) or (job.key and known.get((job.key, job.task))))
        if there:
            job_id, arguments = there
            conflict = arguments is not None and not _same(arguments, job.arguments)
            accepted.append(Accepted(job_id, conflict))
            continue
        held = None if job.hold is None else holds.ask(job, job.hold, fresh)
        accepted.append(held)
        if held:
            continue
        fresh.append(job)
        if job.key and job.hold is None:
            known[job.key, job.task] = (job.id, job.arguments)
        if tx.careful:
            known[job.id] = (job.id, None)
    if operation.together and any(there and there.conflict for there in accepted):
        return accepted, []
    holds.replace()
    return accepted, fresh


def _existing(tx: Transaction, jobs: Sequence[NewJob[Any]]) -> dict[Any, tuple[str, str | None]]:
    """What the jobs would collide with, by id and by (key, task)."""
    known: dict[Any, tuple[str, str | None]] = {}
    for task, keys in keys_by_task(job for job in jobs if job.key and job.hold is None):
        for key, job_id, arguments in tx.fetch("existing_keys", keys, task):
            known[key, task] = (job_id, arguments)
    if tx.careful:
        ids = to_json([job.id for job in jobs]).decode()
        known.update((job_id, (job_id, None)) for (job_id,) in tx.fetch("existing_ids", ids))
    return known


def _same(stored: str, given: str) -> bool:
    # Text that differs in the order of keys alone is still the same arguments.
    return stored == given or from_json(stored) == from_json(given)


def insert_rows(
    tx: Transaction, jobs: Sequence[NewJob[Any]], instance: str | None = None
) -> list[Claimed]:
    """Write new jobs: queued, or running under ``instance``, which gets them as claimed."""
    first = tx.value("take_seqs", len(jobs)) - len(jobs) + 1
    now = tx.now
    # Jobs that differ in little more than their ids are written together.
    alike: dict[_Kind, list[Any]] = {}
    payloads: list[Any] = []
    keys: list[Any] = []
    holding = False
    tags: list[Any] = []
    claimed = []
    arrivals = []
    put_off: list[int] = []
    for seq, job in enumerate(jobs, first):
        run_at = job.run_at
        if run_at is None:
            run_at = now if job.delay is None else now + job.delay
        if job.options is not None and (due_at := due_in_window(job.options, run_at, now)) > run_at:
            run_at = due_at
            put_off += (seq, run_at)
        tags_json = to_json(job.tags).decode() if job.tags else None
        kind = (job.task, job.queue, job.priority, job.max_crashes, job.trigger, job.options,
                job.own_retention)  # fmt: skip
        rows = alike.get(kind)
        if rows is None:
            alike[kind] = rows = []
        expires_at = job.expires_at if job.expires is None else now + job.expires
        if expires_at is not None:
            tx.expiring = True
        rows += (seq, job.id, run_at, job.created_at, job.key, tags_json, expires_at)
        payload = None
        if job.arguments != "{}" or job.meta:
            payloads += (seq, job.arguments, job.meta)
            payload = f"{job.arguments}\n{job.meta or ''}"
        if job.hold is not None:
            holding = True
        elif job.key:
            keys += (job.key, job.task, seq)
        for tag in job.tags:
            tags += (tag, seq)
        if job.limit is not None:
            arrivals.append(Arrival(seq, run_at, job))
        if instance is not None:
            claimed.append(Claimed(
                seq, job.id, job.task, job.queue, 1, 1, 0, 0, job.trigger, tags_json, job.options,
                payload, run_at, job.max_crashes, expires_at,
            ))  # fmt: skip
    _write_alike(tx, alike, instance)
    tx.write_rows("put_off", put_off)
    tx.write_rows("insert_payloads", payloads)
    tx.write_rows("insert_keys", keys)
    if holding:
        write_holds(tx, jobs, first)
    tx.write_rows("insert_tags", tags)
    _note(tx, range(first, first + len(jobs)), started=instance is not None)
    if arrivals:
        line_up(tx, arrivals)
    return claimed


def _note(tx: Transaction, seqs: range, *, started: bool) -> None:
    fences = [0] * (2 * len(seqs))
    fences[::2] = seqs
    tx.note(Event.ENQUEUED, fences)
    if started:
        fences[1::2] = [1] * len(seqs)
        tx.note(Event.CLAIMED, fences)


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
