"""Why a job is not running: one sentence, from facts that the registry has gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from shlex import quote
from typing import Any

from msgspec import Struct

from ..inventory import Count, LimitStanding, QueueStanding
from ..records import Job, in_one_line
from ..states import State

AHEAD_MAX = 1_000
"""Up to how many due jobs before one are counted."""


class Taker(Struct, frozen=True, kw_only=True):
    """A live runner process that takes jobs."""

    id: str
    slots: Mapping[str, int]
    """How many jobs it runs at once, by executor."""
    running: Mapping[str, int]
    """How many it runs now, by executor, of the tasks that are known here."""


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a job and its surroundings at one moment."""

    job: Job
    now: datetime
    executor: str | None
    """Of its task; ``None`` when the task is not known here."""
    owner_alive: bool = False
    """Of a running job: whether the process that runs it is."""
    takers: tuple[Taker, ...] = ()
    """Of a waiting job: the live processes that take jobs of its queue."""
    ahead: Count | None = None
    """Of a due job: how many due ones of its queue come before it; counted up to a limit."""
    queue: QueueStanding | None = None
    """Of a waiting job, where something is set for its queue."""
    limit: LimitStanding | None = None
    """Of a waiting job that has a limit by key."""
    window: str | None = None
    """Of a waiting job that has one, in English."""
    opens_at: datetime | None = None
    """When that opens: the present moment where it is open."""
    at_terminal: bool = False
    """Who asks has the command line at hand, not the registry."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a job is not running, or that it is: what ``registry.explain`` gives."""

    code: str
    """The reason in a word, for programs."""
    sentence: str
    """The reason in English. Holds no argument of the job."""
    data: Mapping[str, Any] = {}
    """What the sentence says, as values."""

    def __str__(self) -> str:
        return self.sentence


Reason = Callable[[Facts], Explanation | None]


def expired(facts: Facts) -> Explanation | None:
    """Nobody started it in time."""
    job = facts.job
    data = {"at": job.expires_at}
    at = _shown(job.expires_at)
    if job.state is State.CANCELLED and job.reason == "expired":
        sentence = f"It was cancelled, since nobody had started it when it expired at {at}."
        return Explanation(code="expired", sentence=sentence, data=data)
    late = job.expires_at is not None and job.expires_at <= facts.now
    if job.state in (State.QUEUED, State.BLOCKED) and late and job.claim == 0:
        sentence = f"It expired at {at}; it is never started, and cancelled at once by any runner."
        return Explanation(code="expired", sentence=sentence, data=data)
    return None


def finished(facts: Facts) -> Explanation | None:
    """It has an outcome."""
    job = facts.job
    if not job.finished:
        return None
    why = f" ({in_one_line(job.cancel_reason or job.reason or '')})" if job.reason else ""
    after = f" after attempt {job.attempt}" if job.attempt else ""
    return Explanation(
        code=job.state.value,
        sentence=f"It {_was(job.state)}{after}{why} at {_shown(job.finished_at)}.",
        data={"reason": job.reason, "attempt": job.attempt, "at": job.finished_at},
    )


def running(facts: Facts) -> Explanation | None:
    """It runs, or its process is gone and nobody has taken it over."""
    job = facts.job
    if job.state is not State.RUNNING:
        return None
    data = {"instance": job.instance, "since": job.started_at, "attempt": job.attempt}
    if not facts.owner_alive:
        return Explanation(
            code="abandoned",
            sentence=f"The runner process that ran it ({job.instance}) is gone; another one takes "
            "it over within a second, or the next one at its start.",
            data=data,
        )
    asked = "; it has been asked to stop" if job.cancel_reason is not None else ""
    return Explanation(
        code="running",
        sentence=f"It is running, attempt {job.attempt}, since {_shown(job.started_at)}{asked}.",
        data={**data, "cancel_reason": job.cancel_reason},
    )


def closed_window(facts: Facts) -> Explanation | None:
    """It is outside the hours in which it may start."""
    at = facts.opens_at
    if at is None or at <= facts.now or facts.job.run_at > at:  # then it is due later still
        return None
    end = facts.job.expires_at if facts.job.claim == 0 else None
    never = "" if end is None or end > at else f" It expires before that, at {_shown(end)}."
    return Explanation(
        code="window",
        sentence=f"Its window is closed until {_shown(at)}. It may start: {facts.window}.{never}",
        data={"at": at, "window": facts.window, "expires_at": end},
    )


def due_later(facts: Facts) -> Explanation | None:
    """Its time has not come, and nothing else keeps it."""
    job = facts.job
    # Behind others of an ordered key it waits for them, whenever it is due.
    if job.run_at <= facts.now or _waits_for_limit(job):
        return None
    data: dict[str, Any] = {"at": job.run_at, "attempt": job.attempt, "reason": job.reason}
    limit, holds = facts.limit, ""
    if limit is not None and limit.place == "in" and limit.holds_until is not None:
        holds = f"; as the head of its key of the limit {limit.name!r} it holds that until then"
        data["limit"] = limit.name
    if job.attempt or job.claim:
        why = f" ({job.reason})" if job.reason else ""
        return Explanation(
            code="retrying",
            sentence=f"It has run before{why}, and is due again at {_shown(job.run_at)}{holds}.",
            data=data,
        )
    return Explanation(
        code="scheduled", sentence=f"It is due later, at {_shown(job.run_at)}{holds}.", data=data
    )


def paused(facts: Facts) -> Explanation | None:
    """Somebody has paused its queue."""
    name = facts.job.queue
    if facts.queue is None or not facts.queue.paused:
        return None
    resume = f"registry.resume_queue({name!r})"
    if facts.at_terminal:
        resume = f"asyncjobs queues resume {quote(name)}"
    return Explanation(
        code="paused",
        sentence=f"Queue {name!r} is paused; {resume} lets its jobs start.",
        data={"queue": name},
    )


def limited(facts: Facts) -> Explanation | None:
    """Its key has no room."""
    limit = facts.limit
    if limit is None or not _waits_for_limit(facts.job):
        return None
    found = _closed_key(limit)
    if found is None:
        return None
    code, sentence = found
    data = {"limit": limit.name, "holders": limit.holders, "ahead": limit.ahead}
    data |= {"stopped_by": limit.stopped_by, "opens_at": limit.opens_at, "running": limit.running}
    data |= {"holds_until": limit.holds_until}
    return Explanation(code=code, sentence=sentence, data=data)


def _waits_for_limit(job: Job) -> bool:
    return job.state is State.BLOCKED and job.reason == "limit"


def _closed_key(limit: LimitStanding) -> tuple[str, str] | None:
    key, behind = f"Its key of the limit {limit.name!r}", _behind(limit.ahead)
    if limit.stopped_by is not None:
        return "key_stopped", (
            f"{key} has stopped, since job {limit.stopped_by} failed; retry or delete that one."
        )
    if limit.opens_at is not None:
        return "key_rate", f"{key} lets the next job start at {_shown(limit.opens_at)}{behind}."
    if limit.running == 0:
        return "key_limit", f"{key} is paused by running=0, which its task's Limit says."
    if not limit.holders:
        return None  # it is about to be admitted
    if limit.ordered:
        due = f", which is due at {_shown(limit.holds_until)}" if limit.holds_until else ""
        after = _named(limit.holders)
        return "ordered", f"{key} runs in order: it comes after {after}{due}{behind}."
    return "key_limit", (
        f"{key} may run {limit.running} at once, and has {_named(limit.holders)}{behind}."
    )


def unknown_task(facts: Facts) -> Explanation | None:
    """Nobody who has met it had its task."""
    job = facts.job
    if job.state is not State.BLOCKED or _waits_for_limit(job):
        return None
    here = " (this process has it)" if facts.executor else ""
    return Explanation(
        code="unknown_task",
        sentence=f"The runner that met it has no task {job.task!r}{here}; it waits for one that "
        "has: include the task, or keep its former name with name=.",
        data={"task": job.task, "known_here": facts.executor is not None},
    )


def no_instance(facts: Facts) -> Explanation | None:
    """Nobody lives who would take it."""
    if facts.takers:
        return None
    return Explanation(
        code="no_instance",
        sentence=f"No runner process that takes jobs of queue {facts.job.queue!r} is alive.",
        data={"queue": facts.job.queue},
    )


def full_queue(facts: Facts) -> Explanation | None:
    """Its queue runs as many as it may."""
    name, queue = facts.job.queue, facts.queue
    if queue is None or queue.running_max is None or queue.running < queue.running_max:
        return None
    has = f", and has {_named(queue.holders)}" if queue.holders else ""
    sentence = f"Queue {name!r} may run {queue.running_max} at once{has}{_behind(facts.ahead)}."
    if queue.running_max == 0:
        free = f"registry.set_queue({name!r}, running=None)"
        if facts.at_terminal:
            free = f"asyncjobs queues set {quote(name)} --running none"
        sentence = f"Queue {name!r} is paused by running=0; {free} lets its jobs start."
    return Explanation(
        code="queue_limit",
        sentence=sentence,
        data={
            "queue": name,
            "running": queue.running_max,
            "holders": queue.holders,
            "ahead": facts.ahead,
        },
    )


def queue_rate(facts: Facts) -> Explanation | None:
    """The rate of its queue is used up."""
    name, queue = facts.job.queue, facts.queue
    if queue is None or queue.opens_at is None:
        return None
    return Explanation(
        code="queue_rate",
        sentence=f"The rate of queue {name!r} lets the next job start at "
        f"{_shown(queue.opens_at)}{_behind(facts.ahead)}.",
        data={"queue": name, "at": queue.opens_at, "ahead": facts.ahead},
    )


def no_room(facts: Facts) -> Explanation | None:
    """All slots of its executor are taken, as far as can be known here."""
    name = facts.executor
    if name is None or any(t.running.get(name, 0) < t.slots.get(name, 0) for t in facts.takers):
        return None
    slots = sum(taker.slots.get(name, 0) for taker in facts.takers)
    return Explanation(
        code="no_room",
        sentence=f"All {slots} slots for {name} jobs are taken{_behind(facts.ahead)}.",
        data={"executor": name, "slots": slots, "ahead": facts.ahead},
    )


def in_line(facts: Facts) -> Explanation | None:
    """It is due, and its turn comes."""
    return Explanation(
        code="due",
        sentence=f"It is due and waits for its turn{_behind(facts.ahead)}.",
        data={"ahead": facts.ahead},
    )


REASONS: list[Reason] = [
    expired, finished, running, closed_window, due_later, paused, limited, unknown_task,
    no_instance, full_queue, queue_rate, no_room, in_line,
]  # fmt: skip
"""The first that has something to say is the answer; what narrows the claim puts its own in."""


def explain(facts: Facts) -> Explanation:
    """Why the job is not running."""
    return next(found for reason in REASONS if (found := reason(facts)) is not None)


def _was(state: State) -> str:
    return "was cancelled" if state is State.CANCELLED else state.value


def _shown(instant: datetime | None) -> str:
    return "an unknown time" if instant is None else instant.isoformat(sep=" ", timespec="seconds")


def _named(job_ids: Sequence[str]) -> str:
    """Jobs by their ids, the first three of them."""
    more = f" and {len(job_ids) - 3} more" if len(job_ids) > 3 else ""
    return f"job{'s' if len(job_ids) > 1 else ''} {', '.join(job_ids[:3])}{more}"


def _behind(ahead: Count | None) -> str:
    if not ahead:
        return ""
    return f", behind {ahead} {'other' if ahead == 1 and ahead.exact else 'others'}"
