"""Why a job is not running: one sentence, from facts that the registry has gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from ..inventory import Count
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


def due_later(facts: Facts) -> Explanation | None:
    """Its time has not come."""
    job = facts.job
    if job.run_at <= facts.now:
        return None
    data = {"at": job.run_at, "attempt": job.attempt, "reason": job.reason}
    if job.attempt or job.claim:
        why = f" ({job.reason})" if job.reason else ""
        return Explanation(
            code="retrying",
            sentence=f"It has run before{why}, and is due again at {_shown(job.run_at)}.",
            data=data,
        )
    return Explanation(
        code="scheduled", sentence=f"It is due later, at {_shown(job.run_at)}.", data=data
    )


def unknown_task(facts: Facts) -> Explanation | None:
    """Nobody who has met it had its task."""
    job = facts.job
    if job.state is not State.BLOCKED:
        return None
    here = "this process has it" if facts.executor else "this process does not have it either"
    return Explanation(
        code="unknown_task",
        sentence=f"The runner that met it has no task {job.task!r} ({here}); it waits for one that "
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
    finished, running, due_later, unknown_task, no_instance, no_room, in_line,
]  # fmt: skip
"""The first that has something to say is the answer; what narrows the claim puts its own in."""


def explain(facts: Facts) -> Explanation:
    """Why the job is not running."""
    return next(found for reason in REASONS if (found := reason(facts)) is not None)


def _was(state: State) -> str:
    return "was cancelled" if state is State.CANCELLED else state.value


def _shown(instant: datetime | None) -> str:
    return "an unknown time" if instant is None else instant.isoformat(sep=" ", timespec="seconds")


def _behind(ahead: Count | None) -> str:
    if not ahead:
        return ""
    return f", behind {ahead} {'other' if ahead == 1 and ahead.exact else 'others'}"
