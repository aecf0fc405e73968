"""Schedules: when each fires, what follows from times that were missed, and the jobs they make.

All decisions stand here, as functions of a plan, of where the schedule stands, and of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice, pairwise, takewhile
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..clock import new_id, to_datetime, to_instant, to_microseconds, to_seconds
from ..errors import InvalidOption, shown
from ..records import NewJob, Occurrence
from .callbacks import kept
from .limits import KEY_MAX, check_choice, check_integer
from .timetable import At, Cron, Every, When

SCHEDULE_NAME_MAX = 200
"""Characters: with ``schedule:`` before it, it is a job's trigger, of which 255 fit."""
CATCH_UP_MAX = 1_000
"""Missed times that ``catch_up="all"`` makes up for at once: the newest."""
COUNT_MAX = 10_000
"""Due times that are counted at once: 0.1 s of the writer for the slowest expression."""
JITTER_TIMES = 10
"""Times that a jitter is compared with: the longest span between two of them must hold it."""
LATE = to_microseconds(60.0)
"""How late an occurrence may be under ``catch_up="none"``."""
CATCH_UPS = ("latest", "all", "none")
OVERLAPS = ("queue", "skip", "allow")
TRIGGER = "schedule:"
KEY_ROOM = 33
"""Characters that a job's key grows by: an instant."""


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a schedule is to do; checked. Instants and ``jitter`` are in microseconds."""

    when: When
    catch_up: str = "latest"
    overlap: str = "queue"
    jitter: int = 0
    until: int | None = None
    max_runs: int | None = None

    def times(self, after: int) -> Iterator[int]:
        """Its times after an instant."""
        times = self.when.times(after)
        until = self.until
        return times if until is None else takewhile(lambda time: time <= until, times)

    def first(self, after: int, runs: int = 0) -> int | None:
        """The next time after an instant; ``None`` when there is none."""
        if self.max_runs is not None and runs >= self.max_runs:
            return None
        return next(self.times(after), None)


def check_plan(options: dict[str, Any]) -> dict[str, Any]:
    """Some options of a schedule, as a plan has them.

    Raises:
        InvalidOption: naming the option and its value.
    """
    checks: dict[str, Any] = {
        "when": _check_when,
        "catch_up": lambda value: check_choice(value, "catch_up", CATCH_UPS),
        "overlap": lambda value: check_choice(value, "overlap", OVERLAPS),
        "jitter": lambda value: to_microseconds(to_seconds(value, "jitter")),
        "until": lambda value: None if value is None else to_instant(value, "until"),
        "max_runs": lambda value: (
            None if value is None else check_integer(value, "max_runs", least=1, most=2**53)
        ),
    }
    return {name: checks[name](value) for name, value in options.items()}


def _check_when(when: object) -> When:
    if isinstance(when, (Cron, Every, At)):
        return when
    raise InvalidOption(f"when must be Cron(...), Every(...) or At(...), got {shown(when)}")


def make_plan(options: dict[str, Any], before: Plan | None = None) -> Plan:
    """The plan of checked options, in place of those that it had ``before``.

    Raises:
        InvalidOption: they contradict each other.
    """
    plan = Plan(**options) if before is None else replace(before, **options)
    if plan.catch_up == "all" and plan.overlap == "skip":
        raise InvalidOption(
            "catch_up='all' and overlap='skip' contradict each other: the first of several missed "
            "runs would suppress the others; use overlap='queue' or 'allow'"
        )
    if plan.jitter and plan.overlap != "allow":
        _check_jitter(plan)
    return plan


def _check_jitter(plan: Plan) -> None:
    times = islice(plan.when.times(0), JITTER_TIMES)
    longest = max((later - time for time, later in pairwise(times)), default=plan.jitter)
    if plan.jitter > longest:
        raise InvalidOption(
            f"jitter={plan.jitter / 1e6:g} is longer than the {longest / 1e6:g} s from one time to "
            "the next, so that most times would be skipped; give a shorter one, or overlap='allow'"
        )


def check_future(plan: Plan, now: int) -> None:
    """Refuse a plan that is over before it begins.

    Raises:
        InvalidOption: naming the option.
    """
    if plan.until is not None and plan.until <= now:
        raise InvalidOption(f"until={to_datetime(plan.until).isoformat()} is past")
    if isinstance(plan.when, At) and to_instant(plan.when.time, "time") <= now:
        raise InvalidOption(f"At({plan.when.time.isoformat()}) is past")
    if plan.first(now) is None:
        raise InvalidOption("until comes before the first time that the schedule would fire")


def check_template(name: str, job: NewJob[Any]) -> NewJob[Any]:
    """What the jobs of a schedule have in common, as a job.

    Raises:
        InvalidOption: an option of the job that means nothing on a schedule.
    """
    if not isinstance(job, NewJob):
        raise InvalidOption(
            f"schedule {name!r}: needs what task.job(...) gives, got {type(job).__name__}"
        )
    if job.run_at is not None:
        raise InvalidOption(
            f"schedule {name!r}: at= contradicts a schedule, which says itself when its jobs run"
        )
    if job.expires_at is not None:
        raise InvalidOption(
            f"schedule {name!r}: expires={to_datetime(job.expires_at).isoformat()} would cancel "
            "every job that comes after it; give a duration, which counts from when a job is made, "
            "or until= for the schedule"
        )
    if job.key is not None and job.hold is None and len(job.key) > KEY_MAX - KEY_ROOM:
        raise InvalidOption(
            f"schedule {name!r}: key is {len(job.key)} characters long; at most "
            f"{KEY_MAX - KEY_ROOM} fit, since each job's key ends with its time"
        )
    return replace(job, id="", created_at=0, trigger=TRIGGER + name)


def make_job(template: NewJob[Any], plan: Plan, occurrence: Occurrence, now: int) -> NewJob[Any]:
    """The job of one occurrence."""
    at = occurrence.at
    late = 0 if occurrence.by_hand else jitter_of(plan, occurrence.name, at)
    stored = msgspec.json.encode(occurrence).decode()
    rest = "}" if template.options is None else f",{template.options[1:]}"
    return replace(
        template,
        id=new_id(now),
        created_at=now,
        run_at=at + late + (template.delay or 0),
        delay=None,
        key=_key_at(template, at),
        limit=kept(template.limit),
        options=f'{{"scheduled":{stored}{rest}',
    )


def _key_at(template: NewJob[Any], at: int) -> str | None:
    # That of unique jobs is one for all times: it says that they are the same.
    if template.key is None or template.hold is not None:
        return template.key
    return f"{template.key}@{to_datetime(at).isoformat()}"


def jitter_of(plan: Plan, name: str, at: int) -> int:
    """How much later than its time a job is due: the same for whoever asks."""
    if plan.jitter == 0:
        return 0
    from hashlib import blake2b  # would double the start of a program that has no schedules

    digest = blake2b(f"{at} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (plan.jitter + 1)


class Standing(NamedTuple):
    """Where a schedule stands."""

    next_at: int | None
    waiting_at: int | None
    """The time whose job waits for the end of the one before."""
    runs: int
    """Jobs that it has made by time."""


class Step(NamedTuple):
    """What a schedule is to do now."""

    fire: list[int]
    """The times for which jobs are to be enqueued, oldest first."""
    standing: Standing
    missed: int = 0
    """Times that passed without a job, since nobody was there."""
    skipped: int = 0
    """Times that passed without a job, since the one before had not finished. Those whose unique
    job was there already are counted later."""


def advance(plan: Plan, standing: Standing, now: int, *, unfinished: bool) -> Step:
    """What follows when a schedule's next time has come, perhaps long ago.

    ``unfinished`` says that its last job has not finished.
    """
    assert standing.next_at is not None
    waiting_at = standing.waiting_at
    due, passed, next_at = _due(plan, standing.next_at, now)
    chosen = _caught_up(plan, due, now)
    missed = passed - len(chosen)
    if plan.catch_up == "all" and waiting_at is not None:
        missed = 0  # all that is due stands in line behind the one that waits
    if plan.overlap == "queue":
        fire, waiting_at, skipped = _in_turn(plan, chosen, waiting_at, next_at, unfinished)
    elif plan.overlap == "skip" and unfinished:
        fire, waiting_at, skipped = [], None, len(chosen)
    else:
        fire, waiting_at, skipped = chosen, None, 0
    return _within_runs(plan, fire, Standing(next_at, waiting_at, standing.runs), missed, skipped)


def release(plan: Plan, standing: Standing) -> Step:
    """What follows when a schedule's last job has finished and another time waits for that."""
    assert standing.waiting_at is not None
    fire = standing.waiting_at
    behind = _behind(plan, fire, standing.next_at)
    return _within_runs(plan, [fire], standing._replace(waiting_at=behind), 0, 0)


def next_after_change(
    plan: Plan, before: Plan | None, standing: Standing, *, last_at: int | None, now: int
) -> int | None:
    """The next time of a schedule that is new, or has got another plan than ``before``.

    Never one that it has fired for, also when the clock was put back since.
    """
    if before is None or before.when != plan.when or standing.next_at is None:
        after = now if last_at is None else max(now, last_at)
    else:
        after = standing.next_at - 1  # as it was, unless the new plan ends before
    return plan.first(after, standing.runs)


def _in_turn(
    plan: Plan, chosen: list[int], waiting_at: int | None, next_at: int | None, unfinished: bool
) -> tuple[list[int], int | None, int]:
    """What fires and what waits when one runs at a time, and how many are given up for that."""
    line = chosen if waiting_at is None else [waiting_at, *chosen]
    if not line:
        return [], None, 0
    every = plan.catch_up == "all"
    time, given_up = (line[0], 0) if every else (line[-1], len(line) - 1)
    if unfinished:
        return [], time, given_up
    return [time], _behind(plan, time, next_at), given_up


def _behind(plan: Plan, time: int, next_at: int | None) -> int | None:
    """Under ``catch_up="all"`` each time up to the next that is due waits in its turn."""
    if plan.catch_up != "all":
        return None
    following = next(plan.times(time), None)
    if following is not None and (next_at is None or following < next_at):
        return following
    return None


def _within_runs(
    plan: Plan, fire: list[int], standing: Standing, missed: int, skipped: int
) -> Step:
    if plan.max_runs is not None:
        fire = fire[: max(plan.max_runs - standing.runs, 0)]
    standing = standing._replace(runs=standing.runs + len(fire))
    if plan.max_runs is not None and standing.runs >= plan.max_runs:
        standing = standing._replace(next_at=None, waiting_at=None)
    return Step(fire, standing, missed, skipped)


def _due(plan: Plan, first: int, now: int) -> tuple[list[int], int, int | None]:
    """The newest due times, how many are due, and the first that is not."""
    due: deque[int] = deque(maxlen=CATCH_UP_MAX)
    passed = 0
    for time in plan.times(first - 1):
        if time > now:
            return list(due), passed, time
        due.append(time)
        passed += 1
        if passed == COUNT_MAX:
            break
    else:
        return list(due), passed, None
    # Nobody counts a year of seconds while others wait for the writer.
    latest = _latest(plan, due[-1], now)
    newest = _newest(plan, latest, due[-1] - due[0])
    return newest, passed, next(plan.times(latest), None)


def _latest(plan: Plan, due: int, now: int) -> int:
    """The last time up to now, by halving the span in which it lies, given one that is due."""
    late = now
    while (following := next(plan.times(due), None)) is not None and following <= now:
        due = following
        middle = (due + late) // 2
        found = next(plan.times(middle), None)
        if found is not None and found <= now:
            due = found
        else:
            late = middle
    return due


def _newest(plan: Plan, latest: int, span: int) -> list[int]:
    """The last times up to the latest: those of a span before it, or of less."""
    while True:
        times = takewhile(lambda time: time <= latest, plan.times(latest - span - 1))
        found = list(islice(times, COUNT_MAX))
        if found[-1] == latest:
            return found[-CATCH_UP_MAX:]
        span //= 16


def _caught_up(plan: Plan, due: list[int], now: int) -> list[int]:
    """Those of the due times for which there is to be a job."""
    if plan.catch_up == "none" and due and now - due[-1] > LATE:
        return []
    return due if plan.catch_up == "all" else due[-1:]
